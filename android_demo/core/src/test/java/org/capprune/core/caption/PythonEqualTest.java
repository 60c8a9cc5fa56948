package org.capprune.core.caption;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.io.File;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import org.capprune.core.ArrayPixels;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.Pixels;
import org.capprune.core.Png;
import org.capprune.core.Squash;
import org.capprune.core.StrictJson;
import org.capprune.core.TestFiles;
import org.capprune.core.Upright;
import org.capprune.core.bundle.Bundle;
import org.capprune.core.bundle.Manifest;
import org.capprune.core.bundle.TokenCoding;
import org.capprune.core.bundle.Vocabulary;
import org.junit.Test;

/** What Python's runtime gave for many inputs (tests/android/core_cases.py), given again here. */
public class PythonEqualTest {
    // Sums of exponentials in another order; tokens must be equal, their log-probabilities this close.
    private static final double LOG_TOLERANCE = 1e-9;

    @Test
    public void squashedPhotosAreEqualToTheBit() {
        File folder = TestFiles.folder("squash");
        for (Map<String, Object> entry : TestFiles.index(folder)) {
            int width = TestFiles.whole(entry, "width");
            int height = TestFiles.whole(entry, "height");
            ArrayPixels photo = TestFiles.opaque(TestFiles.read(folder, (String) entry.get("file")), width, height);
            byte[] square = Squash.squash(photo, TestFiles.whole(entry, "size"));
            assertArrayEquals(entry.toString(), TestFiles.read(folder, (String) entry.get("squared")), square);
        }
    }

    @Test
    public void normalisedPhotosAreEqualToTheBit() {
        File folder = TestFiles.folder("normalise");
        byte[] square = TestFiles.read(folder, "square");
        List<Map<String, Object>> index = TestFiles.index(folder);
        assertTrue(index.size() > 5);
        for (Map<String, Object> entry : index) {
            float[] expected = TestFiles.floats(TestFiles.read(folder, (String) entry.get("file")));
            float[] found = Squash.normalise(square, reals(entry.get("mean")), reals(entry.get("scale")));
            assertEquals(3 * 256, expected.length);
            assertArrayEquals(entry.toString(), bits(expected), bits(found));
        }
    }

    private static double[] reals(Object list) {
        return ((List<?>) list).stream().mapToDouble(value -> (Double) value).toArray();
    }

    private static int[] bits(float[] values) {
        int[] bits = new int[values.length];
        for (int n = 0; n < bits.length; n++) {
            bits[n] = Float.floatToRawIntBits(values[n]);
        }
        return bits;
    }

    @Test
    public void photosAreTurnedUprightLikeInPython() {
        File folder = TestFiles.folder("upright");
        for (Map<String, Object> entry : TestFiles.index(folder)) {
            int width = TestFiles.whole(entry, "width");
            int height = TestFiles.whole(entry, "height");
            Pixels stored = TestFiles.opaque(TestFiles.read(folder, "stored"), width, height);
            Pixels upright = new Upright(stored, TestFiles.whole(entry, "orientation"));
            byte[] expected = TestFiles.read(folder, (String) entry.get("file"));
            ArrayPixels turned = TestFiles.opaque(expected, upright.width(), upright.height());
            assertArrayEquals(entry.toString(), turned.argb(), byRows(upright));
            assertArrayEquals(entry.toString(), turned.argb(), byColumns(upright));
        }
    }

    private static int[] byRows(Pixels photo) {
        int[] argb = new int[photo.width() * photo.height()];
        int[] row = new int[photo.width()];
        for (int y = 0; y < photo.height(); y++) {
            photo.row(y, row);
            System.arraycopy(row, 0, argb, y * row.length, row.length);
        }
        return argb;
    }

    private static int[] byColumns(Pixels photo) {
        int[] argb = new int[photo.width() * photo.height()];
        int[] column = new int[photo.height()];
        for (int x = 0; x < photo.width(); x++) {
            photo.column(x, column);
            for (int y = 0; y < column.length; y++) {
                argb[y * photo.width() + x] = column[y];
            }
        }
        return argb;
    }

    @Test
    public void pngPhotosAreDecodedToTheSameBytes() {
        File folder = TestFiles.folder("png");
        for (Map<String, Object> entry : TestFiles.index(folder)) {
            String file = (String) entry.get("file");
            int size = TestFiles.whole(entry, "size");
            ArrayPixels photo = Png.decode(TestFiles.read(folder, file), file, 4096);
            byte[] expected = TestFiles.read(folder, (String) entry.get("rgb"));
            assertArrayEquals(file, expected, Squash.squash(photo, size)); // a photo of its size stays as it is
        }
    }

