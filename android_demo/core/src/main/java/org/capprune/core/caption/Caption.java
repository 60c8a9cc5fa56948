package org.capprune.core.caption;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.capprune.core.bundle.Familiarity;

/**
 * What a model says about a photo, and what it cost.
 *
 * @param text the words with spaces between
 * @param tokens their ids, without {@code <start>} and {@code <end>}
 * @param logProbability of the words, and of {@code <end>} when finished
 * @param attention for each word, for each region, how much the model looked there; null where the model shows no attention
 * @param finished whether the model ended the caption itself
 * @param encodeUs time of the encoder, in µs
 * @param stepUs time of every call of the decoder in the order made, in µs; a beam makes several a word
 * @param totalUs time of all of it, in µs
 * @param confidence that the photo is of the known kind and the caption likely, 0 to 1; null where the bundle cannot tell
 */
public record Caption(
        String text,
        int[] tokens,
        double logProbability,
        List<float[]> attention,
        boolean finished,
        double encodeUs,
        List<Double> stepUs,
        double totalUs,
        Double confidence) {

    /** Whether the photo looks like those that the bundle knows; null where the bundle cannot tell. */
    public Boolean familiar() {
        return confidence == null ? null : confidence >= Familiarity.KNOWN;
    }

    Caption with(double found) {
        return new Caption(text, tokens, logProbability, attention, finished, encodeUs, stepUs, totalUs, found);
    }

    /** The caption for a JSON document, without the attention. */
    public Map<String, Object> asJson() {
        List<Object> ids = new ArrayList<>();
        for (int token : tokens) {
            ids.add((long) token);
        }
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("caption", text);
        json.put("tokens", ids);
        json.put("log_probability", logProbability);
        json.put("finished", finished);
        json.put("encode_us", encodeUs);
        json.put("step_us", new ArrayList<Object>(stepUs));
        if (confidence != null) {
            json.put("confidence", confidence);
            json.put("familiar", familiar());
        }
        return json;
    }
}
