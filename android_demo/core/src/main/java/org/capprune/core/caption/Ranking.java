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

    /** All next words of a hypothesis; hypotheses are added in their order. {@code scores} are left as they are. */
    void add(float[] scores, double before, int hypothesis) {
        if (suppressed.length != scores.length) {
            suppressed = new boolean[scores.length];
            for (int id : suppress) {
                suppressed[id] = true;
            }
        }
        double largest = largest(scores);
        double logSum = Math.log(sumOfExponentials(scores, largest));
        // A sum rises with its score. Below this one, which has been compared, no other needs to be.
        float tooLow = Float.NEGATIVE_INFINITY;
        for (int token = 0; token < scores.length; token++) {
            float score = scores[token];
            if (score <= tooLow || suppressed[token]) {
                continue;
            }
            double sum = score - largest - logSum + before;
            if (mayEnter(sum)) {
                enter(sum, hypothesis, token);
            } else {
                tooLow = score;
            }
        }
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
