package org.capprune.core.caption;

import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.bundle.Vocabulary;

/**
 * The best continuations of all hypotheses, best first, in arrays that serve every word of a search. Ties go to the lower
 * hypothesis, then to the lower token id. Only a token that may be among them gets its log-probability.
 */
final class Ranking {
    private final double[] sums;
    private final int[] hypotheses;
    private final int[] tokens;
    private final int[] suppress;
    private boolean[] suppressed = new boolean[0];
    private boolean[] repeated = new boolean[0];
    private int count;

    /** Keeps {@code width} continuations; the tokens in {@code suppress} are never among them. */
    Ranking(int width, int[] suppress) {
        sums = new double[width];
        hypotheses = new int[width];
        tokens = new int[width];
        this.suppress = suppress;
    }

    void clear() {
        count = 0;
    }

    int count() {
        return count;
    }

    /** The summed log-probability of the continuation in this place. */
    double sum(int place) {
        return sums[place];
    }

    int hypothesis(int place) {
        return hypotheses[place];
    }

    int token(int place) {
        return tokens[place];
    }

    /** A finished hypothesis goes on as itself. */
    void addFinished(double sum, int hypothesis) {
        if (mayEnter(sum)) {
            enter(sum, hypothesis, Vocabulary.END);
        }
    }

    /**
     * All next words of a hypothesis; hypotheses are added in their order. {@code scores} are left as they are. Tokens that
     * would repeat a sequence of {@code length} tokens are skipped, unless no other token is left; 0 for no such limit.
     */
    void add(float[] scores, double before, int hypothesis, int[] spoken, int length) {
        if (suppressed.length != scores.length) {
            suppressed = new boolean[scores.length];
            repeated = new boolean[scores.length];
            for (int id : suppress) {
                suppressed[id] = true;
            }
        }
        double largest = largest(scores);
        double logSum = Math.log(sumOfExponentials(scores, largest));
        // A sum rises with its score. Below this one, which has been compared, no other needs to be.
        float tooLow = Float.NEGATIVE_INFINITY;
        boolean limited = markRepeated(spoken, length, true) && anyLeft(scores);
        for (int token = 0; token < scores.length; token++) {
            float score = scores[token];
            if (score <= tooLow || suppressed[token] || limited && repeated[token]) {
                continue;
            }
            double sum = score - largest - logSum + before;
            if (mayEnter(sum)) {
                enter(sum, hypothesis, token);
            } else {
                tooLow = score;
            }
        }
        markRepeated(spoken, length, false);
    }

    /** Sets the mark of every token that would complete a sequence that was spoken; whether there is one. */
    private boolean markRepeated(int[] spoken, int length, boolean mark) {
        boolean any = false;
        int last = spoken.length - length + 1;
        for (int start = 0; length > 0 && start + length <= spoken.length; start++) {
            if (isRepeated(spoken, start, last)) {
                repeated[spoken[start + length - 1]] = mark;
                any = true;
            }
        }
        return any;
    }

    /** Whether the tokens from {@code last} to the end stand at {@code start} too. */
    private static boolean isRepeated(int[] spoken, int start, int last) {
        for (int place = last; place < spoken.length; place++) {
            if (spoken[start + place - last] != spoken[place]) {
                return false;
            }
        }
        return true;
    }

    private boolean anyLeft(float[] scores) {
        for (int token = 0; token < scores.length; token++) {
            if (!suppressed[token] && !repeated[token] && scores[token] != Float.NEGATIVE_INFINITY) {
                return true;
            }
        }
        return false;
    }

    private boolean mayEnter(double sum) {
        return sum != Double.NEGATIVE_INFINITY && (count < sums.length || sum > sums[count - 1]);
    }

    private void enter(double sum, int hypothesis, int token) {
        int place = count < sums.length ? count++ : count - 1;
        while (place > 0 && sums[place - 1] < sum) {
            sums[place] = sums[place - 1];
            hypotheses[place] = hypotheses[place - 1];
            tokens[place] = tokens[place - 1];
            place--;
        }
        sums[place] = sum;
        hypotheses[place] = hypothesis;
        tokens[place] = token;
    }

    private double largest(float[] scores) {
        double largest = Double.NEGATIVE_INFINITY;
        for (int token = 0; token < scores.length; token++) {
            if (!suppressed[token]) {
                largest = Math.max(largest, scores[token]); // NaN if one of them is
            }
        }
        if (Double.isNaN(largest) || Double.isInfinite(largest)) {
            throw new CapPruneException(ErrorKind.BUNDLE, "the decoder gave scores that are not finite numbers")
                    .found(largest);
        }
        return largest;
    }

    private double sumOfExponentials(float[] scores, double largest) {
        double sum = 0;
        for (int token = 0; token < scores.length; token++) {
            if (!suppressed[token]) {
                sum += Math.exp(scores[token] - largest);
            }
        }
        return sum;
    }
}
