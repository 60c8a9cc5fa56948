package org.capprune.core.tflite;

import static org.capprune.core.tflite.BrokenRule.requireFit;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.stream.IntStream;
import org.capprune.core.tflite.TfliteModel.Operator;
import org.capprune.core.tflite.TfliteModel.Tensor;
import org.capprune.core.tflite.TfliteModel.Type;

/**
 * What shape and type an operator gives, from what it is given.
 *
 * <p>Interpreters work out shapes again when they load a model, and older ones trust operands like the start of a slice
 * without a look. So the shapes are worked out here first: operands that do not fit are refused, and so is a file that
 * declares another shape than the one its operators give. What does not fit is a {@link BrokenRule} that says how.
 */
final class TfliteShapes {
    private static final int MOST_NUMBERS = 8; // of an operand that decides a shape: two for each dimension

    /** What an operator gives. */
    record Output(Shape shape, Type type) {}

    private final TfliteModel model;
    private final Operator operator;
    private final List<Tensor> inputs; // without those that are left out
    private final Shape shape; // of the first input
    private final Type type;

    private TfliteShapes(TfliteModel model, Operator operator) {
        this.model = model;
        this.operator = operator;
        inputs = new ArrayList<>();
        for (int index : operator.inputs()) {
            if (index >= 0) {
                inputs.add(model.tensors().get(index));
            }
        }
        shape = inputs.get(0).shape();
        type = inputs.get(0).type();
    }

    /** The outputs of an operator whose inputs exist and, where they decide a shape, are stored. */
    static List<Output> infer(TfliteModel model, Operator operator) {
        return new TfliteShapes(model, operator).infer();
    }

    private List<Output> infer() {
        return switch (operator.rule().name()) {
            case "ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "SQUARED_DIFFERENCE", "SUB" -> elementwise();
            case "DENSIFY", "GELU", "LOG", "LOGISTIC", "RELU", "RELU6", "RSQRT", "SOFTMAX", "SQRT", "TANH" -> one(shape);
            case "MEAN", "SUM" -> reduced();
            case "AVERAGE_POOL_2D", "MAX_POOL_2D" -> pooled();
            case "BATCH_MATMUL" -> multiplied();
            case "BROADCAST_TO" -> broadcastTo();
            case "CAST" -> cast();
            case "CONCATENATION" -> concatenated();
            case "CONV_2D" -> convolved();
            case "DEPTHWISE_CONV_2D" -> convolvedByDepth();
            case "DEQUANTIZE" -> one(shape, Type.FLOAT32);
            case "EMBEDDING_LOOKUP" -> lookedUp();
            case "EXPAND_DIMS" -> expanded();
            case "FULLY_CONNECTED" -> fullyConnected();
            case "GATHER" -> gathered();
            case "PACK" -> packed();
            case "PAD" -> padded();
            case "QUANTIZE" -> one(shape, Type.INT8);
            case "RESHAPE" -> reshaped();
            case "SLICE" -> sliced();
            case "SPLIT" -> split();
            case "STRIDED_SLICE" -> strided();
            case "TRANSPOSE" -> transposed();
            case "UNPACK" -> unpacked();
            default -> throw new IllegalStateException(operator.rule().name());
        };
    }

    private List<Output> one(Shape output) {
        return one(output, type);
    }

    private static List<Output> one(Shape output, Type outputType) {
        return Collections.singletonList(new Output(output, outputType));
    }

    private int axis(int axis, int rank) {
        requireFit(-rank <= axis && axis < rank, "axis " + axis + " of " + rank + " dimensions");
        return Math.floorMod(axis, rank);
    }

    /** The whole numbers of a stored operand. */
    private int[] constant(int position) {
        Tensor tensor = inputs.get(position);
        requireFit(tensor.type() == Type.INT32 && tensor.shape().rank() <= 2,
                "input " + position + " must be a list of int32");
        requireFit(tensor.shape().elements() <= MOST_NUMBERS,
                "input " + position + " must have at most " + MOST_NUMBERS + " numbers");
        int[] numbers = new int[model.stored(tensor).length() / Integer.BYTES];
        Arrays.setAll(numbers, model.stored(tensor)::int32);
        return numbers;
    }

