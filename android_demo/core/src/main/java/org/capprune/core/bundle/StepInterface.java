package org.capprune.core.bundle;

import java.util.LinkedHashMap;
import java.util.Map;
import org.capprune.core.tflite.ExpectedTensor;
import org.capprune.core.tflite.Shape;

/**
 * The interface of a decoder: which tensors {@code encode} returns, and which ones {@code step} takes and returns.
 *
 * <p>A step takes the token before, the <em>held</em> tensors, which are set once per photo, and the <em>state</em>, of which
 * every hypothesis of a search has its own. It returns a score for each token and the new state.
 *
 * @param vocabulary V, the number of scores
 * @param held set once per photo, by name; {@code encode} returns them
 * @param state one copy per hypothesis, by name
 * @param regions R where the step returns its attention over R regions of the photo; null where it has none to show
 * @param position whether the step takes the position of the word, from 0
 */
public record StepInterface(
        int vocabulary,
        Map<String, TensorSpec> held,
        Map<String, StateSpec> state,
        Integer regions,
        boolean position) {

    public static final String TOKEN = "token";
    public static final String POSITION = "position";
    public static final String SCORES = "scores";
    public static final String ATTENTION = "attention";

    /** A float32 tensor that stays the same for all words of a photo; its shape is without the leading 1 of the batch. */
    public record TensorSpec(Shape shape) {}

    /** Where the first value of a state comes from: {@code encode} returns it, or it is all zeros. */
    public enum First { ENCODE, ZEROS }

    /** Whether a step returns a whole new tensor, or one new slice along the first dimension. */
    public enum Carry { REPLACE, APPEND }

    /**
     * A float32 tensor that goes from step to step.
     *
     * @param shape what the step takes, without the leading 1 of the batch; the first size of an appended one counts words
     * @param first where its first value comes from
     * @param carry what the step returns of it
     */
    public record StateSpec(Shape shape, First first, Carry carry) {
        public boolean isAppended() {
            return carry == Carry.APPEND;
        }

        /** The shape that a step returns, without the leading 1 of the batch. */
        public Shape returned() {
            return isAppended() ? new Shape(shape.sizes(1, shape.rank())) : shape;
        }
    }

    /** What {@code encode} must return. */
    Map<String, ExpectedTensor> encodeOutputs() {
        Map<String, ExpectedTensor> outputs = new LinkedHashMap<>();
        held.forEach((name, spec) -> outputs.put(name, ExpectedTensor.row(spec.shape)));
        state.forEach((name, spec) -> {
            if (spec.first == First.ENCODE) {
                outputs.put(name, ExpectedTensor.row(spec.shape));
            }
        });
        return outputs;
    }

    /** What {@code step} must take. */
    Map<String, ExpectedTensor> stepInputs() {
        Map<String, ExpectedTensor> inputs = new LinkedHashMap<>();
        inputs.put(TOKEN, ExpectedTensor.number());
        if (position) {
            inputs.put(POSITION, ExpectedTensor.number());
        }
        state.forEach((name, spec) -> inputs.put(name, ExpectedTensor.row(spec.shape)));
        held.forEach((name, spec) -> inputs.put(name, ExpectedTensor.row(spec.shape)));
        return inputs;
    }

    /** What {@code step} must return. */
    Map<String, ExpectedTensor> stepOutputs() {
        Map<String, ExpectedTensor> outputs = new LinkedHashMap<>();
        outputs.put(SCORES, ExpectedTensor.row(vocabulary));
        state.forEach((name, spec) -> outputs.put(name, ExpectedTensor.row(spec.returned())));
        if (regions != null) {
            outputs.put(ATTENTION, ExpectedTensor.row(regions));
        }
        return outputs;
    }
}
