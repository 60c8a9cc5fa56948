package org.capprune.core;

import static java.util.Arrays.asList;

import org.capprune.core.Manifest.Decoding;
import org.capprune.core.Manifest.FileEntry;
import org.capprune.core.Manifest.Model;
import org.capprune.core.Manifest.Pruning;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.regex.Pattern;

/**
 * Reads manifest.json, strictly: an unknown, missing or repeated key, a wrong type or a value out of range is an error
 * that names the key.
 */
final class ManifestReader {
    private static final String FORMAT = "capprune-bundle";
    private static final int SCHEMA_VERSION = 1;
    private static final String RESIZE = "squash-triangle-q15";
    private static final double SPARSITY_TOLERANCE = 1e-3; // the exporter may round what it prints, not more
    private static final int MOST_TEXT = 200;
    private static final Pattern NAME = Pattern.compile("[a-z0-9][a-z0-9_]{0,63}");
    private static final Pattern SHA256 = Pattern.compile("[0-9a-f]{64}");

    private ManifestReader() {}

    /** Read the content of a manifest.json; {@code where} is its name, for messages. */
    static Manifest read(byte[] content, String where) {
        try {
            return manifest(StrictJson.parse(content));
        } catch (CapPruneException error) {
            throw error.inside(where);
        }
    }

    private static Manifest manifest(Object document) {
        checkVersion(document);
        Section root = new Section(document, "");
        root.requireKeys("format", "schema_version", "created_by", "model", "preprocessing", "decoding", "encoder",
                "decoder", "pruning", "quantisation", "data", "config", "files");
        Section data = root.section("data", "name", "licence");
        Section quantisation = root.section("quantisation", "encoder", "decoder");
        Model model = model(root);
        int photoSize = photoSize(root);
        Decoding decoding = decoding(root, model.vocabulary());
        root.section("encoder", "file", "signature").requireModel(BundleFiles.ENCODER, Manifest.ENCODE_SIGNATURE);
        List<String> state = state(root, model.cell());
        root.map("config");
        return new Manifest(
                root.text("created_by"), model, photoSize, decoding, BundleFiles.ENCODER, BundleFiles.DECODER, state,
                pruning(root), quantisation.name("encoder"), quantisation.name("decoder"), data.text("name"),
                data.text("licence"), files(root), described(root));
    }

    private static void checkVersion(Object document) {
        if (!(document instanceof Map<?, ?> tree) || !FORMAT.equals(tree.get("format"))) {
            throw new CapPruneException(ErrorKind.BUNDLE, "a file is not the manifest of a bundle")
                    .expected("\"format\": \"" + FORMAT + "\"");
        }
        if (!(tree.get("schema_version") instanceof Long version) || version < 1) {
            throw notAllowed("schema_version", "a whole number from 1");
        }
        if (version > SCHEMA_VERSION) {
            throw new CapPruneException(ErrorKind.NEWER_FORMAT, "the bundle was written by a later capprune")
                    .at("schema_version").expected("at most " + SCHEMA_VERSION).found(version)
                    .hint("take a later version of this app");
        }
    }

    private static Model model(Section root) {
        Section model = root.section(
                "model", "family", "cell", "embedding", "hidden", "attention", "context", "regions", "vocabulary");
        model.requireText("family", "soft_attention");
        String cell = model.string("cell");
        require(cell.equals("lstm") || cell.equals("gru"), "model.cell", "lstm or gru");
        int[] sizes = new int[5];
        String[] names = {"embedding", "hidden", "attention", "context", "regions"};
        for (int n = 0; n < names.length; n++) {
            sizes[n] = (int) model.whole(names[n], 1, 65_536);
        }
        return new Model(cell, sizes[0], sizes[1], sizes[2], sizes[3], sizes[4],
                (int) model.whole("vocabulary", 5, 1_000_000));
    }

    private static int photoSize(Section root) {
        Section preprocessing = root.section("preprocessing", "size", "resize", "mean", "scale");
        preprocessing.requireText("resize", RESIZE);
        preprocessing.whole("mean", Squash.MEAN, Squash.MEAN);
        preprocessing.whole("scale", Squash.SCALE, Squash.SCALE);
        return (int) preprocessing.whole("size", 8, 2048);
    }

    private static Decoding decoding(Section root, int vocabulary) {
        Section decoding = root.section("decoding", "start", "end", "suppress", "max_tokens", "beam");
        decoding.whole("start", Vocabulary.START, Vocabulary.START);
        decoding.whole("end", Vocabulary.END, Vocabulary.END);
        List<?> ids = decoding.list("suppress");
        int[] suppress = new int[ids.size()];
        long last = -1;
        for (int n = 0; n < suppress.length; n++) {
            String where = "decoding.suppress";
            if (!(ids.get(n) instanceof Long id)) {
                throw wrongType(where + "[" + n + "]", "a whole number");
            }
            require(id > last && id < vocabulary && id != Vocabulary.END, where,
                    "token ids of the vocabulary, rising, without the end token");
            last = id;
            suppress[n] = id.intValue();
        }
        return new Decoding(suppress, (int) decoding.whole("max_tokens", 1, 1000),
                (int) decoding.whole("beam", 1, Manifest.MOST_BEAM));
    }

    private static List<String> state(Section root, String cell) {
        Section decoder = root.section("decoder", "file", "signature", "state");
        decoder.requireModel(BundleFiles.DECODER, Manifest.STEP_SIGNATURE);
        List<String> state = cell.equals("lstm") ? asList("h", "c") : asList("h");
        require(decoder.list("state").equals(state), "decoder.state", "the state of the cell, " + state);
        return state;
    }

