package org.capprune.core.tflite;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.Printable;
import org.capprune.core.tflite.Flatbuffer.Scalar;
import org.capprune.core.tflite.TfliteModel.Level;
import org.capprune.core.tflite.TfliteModel.Operator;
import org.capprune.core.tflite.TfliteModel.Quantisation;
import org.capprune.core.tflite.TfliteModel.Signature;
import org.capprune.core.tflite.TfliteModel.Sparsity;
import org.capprune.core.tflite.TfliteModel.Tensor;
import org.capprune.core.tflite.TfliteModel.Type;

/**
 * Reads the structure of a .tflite file; {@link TfliteCheck} judges it.
 *
 * <p>Field numbers are those of the TFLite schema. What a captioning model does not need (custom operators, external
 * buffers, several subgraphs) is refused here or kept for {@link TfliteCheck} to refuse.
 */
public final class TfliteReader {
    public static final int MOST_MODEL_BYTES = 512 << 20;
    public static final String VOCABULARY_METADATA = "capprune.vocabulary";
    public static final String MODEL_METADATA = "capprune.model";

    private static final String IDENTIFIER = "TFL3";
    private static final int SCHEMA_VERSION = 3;
    // An interpreter acts on some metadata (the order of operators, for one); these it only reads out.
    private static final List<String> UNUSED_METADATA =
            Arrays.asList("CONVERSION_METADATA", "keep_stablehlo_constant", "min_runtime_version");

    private TfliteReader() {}

    /** Read a .tflite file; {@code where} is its name, for messages. */
    static TfliteModel read(byte[] data, String where) {
        if (data.length > MOST_MODEL_BYTES) {
            throw new CapPruneException(ErrorKind.BAD_MODEL_FILE, "a model file is too large").at(where)
                    .expected("at most " + MOST_MODEL_BYTES + " bytes");
        }
        FlatTable root = new Flatbuffer(data, where, IDENTIFIER).root();
        root.requireFields(10);
        long version = root.integer(0, Scalar.U32);
        if (version != SCHEMA_VERSION) {
            throw root.error("model: the schema has another version").expected(SCHEMA_VERSION).found(version);
        }
        if (!root.tables(8).isEmpty() || !root.tables(9).isEmpty()) {
            throw root.error("model: buffers outside the file are not allowed");
        }
        List<FlatTable> subgraphs = root.tables(2);
        if (subgraphs.size() != 1) {
            throw root.error("model: there must be exactly one subgraph").expected(1).found(subgraphs.size());
        }
        FlatTable graph = subgraphs.get(0);
        graph.requireFields(6);
        readUnused(root, graph);
        List<StoredBytes> buffers = new ArrayList<>();
        root.tables(4).forEach(table -> buffers.add(buffer(table)));
        List<Code> codes = new ArrayList<>();
        root.tables(1).forEach(table -> codes.add(operatorCode(table)));
        Map<String, StoredBytes> metadata = metadata(root, buffers);
        List<Signature> signatures = signatures(root);
        List<Tensor> tensors = new ArrayList<>();
        graph.tables(0).forEach(table -> tensors.add(tensor(tensors.size(), table, buffers.size())));
        List<Operator> operators = new ArrayList<>();
        graph.tables(3).forEach(table -> operators.add(operator(operators.size(), table, codes)));
        return new TfliteModel(data.length, tensors, operators, graph.ints(1), graph.ints(2), signatures, buffers,
                metadata, new HashMap<>());
    }

    /** Fields that say nothing to us must lie in the file all the same: interpreters may look. */
    private static void readUnused(FlatTable root, FlatTable graph) {
        root.text(3);
        root.ints(5);
        graph.text(4);
        graph.integer(5, Scalar.I32);
    }

    private static StoredBytes buffer(FlatTable table) {
        table.requireFields(3);
        if (table.integer(1, Scalar.U64) != 0 || table.integer(2, Scalar.U64) != 0) {
            throw table.error("buffer: data behind the flatbuffer is not allowed");
        }
        return table.bytes(0);
    }

    /** An entry in the table of operator codes. */
    private record Code(OperatorRule rule, long version) {}

    private static Code operatorCode(FlatTable table) {
        table.requireFields(4);
        // Two fields, because the first was too small: the schema says that the larger one counts.
        long code = Math.max(table.integer(0, Scalar.I8), table.integer(3, Scalar.I32));
        if (table.has(1)) {
            throw table.error("operator: custom operators are not allowed").found(Printable.ascii(table.text(1)));
        }
        OperatorRule rule = OperatorRule.byCode(code);
        if (rule == null) {
            throw table.error("operator: this one is not allowed").expected(OperatorRule.names())
                    .found("builtin code " + code);
        }
        long version = table.integer(2, Scalar.I32, 1);
        if (version < rule.oldest() || version > rule.newest()) {
            throw table.error("operator: impossible version")
                    .expected(rule.name() + " of version " + rule.oldest() + " to " + rule.newest()).found(version);
        }
        return new Code(rule, version);
    }

