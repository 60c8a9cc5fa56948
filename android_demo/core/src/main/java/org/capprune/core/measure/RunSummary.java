package org.capprune.core.measure;

import java.io.File;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.capprune.core.StrictJson;
import org.capprune.core.bundle.FolderMembers;

/** A results document in a few lines for a screen. */
public final class RunSummary {
    private static final double US_PER_MS = 1000;

    private RunSummary() {}

    /** The times of a document and whether to trust them. */
    public static String of(File results) {
        Map<?, ?> document = (Map<?, ?>) StrictJson.parse(FolderMembers.readWhole(results));
        Map<?, ?> latency = (Map<?, ?>) document.get("latency");
        StringBuilder text = new StringBuilder();
        for (String part : new String[] {"encode", "step", "caption"}) {
            Map<?, ?> times = (Map<?, ?>) latency.get(part);
            text.append(String.format(Locale.ROOT, "%s  p50 %.2f ms  p90 %.2f ms  p99 %.2f ms%n", part,
                    ms(times, "p50_us"), ms(times, "p90_us"), ms(times, "p99_us")));
        }
        Map<?, ?> verdict = (Map<?, ?>) document.get("verdict");
        text.append(Boolean.TRUE.equals(verdict.get("trusted")) ? "\nThese times can be trusted." : "\nNot to be trusted:");
        for (Object reason : (List<?>) verdict.get("reasons")) {
            text.append("\n- ").append(((Map<?, ?>) reason).get("text"));
        }
        return text.toString();
    }

    private static double ms(Map<?, ?> times, String key) {
        return (Double) times.get(key) / US_PER_MS;
    }
}
