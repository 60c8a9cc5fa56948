package org.capprune.core;

import static org.capprune.core.Flatbuffer.Scalar.BOOL;
import static org.capprune.core.Flatbuffer.Scalar.I32;
import static org.capprune.core.Flatbuffer.Scalar.I8;

import org.capprune.core.Flatbuffer.Scalar;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * One operator that a captioning model may use, and what it may be given: what is not here is refused.
 *
 * @param name the schema's name
 * @param code the schema's number
 * @param leastInputs how many inputs at least
 * @param mostInputs how many at most
 * @param outputs how many outputs; 0 for as many as an option says
 * @param constants inputs that decide shapes, so that they must be stored in the file
 * @param mayOmit the input that may be -1; -1 for none
 * @param optionsType the schema's number of the options; 0 when there are none
 * @param needsOptions whether the kernels divide by or index with an option
 * @param options the fields of the options, in the order of the schema
 */
record OperatorRule(
        String name,
        int code,
        int leastInputs,
        int mostInputs,
        int outputs,
        List<Integer> constants,
        int mayOmit,
        int optionsType,
        boolean needsOptions,
        List<Option> options) {

    /** One option: how it is stored, the range that is accepted, and the schema's default. */
    record Option(String name, Form form, Scalar scalar, long low, long high, long absent) {}

    /** How an option is stored. */
    enum Form { WHOLE, REAL, VECTOR }

    private static final int MANY = 256;
    private static final int NONE = -1;

    // none, RELU, RELU_N1_TO_1, RELU6; kernels leave a fused TANH out
    private static final Option ACTIVATION = whole("activation", I8, 0, 3, 0);
    // where kernels leave any out, without a word
    private static final Option NO_ACTIVATION = whole("activation", I8, 0, 0, 0);
    private static final Option POT_SCALE = flag("pot_scale_int16", 1);
    private static final Option AXIS = whole("axis", I32, -5, 4, 0);
    private static final Option BIAS_TYPE = whole("bias_type", I8, 0, 127, 0);
    private static final Option KEEP = flag("keep_dimensions", 0);
    private static final Option OUTPUTS = whole("outputs", I32, 1, MANY, 0);
    private static final Option[] WINDOW = {
        whole("padding", I8, 0, 1, 0), stride("stride_w", 0), stride("stride_h", 0),
    };
    private static final Option[] DILATION = {stride("dilation_w", 1), stride("dilation_h", 1)};

    private static final Map<Integer, OperatorRule> BY_CODE = new LinkedHashMap<>();

    static {
        add("ADD", 0, 2, 2).with(11, ACTIVATION, POT_SCALE);
        add("AVERAGE_POOL_2D", 1, 1, 1)
                .needs(5, join(WINDOW, stride("filter_w", 0), stride("filter_h", 0), ACTIVATION));
        add("BATCH_MATMUL", 126, 2, 2)
                .with(101, flag("transpose_x", 0), flag("transpose_y", 0), flag("asymmetric_inputs", 0));
        add("BROADCAST_TO", 130, 2, 2).constant(1).with(104);
        add("CAST", 53, 1, 1).with(37, whole("in_type", I8, 0, 127, 0), whole("out_type", I8, 0, 127, 0));
        add("CONCATENATION", 2, 1, MANY).needs(10, AXIS, NO_ACTIVATION);
        add("CONV_2D", 3, 2, 3).needs(1, join(join(join(WINDOW, ACTIVATION), DILATION), BIAS_TYPE));
        add("DENSIFY", 124, 1, 1).with(99);
        add("DEPTHWISE_CONV_2D", 4, 2, 3)
                .needs(2, join(join(WINDOW, stride("depth_multiplier", 0), ACTIVATION), DILATION));
        add("DEQUANTIZE", 6, 1, 1).with(38);
        add("DIV", 42, 2, 2).with(29, ACTIVATION);
        add("EMBEDDING_LOOKUP", 7, 2, 2).with(0);
        add("EXPAND_DIMS", 70, 2, 2).constant(1).with(52);
        add("FULLY_CONNECTED", 9, 2, 3).omit(2).needs(8,
                ACTIVATION,
                whole("weights_format", I8, 0, 0, 0), // 1 is a shuffled layout that only some kernels know
                KEEP,
                flag("asymmetric_inputs", 0),
                BIAS_TYPE);
        add("GATHER", 36, 2, 2).with(23, AXIS, whole("batch_dimensions", I32, 0, 0, 0));
        add("LOGISTIC", 14, 1, 1).with(0);
        add("MAXIMUM", 55, 2, 2).with(39);
        add("MEAN", 40, 2, 2).constant(1).with(27, KEEP);
        add("MINIMUM", 57, 2, 2).with(39);
        add("MUL", 18, 2, 2).with(21, ACTIVATION);
        add("PACK", 83, 1, MANY).needs(59, whole("values", I32, 1, MANY, 0), AXIS);
        add("PAD", 34, 2, 2).constant(1).with(22);
        add("QUANTIZE", 114, 1, 1).with(89);
        add("RELU", 19, 1, 1).with(0);
        add("RELU6", 21, 1, 1).with(0);
        // an old copy of the second input, which is what counts
        add("RESHAPE", 22, 2, 2).constant(1).with(17, new Option("new_shape", Form.VECTOR, I32, 0, 0, 0));
        add("SLICE", 65, 3, 3).constant(1, 2).with(48);
        add("SOFTMAX", 25, 1, 1).needs(9, new Option("beta", Form.REAL, I32, 1, 1, 0));
        add("SPLIT", 49, 2, 2).constant(0).asManyOutputsAsTold().needs(35, OUTPUTS);
        add("STRIDED_SLICE", 45, 4, 4).constant(1, 2, 3).needs(32,
                mask("begin_mask", 15),
                mask("end_mask", 15),
                mask("ellipsis_mask", 0),
                mask("new_axis_mask", 0),
                mask("shrink_axis_mask", 15),
                whole("offset", BOOL, 0, 0, 0));
        add("SUB", 41, 2, 2).with(28, ACTIVATION, POT_SCALE);
        add("SUM", 74, 2, 2).constant(1).with(27, KEEP);
        add("TANH", 28, 1, 1).with(0);
        add("TRANSPOSE", 39, 2, 2).constant(1).with(26);
        add("UNPACK", 88, 1, 1).asManyOutputsAsTold().needs(64, OUTPUTS, AXIS);
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

    private static Option whole(String name, Scalar scalar, long low, long high, long absent) {
        return new Option(name, Form.WHOLE, scalar, low, high, absent);
    }

    private static Option flag(String name, long absent) {
        return whole(name, BOOL, 0, 1, absent);
    }

    private static Option stride(String name, long absent) {
        return whole(name, I32, 1, 4096, absent);
    }

    private static Option mask(String name, long high) {
        return whole(name, I32, 0, high, 0);
    }

    private static Option[] join(Option[] first, Option... rest) {
        Option[] joined = java.util.Arrays.copyOf(first, first.length + rest.length);
        System.arraycopy(rest, 0, joined, first.length, rest.length);
        return joined;
    }

    private static Draft add(String name, int code, int leastInputs, int mostInputs) {
        return new Draft(name, code, leastInputs, mostInputs);
    }

    /** A rule in the making. */
    private static final class Draft {
        private final String name;
        private final int code;
        private final int leastInputs;
        private final int mostInputs;
        private final List<Integer> constants = new java.util.ArrayList<>();
        private int outputs = 1;
        private int mayOmit = NONE;

        Draft(String name, int code, int leastInputs, int mostInputs) {
            this.name = name;
            this.code = code;
            this.leastInputs = leastInputs;
            this.mostInputs = mostInputs;
        }

        Draft constant(Integer... positions) {
            constants.addAll(java.util.Arrays.asList(positions));
            return this;
        }

        Draft omit(int position) {
            mayOmit = position;
            return this;
        }

        Draft asManyOutputsAsTold() {
            outputs = 0;
            return this;
        }

        void with(int optionsType, Option... options) {
            finish(optionsType, false, options);
        }

        void needs(int optionsType, Option... options) {
            finish(optionsType, true, options);
        }

        private void finish(int optionsType, boolean needed, Option[] options) {
            BY_CODE.put(code, new OperatorRule(name, code, leastInputs, mostInputs, outputs, constants, mayOmit,
                    optionsType, needed, java.util.Arrays.asList(options)));
        }
    }
}