    private static Map<String, StoredBytes> metadata(FlatTable root, List<StoredBytes> buffers) {
        Map<String, StoredBytes> found = new LinkedHashMap<>();
        for (FlatTable table : root.tables(6)) {
            table.requireFields(2);
            String name = table.text(0);
            long buffer = table.integer(1, Scalar.U32);
            long most = mostMetadataBytes(name);
            if (most < 0) {
                throw table.error("metadata: this name is not allowed").found(Printable.ascii(name));
            }
            if (buffer >= buffers.size()) {
                throw table.error("metadata: there is no such buffer").expected("below " + buffers.size()).found(buffer);
            }
            if (UNUSED_METADATA.contains(name)) {
                continue;
            }
            StoredBytes content = buffers.get((int) buffer);
            if (found.containsKey(name)) {
                throw table.error("metadata: " + name + " stands twice");
            }
            if (content.length() > most) {
                throw table.error("metadata: " + name + " is too large").expected("at most " + most + " bytes")
                        .found(content.length());
            }
            found.put(name, content);
        }
        return found;
    }

    /** The cap of an entry of the metadata; -1 where the name is not allowed. */
    private static long mostMetadataBytes(String name) {
        if (VOCABULARY_METADATA.equals(name)) {
            return 16 << 20;
        }
        if (MODEL_METADATA.equals(name)) {
            return 1 << 20;
        }
        return UNUSED_METADATA.contains(name) ? Long.MAX_VALUE : -1;
    }

    private static List<Signature> signatures(FlatTable root) {
        List<Signature> signatures = new ArrayList<>();
        Set<String> keys = new HashSet<>();
        for (FlatTable table : root.tables(7)) {
            table.requireFields(5);
            String key = table.text(2);
            if (key == null || table.integer(4, Scalar.U32) != 0) {
                throw table.error("signature: it must have a name and belong to the first subgraph");
            }
            signatures.add(new Signature(key, namedTensors(table, 0, key), namedTensors(table, 1, key)));
            if (!keys.add(key)) {
                throw root.error("model: two signatures have one name");
            }
        }
        return signatures;
    }

    private static Map<String, Long> namedTensors(FlatTable table, int field, String key) {
        Map<String, Long> named = new LinkedHashMap<>();
        List<FlatTable> entries = table.tables(field);
        long most = OperatorRule.limit("signature_entries");
        if (entries.size() > most) {
            throw table.error("signature: it names too many tensors").expected("at most " + most).found(entries.size());
        }
        for (FlatTable entry : entries) {
            entry.requireFields(2);
            String name = entry.text(0);
            if (name == null || named.containsKey(name)) {
                throw entry.error("signature " + Printable.ascii(key) + ": a tensor has no name of its own")
                        .found(Printable.ascii(name));
            }
            named.put(name, entry.integer(1, Scalar.U32));
        }
        return named;
    }

    private static Tensor tensor(int index, FlatTable table, int buffers) {
        String title = "tensor " + index;
        table.requireFields(11);
        table.integer(8, Scalar.BOOL); // whether the shape is known; an empty one is a single number for us
        long code = table.integer(1, Scalar.I8);
        long buffer = table.integer(2, Scalar.U32);
        Type type = type(code);
        if (type == null) {
            throw table.error(title + ": this type is not allowed").expected(Arrays.toString(Type.values())).found(code);
        }
        if (buffer >= buffers) {
            throw table.error(title + ": there is no such buffer").expected("below " + buffers).found(buffer);
        }
        if (table.integer(5, Scalar.BOOL) != 0 || !table.tables(9).isEmpty() || table.integer(10, Scalar.U32) != 0) {
            throw table.error(title + ": variables, variants and external buffers are not allowed");
        }
        Shape shape = new Shape(table.ints(0));
        Shape signature = new Shape(table.ints(7));
        if (signature.rank() > 0 && !signature.equals(shape)) {
            throw table.error(title + ": the shape is not fixed").expected(shape).found(signature);
        }
        FlatTable quantisation = table.table(4);
        FlatTable sparsity = table.table(6);
        String name = table.text(3);
        return new Tensor(
                index,
                name == null ? "" : name,
                shape,
                type,
                (int) buffer,
                quantisation == null ? null : quantisation(quantisation),
                sparsity == null ? null : sparsity(sparsity),
                table.position);
    }

    private static Type type(long code) {
        return Arrays.stream(Type.values()).filter(type -> type.code == code).findFirst().orElse(null);
    }

