package org.capprune.core.tflite;

import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;

/**
 * What stands in a .tflite file with one subgraph.
 *
 * @param sizeBytes of the file
 * @param tensors in the order of their indices
 * @param operators in the order in which they run
 * @param inputs tensor indices of the subgraph's inputs
 * @param outputs tensor indices of the subgraph's outputs
 * @param signatures named ways to call the model
 * @param buffers the stored bytes; empty for tensors that are computed
 * @param metadata the vocabulary and the description of the model, those of them that the file holds
 */
public record TfliteModel(
        int sizeBytes,
        List<Tensor> tensors,
        List<Operator> operators,
        int[] inputs,
        int[] outputs,
        List<Signature> signatures,
        List<StoredBytes> buffers,
        Map<String, StoredBytes> metadata,
        Map<List<Object>, Object> found) {

    /** What was found for a key before, so that a stored tensor that many operators read is looked at once. */
    @SuppressWarnings("unchecked")
    <T> T once(Supplier<T> find, Object... key) {
        List<Object> keys = Arrays.asList(key);
        if (!found.containsKey(keys)) {
            found.put(keys, find.get());
        }
        return (T) found.get(keys);
    }

    /** Whether the tensor's values are stored in the file. */
    boolean isConstant(Tensor tensor) {
        return stored(tensor).length() > 0;
    }

    /** The stored numbers; of a sparse tensor only those that are kept. */
    StoredBytes stored(Tensor tensor) {
        return buffers.get(tensor.buffer());
    }

    /** The types that have a place in a caption model; {@code code} is that of the schema. */
    public enum Type {
        FLOAT32(0, 4), FLOAT16(1, 2), INT32(2, 4), INT64(4, 8), INT8(9, 1);

        final int code;
        final int bytes;

        Type(int code, int bytes) {
            this.code = code;
            this.bytes = bytes;
        }

        @Override
        public String toString() {
            return name().toLowerCase(java.util.Locale.ROOT);
        }
    }

    /** value = scale · (stored - zero point), one pair for the tensor or one for each index of {@code axis}. */
    record Quantisation(float[] scales, long[] zeroPoints, int axis) {
        boolean hasZeroPoint() {
            for (long point : zeroPoints) {
                if (point != 0) {
                    return true;
                }
            }
            return false;
        }
    }

    /** One level of a sparse tensor: dense of a size, or compressed by row pointers and column indices. */
    record Level(boolean compressed, int denseSize, int[] segments, int[] indices) {}

    /** How the stored values of a tensor are laid out in its shape. */
    record Sparsity(int[] traversalOrder, int[] blockMap, List<Level> levels) {}

    /** One tensor; {@code quantisation} and {@code sparsity} may be null, {@code offset} is its place in the file. */
    public record Tensor(
            int index,
            String name,
            Shape shape,
            Type type,
            int buffer,
            Quantisation quantisation,
            Sparsity sparsity,
            long offset) {

        /** Bytes of the whole, dense tensor. */
        long denseBytes() {
            return shape.elements() * type.bytes;
        }

        boolean isInt8() {
            return type == Type.INT8;
        }
    }

    /** One operator: tensor indices (-1: left out), its options by name. */
    record Operator(
            int index,
            OperatorRule rule,
            long version,
            int[] inputs,
            int[] outputs,
            Map<String, Long> options,
            long offset) {

        boolean is(String... names) {
            for (String name : names) {
                if (rule.name().equals(name)) {
                    return true;
                }
            }
            return false;
        }

        /** An option, or 0 where the operator has none of this name. */
        int option(String name) {
            Long value = options.get(name);
            return value == null ? 0 : value.intValue();
        }

        /** The operator as messages name it. */
        String title() {
            return "operator " + index + " (" + rule.name() + ")";
        }
    }

    /** A named way to call the model: tensor indices by name. */
    public record Signature(String key, Map<String, Long> inputs, Map<String, Long> outputs) {}
}
