package org.capprune.core.tflite;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.capprune.core.tflite.TfliteModel.Level;
import org.capprune.core.tflite.TfliteModel.Operator;
import org.capprune.core.tflite.TfliteModel.Quantisation;
import org.capprune.core.tflite.TfliteModel.Sparsity;
import org.capprune.core.tflite.TfliteModel.Tensor;
import org.capprune.core.tflite.TfliteModel.Type;

/**
 * The sparse tensors that stock runtimes compute rightly, and the checks they do not make themselves.
 *
 * <pre>
 * name          values   levels of a weight (N, K)                     traversal   block map
 * CSR           float32  dense N, compressed K                         0 1         -
 * CSR           int8     the same, for DENSIFY only                    0 1         -
 * 1×4 blocks    float32  dense N, compressed K / 4, dense 4            0 1 2       1
 * 1×16 blocks   int8     dense N, compressed K / 16, dense 16          0 1 2       1
 * </pre>
 *
 * and CSR with more dense levels in front, for DENSIFY.
 */
final class TfliteSparsity {
    // Of FULLY_CONNECTED. With any other, the runtimes' delegate takes the operator and reads past the kept values.
    private static final int SPARSE_VERSION = 8;
    private static final int FLOAT_BLOCK = 4;
    private static final int INT8_BLOCK = 16;
    private static final int LEDGER_LIMIT = 255; // the 1×16 kernel keeps a row's count and columns in bytes

    private TfliteSparsity() {}

    /** Check one sparse tensor, whose shape is possible, against the accepted forms. */
    static void checkTensor(Tensor tensor, int storedBytes) {
        Sparsity sparsity = tensor.sparsity();
        Shape shape = tensor.shape();
        checkForm(tensor, sparsity);
        int block = blockSize(sparsity);
        Level compressed = sparsity.levels().get(shape.rank() - 1);
        long rows = Shape.product(shape.sizes(0, shape.rank() - 1));
        int columns = shape.last() / block;
        checkPositions(tensor, compressed, rows, columns);
        long kept = compressed.indices().length;
        if (kept == 0) {
            throw new BrokenRule(
                    "sparsity: nothing is kept, and runtimes then read memory that is not theirs", tensor, "one kept value", 0);
        }
        long expectedBytes = kept * block * tensor.type().bytes;
        if (storedBytes != expectedBytes) {
            throw new BrokenRule("sparsity: the values are not as many as the indices", tensor, expectedBytes + " bytes",
                    storedBytes);
        }
        if (block == INT8_BLOCK) {
            checkLedger(tensor, compressed, columns);
        }
    }

    private static void checkForm(Tensor tensor, Sparsity sparsity) {
        List<Level> levels = sparsity.levels();
        int rank = tensor.shape().rank();
        int blocks = sparsity.blockMap().length;
        if (rank < 2 || blocks > 1 || levels.size() != rank + blocks) {
            throw new BrokenRule("sparsity: the levels do not fit the shape", tensor, rank + " levels, or one more",
                    levels.size());
        }
        int[] order = new int[levels.size()];
        Arrays.setAll(order, n -> n);
        if (!Arrays.equals(sparsity.traversalOrder(), order)) {
            throw new BrokenRule("sparsity: traversal order", tensor, Arrays.toString(order),
                    Arrays.toString(sparsity.traversalOrder()));
        }
        for (int axis = 0; axis < levels.size(); axis++) {
            if (levels.get(axis).compressed() != (axis == rank - 1)) {
                throw new BrokenRule("sparsity: the last dimension, and only that, must be compressed", tensor);
            }
        }
        for (int axis = 0; axis < rank - 1; axis++) {
            if (levels.get(axis).denseSize() != tensor.shape().size(axis)) {
                throw new BrokenRule("sparsity: size of level " + axis, tensor, tensor.shape().size(axis),
                        levels.get(axis).denseSize());
            }
        }
        if (blocks > 0) {
            checkBlocks(tensor, sparsity);
        } else if (tensor.type() != Type.FLOAT32 && tensor.type() != Type.INT8) {
            throw new BrokenRule("sparsity: no stock runtime has a kernel for these values", tensor, "float32 or int8",
                    tensor.type());
        }
        checkScale(tensor);
    }

