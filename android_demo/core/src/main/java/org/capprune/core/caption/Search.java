package org.capprune.core.caption;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.function.BooleanSupplier;
import org.capprune.core.bundle.Manifest;
import org.capprune.core.bundle.Vocabulary;

/**
 * Greedy and beam search over a decoder's step; docs/bundle_format.md, section 4.
 *
 * <p>Log-probabilities are the log-softmax, in double, of the step's scores with the suppressed tokens at minus infinity.
 * No length penalty.
 *
 * @param <S> the state of a hypothesis, which the search hands on without a look
 */
final class Search<S> {
    private final Step<S> step;
    private final Manifest.Decoding decoding;
    private final BooleanSupplier stopped;

    /** {@code stopped} is asked before every word; once true, the search ends in {@link Stopped}. */
    Search(Step<S> step, Manifest.Decoding decoding, BooleanSupplier stopped) {
        this.step = step;
        this.decoding = decoding;
        this.stopped = stopped;
    }

    /** One call of the decoder: the token before, the state of the step before, and how many tokens stand before. */
    interface Step<S> {
        Result<S> run(int token, S state, int position);
    }

    /** What one step gives: scores (V), read before the next step; the next state; attention (R), null where there is none. */
    record Result<S>(float[] scores, S state, float[] attention) {}

    /** Someone else wants the time. */
    static final class Stopped extends RuntimeException {
        private static final long serialVersionUID = 1;
    }

    /**
     * A caption in the making.
     *
     * @param tokens ids of the words, without {@code <start>} and {@code <end>}
     * @param logProbability sum over the words, and over {@code <end>} once finished
     * @param attention one (R) for every word, at the step that chose it; nulls where there is none
     * @param finished whether {@code <end>} was chosen
     * @param state what the next step starts from
     */
    record Hypothesis<S>(
            int[] tokens, double logProbability, List<float[]> attention, boolean finished, S state) {}

    /** The best word at every step, the lower id on a tie, until {@code <end>} or as many words as are allowed. */
    Hypothesis<S> greedy(S startState) {
        return beam(startState, 1);
    }

    /** The {@code width} best hypotheses at every step; finished ones stay with their sum. */
    Hypothesis<S> beam(S startState, int width) {
        Ranking ranking = new Ranking(width, decoding.suppress());
        List<Hypothesis<S>> kept = Collections.singletonList(
                new Hypothesis<>(new int[0], 0, Collections.emptyList(), false, startState));
        for (int word = 0; word < decoding.maxTokens(); word++) {
            if (kept.stream().allMatch(Hypothesis::finished)) {
                break;
            }
            if (stopped.getAsBoolean()) {
                throw new Stopped();
            }
            kept = advance(kept, ranking);
        }
        boolean anyFinished = kept.stream().anyMatch(Hypothesis::finished);
        Hypothesis<S> best = null;
        for (Hypothesis<S> hypothesis : kept) {
            boolean counts = hypothesis.finished || !anyFinished;
            if (counts && (best == null || hypothesis.logProbability > best.logProbability)) {
                best = hypothesis;
            }
        }
        return best;
    }

    /** The best of all continuations, best first. */
    private List<Hypothesis<S>> advance(List<Hypothesis<S>> hypotheses, Ranking ranking) {
        List<Result<S>> results = new ArrayList<>(hypotheses.size()); // of each hypothesis, null where it is finished
        ranking.clear();
        for (int index = 0; index < hypotheses.size(); index++) {
            Hypothesis<S> hypothesis = hypotheses.get(index);
            if (hypothesis.finished) {
                results.add(null);
                ranking.addFinished(hypothesis.logProbability, index);
                continue;
            }
            int last = hypothesis.tokens.length - 1;
            int token = last < 0 ? Vocabulary.START : hypothesis.tokens[last];
            Result<S> result = step.run(token, hypothesis.state, hypothesis.tokens.length);
            results.add(result);
            ranking.add(result.scores, hypothesis.logProbability, index, hypothesis.tokens, decoding.noRepeatNgram());
        }
        List<Hypothesis<S>> kept = new ArrayList<>(ranking.count());
        for (int place = 0; place < ranking.count(); place++) {
            Hypothesis<S> hypothesis = hypotheses.get(ranking.hypothesis(place));
            kept.add(hypothesis.finished ? hypothesis
                    : continued(hypothesis, ranking.token(place), ranking.sum(place), results.get(ranking.hypothesis(place))));
        }
        return kept;
    }

    private static <S> Hypothesis<S> continued(Hypothesis<S> hypothesis, int token, double sum, Result<S> result) {
        if (token == Vocabulary.END) {
            return new Hypothesis<>(hypothesis.tokens, sum, hypothesis.attention, true, result.state);
        }
        int[] tokens = Arrays.copyOf(hypothesis.tokens, hypothesis.tokens.length + 1);
        tokens[tokens.length - 1] = token;
        List<float[]> attention = new ArrayList<>(hypothesis.attention);
        attention.add(result.attention);
        return new Hypothesis<>(tokens, sum, attention, false, result.state);
    }
}
