package org.capprune.core.caption;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertTrue;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.capprune.core.bundle.StepInterface;
import org.capprune.core.bundle.StepInterface.Carry;
import org.capprune.core.bundle.StepInterface.First;
import org.capprune.core.bundle.StepInterface.StateSpec;
import org.capprune.core.tflite.Shape;
import org.junit.Test;

public class DecoderStepTest {
    private static final int MOST_TOKENS = 6;
    private static final int WIDTH = 3;
    private static final int STEPS = 3000;

    /** A state of the step and the slices that must lie in the cache when it is the next to be continued. */
    private record Path(DecoderStep.State state, List<Float> slices) {}

    @Test
    public void theCacheHoldsTheWordsOfTheHypothesisAndOnlyWhatDiffersIsWritten() {
        Recorder decoder = new Recorder();
        DecoderStep step = new DecoderStep(decoder, cached(), MOST_TOKENS);
        Random random = new Random(4);
        Path start = new Path(step.lookAt(decoder), Collections.emptyList());
        List<Path> paths = new ArrayList<>(Collections.singletonList(start));
        List<Float> last = new ArrayList<>();
        int written = 0;
        for (int n = 0; n < STEPS; n++) {
            Path path = paths.get(random.nextInt(paths.size()));
            int position = path.slices.size();
            decoder.writes = 0;
            DecoderStep.State next = step.run(7, path.state, position).state();
            assertEquals(path.slices, decoder.cache.subList(0, position));
            assertEquals(position - common(path.slices, last), decoder.writes);
            last = position > common(path.slices, last) ? path.slices : last;
            written += decoder.writes;
            List<Float> slices = new ArrayList<>(path.slices);
            slices.add(decoder.returned);
            if (slices.size() < MOST_TOKENS) {
                paths.add(new Path(next, slices));
            }
            if (paths.size() > 12) {
                paths.remove(1 + random.nextInt(paths.size() - 1));
            }
        }
        assertTrue(written > STEPS / 4);
    }

    @Test
    public void thePositionIsSetAndWithoutRegionsThereIsNoAttention() {
        Recorder decoder = new Recorder();
        DecoderStep step = new DecoderStep(decoder, cached(), MOST_TOKENS);
        Search.Result<DecoderStep.State> result = step.run(7, step.lookAt(decoder), 0);
        assertNull(result.attention());
        step.run(8, result.state(), 1);
        assertEquals("{token=8, position=1}", decoder.words.toString());
    }

    private static int common(List<Float> first, List<Float> second) {
        int count = 0;
        while (count < Math.min(first.size(), second.size()) && first.get(count).equals(second.get(count))) {
            count++;
        }
        return count;
    }

    private static StepInterface cached() {
        StateSpec cache = new StateSpec(new Shape(MOST_TOKENS, WIDTH), First.ZEROS, Carry.APPEND);
        return new StepInterface(5, Collections.emptyMap(), Collections.singletonMap("cache", cache), null, true);
    }

    /** Keeps what is written to a cache, and returns another slice, of one number over and over, in every run. */
    private static final class Recorder implements Interpreter {
        final List<Float> cache = new ArrayList<>(Collections.nCopies(MOST_TOKENS, Float.NaN));
        final Map<String, Integer> words = new LinkedHashMap<>();
        int writes;
        float returned;

        @Override
        public void set(String name, float[] values) {
            assertEquals("cache", name);
            assertEquals(MOST_TOKENS * WIDTH, values.length);
            Collections.fill(cache, 0f);
        }

        @Override
        public void write(String name, int offset, float[] values) {
            assertEquals(0, offset % WIDTH);
            assertEquals(WIDTH, values.length);
            cache.set(offset / WIDTH, values[0]);
            writes++;
        }

        @Override
        public void set(String name, int value) {
            words.put(name, value);
        }

        @Override
        public void run() {
            returned++;
        }

        @Override
        public void get(String name, float[] into) {
            Arrays.fill(into, returned);
        }

        @Override
        public void close() {
            cache.clear();
        }
    }
}