    /** What is not kept stands for 0, so int8 has zero point 0; and one scale. */
    private static void checkScale(Tensor tensor) {
        Quantisation quantisation = tensor.quantisation();
        if (tensor.isInt8()
                && (quantisation == null || quantisation.scales().length != 1 || quantisation.hasZeroPoint())) {
            throw new BrokenRule("sparsity: sparse int8 with anything but one scale and zero point 0, "
                    + "which stock runtimes compute wrongly without a word", tensor, "one scale, zero point 0", null);
        }
    }

    private static void checkBlocks(Tensor tensor, Sparsity sparsity) {
        int size = blockSize(sparsity);
        if (tensor.shape().rank() != 2 || sparsity.blockMap()[0] != 1) {
            throw new BrokenRule("sparsity: blocks must lie along the second of two dimensions", tensor, "[1]",
                    Arrays.toString(sparsity.blockMap()));
        }
        boolean known = (tensor.type() == Type.FLOAT32 && size == FLOAT_BLOCK) || (tensor.isInt8() && size == INT8_BLOCK);
        if (!known) {
            throw new BrokenRule("sparsity: no stock runtime has a right kernel for these blocks", tensor,
                    "1×4 float32 or 1×16 int8", "1×" + size + " " + tensor.type());
        }
        if (tensor.shape().size(1) % size != 0) {
            throw new BrokenRule("sparsity: the blocks do not fill the rows", tensor, "a multiple of " + size,
                    tensor.shape().size(1));
        }
    }

    private static int blockSize(Sparsity sparsity) {
        return sparsity.blockMap().length == 0 ? 1 : sparsity.levels().get(sparsity.levels().size() - 1).denseSize();
    }

    private static void checkPositions(Tensor tensor, Level level, long rows, int columns) {
        int[] segments = level.segments();
        int[] indices = level.indices();
        if (segments.length != rows + 1) {
            throw new BrokenRule("sparsity: number of row pointers", tensor, rows + 1, segments.length);
        }
        if (segments[0] != 0) {
            throw new BrokenRule("sparsity: the first row pointer", tensor, 0, segments[0]);
        }
        for (int row = 0; row < rows; row++) {
            if (segments[row + 1] < segments[row]) {
                throw new BrokenRule("sparsity: a row pointer decreases", tensor, null, "after row " + row);
            }
        }
        if (segments[segments.length - 1] != indices.length) {
            throw new BrokenRule("sparsity: the last row pointer", tensor, indices.length + ", the number of indices",
                    segments[segments.length - 1]);
        }
        for (int row = 0; row < rows; row++) {
            int last = -1;
            for (int place = segments[row]; place < segments[row + 1]; place++) {
                int column = indices[place];
                if (column < 0 || column >= columns) {
                    throw new BrokenRule("sparsity: a column index is out of range", tensor, "0 to " + (columns - 1),
                            column + " at " + place);
                }
                if (column <= last) {
                    throw new BrokenRule("sparsity: the columns of a row must rise", tensor, null,
                            column + " at " + place);
                }
                last = column;
            }
        }
    }

    private static void checkLedger(Tensor tensor, Level level, int columns) {
        if (columns - 1 > LEDGER_LIMIT) {
            throw new BrokenRule("sparsity: 1×16 blocks in rows that are too long", tensor,
                    "at most " + (LEDGER_LIMIT + 1) * INT8_BLOCK, columns * INT8_BLOCK);
        }
        int[] segments = level.segments();
        for (int row = 0; row + 1 < segments.length; row++) {
            if (segments[row + 1] - segments[row] > LEDGER_LIMIT) {
                throw new BrokenRule("sparsity: too many 1×16 blocks in a row", tensor, "at most " + LEDGER_LIMIT,
                        segments[row + 1] - segments[row]);
            }
        }
    }

