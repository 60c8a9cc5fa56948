package org.capprune.core.tflite;

import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import org.capprune.core.tflite.TfliteModel.Operator;
import org.capprune.core.tflite.TfliteModel.Tensor;

/**
 * What a model file costs to run: products, memory of computed tensors, and what convolutions lay out of their inputs.
 *
 * <p>Shapes are free, so that a file of a kilobyte can ask for minutes and for gigabytes. The costs are worked out from the
 * shapes before anything runs, and limited by the size of the file; the limits stand in {@code operators.json}.
 */
final class TfliteCosts {
    private static final int CALL_WORK = 20_000; // of an operator besides its products
    private static final int LEAST_CHANNELS = 16; // that a convolution computes at a time, however few it has
    // About as long as so many products: a number in the window of a depthwise convolution or of a pool, one that is read or
    // written once, one that BROADCAST_TO writes, a row of SOFTMAX.
    private static final int DEPTHWISE_WORK = 16;
    private static final int POOL_WORK = 4;
    private static final int MOVED_WORK = 32;
    private static final int BROADCAST_WORK = 256;
    private static final int ROW_WORK = 512;

    private final TfliteModel model;
    private final Set<Integer> expanded;

    private TfliteCosts(TfliteModel model) {
        this.model = model;
        expanded = expanded();
    }

    /** Refuse a model that costs more than its size allows. */
    static void check(TfliteModel model) {
        TfliteCosts costs = new TfliteCosts(model);
        for (Operator operator : model.operators()) {
            costs.within("window_bytes", costs.windowBytes(operator), operator.title()
                    + ": the windows of a convolution need too much memory for its size");
        }
        costs.within("work", work(model), "model: it computes too much for its size");
        costs.within("live_bytes", costs.liveBytes(), "model: it needs too much memory for its size");
        long bytes = costs.expanded.stream().mapToLong(index -> model.tensors().get(index).denseBytes()).sum();
        costs.within("expanded_bytes", bytes, "model: it expands stored numbers to too many for its size");
    }

    /** The products that one run of the model adds up; {@code operators.json} says what counts as how many. */
    static long work(TfliteModel model) {
        TfliteCosts costs = new TfliteCosts(model);
        return model.operators().stream().mapToLong(operator -> CALL_WORK + costs.work(operator)).sum();
    }

    private void within(String kind, long cost, String rule) {
        long limit = OperatorRule.limit(kind, model.sizeBytes());
        if (cost > limit) {
            throw new BrokenRule(rule, null, kind + " of at most " + limit, cost);
        }
    }

    private long work(Operator operator) {
        Shape output = output(operator).shape();
        Shape second = operator.inputs().length < 2 ? null : model.tensors().get(operator.inputs()[1]).shape();
        switch (operator.rule().name()) {
            case "CONV_2D":
                return columns(output) * Shape.product(second.sizes(1, 4));
            case "FULLY_CONNECTED":
                return columns(output) * second.size(1);
            case "BATCH_MATMUL":
                Shape first = model.tensors().get(operator.inputs()[0]).shape();
                return columns(output) * first.size(first.rank() - 1 - operator.option("transpose_x"));
            case "DEPTHWISE_CONV_2D":
                return output.elements() * Shape.product(second.sizes(1, 3)) * DEPTHWISE_WORK;
            case "AVERAGE_POOL_2D", "MAX_POOL_2D":
                return output.elements() * operator.option("filter_h") * operator.option("filter_w") * POOL_WORK;
            case "BROADCAST_TO":
                return output.elements() * BROADCAST_WORK;
            case "SOFTMAX":
                return 2 * MOVED_WORK * output.elements() + ROW_WORK * (output.elements() / output.last());
            default:
                return MOVED_WORK * (read(operator) + output.elements() * operator.outputs().length);
        }
    }

    /** Numbers of an output whose last dimension is computed in pieces of 16 channels. */
    private static long columns(Shape output) {
        int channels = output.last();
        return output.elements() / channels * Math.max(LEAST_CHANNELS, channels);
    }

    private long read(Operator operator) {
        long read = 0;
        if (!operator.is("EMBEDDING_LOOKUP", "GATHER")) {
            for (int index : operator.inputs()) {
                read += index < 0 ? 0 : model.tensors().get(index).shape().elements();
            }
        }
        return read;
    }

    private long windowBytes(Operator operator) {
        if (!operator.is("CONV_2D", "DEPTHWISE_CONV_2D")) {
            return 0;
        }
        Shape weight = model.tensors().get(operator.inputs()[1]).shape();
        long channels = operator.is("CONV_2D") ? weight.size(3) : 1;
        return Shape.product(output(operator).shape().sizes(0, 3)) * Shape.product(weight.sizes(1, 3))
                * Math.max(8, 4 * channels);
    }

    /** The most bytes of computed tensors at one time: from their operator to the last that reads them. */
    private long liveBytes() {
        Map<Integer, Integer> last = new HashMap<>();
        for (Operator operator : model.operators()) {
            for (int index : operator.inputs()) {
                last.put(index, operator.index());
            }
        }
        long live = 0;
        for (int index : model.inputs()) {
            live += model.tensors().get(index).denseBytes();
        }
        for (int index : model.outputs()) {
            last.put(index, model.operators().size());
        }
        long most = live;
        Map<Integer, Long> ending = new HashMap<>();
        for (Operator operator : model.operators()) {
            for (int index : operator.outputs()) {
                if (!expanded.contains(index)) {
                    long size = model.tensors().get(index).denseBytes();
                    live += size;
                    ending.merge(last.getOrDefault(index, operator.index()), size, Long::sum);
                }
            }
            most = Math.max(most, live);
            live -= ending.getOrDefault(operator.index(), 0L);
        }
        return most;
    }

    /** Tensors that only hold stored numbers in another form, which runtimes make once and keep. */
    private Set<Integer> expanded() {
        Set<Integer> found = new HashSet<>();
        for (Operator operator : model.operators()) {
            int source = operator.inputs()[0];
            if (operator.is("DENSIFY", "DEQUANTIZE")
                    && (found.contains(source) || model.isConstant(model.tensors().get(source)))) {
                found.add(operator.outputs()[0]);
            }
        }
        return found;
    }

    private Tensor output(Operator operator) {
        return model.tensors().get(operator.outputs()[0]);
    }
}
