package org.capprune.demo;

import android.graphics.Bitmap;
import android.graphics.BitmapFactory;
import android.media.ExifInterface;
import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.IOException;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.PhotoFile;
import org.capprune.core.Pixels;
import org.capprune.core.Png;
import org.capprune.core.Squash;
import org.capprune.core.Upright;

/** Photo files: decoded by Android and turned upright. What happens from there on is {@link Squash}'s. */
final class Photo {
    private static final int MOST_PREVIEW_SIDE = 1080;

    private Photo() {}

    /**
     * Decode a photo file and turn it upright; {@code where} is its name, for messages.
     *
     * <p>A large photo is decoded at half its width and height, or less, so that it fits into memory.
     */
    static Pixels decode(byte[] content, String where) {
        boolean whole = PhotoFile.check(content, where);
        BitmapFactory.Options options = new BitmapFactory.Options();
        options.inJustDecodeBounds = true;
        BitmapFactory.decodeByteArray(content, 0, content.length, options);
        if (options.outWidth <= 0 || options.outHeight <= 0) {
            throw unreadable(where);
        }
        options.inSampleSize = PhotoFile.sampleSize(options.outWidth, options.outHeight, where);
        options.inJustDecodeBounds = false;
        options.inPremultiplied = false; // or transparent pixels lose bits
        options.inPreferredConfig = Bitmap.Config.ARGB_8888;
        Bitmap bitmap = BitmapFactory.decodeByteArray(content, 0, content.length, options);
        if (bitmap == null) {
            throw unreadable(where);
        }
        Pixels stored = new BitmapPixels(bitmap);
        if (!whole) {
            PhotoFile.requireRows(stored, where);
        }
        return new Upright(stored, orientation(content));
    }

    /** A file as the encoder's square; PNG of the runner's is decoded to the bit on every device. */
    static byte[] square(File file, int size) {
        byte[] content = PhotoFile.read(file);
        Pixels pixels = PhotoFile.isModestPng(content)
                ? Png.decode(content, file.getPath(), Squash.MOST_SIDE) : decode(content, file.getPath());
        return Squash.squash(pixels, size);
    }

    /** A smaller picture for the screen: every so many pixels of the photo. */
    static Bitmap preview(Pixels photo) {
        int step = Math.max(1, (Math.max(photo.width(), photo.height()) + MOST_PREVIEW_SIDE - 1) / MOST_PREVIEW_SIDE);
        int width = (photo.width() + step - 1) / step;
        int height = (photo.height() + step - 1) / step;
        int[] row = new int[photo.width()];
        int[] small = new int[width * height];
        for (int y = 0; y < height; y++) {
            photo.row(y * step, row);
            for (int x = 0; x < width; x++) {
                small[y * width + x] = row[x * step];
            }
        }
        return Bitmap.createBitmap(small, width, height, Bitmap.Config.ARGB_8888);
    }

    /** The EXIF orientation; a damaged block counts as none. */
    private static int orientation(byte[] content) {
        try {
            return new ExifInterface(new ByteArrayInputStream(content))
                    .getAttributeInt(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL);
        } catch (IOException | RuntimeException error) { // Android's reader throws both on damaged blocks
            return ExifInterface.ORIENTATION_NORMAL;
        }
    }

    private static CapPruneException unreadable(String where) {
        return new CapPruneException(ErrorKind.PHOTO, "a photo cannot be decoded").at(where)
                .expected("a photo that this device can read");
    }

    /** A bitmap as the core reads it. */
    private record BitmapPixels(Bitmap bitmap) implements Pixels {
        @Override
        public int width() {
            return bitmap.getWidth();
        }

        @Override
        public int height() {
            return bitmap.getHeight();
        }

        @Override
        public void row(int y, int[] argb) {
            bitmap.getPixels(argb, 0, width(), 0, y, width(), 1);
        }

        @Override
        public void column(int x, int[] argb) {
            bitmap.getPixels(argb, 0, 1, x, 0, 1, height());
        }
    }
}
