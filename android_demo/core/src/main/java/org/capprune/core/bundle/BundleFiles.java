package org.capprune.core.bundle;

import java.util.Arrays;
import java.util.List;
import java.util.regex.Pattern;
import org.capprune.core.tflite.TfliteReader;

/** The one place that knows the names of a bundle's files and how large they may be. */
public final class BundleFiles {
    static final String ENCODER = "encoder.tflite";
    static final String DECODER = "decoder.tflite";
    static final String VOCABULARY = "vocabulary.txt";
    static final String GOLDEN = "golden/golden.json";
    /** Models of the other kind, which this app cannot run. */
    static final List<String> ONNX = Arrays.asList("encoder.onnx", "decoder.onnx");

    static final int MOST_FILES = 256;

    private static final List<String> DOCUMENTS = Arrays.asList(GOLDEN, "MODEL_CARD.md", "plan.json");
    public static final String QUALITY = "quality.json";
    private static final Pattern GOLDEN_PHOTO = Pattern.compile("golden/[a-z0-9][a-z0-9_-]{0,63}\\.png");

    private BundleFiles() {}

    /** Whether a bundle may hold a file of this name, beside the manifest. */
    static boolean isAllowed(String name) {
        return isModel(name) || name.equals(VOCABULARY) || DOCUMENTS.contains(name) || name.equals(QUALITY) || isGoldenPhoto(name);
    }

    static boolean isModel(String name) {
        return name.equals(ENCODER) || name.equals(DECODER) || ONNX.contains(name);
    }

    static boolean isGoldenPhoto(String name) {
        return GOLDEN_PHOTO.matcher(name).matches();
    }

    /** The most bytes that a file of an allowed name may have. */
    static long mostBytes(String name) {
        if (name.equals(Manifest.NAME)) {
            return Manifest.MOST_BYTES;
        }
        if (name.equals(VOCABULARY) || isGoldenPhoto(name)) {
            return 16 << 20;
        }
        if (DOCUMENTS.contains(name)) {
            return 4 << 20;
        }
        return name.equals(QUALITY) ? 64 << 20 : TfliteReader.MOST_MODEL_BYTES;
    }
}
