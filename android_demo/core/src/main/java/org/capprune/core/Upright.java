package org.capprune.core;

/**
 * A photo turned upright by its EXIF orientation, read from the photo as it was stored.
 *
 * @param stored the photo as its file holds it
 * @param orientation 1 to 8; anything else counts as 1
 */
public record Upright(Pixels stored, int orientation) implements Pixels {
    /** 5 to 8: the rows of the upright photo are columns of the stored one. */
    private boolean turned() {
        return orientation >= 5 && orientation <= 8;
    }

    /** Whether the rows of the upright photo come from the far end of the stored one. */
    private boolean fromTheEnd() {
        return orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
    }

    /** Whether each row of the upright photo runs backwards. */
    private boolean backwards() {
        return orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
    }

    @Override
    public int width() {
        return turned() ? stored.height() : stored.width();
    }

    @Override
    public int height() {
        return turned() ? stored.width() : stored.height();
    }

    @Override
    public void row(int y, int[] argb) {
        read(turned(), fromTheEnd() ? height() - 1 - y : y, argb);
        reverse(argb, backwards() ? width() : 0);
    }

    @Override
    public void column(int x, int[] argb) {
        read(!turned(), backwards() ? width() - 1 - x : x, argb);
        reverse(argb, fromTheEnd() ? height() : 0);
    }

    private void read(boolean column, int place, int[] argb) {
        if (column) {
            stored.column(place, argb);
        } else {
            stored.row(place, argb);
        }
    }

    private static void reverse(int[] argb, int count) {
        for (int left = 0, right = count - 1; left < right; left++, right--) {
            int kept = argb[left];
            argb[left] = argb[right];
            argb[right] = kept;
        }
    }
}
