package org.capprune.core.caption;

import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.capprune.core.ArrayPixels;
import org.capprune.core.JsonText;
import org.capprune.core.Squash;
import org.capprune.core.TestFiles;
import org.capprune.core.bundle.Bundle;

/**
 * Captions photos on a desktop JVM through the app's own shim: {@code DesktopCaptions BUNDLE PHOTOS OUT THREADS}.
 *
 * <p>PHOTOS holds index.json, a list of {file, width, height, beam}, and the RGB bytes of each photo. OUT gets a list of
 * {file, tokens, caption, log_probability, attention}.
 */
public final class DesktopCaptions {
    private DesktopCaptions() {}

    public static void main(String[] arguments) throws IOException {
        Bundle bundle = Bundle.open(new File(arguments[0]));
        File photos = new File(arguments[1]);
        List<Object> said = new ArrayList<>();
        NativeEngine engine = NativeEngine.open();
        Double lowBelow = Confidence.limitOf(bundle);
        try (Captioner captioner = new Captioner(bundle, engine, Integer.parseInt(arguments[3]))) {
            for (Map<String, Object> entry : TestFiles.index(photos)) {
                String file = (String) entry.get("file");
                ArrayPixels photo = TestFiles.opaque(
                        TestFiles.read(photos, file), TestFiles.whole(entry, "width"), TestFiles.whole(entry, "height"));
                byte[] square = Squash.squash(photo, bundle.manifest().photoSize());
                Caption caption = captioner.caption(square, TestFiles.whole(entry, "beam"), () -> false);
                Map<String, Object> row = new LinkedHashMap<>();
                row.put("file", file);
                row.putAll(caption.asJson());
                row.put("attention", attention(caption));
                row.put("mean_log_probability", Confidence.meanLogProbability(caption));
                row.put("low_confidence", Confidence.isUnsure(caption, lowBelow));
                said.add(row);
            }
        }
        Map<String, Object> document = new LinkedHashMap<>();
        document.put("runtime_version", engine.version());
        document.put("captions", said);
        Files.write(new File(arguments[2]).toPath(), JsonText.of(document).getBytes("UTF-8"));
    }

    /** For each word, for each region, how much the model looked there; null where it shows no attention. */
    private static List<Object> attention(Caption caption) {
        if (caption.attention() == null) {
            return null;
        }
        List<Object> words = new ArrayList<>();
        for (float[] word : caption.attention()) {
            List<Object> regions = new ArrayList<>();
            for (float weight : word) {
                regions.add((double) weight);
            }
            words.add(regions);
        }
        return words;
    }
}
