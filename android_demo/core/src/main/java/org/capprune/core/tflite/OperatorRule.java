package org.capprune.core.tflite;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.capprune.core.StrictJson;
import org.capprune.core.tflite.Flatbuffer.Scalar;

/**
 * One operator that a captioning model may use, and what it may be given: what is not here is refused.
 *
 * <p>The rules stand in {@code operators.json}, which Python's runtime reads too, so that both allow the same. The build
 * copies it from there.
 *
 * @param name the schema's name
 * @param code the schema's number
 * @param oldest the lowest version
 * @param newest the highest version
 * @param leastInputs how many inputs at least
 * @param mostInputs how many at most
 * @param outputs how many outputs; 0 for as many as an option says
 * @param constants inputs that decide shapes, so that they must be stored in the file
 * @param mayOmit the input that may be -1; -1 for none
 * @param forms what it may read and give, one of them
 * @param optionsType the schema's number of the options; 0 when there are none
 * @param needsOptions whether the kernels divide by or index with an option
 * @param options the fields of the options, in the order of the schema
 */
record OperatorRule(
        String name,
        int code,
        int oldest,
        int newest,
        int leastInputs,
        int mostInputs,
        int outputs,
        List<Integer> constants,
        int mayOmit,
        List<OperatorForm> forms,
        int optionsType,
        boolean needsOptions,
        List<Option> options) {

    /** One option: how it is stored, the range that is accepted, and the schema's default. */
    record Option(String name, Form form, Scalar scalar, long low, long high, long absent) {}

    /** How an option is stored. */
    enum Form { WHOLE, REAL, VECTOR }

    // Not below the package's own name, which a release build of the app changes.
    private static final String TABLE = "/capprune/tflite/operators.json";
    private static final int NONE = -1;
    private static final Map<?, ?> LIMITS;
    private static final Map<Integer, OperatorRule> BY_CODE;

    static {
        Map<?, ?> table = tree(StrictJson.parse(content()));
        LIMITS = tree(table.get("limits"));
        BY_CODE = read(list(table, "operators"));
    }

    /** What a file of a size may cost of one kind. */
    static long limit(String kind, long sizeBytes) {
        Map<?, ?> limit = tree(LIMITS.get(kind));
        return (Long) limit.get("base") + (Long) limit.get("per_byte") * sizeBytes;
    }

    /** A limit that does not depend on the size of a file. */
    static long limit(String name) {
        return (Long) LIMITS.get(name);
    }

    /** The rule of the schema's number; null where the operator is not allowed. */
    static OperatorRule byCode(long code) {
        return BY_CODE.get((int) code);
    }

    /** The names of all operators that are allowed. */
    static String names() {
        StringBuilder names = new StringBuilder();
        for (OperatorRule rule : BY_CODE.values()) {
            names.append(names.length() == 0 ? "" : ", ").append(rule.name);
        }
        return names.toString();
    }

    /** Whether an operator has one of the forms. */
    boolean fits(TfliteModel model, TfliteModel.Operator operator) {
        return forms.stream().anyMatch(form -> form.fits(model, operator));
    }

    private static Map<Integer, OperatorRule> read(List<?> entries) {
        Map<Integer, OperatorRule> byCode = new LinkedHashMap<>();
        for (Object entry : entries) {
            OperatorRule rule = rule(tree(entry));
            byCode.put(rule.code, rule);
        }
        return byCode;
    }

    private static byte[] content() {
        try (InputStream stream = OperatorRule.class.getResourceAsStream(TABLE)) {
            if (stream == null) {
                throw new IllegalStateException("the build of the app left out " + TABLE);
            }
            ByteArrayOutputStream content = new ByteArrayOutputStream();
            byte[] piece = new byte[1 << 14];
            for (int read = stream.read(piece); read >= 0; read = stream.read(piece)) {
                content.write(piece, 0, read);
            }
            return content.toByteArray();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private static OperatorRule rule(Map<?, ?> entry) {
        List<Integer> constants = new ArrayList<>();
        list(entry, "constants").forEach(position -> constants.add(((Long) position).intValue()));
        List<OperatorForm> forms = new ArrayList<>();
        list(entry, "forms").forEach(form -> forms.add(OperatorForm.parse((String) form)));
        List<Option> options = new ArrayList<>();
        list(entry, "options").forEach(option -> options.add(option(tree(option))));
        return new OperatorRule(
                (String) entry.get("name"),
                (int) whole(entry, "code", NONE),
                bound(entry, "versions", 0),
                bound(entry, "versions", 1),
                bound(entry, "inputs", 0),
                bound(entry, "inputs", 1),
                "option".equals(entry.get("outputs")) ? 0 : 1,
                constants,
                (int) whole(entry, "may_omit", NONE),
                forms,
                (int) whole(entry, "options_type", 0),
                Boolean.TRUE.equals(entry.get("needs_options")),
                options);
    }

    private static Option option(Map<?, ?> entry) {
        String type = (String) entry.get("type");
        Form form = switch (type) {
            case "int32 list" -> Form.VECTOR;
            case "float32" -> Form.REAL;
            default -> Form.WHOLE;
        };
        Scalar scalar = switch (type) {
            case "bool" -> Scalar.BOOL;
            case "int8" -> Scalar.I8;
            case "int32", "float32", "int32 list" -> Scalar.I32;
            default -> throw new IllegalStateException(type);
        };
        int low = bound(entry, "range", 0);
        int high = bound(entry, "range", 1);
        return new Option((String) entry.get("name"), form, scalar, low, high, whole(entry, "default", 0));
    }

    private static Map<?, ?> tree(Object value) {
        return (Map<?, ?>) value;
    }

    /** A list of an object; empty where it is not there. */
    private static List<?> list(Map<?, ?> entry, String key) {
        Object value = entry.get(key);
        return value == null ? new ArrayList<>() : (List<?>) value;
    }

    private static int bound(Map<?, ?> entry, String key, int end) {
        return ((Long) list(entry, key).get(end)).intValue();
    }

    private static long whole(Map<?, ?> entry, String key, long absent) {
        Object value = entry.get(key);
        return value == null ? absent : (Long) value;
    }
}