    private int[] constant(int position, int size) {
        requireFit(inputs.get(position).shape().elements() == size, "input " + position + " must have " + size + " numbers");
        int[] numbers = constant(position);
        requireFit(numbers.length == size, "input " + position + " must have " + size + " numbers");
        return numbers;
    }

    private void sameTypes() {
        requireFit(inputs.stream().allMatch(tensor -> tensor.type() == type), "inputs of several types");
    }

    private List<Output> cast() {
        Type to = model.tensors().get(operator.outputs()[0]).type();
        for (Type each : new Type[] {type, to}) {
            requireFit(each == Type.FLOAT32 || each == Type.INT32 || each == Type.INT64, "types float32, int32, int64");
        }
        return one(shape, to);
    }

    private static Shape broadcast(Shape left, Shape right) {
        int rank = Math.max(left.rank(), right.rank());
        int[] sizes = new int[rank];
        for (int axis = 0; axis < rank; axis++) {
            int first = axis < rank - left.rank() ? 1 : left.size(axis - rank + left.rank());
            int second = axis < rank - right.rank() ? 1 : right.size(axis - rank + right.rank());
            requireFit(first == second || first == 1 || second == 1,
                    "shapes " + left + " and " + right + " do not broadcast");
            sizes[axis] = first == 1 ? second : first;
        }
        return new Shape(sizes);
    }

    private List<Output> elementwise() {
        sameTypes();
        return one(broadcast(shape, inputs.get(1).shape()));
    }

    private List<Output> broadcastTo() {
        Shape target = new Shape(constant(1));
        requireFit(target.allPositive() && target.rank() <= 4, "shape " + target);
        requireFit(broadcast(shape, target).equals(target), "shape " + shape + " does not broadcast to " + target);
        return one(target);
    }

    private List<Output> reshaped() {
        requireFit(inputs.get(1).shape().rank() == 1, "the new shape must be a list");
        int[] target = constant(1);
        int[] known = Arrays.stream(target).filter(size -> size != -1).toArray();
        if (target.length - known.length == 1) {
            requireFit(new Shape(known).allPositive(), "shape " + Arrays.toString(target));
            long rest = shape.elements() / Shape.product(known);
            Arrays.setAll(target, n -> target[n] == -1 ? (int) rest : target[n]);
        }
        Shape output = new Shape(target);
        requireFit(output.allPositive() && output.elements() == shape.elements(), "another number of elements");
        return one(output);
    }

    private List<Output> transposed() {
        int[] order = constant(1, shape.rank());
        int[] sorted = order.clone();
        Arrays.sort(sorted);
        requireFit(Arrays.equals(sorted, IntStream.range(0, shape.rank()).toArray()), "order " + Arrays.toString(order));
        return one(new Shape(Arrays.stream(order).map(shape::size).toArray()));
    }

    private List<Output> expanded() {
        int axis = axis(constant(1, 1)[0], shape.rank() + 1);
        return one(Shape.of(shape.sizes(0, axis), new int[] {1}, shape.sizes(axis, shape.rank())));
    }

    private List<Output> reduced() {
        boolean[] gone = new boolean[shape.rank()];
        for (int axis : constant(1)) {
            gone[axis(axis, shape.rank())] = true;
        }
        boolean keep = operator.option("keep_dimensions") != 0;
        return one(new Shape(IntStream.range(0, shape.rank())
                .filter(axis -> keep || !gone[axis]).map(axis -> gone[axis] ? 1 : shape.size(axis)).toArray()));
    }

    private List<Output> sliced() {
        int[] starts = constant(1, shape.rank());
        int[] sizes = constant(2, shape.rank());
        for (int axis = 0; axis < sizes.length; axis++) {
            int full = shape.size(axis);
            int start = starts[axis];
            requireFit(start >= 0, "start " + start);
            int size = sizes[axis] == -1 ? full - start : sizes[axis];
            requireFit(0 < size && size <= full - start, size + " from " + start + " of " + full);
            sizes[axis] = size;
        }
        return one(new Shape(sizes));
    }

