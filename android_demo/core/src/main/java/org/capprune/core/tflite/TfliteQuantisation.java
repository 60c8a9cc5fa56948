package org.capprune.core.tflite;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.capprune.core.tflite.TfliteModel.Operator;
import org.capprune.core.tflite.TfliteModel.Quantisation;
import org.capprune.core.tflite.TfliteModel.Tensor;
import org.capprune.core.tflite.TfliteModel.Type;

/**
 * Quantised tensors that every stock runtime computes alike, and as the file says.
 *
 * <p>Kernels trust the scales of a file more than they should: some end the process over a ratio of scales that they
 * cannot hold, some add a bias with the scale they think it has, and some only copy numbers where the file claims
 * another scale.
 */
final class TfliteQuantisation {
    private static final float LARGEST_SCALE = 0x1p64f;
    // Ratios of scales that kernels turn into multipliers in fixed point.
    private static final double LEAST_RATIO = 0x1p-20;
    private static final double MOST_RATIO = 0x1p7;
    private static final long MOST_SUM = Integer.MAX_VALUE;
    private static final int MOST_INPUT = 255;
    private static final double BIAS_TOLERANCE = 1e-5; // of a scale, which is a product of two, rounded

    private static final String[] WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"};
    // What only moves numbers, or picks among them, does not convert them.
    private static final String[] MOVES = {
        "AVERAGE_POOL_2D", "BROADCAST_TO", "CONCATENATION", "DENSIFY", "EXPAND_DIMS", "GATHER", "MAXIMUM",
        "MAX_POOL_2D", "MINIMUM", "PACK", "PAD", "RESHAPE", "SLICE", "SPLIT", "STRIDED_SLICE", "TRANSPOSE", "UNPACK",
    };
    private static final String[] FIXED_OUTPUT = {"LOGISTIC", "SOFTMAX", "TANH"};
    private static final String[] ARITHMETIC = {"ADD", "MEAN", "MUL", "QUANTIZE", "RELU", "RELU6", "SUB", "SUM"};

    private TfliteQuantisation() {}

    /** The scales and zero points of one tensor. */
    static void checkTensor(Tensor tensor) {
        Quantisation quantisation = tensor.quantisation();
        if (quantisation == null) {
            if (tensor.isInt8()) {
                throw new BrokenRule("quantisation: int8 numbers must have a scale", tensor);
            }
            return;
        }
        if (!tensor.isInt8() && tensor.type() != Type.INT32) {
            throw new BrokenRule("quantisation: this type cannot be quantised", tensor, "int8, int32", tensor.type());
        }
        int scales = quantisation.scales().length;
        int axis = quantisation.axis();
        Shape shape = tensor.shape();
        if (scales > 1 && !(axis >= 0 && axis < shape.rank() && shape.size(axis) == scales)) {
            throw new BrokenRule("quantisation: the scales do not fit the shape", tensor, shape,
                    scales + " on axis " + axis);
        }
        for (float scale : quantisation.scales()) {
            if (!(scale >= Float.MIN_NORMAL && scale <= Float.MAX_VALUE)) {
                throw new BrokenRule("quantisation: a scale is not a positive number", tensor, null, scale);
            }
            if (scale > LARGEST_SCALE) {
                throw new BrokenRule("quantisation: a scale is too large", tensor, "at most " + LARGEST_SCALE, scale);
            }
        }
        int low = tensor.isInt8() ? Byte.MIN_VALUE : 0;
        int high = tensor.isInt8() ? Byte.MAX_VALUE : 0;
        if (!Arrays.stream(quantisation.zeroPoints()).allMatch(point -> point >= low && point <= high)) {
            throw new BrokenRule("quantisation: a zero point is out of range", tensor, low + " to " + high, null);
        }
    }

