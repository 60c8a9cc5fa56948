package org.capprune.core.bundle;

import static java.util.Arrays.asList;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.regex.Pattern;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.Printable;

/** One JSON object of a manifest, read strictly: exactly the keys, exactly the types. Errors name the key. */
final class ManifestSection {
    private static final int MOST_TEXT = 200;
    private static final long LARGEST_WHOLE_REAL = 1L << 31; // of a whole number where any number may stand
    private static final Pattern NAME = Pattern.compile("[a-z0-9][a-z0-9_]{0,63}");

    private final Map<String, Object> tree;
    private final String where;

    /** An object that may have any keys; {@code where} is its own key, empty for the document. */
    @SuppressWarnings("unchecked") // StrictJson gives objects as Map<String, Object>
    ManifestSection(Object tree, String where) {
        if (!(tree instanceof Map)) {
            throw wrongType(where, "an object");
        }
        this.tree = (Map<String, Object>) tree;
        this.where = where;
    }

    /** The full name of a key. */
    String name(String key) {
        return where.isEmpty() ? key : where + "." + key;
    }

    /** The full name of an entry whose key the file chose. */
    String entryName(String key) {
        return where + "[" + Printable.ascii(key) + "]";
    }

    boolean has(String key) {
        return tree.containsKey(key);
    }

    /** The object as it was parsed. */
    Map<String, Object> tree() {
        return tree;
    }

    /** This object, which must have exactly these keys. */
    ManifestSection requireKeys(String... keys) {
        TreeSet<String> unknown = new TreeSet<>(tree.keySet());
        TreeSet<String> missing = new TreeSet<>(asList(keys));
        unknown.removeAll(asList(keys));
        missing.removeAll(tree.keySet());
        if (!unknown.isEmpty()) {
            throw new CapPruneException(ErrorKind.BUNDLE, "the manifest has an unknown key")
                    .at(name(Printable.ascii(unknown.first()))).expected(Printable.list(asList(keys)));
        }
        if (!missing.isEmpty()) {
            throw missing(missing.first());
        }
        return this;
    }

    /** An object under a key that must be there. */
    ManifestSection section(String key) {
        if (!tree.containsKey(key)) {
            throw missing(key);
        }
        return new ManifestSection(tree.get(key), name(key));
    }

    /** An object under a key, which must have exactly these keys. */
    ManifestSection section(String key, String... keys) {
        return section(key).requireKeys(keys);
    }

    /** The entries of an object under a key: objects that each have exactly these keys. */
    Map<String, ManifestSection> sections(String key, String... keys) {
        ManifestSection all = section(key);
        Map<String, ManifestSection> sections = new LinkedHashMap<>();
        all.tree.forEach((name, value) -> sections.put(
                name, new ManifestSection(value, all.entryName(name)).requireKeys(keys)));
        return sections;
    }

    List<?> list(String key) {
        if (tree.get(key) instanceof List<?> items) {
            return items;
        }
        throw wrongType(name(key), "a list");
    }

    String string(String key) {
        if (tree.get(key) instanceof String text) {
            return text;
        }
        throw wrongType(name(key), "a string");
    }

    boolean truth(String key) {
        if (tree.get(key) instanceof Boolean truth) {
            return truth;
        }
        throw wrongType(name(key), "true or false");
    }

    String text(String key) {
        String text = string(key);
        int length = text.codePointCount(0, text.length());
        require(length >= 1 && length <= MOST_TEXT && Printable.isPrintable(text), name(key),
                "1 to " + MOST_TEXT + " printable characters");
        return text;
    }

    String nameValue(String key) {
        String name = string(key);
        require(isName(name), name(key), "a name in a-z, 0-9, _");
        return name;
    }

    static boolean isName(String name) {
        return NAME.matcher(name).matches();
    }

    String requireText(String key, String expected) {
        require(string(key).equals(expected), name(key), expected);
        return expected;
    }

    /** The file and signature of a model; TFLite only, as this reader has no other interpreter. */
    void requireModel(String file, String signature) {
        String found = string("file");
        if (BundleFiles.ONNX.contains(found)) {
            throw notAllowed(name("file"), file).found(found + ", an ONNX model")
                    .hint("export the bundle again with --target tflite");
        }
        requireText("file", file);
        requireText("signature", signature);
    }

    long whole(String key, long low, long high) {
        if (!(tree.get(key) instanceof Long value)) {
            throw wrongType(name(key), "a whole number");
        }
        require(value >= low && value <= high, name(key), low == high ? "" + low : low + " to " + high);
        return value;
    }

    /** A list of whole numbers, of any size. */
    long[] wholes(String key) {
        List<?> items = list(key);
        long[] values = new long[items.size()];
        for (int n = 0; n < values.length; n++) {
            if (!(items.get(n) instanceof Long value)) {
                throw wrongType(name(key) + "[" + n + "]", "a whole number");
            }
            values[n] = value;
        }
        return values;
    }

    /** A list of strings. */
    List<String> strings(String key) {
        List<String> values = new ArrayList<>();
        for (Object item : list(key)) {
            if (!(item instanceof String text)) {
                throw wrongType(name(key) + "[" + values.size() + "]", "a string");
            }
            values.add(text);
        }
        return values;
    }

    double real(String key) {
        return real(tree.get(key), name(key));
    }

    /** As many numbers as are expected, each in a range. */
    double[] reals(String key, int count, double low, double high, String expected) {
        List<?> items = list(key);
        double[] values = new double[items.size()];
        boolean fit = values.length == count;
        for (int n = 0; n < values.length; n++) {
            values[n] = real(items.get(n), name(key) + "[" + n + "]");
            fit &= values[n] >= low && values[n] <= high;
        }
        require(fit, name(key), expected);
        return values;
    }

    private static double real(Object value, String where) {
        if (value instanceof Double real) {
            return real;
        }
        if (value instanceof Long whole && whole >= -LARGEST_WHOLE_REAL && whole <= LARGEST_WHOLE_REAL) {
            return whole;
        }
        throw wrongType(where, "a number");
    }

    static void require(boolean holds, String key, String expected) {
        if (!holds) {
            throw notAllowed(key, expected);
        }
    }

    static CapPruneException notAllowed(String key, String expected) {
        return new CapPruneException(ErrorKind.BUNDLE, "a value of the manifest is not allowed").at(key)
                .expected(expected);
    }

    private CapPruneException missing(String key) {
        return new CapPruneException(ErrorKind.BUNDLE, "the manifest lacks a key").at(name(key));
    }

    private static CapPruneException wrongType(String key, String expected) {
        CapPruneException error = new CapPruneException(ErrorKind.BUNDLE, "a key of the manifest has the wrong type");
        return (key.isEmpty() ? error : error.at(key)).expected(expected);
    }
}
