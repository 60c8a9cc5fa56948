package org.capprune.core.caption;

import java.util.Map;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.StrictJson;
import org.capprune.core.bundle.Bundle;
import org.capprune.core.bundle.BundleFiles;
import org.capprune.core.bundle.Familiarity;

/** How sure a model was of a caption, and the limit below which a bundle calls that unsure. */
public final class Confidence {
    private static final String LIMIT = "low_below";

    private Confidence() {}

    /**
     * The mean log-probability below which this bundle's captions are marked; null where none was measured for it.
     *
     * <p>{@code capprune validate --record} measures it and writes it into quality.json.
     */
    public static Double limitOf(Bundle bundle) {
        byte[] quality = bundle.files().get(BundleFiles.QUALITY);
        Object tree = quality == null ? null : StrictJson.parse(quality);
        Object confidence = tree instanceof Map<?, ?> object ? object.get("confidence") : null;
        if (confidence == null) {
            return null;
        }
        Object limit = confidence instanceof Map<?, ?> object ? object.get(LIMIT) : "no tree";
        if (limit != null && !(limit instanceof Number)) {
            throw new CapPruneException(ErrorKind.BUNDLE, "the limit of unsure captions is no number")
                    .at(BundleFiles.QUALITY + ": confidence." + LIMIT).found(String.valueOf(limit));
        }
        return limit == null ? null : ((Number) limit).doubleValue();
    }

    /** Nats a word, {@code <end>} counted where the model said it. */
    public static double meanLogProbability(Caption caption) {
        return caption.logProbability() / Math.max(1, caption.tokens().length + (caption.finished() ? 1 : 0));
    }

    /** Whether a caption may well be wrong: unlikely words, or a hardly known photo; null where the bundle cannot tell. */
    public static Boolean isUnsure(Caption caption, Double limit) {
        if (limit == null && caption.confidence() == null) {
            return null;
        }
        boolean unlikely = limit != null && meanLogProbability(caption) < limit;
        return unlikely || caption.confidence() != null && caption.confidence() < Familiarity.SURE;
    }
}