    private List<Output> strided() {
        int[] starts = constant(1, shape.rank());
        int[] ends = constant(2, shape.rank());
        int[] strides = constant(3, shape.rank());
        List<Integer> sizes = new ArrayList<>();
        for (int axis = 0; axis < shape.rank(); axis++) {
            int full = shape.size(axis);
            boolean fromStart = (operator.option("begin_mask") >> axis & 1) != 0;
            boolean toEnd = (operator.option("end_mask") >> axis & 1) != 0;
            requireFit(strides[axis] > 0, "stride " + strides[axis]);
            if ((operator.option("shrink_axis_mask") >> axis & 1) != 0) {
                requireFit(-full <= starts[axis] && starts[axis] < full, "index " + starts[axis] + " of " + full);
                requireFit(!fromStart && !toEnd,
                        "axis " + axis + " both masked and shrunk, of which runtimes make different things");
                continue;
            }
            long start = fromStart ? 0 : clamp(starts[axis], full);
            long end = toEnd ? full : clamp(ends[axis], full);
            long size = Math.max(0, (end - start + strides[axis] - 1) / strides[axis]);
            requireFit(size > 0, "nothing of axis " + axis);
            sizes.add((int) size);
        }
        return one(new Shape(sizes.stream().mapToInt(Integer::intValue).toArray()));
    }

    /** An end of a slice, negative ones from behind, inside the axis. */
    private static long clamp(long index, int full) {
        return Math.min(full, Math.max(0, index < 0 ? index + full : index));
    }

    private List<Output> padded() {
        requireFit(inputs.get(1).shape().equals(new Shape(shape.rank(), 2)), "paddings of another shape");
        int[] paddings = constant(1);
        requireFit(Arrays.stream(paddings).allMatch(padding -> padding >= 0 && padding < 1 << 16), "paddings");
        return one(new Shape(IntStream.range(0, shape.rank())
                .map(axis -> shape.size(axis) + paddings[2 * axis] + paddings[2 * axis + 1]).toArray()));
    }

    private List<Output> concatenated() {
        sameTypes();
        int axis = axis(operator.option("axis"), shape.rank());
        long joined = 0;
        for (Tensor tensor : inputs) {
            Shape other = tensor.shape();
            requireFit(other.rank() == shape.rank(), "numbers of dimensions differ");
            requireFit(Arrays.equals(shape.sizes(0, axis), other.sizes(0, axis))
                    && Arrays.equals(shape.sizes(axis + 1, shape.rank()), other.sizes(axis + 1, shape.rank())),
                    "shapes differ");
            joined += other.size(axis);
        }
        requireFit(joined <= Integer.MAX_VALUE, "too many");
        return one(replaced(axis, (int) joined));
    }

    /** The first input's shape with another size of one axis. */
    private Shape replaced(int axis, int... sizes) {
        return Shape.of(shape.sizes(0, axis), sizes, shape.sizes(axis + 1, shape.rank()));
    }

    private List<Output> packed() {
        sameTypes();
        requireFit(inputs.stream().allMatch(tensor -> tensor.shape().equals(shape)), "shapes differ");
        requireFit(operator.option("values") == inputs.size(), inputs.size() + " inputs");
        int axis = axis(operator.option("axis"), shape.rank() + 1);
        return one(Shape.of(shape.sizes(0, axis), new int[] {inputs.size()}, shape.sizes(axis, shape.rank())));
    }

    private List<Output> unpacked() {
        int axis = axis(operator.option("axis"), shape.rank());
        int count = operator.option("outputs");
        requireFit(shape.size(axis) == count, count + " outputs of " + shape.size(axis));
        return Collections.nCopies(count, new Output(replaced(axis), type));
    }

    private List<Output> split() {
        Tensor source = inputs.get(1);
        Shape whole = source.shape();
        int count = operator.option("outputs");
        int axis = axis(constant(0, 1)[0], whole.rank());
        requireFit(whole.size(axis) % count == 0, count + " parts of " + whole.size(axis));
        int[] part = whole.sizes();
        part[axis] /= count;
        return Collections.nCopies(count, new Output(new Shape(part), source.type()));
    }

    private List<Output> lookedUp() {
        Tensor table = inputs.get(1);
        requireFit(type == Type.INT32 && shape.rank() == 1 && table.shape().rank() >= 2, "ids (n), table (rows, …)");
        requireFit(table.type() == Type.FLOAT32 || table.isInt8(), "a table of float32 or int8");
        return one(Shape.of(shape.sizes(), table.shape().sizes(1, table.shape().rank())), Type.FLOAT32);
    }

