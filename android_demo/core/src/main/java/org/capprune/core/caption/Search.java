package org.capprune.core.caption;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;
import java.util.function.BooleanSupplier;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
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

    /** A next word for a hypothesis, with the sum that it would have. */
    private record Candidate(double sum, int hypothesis, int token) {}

    // Best first; ties go to the lower hypothesis, then to the lower token id.
    private static final Comparator<Candidate> BEST_FIRST = Comparator
            .comparingDouble((Candidate candidate) -> -candidate.sum)
            .thenComparingInt(Candidate::hypothesis)
            .thenComparingInt(Candidate::token);

    /** The best word at every step, the lower id on a tie, until {@code <end>} or as many words as are allowed. */
    Hypothesis<S> greedy(S startState) {
        return beam(startState, 1);
    }

    /** The {@code width} best hypotheses at every step; finished ones stay with their sum. */
    Hypothesis<S> beam(S startState, int width) {
        List<Hypothesis<S>> kept = Collections.singletonList(
                new Hypothesis<>(new int[0], 0, Collections.emptyList(), false, startState));
        for (int word = 0; word < decoding.maxTokens(); word++) {
            if (kept.stream().allMatch(Hypothesis::finished)) {
                break;
            }
            if (stopped.getAsBoolean()) {
                throw new Stopped();
            }
            kept = advance(kept, width);
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
    private List<Hypothesis<S>> advance(List<Hypothesis<S>> hypotheses, int width) {
        List<Candidate> candidates = new ArrayList<>();
        List<Result<S>> results = new ArrayList<>(); // of each hypothesis, null where it is finished
        double[][] logProbabilities = new double[hypotheses.size()][];
        for (int index = 0; index < hypotheses.size(); index++) {
            Hypothesis<S> hypothesis = hypotheses.get(index);
            if (hypothesis.finished) {
                results.add(null);
                candidates.add(new Candidate(hypothesis.logProbability, index, Vocabulary.END));
                continue;
            }
            int last = hypothesis.tokens.length - 1;
            int token = last < 0 ? Vocabulary.START : hypothesis.tokens[last];
            Result<S> result = step.run(token, hypothesis.state, hypothesis.tokens.length);
            results.add(result);
            logProbabilities[index] = logSoftmax(result.scores, decoding.suppress());
            candidates.addAll(best(logProbabilities[index], hypothesis.logProbability, index, width));
        }
        candidates.sort(BEST_FIRST);
        List<Hypothesis<S>> kept = new ArrayList<>();
        for (Candidate candidate : candidates.subList(0, Math.min(width, candidates.size()))) {
            Hypothesis<S> hypothesis = hypotheses.get(candidate.hypothesis);
            kept.add(hypothesis.finished ? hypothesis
                    : continued(hypothesis, candidate, results.get(candidate.hypothesis)));
        }
        return kept;
    }

    /** The {@code width} best next words of one hypothesis; none that is never said. */
    private static List<Candidate> best(double[] logProbabilities, double before, int hypothesis, int width) {
        List<Candidate> best = new ArrayList<>(); // best first
        for (int token = 0; token < logProbabilities.length; token++) {
            double sum = logProbabilities[token] + before;
            if (sum == Double.NEGATIVE_INFINITY || (best.size() == width && sum <= best.get(width - 1).sum)) {
                continue;
            }
            int place = best.size();
            while (place > 0 && best.get(place - 1).sum < sum) {
                place--;
            }
            best.add(place, new Candidate(sum, hypothesis, token));
            if (best.size() > width) {
                best.remove(width);
            }
        }
        return best;
    }

    private static <S> Hypothesis<S> continued(Hypothesis<S> hypothesis, Candidate candidate, Result<S> result) {
        if (candidate.token == Vocabulary.END) {
            return new Hypothesis<>(hypothesis.tokens, candidate.sum, hypothesis.attention, true, result.state);
        }
        int[] tokens = Arrays.copyOf(hypothesis.tokens, hypothesis.tokens.length + 1);
        tokens[tokens.length - 1] = candidate.token;
        List<float[]> attention = new ArrayList<>(hypothesis.attention);
        attention.add(result.attention);
        return new Hypothesis<>(tokens, candidate.sum, attention, false, result.state);
    }

    static double[] logSoftmax(float[] scores, int[] suppress) {
        double[] values = new double[scores.length];
        for (int n = 0; n < values.length; n++) {
            values[n] = scores[n];
        }
        for (int id : suppress) {
            values[id] = Double.NEGATIVE_INFINITY;
        }
        double largest = Double.NEGATIVE_INFINITY;
        for (double value : values) {
            largest = Math.max(largest, value); // NaN if one of them is
        }
        if (Double.isNaN(largest) || Double.isInfinite(largest)) {
            throw new CapPruneException(ErrorKind.BUNDLE, "the decoder gave scores that are not finite numbers")
                    .found(largest);
        }
        double sum = 0;
        for (double value : values) {
            sum += Math.exp(value - largest);
        }
        double logSum = Math.log(sum);
        for (int n = 0; n < values.length; n++) {
            values[n] = values[n] - largest - logSum;
        }
        return values;
    }
}