    private static Quantisation quantisation(FlatTable table) {
        table.requireFields(7);
        table.floats(0);
        table.floats(1);
        if (table.integer(4, Scalar.U8) != 0 || table.has(5)) {
            throw table.error("quantisation: only scales and zero points are allowed");
        }
        float[] scales = table.floats(2);
        long[] zeroPoints = table.longs(3);
        if (scales.length != zeroPoints.length) {
            throw table.error("quantisation: there must be as many zero points as scales");
        }
        int axis = (int) table.integer(6, Scalar.I32);
        return scales.length == 0 ? null : new Quantisation(scales, zeroPoints, axis); // null: a range seen in training
    }

    private static Sparsity sparsity(FlatTable table) {
        table.requireFields(3);
        List<Level> levels = new ArrayList<>();
        table.tables(2).forEach(level -> levels.add(level(level)));
        return new Sparsity(table.ints(0), table.ints(1), levels);
    }

    private static Level level(FlatTable table) {
        table.requireFields(6);
        long form = table.integer(0, Scalar.I8);
        if (form != 0 && form != 1) {
            throw table.error("sparsity: unknown form of a dimension").expected("0 or 1").found(form);
        }
        int denseSize = (int) table.integer(1, Scalar.I32);
        return new Level(form == 1, denseSize, indexVector(table, 2), indexVector(table, 4));
    }

    private static int[] indexVector(FlatTable table, int field) {
        long kind = table.integer(field, Scalar.U8);
        FlatTable union = table.table(field + 1);
        if (kind == 0 && union == null) {
            return new int[0];
        }
        if (kind < 1 || kind > 3 || union == null) {
            throw table.error("sparsity: unknown type of indices").expected("1 to 3").found(kind);
        }
        union.requireFields(1);
        return switch ((int) kind) {
            case 1 -> union.ints(0);
            case 2 -> union.unsignedShorts(0);
            default -> union.unsignedBytes(0);
        };
    }

    private static Operator operator(int index, FlatTable table, List<Code> codes) {
        table.requireFields(14);
        long number = table.integer(0, Scalar.U32);
        if (number >= codes.size()) {
            throw table.error("operator " + index + ": there is no such code").expected("below " + codes.size())
                    .found(number);
        }
        Code code = codes.get((int) number);
        String title = "operator " + index + " (" + code.rule.name() + ")";
        if (table.has(5) || table.integer(9, Scalar.U64) != 0 || table.integer(10, Scalar.U64) != 0
                || table.integer(11, Scalar.U8) != 0 || table.has(12)) {
            throw table.error(title + ": custom options are not allowed");
        }
        table.integer(6, Scalar.I8);
        table.integer(13, Scalar.I32);
        boolean mutates = Arrays.stream(table.unsignedBytes(7)).anyMatch(flag -> flag != 0);
        if (mutates || table.ints(8).length > 0) {
            throw table.error(title + ": variable inputs and intermediates are not allowed");
        }
        return new Operator(index, code.rule, code.version, table.ints(1), table.ints(2),
                options(title, code.rule, table), table.position);
    }

    /** The operator's options by name, every one in the range that the kernels can take. */
    private static Map<String, Long> options(String title, OperatorRule rule, FlatTable table) {
        Map<String, Long> named = new LinkedHashMap<>();
        long kind = table.integer(3, Scalar.U8);
        FlatTable options = table.table(4);
        if (kind == 0 && options == null && !rule.needsOptions()) {
            return named;
        }
        if (kind != rule.optionsType() || options == null) {
            throw table.error(title + ": the options do not fit").expected("type " + rule.optionsType())
                    .found("type " + kind);
        }
        options.requireFields(rule.options().size());
        for (int field = 0; field < rule.options().size(); field++) {
            OperatorRule.Option option = rule.options().get(field);
            named.put(option.name(), option(title, options, field, option));
        }
        return named;
    }

    private static long option(String title, FlatTable options, int field, OperatorRule.Option option) {
        switch (option.form()) {
            case VECTOR:
                options.ints(field);
                return 0;
            case REAL:
                float real = options.real(field);
                if (!(option.low() <= real && real <= option.high())) {
                    throw outOfRange(title, options, option, real);
                }
                return 0;
            default:
                long value = options.integer(field, option.scalar(), option.absent());
                if (value < option.low() || value > option.high()) {
                    throw outOfRange(title, options, option, value);
                }
                return value;
        }
    }

    private static CapPruneException outOfRange(String title, FlatTable at, OperatorRule.Option option, Object value) {
        return at.error(title + ": " + option.name() + " is out of range")
                .expected(option.low() + " to " + option.high()).found(value);
    }
}