    private List<Output> gathered() {
        requireFit(inputs.get(1).type() == Type.INT32, "indices must be int32");
        return one(replaced(axis(operator.option("axis"), shape.rank()), inputs.get(1).shape().sizes()));
    }

    private List<Output> fullyConnected() {
        Shape weight = inputs.get(1).shape();
        requireFit(weight.rank() == 2 && shape.elements() % weight.size(1) == 0, "weights " + weight + " on " + shape);
        weighted(weight.size(0));
        if (operator.option("keep_dimensions") == 0) {
            return one(new Shape((int) (shape.elements() / weight.size(1)), weight.size(0)));
        }
        requireFit(shape.rank() >= 1 && shape.last() == weight.size(1), "weights " + weight + " on " + shape);
        return one(Shape.of(shape.sizes(0, shape.rank() - 1), new int[] {weight.size(0)}));
    }

    /** The types and the bias of an operator with weights. */
    private void weighted(int channels) {
        Type weight = inputs.get(1).type();
        boolean floats = type == Type.FLOAT32 && (weight == Type.FLOAT32 || weight == Type.INT8);
        requireFit(floats || (type == Type.INT8 && weight == Type.INT8), "types");
        if (inputs.size() == 3) {
            Tensor bias = inputs.get(2);
            requireFit(bias.shape().elements() == channels, "a bias of another size than " + channels + " channels");
            requireFit(bias.type() == (floats ? Type.FLOAT32 : Type.INT32), "a bias of " + bias.type());
        }
    }

    private List<Output> multiplied() {
        Shape left = shape;
        Shape right = inputs.get(1).shape();
        requireFit(left.rank() >= 2 && right.rank() >= 2, "at least two dimensions");
        sameTypes();
        requireFit(type == Type.FLOAT32 || type == Type.INT8, "types");
        int turnLeft = operator.option("transpose_x");
        int turnRight = operator.option("transpose_y");
        int inner = left.size(left.rank() - 1 - turnLeft);
        requireFit(inner == right.size(right.rank() - 2 + turnRight), left + " by " + right);
        Shape outer = broadcast(new Shape(left.sizes(0, left.rank() - 2)), new Shape(right.sizes(0, right.rank() - 2)));
        return one(Shape.of(outer.sizes(),
                new int[] {left.size(left.rank() - 2 + turnLeft), right.size(right.rank() - 1 - turnRight)}));
    }

    private List<Output> convolved() {
        Shape weight = inputs.get(1).shape();
        requireFit(shape.rank() == 4 && weight.rank() == 4 && weight.size(3) == shape.size(3),
                "weights " + weight + " on " + shape);
        weighted(weight.size(0));
        return windows(weight.size(1), weight.size(2), weight.size(0));
    }

    private List<Output> convolvedByDepth() {
        Shape weight = inputs.get(1).shape();
        requireFit(shape.rank() == 4 && weight.rank() == 4 && weight.size(0) == 1
                && weight.size(3) == (long) shape.size(3) * operator.option("depth_multiplier"),
                "weights " + weight + " on " + shape);
        weighted(weight.size(3));
        return windows(weight.size(1), weight.size(2), weight.size(3));
    }

    private List<Output> pooled() {
        requireFit(shape.rank() == 4, "shape " + shape);
        return windows(operator.option("filter_h"), operator.option("filter_w"), shape.size(3));
    }

    private List<Output> windows(int height, int width, int channels) {
        return one(new Shape(shape.size(0), window(shape.size(1), "h", height), window(shape.size(2), "w", width), channels));
    }

    /** How many places a window takes along one axis. */
    private int window(int size, String axis, int kernel) {
        long stride = operator.option("stride_" + axis);
        long span = (kernel - 1L) * Math.max(1, operator.option("dilation_" + axis)) + 1;
        requireFit(operator.option("padding") != 0 || stride <= span, "a window of " + span + " that moves by " + stride
                + " and is filled up, of which runtimes make different things");
        long covered = operator.option("padding") == 0 ? size : size - span + 1;
        long places = covered < 1 ? 0 : (covered + stride - 1) / stride;
        requireFit(places >= 1, "a window of " + span + " on " + size);
        return (int) places;
    }
}
