package org.capprune.core.measure;

import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.capprune.core.Json;

/** Times of many runs of one thing, in µs; percentiles lie linearly between the two nearest ranks. */
public final class Percentiles {
    private final double[] sorted;

    /** Of at least one time. */
    public Percentiles(List<Double> timesUs) {
        sorted = timesUs.stream().mapToDouble(Double::doubleValue).sorted().toArray();
    }

    /** The time below which a share of all times lie. */
    public double at(double share) {
        double place = share * (sorted.length - 1);
        int below = (int) place;
        int above = Math.min(below + 1, sorted.length - 1);
        return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
    }

    /** How far apart the middle half lies, as a share of the median. */
    double spread() {
        return at(0.5) > 0 ? (at(0.75) - at(0.25)) / at(0.5) : 0;
    }

    Map<String, Object> asJson() {
        return Json.object("p50_us", at(0.5), "p90_us", at(0.9), "p99_us", at(0.99), "min_us", sorted[0],
                "max_us", sorted[sorted.length - 1], "spread", spread(), "count", sorted.length);
    }

    /** The middle of some times. */
    static double median(List<Double> times) {
        return new Percentiles(times).at(0.5);
    }

    @Override
    public String toString() {
        return Arrays.toString(sorted);
    }
}