    @Test
    public void tokensOfEveryKindBecomeTheSameText() {
        File folder = TestFiles.folder("tokens");
        for (Map<String, Object> entry : TestFiles.index(folder)) {
            TokenCoding coding = TokenCoding.of((String) entry.get("kind"), TestFiles.whole(entry, "base"),
                    TestFiles.whole(entry, "per_word"));
            String file = (String) entry.get("vocabulary");
            Vocabulary vocabulary = Vocabulary.read(TestFiles.read(folder, file), file, coding);
            assertEquals(TestFiles.whole(entry, "size"), vocabulary.size());
            assertEquals(entry.toString(), entry.get("caption"), vocabulary.caption(ids(entry, "ids")));
            assertEquals(entry.toString(), entry.get("shown"), vocabulary.shown(ids(entry, "spoken")));
        }
    }

    @Test
    public void tokensThatNoManifestMayHaveAreRefused() {
        for (String kind : new String[] {"word", "RADIX", ""}) {
            assertThrows(CapPruneException.class, () -> TokenCoding.of(kind, 0, 1));
        }
        long[][] refused = {{0, 2}, {1, 2}, {65_537, 2}, {768, 1}};
        for (long[] one : refused) {
            assertThrows(CapPruneException.class, () -> TokenCoding.of("radix", one[0], one[1]));
        }
        assertThrows(CapPruneException.class, () -> TokenCoding.of("words", 768, 1));
        assertThrows(CapPruneException.class, () -> TokenCoding.of("subwords", 0, 2));
    }

    private static int[] ids(Map<String, Object> entry, String key) {
        return ((List<?>) entry.get(key)).stream().mapToInt(id -> ((Long) id).intValue()).toArray();
    }

    @Test
    public void searchesGiveTheSameWords() {
        File folder = TestFiles.folder("search");
        int words = 0;
        for (Map<String, Object> entry : TestFiles.index(folder)) {
            int vocabulary = TestFiles.whole(entry, "vocabulary");
            float[] table = TestFiles.floats(TestFiles.read(folder, (String) entry.get("file")));
            Manifest.Decoding decoding = new Manifest.Decoding(
                    TestFiles.ints(entry.get("suppress")), TestFiles.whole(entry, "max_tokens"), 1,
                    TestFiles.whole(entry, "no_repeat_ngram"));
            Search<List<float[]>> search = new Search<>(
                    (token, state, position) -> step(table, vocabulary, token, state, position), decoding, () -> false);
            Search.Hypothesis<List<float[]>> found = search.beam(
                    Collections.singletonList(new float[] {0}), TestFiles.whole(entry, "width"));
            assertArrayEquals(entry.toString(), TestFiles.ints(entry.get("tokens")), found.tokens());
            assertEquals(entry.get("finished"), found.finished());
            assertEquals((double) entry.get("log_probability"), found.logProbability(), LOG_TOLERANCE);
            assertEquals(found.tokens().length, found.attention().size());
            words += found.tokens().length;
        }
        assertTrue(words > 100);
    }

    /** As {@code core_cases.py} has it: the scores are a row of the table that token, state and position choose. */
    private static Search.Result<List<float[]>> step(
            float[] table, int vocabulary, int token, List<float[]> state, int position) {
        float next = (state.get(0)[0] * 3 + token + 7 * position) % 101;
        int row = (int) next % (table.length / vocabulary);
        float[] scores = Arrays.copyOfRange(table, row * vocabulary, (row + 1) * vocabulary);
        return new Search.Result<>(scores, Collections.singletonList(new float[] {next}), new float[] {next});
    }

    @Test
    public void packedBundlesExpandToTheSameBytes() {
        File folder = TestFiles.folder("capz");
        for (Map<String, Object> entry : TestFiles.index(folder)) {
            String file = (String) entry.get("file");
            Map<String, byte[]> files = Bundle.open(new File(folder, file)).files();
            List<String> names = new ArrayList<>();
            for (Object name : (List<?>) entry.get("names")) {
                names.add((String) name);
                byte[] expected = TestFiles.read(folder, entry.get("folder") + "/" + name);
                assertArrayEquals(file + " " + name, expected, files.get(name));
            }
            assertEquals(names.size(), files.size());
        }
    }

    @Test
    public void jsonIsReadAsPythonReadsIt() {
        File folder = TestFiles.folder("json");
        for (Map<String, Object> entry : TestFiles.index(folder)) {
            byte[] text = TestFiles.read(folder, (String) entry.get("file"));
            boolean accepted;
            try {
                StrictJson.parse(text);
                accepted = true;
            } catch (CapPruneException error) {
                assertEquals(ErrorKind.BUNDLE, error.kind());
                accepted = false;
            }
            assertEquals(entry.toString(), entry.get("accepted"), accepted);
        }
    }
}
