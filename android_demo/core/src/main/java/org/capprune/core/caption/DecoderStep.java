package org.capprune.core.caption;

import java.util.ArrayList;
import java.util.List;
import org.capprune.core.bundle.StepInterface;
import org.capprune.core.bundle.StepInterface.First;
import org.capprune.core.bundle.StepInterface.StateSpec;

/**
 * A decoder's {@code step} behind its interface: one word further, for one hypothesis. The only code that knows which tensors
 * are held, carried or appended.
 */
final class DecoderStep implements Search.Step<DecoderStep.State> {
    /**
     * What a hypothesis carries from word to word.
     *
     * @param replaced the tensors that every step returns anew, in the interface's order
     * @param appended the slices of its last word, which know those before; null before the first word, or where none are
     */
    record State(float[][] replaced, Slices appended) {}

    /**
     * The slices that one word added to the appended tensors. Hypotheses share the slices of the words that they have in
     * common.
     *
     * @param before those of the word before; null for the first word
     * @param position of the word, from 0
     * @param arrays one slice of each appended tensor, in the interface's order
     */
    record Slices(Slices before, int position, float[][] arrays) {}

    /** A tensor with the number of floats that a step returns for it. */
    private record Part(String name, int size, StateSpec spec) {}

    private final Interpreter decoder;
    private final StepInterface step;
    private final List<Part> replaced = new ArrayList<>();
    private final List<Part> appended = new ArrayList<>();
    private final float[] scores; // of the last call
    private final Slices[] written; // by position, the slices that lie in the decoder's inputs now
    private int valid; // how many of them one hypothesis has

    /** {@code maxTokens} is the longest caption, in tokens. */
    DecoderStep(Interpreter decoder, StepInterface step, int maxTokens) {
        this.decoder = decoder;
        this.step = step;
        scores = new float[step.vocabulary()];
        written = new Slices[maxTokens];
        step.state().forEach((name, spec) -> (spec.isAppended() ? appended : replaced).add(
                new Part(name, (int) spec.returned().elements(), spec)));
        for (Part part : appended) {
            decoder.set(part.name, new float[(int) part.spec.shape().elements()]);
        }
    }

    /** Set what stays the same for all words of a photo; the state before the first word. */
    State lookAt(Interpreter encoder) {
        step.held().forEach((name, spec) -> {
            float[] values = new float[(int) spec.shape().elements()];
            encoder.get(name, values);
            decoder.set(name, values);
        });
        float[][] first = new float[replaced.size()][];
        for (int n = 0; n < first.length; n++) {
            Part part = replaced.get(n);
            first[n] = new float[part.size]; // zeros
            if (part.spec.first() == First.ENCODE) {
                encoder.get(part.name, first[n]);
            }
        }
        return new State(first, null);
    }

    /** Run the step once, on the photo that was looked at last; the scores hold until the next call. */
    @Override
    public Search.Result<State> run(int token, State state, int position) {
        write(state.appended);
        decoder.set(StepInterface.TOKEN, token);
        if (step.position()) {
            decoder.set(StepInterface.POSITION, position);
        }
        for (int n = 0; n < state.replaced.length; n++) {
            decoder.set(replaced.get(n).name, state.replaced[n]);
        }
        decoder.run();
        decoder.get(StepInterface.SCORES, scores);
        Slices slices = appended.isEmpty() ? null : new Slices(state.appended, position, returned(appended));
        State next = new State(returned(replaced), slices);
        float[] attention = null;
        if (step.regions() != null) {
            attention = new float[step.regions()];
            decoder.get(StepInterface.ATTENTION, attention);
        }
        return new Search.Result<>(scores, next, attention);
    }

    private float[][] returned(List<Part> parts) {
        float[][] values = new float[parts.size()][];
        for (int n = 0; n < values.length; n++) {
            values[n] = new float[parts.get(n).size];
            decoder.get(parts.get(n).name, values[n]);
        }
        return values;
    }

    /** Bring the decoder's inputs to the words of a hypothesis; what they have in common with the last one stays. */
    private void write(Slices slices) {
        if (slices == null || (slices.position < valid && written[slices.position] == slices)) {
            return;
        }
        write(slices.before);
        for (int n = 0; n < slices.arrays.length; n++) {
            decoder.write(appended.get(n).name, slices.position * slices.arrays[n].length, slices.arrays[n]);
        }
        written[slices.position] = slices;
        valid = slices.position + 1;
    }
}
