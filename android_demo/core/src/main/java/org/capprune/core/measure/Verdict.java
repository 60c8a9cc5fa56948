package org.capprune.core.measure;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.capprune.core.Json;

/** Whether the times of a measurement can be trusted, and if not, why: {@code verdict} of docs/results_schema.md. */
final class Verdict {
    private static final int FEWEST = 20; // captions, below which a median says little
    private static final double LARGEST_SPREAD = 0.25; // of the encoder, which does the same work for every photo
    private static final double LARGEST_DRIFT = 0.1; // from the first quarter of the captions to the last
    private static final double HOT_C = 80;

    private final Map<String, Object> environment;
    private final Map<?, ?> before;
    private final Map<?, ?> after;
    private final List<Double> encodeUs;
    private final List<Object> reasons = new ArrayList<>();

    private Verdict(Map<String, Object> environment, List<Double> encodeUs) {
        this.environment = environment;
        this.encodeUs = encodeUs;
        before = (Map<?, ?>) environment.get("before");
        after = (Map<?, ?>) environment.get("after");
    }

    /** Judge times by where they came from and how they lie. */
    static Map<String, Object> judge(Map<String, Object> environment, List<Double> encodeUs) {
        return new Verdict(environment, encodeUs).judge();
    }

    private Map<String, Object> judge() {
        where();
        String thermal = thermal();
        if (thermal.equals("throttled")) {
            reason("throttled", "the device slowed its processor down, for its heat or its power supply");
        } else if (thermal.equals("hot")) {
            reason("hot", "the device was at " + whole(after.get("temperature_c"))
                    + " °C in the end: it may have slowed down");
        }
        Double drift = null;
        String stability = "unknown";
        if (encodeUs.size() < FEWEST) {
            reason("few", encodeUs.size() + " times are too few to tell; at least " + FEWEST + " are needed");
        } else {
            drift = drift();
            stability = times(drift) ? "steady" : "unsteady";
        }
        return Json.object("trusted", reasons.isEmpty(), "thermal", thermal, "stability", stability, "drift", drift,
                "reasons", reasons);
    }

    private void where() {
        if (environment.get("stand_in") != null) {
            reason("stand_in", environment.get("stand_in") + " played the device: these times are not a device's");
        }
        if (Boolean.TRUE.equals(environment.get("emulated"))) {
            reason("emulated", "the processor is emulated: these times mean nothing");
        }
        long cpus = (Long) environment.get("cpu_count");
        if (before.get("load_average") instanceof Double load && load + (Long) environment.get("threads") > cpus) {
            reason("busy", String.format(
                    Locale.ROOT, "%.1f other processes ran on %d processors when it began", load, cpus));
        }
    }

    private String thermal() {
        Object count = after.get("throttle_count");
        boolean more = count != null && before.get("throttle_count") != null && !count.equals(before.get("throttle_count"));
        boolean told = after.get("thermal_status") instanceof Long status && status >= 1;
        if (more || told) {
            return "throttled";
        }
        if (after.get("temperature_c") instanceof Double temperature && temperature >= HOT_C) {
            return "hot";
        }
        boolean tells = count != null || after.get("thermal_status") != null || after.get("temperature_c") != null;
        return tells ? "steady" : "unknown";
    }

    /** Whether the encoder took about the same time from start to end. */
    private boolean times(double drift) {
        double spread = new Percentiles(encodeUs).spread();
        if (Math.abs(drift) > LARGEST_DRIFT) {
            reason("drift", String.format(Locale.ROOT,
                    "the encoder's time changed by %+.0f%% from the first photos to the last", 100 * drift));
        }
        if (spread > LARGEST_SPREAD) {
            reason("spread", String.format(
                    Locale.ROOT, "half of the encoder's times lie %.0f%% of the median apart", 100 * spread));
        }
        return Math.abs(drift) <= LARGEST_DRIFT && spread <= LARGEST_SPREAD;
    }

    private double drift() {
        int quarter = Math.max(encodeUs.size() / 4, 1);
        List<Double> last = encodeUs.subList(encodeUs.size() - quarter, encodeUs.size());
        return Percentiles.median(last) / Percentiles.median(encodeUs.subList(0, quarter)) - 1;
    }

    private static String whole(Object value) {
        return String.format(Locale.ROOT, "%.0f", value);
    }

    private void reason(String code, String text) {
        reasons.add(Json.object("code", code, "text", text));
    }
}