    /** What is wrong with a FULLY_CONNECTED whose weight is sparse. */
    static void checkWeight(TfliteModel model, Operator operator) {
        Tensor source = model.tensors().get(operator.inputs()[0]);
        Tensor weight = model.tensors().get(operator.inputs()[1]);
        if (weight.shape().rank() != 2) {
            throw new BrokenRule("sparsity: a sparse weight must have two dimensions", weight, null, weight.shape());
        }
        if (source.type() != Type.FLOAT32) {
            throw new BrokenRule("sparsity: a sparse weight needs float32 inputs", weight, "float32", source.type());
        }
        if (operator.version() != SPARSE_VERSION) {
            throw new BrokenRule(
                    operator.title() + ": of this version, stock runtimes read the sparse weight as a dense one", weight,
                    "version " + SPARSE_VERSION, operator.version());
        }
        if (weight.isInt8() && weight.sparsity().blockMap().length == 0) {
            throw new BrokenRule("sparsity: int8 values without blocks, which stock runtimes compute wrongly without a word",
                    weight, "float32 values, or int8 in 1×16 blocks, or int8 behind DENSIFY", null);
        }
    }

    /** One place where a tensor is read. */
    private record Use(Operator operator, int position) {
        boolean is(String name, int at) {
            return operator.is(name) && position == at;
        }
    }

    /**
     * Where int8 from a DENSIFY is used as stock runtimes do not compute it.
     *
     * <p>They expand the weights of their delegate once, ahead of time, and then leave the DENSIFY out. A DEQUANTIZE
     * behind it that the delegate does not take, as its own user is not taken, then reads memory that nothing wrote.
     */
    static void checkDensified(TfliteModel model) {
        for (Operator operator : model.operators()) {
            Tensor tensor = model.tensors().get(operator.outputs()[0]);
            if (!operator.is("DENSIFY") || !tensor.isInt8()) {
                continue;
            }
            for (Use use : uses(model, tensor.index())) {
                if (!use.is("EMBEDDING_LOOKUP", 1) && !use.is("GATHER", 0) && !isDelegatedDequantize(model, use)) {
                    throw new BrokenRule(
                            "sparsity: int8 from DENSIFY, where stock runtimes read memory that nothing has written",
                            tensor,
                            "EMBEDDING_LOOKUP, GATHER, or DEQUANTIZE to the weight of FULLY_CONNECTED, not of version "
                                    + SPARSE_VERSION + ", with a stored bias of one dimension or none",
                            use.operator.title());
                }
            }
        }
    }

    private static boolean isDelegatedDequantize(TfliteModel model, Use use) {
        int output = use.operator.outputs()[0];
        boolean handedOut = Arrays.stream(model.outputs()).anyMatch(index -> index == output);
        return use.operator.is("DEQUANTIZE") && !handedOut
                && uses(model, output).stream().allMatch(behind -> isDelegated(model, behind));
    }

    /** Whether every runtime's delegate takes a user of dequantised weights. */
    private static boolean isDelegated(TfliteModel model, Use use) {
        if (!use.is("FULLY_CONNECTED", 1) || use.operator.version() == SPARSE_VERSION) {
            return false;
        }
        int[] inputs = use.operator.inputs();
        if (inputs.length < 3 || inputs[2] < 0) {
            return true;
        }
        Tensor bias = model.tensors().get(inputs[2]);
        return model.isConstant(bias) && bias.shape().rank() == 1;
    }

    private static List<Use> uses(TfliteModel model, int index) {
        List<Use> uses = new ArrayList<>();
        for (Operator operator : model.operators()) {
            for (int position = 0; position < operator.inputs().length; position++) {
                if (operator.inputs()[position] == index) {
                    uses.add(new Use(operator, position));
                }
            }
        }
        return uses;
    }
}
