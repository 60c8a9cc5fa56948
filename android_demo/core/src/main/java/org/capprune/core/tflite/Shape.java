package org.capprune.core.tflite;

import java.util.Arrays;

/** The sizes of a tensor, outermost first. */
public final class Shape {
    private static final long MOST_ELEMENTS = 1L << 50; // where products stop growing: larger than any cap

    private final int[] sizes;

    public Shape(int... sizes) {
        this.sizes = sizes.clone();
    }

    public int rank() {
        return sizes.length;
    }

    public int size(int axis) {
        return sizes[axis];
    }

    int last() {
        return sizes[sizes.length - 1];
    }

    public int[] sizes() {
        return sizes.clone();
    }

    /** The sizes from {@code first} to before {@code behind}. */
    public int[] sizes(int first, int behind) {
        return Arrays.copyOfRange(sizes, first, behind);
    }

    boolean allPositive() {
        return Arrays.stream(sizes).allMatch(size -> size > 0);
    }

    /** How many numbers there are; sizes are positive, and the count stops at 2^50. */
    public long elements() {
        return product(sizes);
    }

    /** The product of positive sizes, which stops at 2^50 instead of overflowing. */
    static long product(int... sizes) {
        long product = 1;
        for (int size : sizes) {
            product = size > 0 && product > MOST_ELEMENTS / size ? MOST_ELEMENTS : product * size;
        }
        return product;
    }

    /** Several runs of sizes as one shape. */
    static Shape of(int[]... parts) {
        return new Shape(Arrays.stream(parts).flatMapToInt(Arrays::stream).toArray());
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Shape shape && Arrays.equals(sizes, shape.sizes);
    }

    @Override
    public int hashCode() {
        return Arrays.hashCode(sizes);
    }

    @Override
    public String toString() {
        return Arrays.toString(sizes);
    }
}
