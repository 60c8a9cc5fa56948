package org.capprune.core;

import static org.junit.Assume.assumeTrue;

import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.util.List;
import java.util.Map;

/** Files that Python wrote for these tests; the system property {@code capprune.files} names their folder. */
public final class TestFiles {
    private TestFiles() {}

    /** A folder below; the test is skipped where Python has written none. */
    public static File folder(String name) {
        String root = System.getProperty("capprune.files");
        assumeTrue("capprune.files is not set: run this through pytest tests/android", root != null);
        File folder = new File(root, name);
        if (!folder.isDirectory()) {
            throw new AssertionError("Python wrote no " + folder);
        }
        return folder;
    }

    public static byte[] read(File folder, String name) {
        try {
            return Files.readAllBytes(new File(folder, name).toPath());
        } catch (IOException error) {
            throw new AssertionError(error);
        }
    }

    /** The entries of index.json, which is a list of objects. */
    @SuppressWarnings("unchecked")
    public static List<Map<String, Object>> index(File folder) {
        return (List<Map<String, Object>>) StrictJson.parse(read(folder, "index.json"));
    }

    public static float[] floats(byte[] content) {
        float[] values = new float[content.length / Float.BYTES];
        ByteBuffer.wrap(content).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(values);
        return values;
    }

    public static int[] ints(Object list) {
        return ((List<?>) list).stream().mapToInt(value -> ((Long) value).intValue()).toArray();
    }

    public static int whole(Map<String, Object> entry, String key) {
        return ((Long) entry.get(key)).intValue();
    }

    /** A photo of RGB bytes. */
    public static ArrayPixels opaque(byte[] rgb, int width, int height) {
        int[] argb = new int[width * height];
        for (int n = 0; n < argb.length; n++) {
            argb[n] = 0xFF << 24 | (rgb[3 * n] & 0xFF) << 16 | (rgb[3 * n + 1] & 0xFF) << 8 | rgb[3 * n + 2] & 0xFF;
        }
        return new ArrayPixels(width, height, argb);
    }
}
