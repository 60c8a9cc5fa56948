package org.capprune.core.bundle;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.StrictJson;
import org.capprune.core.tflite.Shape;

/**
 * Whether a photo looks like those that a bundle's limits were chosen on, from what {@code encode} returns:
 * docs/bundle_format.md, section 4.
 *
 * @param weights one for each pooled channel
 * @param logProbability weight of the caption's mean log-probability per word
 * @param offset added to the sum
 */
public record Familiarity(double[] weights, double logProbability, double offset) {
    /** Photos of a lower confidence are not familiar. */
    public static final double KNOWN = 0.5;

    /** Captions of photos of a lower confidence are marked as unsure. */
    public static final double SURE = 0.7;

    private static final String KEY = "familiarity";
    private static final int MOST_WEIGHTS = 4096;
    private static final double LARGEST = 1e6;
    private static final double STEEPEST = 30;

    /**
     * The limits of a bundle whose quality.json is {@code where}; null where it has none. A quality.json without the quoted
     * key is not parsed.
     */
    static Familiarity read(Map<String, byte[]> files, StepInterface step, String where) {
        byte[] quality = files.get(BundleFiles.QUALITY);
        if (quality == null || !new String(quality, StandardCharsets.ISO_8859_1).contains('"' + KEY + '"')) {
            return null;
        }
        try {
            Object tree = StrictJson.parse(quality) instanceof Map<?, ?> object ? object.get(KEY) : null;
            return tree == null ? null : of(tree, Math.min(MOST_WEIGHTS, channels(step)));
        } catch (CapPruneException error) {
            throw error.inside(where);
        }
    }

    private static Familiarity of(Object tree, long most) {
        if (!(tree instanceof Map<?, ?> object)) {
            throw refused("", "an object", tree);
        }
        if (!(object.get("weights") instanceof List<?> list) || list.isEmpty() || list.size() > most) {
            throw refused(".weights", "1 to " + most + " numbers", object.get("weights"));
        }
        double[] weights = new double[list.size()];
        for (int n = 0; n < weights.length; n++) {
            weights[n] = number(".weights[" + n + "]", list.get(n));
        }
        return new Familiarity(weights, number(".log_probability", object.get("log_probability")),
                number(".offset", object.get("offset")));
    }

    /** The outputs of {@code encode} with their shapes, in the order of their names. */
    private static Map<String, Shape> outputs(StepInterface step) {
        Map<String, Shape> shapes = new TreeMap<>();
        step.held().forEach((name, spec) -> shapes.put(name, spec.shape()));
        step.state().forEach((name, spec) -> {
            if (spec.first() == StepInterface.First.ENCODE) {
                shapes.put(name, spec.shape());
            }
        });
        return shapes;
    }

    private static long channels(StepInterface step) {
        return outputs(step).values().stream().mapToLong(shape -> last(shape)).sum(); // lowering a reference loses int to long
    }

    private static int last(Shape shape) {
        return shape.size(shape.rank() - 1);
    }

    /** Copies an output of {@code encode}, as {@code Interpreter.get} does. */
    public interface Encoded {
        void get(String name, float[] into);
    }

    /** The mean over each run of neighbouring channels, after the mean over all other dimensions. */
    public double[] pool(StepInterface step, Encoded encoded) {
        List<double[]> parts = new ArrayList<>();
        outputs(step).forEach((name, shape) -> {
            float[] values = new float[(int) shape.elements()];
            encoded.get(name, values);
            parts.add(means(values, last(shape)));
        });
        double[] channels = parts.stream().flatMapToDouble(Arrays::stream).toArray();
        double[] sums = new double[weights.length];
        int[] counts = new int[weights.length];
        for (int n = 0; n < channels.length; n++) {
            int run = (int) ((long) n * weights.length / channels.length);
            sums[run] += channels[n];
            counts[run]++;
        }
        for (int n = 0; n < sums.length; n++) {
            sums[n] /= counts[n];
        }
        return sums;
    }

    private static double[] means(float[] values, int channels) {
        double[] sums = new double[channels];
        for (int n = 0; n < values.length; n++) {
            sums[n % channels] += values[n];
        }
        for (int n = 0; n < channels; n++) {
            sums[n] /= values.length / channels;
        }
        return sums;
    }

    /** Confidence, 0 to 1, that the photo is of the known kind and its caption likely. */
    public double confidence(double[] pooled, double meanLogProbability) {
        double total = offset + logProbability * meanLogProbability;
        for (int n = 0; n < weights.length; n++) {
            total += weights[n] * pooled[n];
        }
        if (Double.isNaN(total) || Double.isInfinite(total)) {
            throw new CapPruneException(ErrorKind.BUNDLE, "the encoder returned numbers that are not finite").found(total);
        }
        return 1 / (1 + Math.exp(-Math.min(Math.max(total, -STEEPEST), STEEPEST)));
    }

    private static double number(String key, Object found) {
        if (found instanceof Number number && Math.abs(number.doubleValue()) <= LARGEST) {
            return number.doubleValue();
        }
        throw refused(key, "a number from -1000000 to 1000000", found);
    }

    private static CapPruneException refused(String key, String expected, Object found) {
        String shown = String.valueOf(found);
        return new CapPruneException(ErrorKind.BUNDLE, "a value of the familiarity is not allowed")
                .at(KEY + key).expected(expected)
                .found(shown.substring(0, Math.min(60, shown.length())));
    }
}