    /** How an operator's tensors, which have passed {@link #checkTensor} and fit one another, are quantised. */
    static void checkOperator(TfliteModel model, Operator operator) {
        List<Tensor> inputs = new ArrayList<>();
        for (int index : operator.inputs()) {
            if (index >= 0) {
                inputs.add(model.tensors().get(index));
            }
        }
        List<Tensor> all = new ArrayList<>(inputs);
        for (int index : operator.outputs()) {
            all.add(model.tensors().get(index));
        }
        Tensor output = all.get(inputs.size());
        if (operator.is(WEIGHTED) || operator.is("EMBEDDING_LOOKUP")) {
            checkWeight(model, operator, inputs.get(0), inputs.get(1));
        }
        checkWholeNumbers(operator, all);
        List<Tensor> quantised = new ArrayList<>(all);
        quantised.removeIf(tensor -> !tensor.isInt8());
        if (quantised.isEmpty()) {
            return;
        }
        if (operator.is(MOVES)) {
            checkMoved(operator, quantised);
        } else if (operator.is(FIXED_OUTPUT)) {
            checkFixedOutput(operator, output);
        } else if (operator.is(ARITHMETIC) || (operator.is(WEIGHTED) && inputs.get(0).isInt8())) {
            checkRatios(operator, inputs, output);
        } else if (!operator.is(WEIGHTED) && !operator.is("DEQUANTIZE", "EMBEDDING_LOOKUP")) {
            throw new BrokenRule("quantisation: " + operator.rule().name() + " has no right kernel for int8",
                    quantised.get(0));
        }
    }

    /** Quantised weights: symmetric, and not in a form that some stock runtime computes wrongly. */
    private static void checkWeight(TfliteModel model, Operator operator, Tensor source, Tensor weight) {
        if (!weight.isInt8()) {
            return;
        }
        String name = operator.rule().name();
        Quantisation quantisation = weight.quantisation();
        if (quantisation.hasZeroPoint()) {
            throw new BrokenRule("quantisation: int8 weights must have scales and zero points of 0", weight);
        }
        boolean weighted = operator.is(WEIGHTED);
        if (weighted && !model.isConstant(weight)) {
            throw new BrokenRule("quantisation: int8 weights of " + name + " must be stored", weight);
        }
        if (model.once(() -> holdsLowest(model.stored(weight)), "-128", weight.buffer())) {
            throw new BrokenRule("quantisation: int8 weights must not hold -128", weight, "-127 to 127", null);
        }
        int scales = quantisation.scales().length;
        if (operator.is("FULLY_CONNECTED", "EMBEDDING_LOOKUP") && scales > 1 && !source.isInt8()) {
            throw new BrokenRule("quantisation: int8 weights of " + name + " with a scale a row and " + source.type()
                    + " inputs, which tflite-runtime 2.14 computes wrongly without a word", weight,
                    "one scale for the tensor", scales + " scales");
        }
        if (weighted && scales > 1 && quantisation.axis() != channelAxis(operator)) {
            throw new BrokenRule("quantisation: the scales of a weight are not those of its channels", weight,
                    "axis " + channelAxis(operator), "axis " + quantisation.axis());
        }
        if (weighted && source.isInt8() && operator.inputs().length > 2 && operator.inputs()[2] >= 0) {
            checkBias(model, operator, source, weight);
        }
    }

    private static boolean holdsLowest(StoredBytes stored) {
        for (int n = 0; n < stored.length(); n++) {
            if (stored.int8(n) == Byte.MIN_VALUE) {
                return true;
            }
        }
        return false;
    }

    /** The sum of the sizes of each channel's weights. */
    private static long[] channelSums(StoredBytes weights, Shape shape, int axis) {
        int channels = shape.size(axis);
        long inner = Shape.product(shape.sizes(axis + 1, shape.rank()));
        long[] sums = new long[channels];
        for (int n = 0; n < weights.length(); n++) {
            sums[(int) (n / inner % channels)] += Math.abs(weights.int8(n));
        }
        return sums;
    }

    private static int channelAxis(Operator operator) {
        return operator.is("DEPTHWISE_CONV_2D") ? 3 : 0;
    }

