package org.capprune.core;

/** A decoded photo, row by row: 8-bit colour with transparency. */
public interface Pixels {
    int width();

    int height();

    /** Fill {@code argb} with the pixels of one row, not premultiplied: alpha in the upper byte, then red, green, blue. */
    void row(int y, int[] argb);

    /** Fill {@code argb} with the pixels of one column. */
    void column(int x, int[] argb);
}
