package org.capprune.core;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.awt.image.BufferedImage;
import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import javax.imageio.ImageIO;
import org.junit.Test;

/** Odd and hostile photos of tests/android/photo_cases.py: what Python refuses is refused, and sound photos are not. */
public class PhotoFileTest {
    @Test
    public void photosAreRefusedAndReadAsInPython() throws IOException {
        File folder = TestFiles.folder("photos");
        List<String> wrong = new ArrayList<>();
        int refused = 0;
        for (Map<String, Object> entry : TestFiles.index(folder)) {
            String found = judge(TestFiles.read(folder, (String) entry.get("file")));
            String expected = entry.get("error") == null ? "read" : (String) entry.get("error");
            refused += found.equals("read") ? 0 : 1;
            if (!expected.equals(found.split("\n", 2)[0])) {
                wrong.add(entry.get("name") + ": " + expected + ", not " + found);
            }
        }
        assertEquals(String.join("\n", wrong), 0, wrong.size());
        assertTrue("only " + refused + " odd photos", refused > 40);
    }

    /** What the app does, with the desktop's decoder in the place of the phone's. */
    private static String judge(byte[] content) throws IOException {
        try {
            if (PhotoFile.isModestPng(content)) {
                Png.decode(content, "case", Squash.MOST_SIDE);
            }
            boolean whole = PhotoFile.check(content, "case");
            if (Png.isPng(content)) {
                PhotoFile.sampleSize(side(content, 16), side(content, 20), "case");
            }
            if (!whole) {
                PhotoFile.requireRows(decoded(content), "case");
            }
            return "read";
        } catch (CapPruneException error) {
            return error.kind().errorName + "\n" + error.getMessage();
        }
    }

    private static int side(byte[] content, int at) {
        return (content[at] & 0xFF) << 24 | (content[at + 1] & 0xFF) << 16 | (content[at + 2] & 0xFF) << 8
                | content[at + 3] & 0xFF;
    }

    private static Pixels decoded(byte[] content) throws IOException {
        BufferedImage image;
        try {
            image = ImageIO.read(new ByteArrayInputStream(content));
        } catch (IOException error) {
            image = null;
        }
        if (image == null) {
            throw new CapPruneException(ErrorKind.PHOTO, "a photo cannot be decoded").at("case");
        }
        int[] argb = image.getRGB(0, 0, image.getWidth(), image.getHeight(), null, 0, image.getWidth());
        return new ArrayPixels(image.getWidth(), image.getHeight(), argb);
    }

    @Test
    public void largePhotosAreDecodedSmallerAndTooLargeOnesNotAtAll() {
        assertEquals(1, PhotoFile.sampleSize(8000, 4000, "case"));
        assertEquals(2, PhotoFile.sampleSize(8001, 4002, "case"));
        assertEquals(2, PhotoFile.sampleSize(10_000, 10_000, "case"));
        assertEquals(ErrorKind.PHOTO, refusal(() -> PhotoFile.sampleSize(10_001, 10_000, "case")).kind());
        assertEquals(ErrorKind.PHOTO, refusal(() -> PhotoFile.sampleSize(65_536, 1, "case")).kind());
    }

    @Test
    public void streamsThatNeverEndAndWhatIsNoFileAreRefused() throws IOException {
        InputStream endless = new InputStream() {
            @Override
            public int read() {
                return 0;
            }
        };
        assertEquals("a photo file is too large",
                refusal(() -> {
                    try {
                        PhotoFile.read(endless, "case");
                    } catch (IOException error) {
                        throw new AssertionError(error);
                    }
                }).what());
        File folder = TestFiles.folder("photos");
        assertEquals("a photo cannot be read", refusal(() -> PhotoFile.read(folder)).what());
        assertEquals("a photo cannot be read", refusal(() -> PhotoFile.read(new File(folder, "gone"))).what());
        assertEquals("a photo cannot be read", refusal(() -> PhotoFile.read(new File("/dev/zero"))).what());
        assertTrue(PhotoFile.read(new File(folder, "index.json")).length > 0);
    }

    private static CapPruneException refusal(Runnable action) {
        return assertThrows(CapPruneException.class, action::run);
    }
}