    /** An int32 bias is added to sums in int32: it has their scale, and the sums stay in range. */
    private static void checkBias(TfliteModel model, Operator operator, Tensor source, Tensor weight) {
        Tensor bias = model.tensors().get(operator.inputs()[2]);
        if (bias.quantisation() == null || !model.isConstant(bias)) {
            throw new BrokenRule("quantisation: an int32 bias must be stored and have scales", bias);
        }
        float[] scales = bias.quantisation().scales();
        double[] products = products(source, weight);
        boolean same = scales.length == products.length;
        for (int n = 0; same && n < scales.length; n++) {
            same = Math.abs(scales[n] - products[n]) <= BIAS_TOLERANCE * products[n];
        }
        if (!same) {
            throw new BrokenRule("quantisation: a bias has not the scales of input times weight", bias);
        }
        Shape shape = weight.shape();
        int axis = channelAxis(operator);
        long[] sums = model.once(
                () -> channelSums(model.stored(weight), shape, axis), "sums", weight.buffer(), shape, axis);
        StoredBytes added = model.stored(bias);
        for (int channel = 0; channel < sums.length; channel++) {
            if (sums[channel] * MOST_INPUT + Math.abs((long) added.int32(channel)) > MOST_SUM) {
                throw new BrokenRule("quantisation: a bias lets the sums of int8 products overflow", bias);
            }
        }
    }

    /** The scales of input times weight, one or one for each channel. */
    private static double[] products(Tensor source, Tensor weight) {
        double[] left = doubles(source);
        double[] right = doubles(weight);
        double[] products = new double[Math.max(left.length, right.length)];
        Arrays.setAll(products, n -> left[left.length == 1 ? 0 : n] * right[right.length == 1 ? 0 : n]);
        return products;
    }

    private static double[] doubles(Tensor tensor) {
        float[] scales = tensor.quantisation().scales();
        double[] doubles = new double[scales.length];
        Arrays.setAll(doubles, n -> scales[n]);
        return doubles;
    }

    /** Only a bias may be int32 with a scale. */
    private static void checkWholeNumbers(Operator operator, List<Tensor> all) {
        Tensor bias = operator.is(WEIGHTED) && operator.inputs().length > 2 && operator.inputs()[2] >= 0 ? all.get(2) : null;
        for (Tensor tensor : all) {
            if (tensor.type() == Type.INT32 && tensor.quantisation() != null && tensor != bias) {
                throw new BrokenRule("quantisation: int32 numbers have scales only where they are a bias", tensor);
            }
        }
    }

    private static void checkMoved(Operator operator, List<Tensor> quantised) {
        Quantisation first = quantised.get(0).quantisation();
        for (Tensor tensor : quantised.subList(1, quantised.size())) {
            Quantisation other = tensor.quantisation();
            if (first.scales().length != 1 || other.scales().length != 1 || first.scales()[0] != other.scales()[0]
                    || first.zeroPoints()[0] != other.zeroPoints()[0]) {
                throw new BrokenRule("quantisation: " + operator.rule().name()
                        + " does not convert, and its tensors have several scales", tensor);
            }
        }
    }

    /** What kernels give, whatever the file says. */
    private static void checkFixedOutput(Operator operator, Tensor output) {
        float scale = operator.is("TANH") ? 1 / 128f : 1 / 256f;
        int zeroPoint = operator.is("TANH") ? 0 : -128;
        Quantisation found = output.quantisation();
        if (found.scales()[0] != scale || found.zeroPoints()[0] != zeroPoint) {
            throw new BrokenRule("quantisation: " + operator.rule().name() + " gives int8 of one scale only", output,
                    scale + ", zero point " + zeroPoint, found.scales()[0] + ", zero point " + found.zeroPoints()[0]);
        }
    }

    /** Kernels hold the ratios of scales in fixed point; far from 1 they stop the process or lose the number. */
    private static void checkRatios(Operator operator, List<Tensor> inputs, Tensor output) {
        List<Tensor> quantised = new ArrayList<>(inputs);
        quantised.removeIf(tensor -> !tensor.isInt8());
        if (!output.isInt8() || quantised.isEmpty()) {
            return;
        }
        double out = output.quantisation().scales()[0];
        List<double[]> scales = new ArrayList<>();
        if (operator.is("MUL") || operator.is(WEIGHTED)) {
            scales.add(products(quantised.get(0), quantised.get(1)));
        } else {
            quantised.forEach(tensor -> scales.add(doubles(tensor)));
        }
        for (double[] factors : scales) {
            for (double factor : factors) {
                double ratio = factor / out;
                if (!(ratio >= LEAST_RATIO && ratio <= MOST_RATIO)) {
                    throw new BrokenRule("quantisation: " + operator.rule().name()
                            + " between scales that are too far apart", output,
                            "a ratio of " + LEAST_RATIO + " to " + MOST_RATIO, ratio);
                }
            }
        }
    }
}
