package org.capprune.core.caption;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.util.Collections;
import java.util.List;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.bundle.Manifest;
import org.junit.Test;

public class SearchTest {
    private static final List<float[]> START = Collections.singletonList(new float[1]);

    private static Search<List<float[]>> search(int[] suppress, int maxTokens, float... scores) {
        return limited(suppress, maxTokens, 0, scores);
    }

    private static Search<List<float[]>> limited(int[] suppress, int maxTokens, int noRepeat, float... scores) {
        return new Search<>((token, state, position) -> new Search.Result<>(scores, state, new float[1]),
                new Manifest.Decoding(suppress, maxTokens, 1, noRepeat), () -> false);
    }

    @Test
    public void greedyTakesTheLowerIdOnATie() {
        assertArrayEquals(new int[] {4, 4}, search(new int[0], 2, 0, 0, 0, 0, 5, 5).greedy(START).tokens());
    }

    @Test
    public void suppressedTokensAreNeverSaid() {
        assertArrayEquals(new int[] {5}, search(new int[] {4}, 1, 0, 0, 0, 0, 9, 5).greedy(START).tokens());
    }

    @Test
    public void noSequenceOfTheLimitedLengthComesTwice() {
        float[] scores = {0, 0, 1, 0, 9, 5};
        assertArrayEquals(new int[] {4, 4, 4}, limited(new int[] {0, 1, 3}, 3, 0, scores).greedy(START).tokens());
        Search.Hypothesis<List<float[]>> single = limited(new int[] {0, 1, 3}, 6, 1, scores).greedy(START);
        assertArrayEquals(new int[] {4, 5}, single.tokens());
        assertTrue(single.finished());
        assertArrayEquals(new int[] {4, 4, 5, 4}, limited(new int[] {0, 1, 3}, 6, 2, scores).greedy(START).tokens());
    }

    @Test
    public void theLimitOnRepetitionYieldsWhereNoOtherTokenIsLeft() {
        float none = Float.NEGATIVE_INFINITY;
        assertArrayEquals(new int[] {4, 4}, limited(new int[] {0, 1, 3}, 2, 1, none, none, none, none, 1).greedy(START).tokens());
    }

    @Test
    public void aCaptionWithoutAnEndIsNotFinished() {
        assertFalse(search(new int[0], 3, 0, 0, 0, 0, 1).greedy(START).finished());
    }

    @Test
    public void theEndFinishesACaption() {
        Search.Hypothesis<List<float[]>> found = search(new int[0], 3, 0, 0, 9, 0, 1).greedy(START);
        assertTrue(found.finished());
        assertEquals(0, found.tokens().length);
    }

    @Test
    public void scoresThatAreNotFiniteAreAnError() {
        for (float bad : new float[] {Float.NaN, Float.POSITIVE_INFINITY}) {
            CapPruneException error = assertThrows(
                    CapPruneException.class, () -> search(new int[0], 1, 0, bad, 0, 0, 1).greedy(START));
            assertEquals(ErrorKind.BUNDLE, error.kind());
        }
    }

    @Test
    public void allSuppressedIsAnError() {
        assertThrows(CapPruneException.class, () -> search(new int[] {0, 1}, 1, 3, 4).greedy(START));
    }

    @Test
    public void scoresThatTieOnlyAsLogProbabilitiesGoToTheLowerId() {
        Ranking ranking = new Ranking(2, new int[] {0});
        float[] scores = {9, 1e-30f, 2e-30f, 0.1f, -3}; // 2e-30 is more only until the largest score is taken off
        ranking.add(scores, 0, 0, new int[0], 0);
        assertEquals(2, ranking.count());
        assertArrayEquals(new int[] {3, 1}, new int[] {ranking.token(0), ranking.token(1)});
        assertArrayEquals(new float[] {9, 1e-30f, 2e-30f, 0.1f, -3}, scores, 0);
    }

    @Test
    public void tiesGoToTheLowerHypothesis() {
        Ranking ranking = new Ranking(3, new int[0]);
        ranking.addFinished(-Math.log(2), 0);
        ranking.add(new float[] {1, 1}, 0, 1, new int[0], 0);
        assertArrayEquals(new int[] {0, 1, 1},
                new int[] {ranking.hypothesis(0), ranking.hypothesis(1), ranking.hypothesis(2)});
        assertEquals(1, ranking.token(2));
    }

    @Test
    public void aSearchThatNobodyWantsEnds() {
        Search<List<float[]>> search = new Search<>((token, state, position) -> {
            throw new AssertionError("a step was made");
        }, new Manifest.Decoding(new int[0], 5, 1, 0), () -> true);
        assertThrows(Search.Stopped.class, () -> search.greedy(START));
    }
}