    private static Pruning pruning(Section root) {
        Section pruning = root.section("pruning", "method", "sparsity", "kept_weights", "prunable_weights");
        long prunable = pruning.whole("prunable_weights", 0, 1L << 40);
        long kept = pruning.whole("kept_weights", 0, prunable);
        double counted = prunable > 0 ? 1 - (double) kept / prunable : 0;
        double sparsity = pruning.real("sparsity");
        require(sparsity >= 0 && sparsity <= 1 && Math.abs(sparsity - counted) <= SPARSITY_TOLERANCE, "pruning.sparsity",
                counted + ", as the counts give");
        return new Pruning(pruning.name("method"), sparsity, kept, prunable);
    }

    private static Map<String, FileEntry> files(Section root) {
        Map<String, FileEntry> files = new LinkedHashMap<>();
        root.map("files").forEach((name, value) -> {
            String where = "files[" + Printable.ascii(name) + "]";
            Section entry = new Section(value, where);
            entry.requireKeys("sha256", "size_bytes");
            require(BundleFiles.isAllowed(name) && !BundleFiles.ONNX.contains(name), where,
                    "a file name of the bundle format");
            String sha256 = entry.string("sha256");
            require(SHA256.matcher(sha256).matches(), where + ".sha256", "64 hex digits");
            files.put(name, new FileEntry(sha256, entry.whole("size_bytes", 0, 1L << 31)));
        });
        for (String needed : asList(BundleFiles.ENCODER, BundleFiles.DECODER, BundleFiles.VOCABULARY)) {
            require(files.containsKey(needed), "files", "an entry for " + needed);
        }
        return files;
    }

    /** What the metadata of a model file must say. */
    private static Map<String, Object> described(Section root) {
        Map<String, Object> described = new LinkedHashMap<>();
        described.put("preprocessing", root.map("preprocessing"));
        described.put("decoding", root.map("decoding"));
        return described;
    }

    private static void require(boolean holds, String key, String expected) {
        if (!holds) {
            throw notAllowed(key, expected);
        }
    }

    private static CapPruneException notAllowed(String key, String expected) {
        return new CapPruneException(ErrorKind.BUNDLE, "a value of the manifest is not allowed").at(key)
                .expected(expected);
    }

    private static CapPruneException wrongType(String key, String expected) {
        return new CapPruneException(ErrorKind.BUNDLE, "a key of the manifest has the wrong type").at(key)
                .expected(expected);
    }

    /** One JSON object of the manifest, which has exactly the keys that it must have. */
    private static final class Section {
        private final Map<String, Object> tree;
        private final String prefix;

        @SuppressWarnings("unchecked") // StrictJson gives objects as Map<String, Object>
        Section(Object tree, String where) {
            if (!(tree instanceof Map)) {
                throw wrongType(where, "an object");
            }
            this.tree = (Map<String, Object>) tree;
            prefix = where.isEmpty() ? "" : where + ".";
        }

        void requireKeys(String... keys) {
            TreeSet<String> unknown = new TreeSet<>(tree.keySet());
            TreeSet<String> missing = new TreeSet<>(asList(keys));
            unknown.removeAll(asList(keys));
            missing.removeAll(tree.keySet());
            if (!unknown.isEmpty()) {
                throw new CapPruneException(ErrorKind.BUNDLE, "the manifest has an unknown key")
                        .at(prefix + Printable.ascii(unknown.first())).expected(Printable.list(asList(keys)));
            }
            if (!missing.isEmpty()) {
                throw new CapPruneException(ErrorKind.BUNDLE, "the manifest lacks a key").at(prefix + missing.first());
            }
        }

        Section section(String key, String... keys) {
            Section section = new Section(tree.get(key), prefix + key);
            section.requireKeys(keys);
            return section;
        }

        Map<String, Object> map(String key) {
            return new Section(tree.get(key), prefix + key).tree;
        }

        List<?> list(String key) {
            if (tree.get(key) instanceof List<?> items) {
                return items;
            }
            throw wrongType(prefix + key, "a list");
        }

        String string(String key) {
            if (tree.get(key) instanceof String text) {
                return text;
            }
            throw wrongType(prefix + key, "a string");
        }

        String text(String key) {
            String text = string(key);
            int length = text.codePointCount(0, text.length());
            require(length >= 1 && length <= MOST_TEXT && Printable.isPrintable(text), prefix + key,
                    "1 to " + MOST_TEXT + " printable characters");
            return text;
        }

        String name(String key) {
            String name = string(key);
            require(NAME.matcher(name).matches(), prefix + key, "a name in a-z, 0-9, _");
            return name;
        }

        void requireText(String key, String expected) {
            require(string(key).equals(expected), prefix + key, expected);
        }

        /** The file and signature of a model; TFLite only, as this reader has no other interpreter. */
        void requireModel(String file, String signature) {
            String found = string("file");
            if (BundleFiles.ONNX.contains(found)) {
                throw notAllowed(prefix + "file", file).found(found + ", an ONNX model")
                        .hint("export the bundle again with --target tflite");
            }
            requireText("file", file);
            requireText("signature", signature);
        }

        long whole(String key, long low, long high) {
            if (!(tree.get(key) instanceof Long value)) {
                throw wrongType(prefix + key, "a whole number");
            }
            require(value >= low && value <= high, prefix + key, low == high ? "" + low : low + " to " + high);
            return value;
        }

        double real(String key) {
            Object value = tree.get(key);
            if (value instanceof Double real) {
                return real;
            }
            if (value instanceof Long whole && (whole == 0 || whole == 1)) {
                return whole;
            }
            throw wrongType(prefix + key, "a number");
        }
    }
}
