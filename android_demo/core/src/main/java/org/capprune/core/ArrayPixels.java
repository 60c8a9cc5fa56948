package org.capprune.core;

/**
 * Pixels that lie in an array, row by row.
 *
 * @param width of the photo
 * @param height of the photo
 * @param argb {@code width · height} pixels as {@link Pixels#row} gives them
 */
public record ArrayPixels(int width, int height, int[] argb) implements Pixels {
    @Override
    public void row(int y, int[] into) {
        System.arraycopy(argb, y * width, into, 0, width);
    }

    @Override
    public void column(int x, int[] into) {
        for (int y = 0; y < height; y++) {
            into[y] = argb[y * width + x];
        }
    }
}
