package org.capprune.core.bundle;

import static org.capprune.core.bundle.ManifestSection.require;

import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.capprune.core.Json;

/**
 * Lifts manifests of schema 1, written by capprune 0.1, to schema 2.
 *
 * <p>Schema 1 knew one decoder, soft attention over a grid with an LSTM or a GRU. It is read as strictly as ever: what was
 * refused then is refused now.
 */
final class ManifestSchema1 {
    private static final long MEAN = 127;
    private static final long SCALE = 128;
    private static final long MOST_SIZE = 65_536;
    private static final String[] SIZES = {"embedding", "hidden", "attention", "context", "regions"};

    private ManifestSchema1() {}

    /** The tree of a manifest of schema 1 as schema 2 has it. */
    static Map<String, Object> lifted(Map<String, Object> tree) {
        ManifestSection root = new ManifestSection(tree, "");
        require(!root.has("tokens"), "tokens", "no such key in schema 1");
        Map<String, Object> made = new LinkedHashMap<>(tree);
        made.put("tokens", Json.object("kind", "words", "base", 0L, "per_word", 1L));
        if (root.has("model") && root.has("decoder")) { // what is missing is reported by the reader of schema 2
            liftModel(root, made);
        }
        if (root.has("preprocessing")) {
            made.put("preprocessing", preprocessing(tree.get("preprocessing")));
        }
        return made;
    }

    private static Map<String, Object> preprocessing(Object tree) {
        ManifestSection found = new ManifestSection(tree, "preprocessing");
        found.requireKeys("size", "resize", "mean", "scale");
        double mean = found.whole("mean", MEAN, MEAN);
        double scale = found.whole("scale", SCALE, SCALE);
        return Json.object("input", "photo", "size", found.whole("size", Long.MIN_VALUE, Long.MAX_VALUE), "resize",
                found.string("resize"), "mean", Arrays.asList(mean, mean, mean), "scale",
                Arrays.asList(scale, scale, scale));
    }

    private static void liftModel(ManifestSection root, Map<String, Object> made) {
        ManifestSection model = root.section("model", "family", "cell", "embedding", "hidden", "attention", "context",
                "regions", "vocabulary");
        ManifestSection decoder = root.section("decoder", "state", "file", "signature");
        String family = model.requireText("family", "soft_attention");
        String cell = model.string("cell");
        require(cell.equals("lstm") || cell.equals("gru"), "model.cell", "lstm or gru");
        Map<String, Object> sizes = new LinkedHashMap<>();
        for (String name : SIZES) {
            sizes.put(name, model.whole(name, 1, MOST_SIZE));
        }
        long vocabulary = model.whole("vocabulary", InterfaceReader.FEWEST_WORDS, InterfaceReader.MOST_WORDS);
        List<String> state = cell.equals("lstm") ? Arrays.asList("h", "c") : Arrays.asList("h");
        require(decoder.strings("state").equals(state), "decoder.state", "the state of the cell, " + state);
        String description = cell.toUpperCase(Locale.ROOT) + " with soft attention over " + sizes.get("regions")
                + " regions";
        made.put("model", Json.object("family", family, "description", description, "sizes", sizes));
        made.put("decoder", Json.object("file", decoder.string("file"), "signature", decoder.string("signature"),
                "interface", stepInterface(sizes, vocabulary, state)));
    }

    private static Map<String, Object> stepInterface(Map<String, Object> sizes, long vocabulary, List<String> names) {
        Object regions = sizes.get("regions");
        Map<String, Object> state = new LinkedHashMap<>();
        for (String name : names) {
            state.put(name, Json.object(
                    "shape", Arrays.asList(sizes.get("hidden")), "first", "encode", "carry", "replace"));
        }
        Map<String, Object> held = Json.object("keys", held(regions, sizes.get("attention")), "values",
                held(regions, sizes.get("context")));
        return Json.object(
                "vocabulary", vocabulary, "held", held, "state", state, "regions", regions, "position", false);
    }

    private static Map<String, Object> held(Object regions, Object width) {
        return Json.object("shape", Arrays.asList(regions, width), "dtype", "float32");
    }
}
