package org.capprune.core.tflite;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import org.capprune.core.tflite.TfliteModel.Operator;
import org.capprune.core.tflite.TfliteModel.Tensor;
import org.capprune.core.tflite.TfliteModel.Type;

/**
 * One form of an operator: which types it may read and give, from which of its inputs are stored.
 *
 * <p>Runtimes have kernels for more forms than exporters write, and crash on some of those or disagree about them. So
 * {@code operators.json} lists the forms that are written, and every other one is refused.
 *
 * @param inputs what it reads
 * @param repeated whether any number of such inputs may stand
 * @param output what it gives
 */
record OperatorForm(List<Operand> inputs, boolean repeated, Type output) {
    private static final String ANY_NUMBER = " ...";
    private static final String PER_CHANNEL = " per channel";
    private static final String STORED = "stored";
    private static final String COMPUTED = "computed";
    private static final String NONE = "none";

    /** One input; {@code type} is null where it is left out, {@code place} is empty where it may be stored or computed. */
    record Operand(Type type, String place, boolean sparse, boolean perChannel) {
        boolean fits(TfliteModel model, int index) {
            if (index < 0 || type == null) {
                return index < 0 && type == null;
            }
            Tensor tensor = model.tensors().get(index);
            int scales = scales(tensor);
            return tensor.type() == type
                    && (place.isEmpty() || place.equals(placeOf(model, tensor)))
                    && (tensor.sparsity() != null) == sparse
                    && (scales <= 1 || (perChannel && scales == channels(tensor)));
        }
    }

    /** A form as the table writes it. */
    static OperatorForm parse(String text) {
        String[] sides = text.split(" -> ");
        boolean repeated = sides[0].endsWith(ANY_NUMBER);
        List<Operand> inputs = new ArrayList<>();
        for (String operand : without(sides[0], ANY_NUMBER).split(", ")) {
            inputs.add(operand(operand));
        }
        return new OperatorForm(inputs, repeated, type(sides[1]));
    }

    boolean fits(TfliteModel model, Operator operator) {
        int count = operator.inputs().length;
        if (!repeated && inputs.size() != count) {
            return false;
        }
        for (int n = 0; n < count; n++) {
            if (!inputs.get(repeated ? 0 : n).fits(model, operator.inputs()[n])) {
                return false;
            }
        }
        return Arrays.stream(operator.outputs()).allMatch(index -> model.tensors().get(index).type() == output);
    }

    /** The form of an operator, as the table would write it. */
    static String of(TfliteModel model, Operator operator) {
        StringBuilder form = new StringBuilder();
        for (int at = 0; at < Math.min(4, operator.inputs().length); at++) {
            int index = operator.inputs()[at];
            form.append(at == 0 ? "" : ", ").append(index < 0 ? NONE : described(model, model.tensors().get(index)));
        }
        return form.append(" -> ").append(model.tensors().get(operator.outputs()[0]).type()).toString();
    }

    private static Operand operand(String text) {
        List<String> words = Arrays.asList(without(text, PER_CHANNEL).split(" "));
        String place = words.contains(STORED) ? STORED : words.contains(COMPUTED) ? COMPUTED : "";
        return new Operand(type(words.get(words.size() - 1)), place, words.contains("sparse"), text.endsWith(PER_CHANNEL));
    }

    private static Type type(String name) {
        return name.equals(NONE) ? null : Type.valueOf(name.toUpperCase(Locale.ROOT));
    }

    private static String without(String text, String end) {
        return text.endsWith(end) ? text.substring(0, text.length() - end.length()) : text;
    }

    private static String placeOf(TfliteModel model, Tensor tensor) {
        return model.isConstant(tensor) ? STORED : COMPUTED;
    }

    private static int scales(Tensor tensor) {
        return tensor.quantisation() == null ? 0 : tensor.quantisation().scales().length;
    }

    private static int channels(Tensor tensor) {
        int axis = tensor.quantisation().axis();
        return axis >= 0 && axis < tensor.shape().rank() ? tensor.shape().size(axis) : 1;
    }

    private static String described(TfliteModel model, Tensor tensor) {
        return placeOf(model, tensor) + (tensor.sparsity() == null ? " " : " sparse ") + tensor.type()
                + (scales(tensor) > 1 ? PER_CHANNEL : "");
    }
}
