package org.capprune.core;

/**
 * {@code squash-triangle-q15}: a whole photo to a square by an antialiased triangle filter in fixed point, the same to
 * the bit on every machine and in every language. docs/bundle_format.md, section 4, gives the formulas.
 */
public final class Squash {
    /** The most pixels of a photo. */
    public static final long MOST_PIXELS = 100_000_000;

    /** The most pixels of a side: JPEG's own limit, which keeps every weight of the resize far inside 64 bits. */
    public static final int MOST_SIDE = 65_535;

    private static final int CHANNELS = 3;
    private static final int ONE_BITS = 15; // coefficients are fixed point, 2^15 is 1
    private static final int WHITE = 255;

    private Squash() {}

    /**
     * Squash a photo.
     *
     * @param photo the upright photo; transparent pixels are laid on white
     * @param size S, the side of the square
     * @return (S, S, 3) RGB, one byte a number
     */
    public static byte[] squash(Pixels photo, int size) {
        int width = photo.width();
        int height = photo.height();
        requirePossible(width, height, "the photo");
        byte[] narrow = new byte[height * size * CHANNELS]; // (H, S, 3)
        Axis columns = new Axis(width, size);
        int[] argb = new int[width];
        byte[] rgb = new byte[width * CHANNELS];
        for (int y = 0; y < height; y++) {
            photo.row(y, argb);
            onWhite(argb, rgb);
            columns.squash(rgb, 0, CHANNELS, narrow, y * size * CHANNELS, CHANNELS, CHANNELS);
        }
        byte[] square = new byte[size * size * CHANNELS];
        new Axis(height, size).squash(narrow, 0, size * CHANNELS, square, 0, size * CHANNELS, size * CHANNELS);
        return square;
    }

    /**
     * The encoder's input, (x - mean) / scale, each operation rounded to float32; (1, S, S, 3) as the square lies.
     *
     * @param mean of red, green and blue, on the scale 0 to 255
     * @param scale of the same
     */
    public static float[] normalise(byte[] square, double[] mean, double[] scale) {
        float[] input = new float[square.length];
        for (int channel = 0; channel < CHANNELS; channel++) {
            float channelMean = (float) mean[channel];
            float channelScale = (float) scale[channel];
            for (int n = channel; n < square.length; n += CHANNELS) {
                float shifted = (square[n] & 0xFF) - channelMean;
                input[n] = shifted / channelScale;
            }
        }
        return input;
    }

    /** Refuse a photo that is too large or has no pixels, before it is decoded. */
    public static void requirePossible(long width, long height, String where) {
        if (width < 1 || height < 1) {
            throw new CapPruneException(ErrorKind.PHOTO, "a photo has no pixels").at(where)
                    .found(width + "×" + height);
        }
        if (width * height > MOST_PIXELS || Math.max(width, height) > MOST_SIDE) {
            throw new CapPruneException(ErrorKind.PHOTO, "a photo has too many pixels").at(where)
                    .expected("at most " + MOST_PIXELS / 1_000_000 + " megapixels and " + MOST_SIDE + " a side")
                    .found(width + "×" + height);
        }
    }

    private static void onWhite(int[] argb, byte[] rgb) {
        for (int x = 0; x < argb.length; x++) {
            int alpha = argb[x] >>> 24;
            for (int channel = 0; channel < CHANNELS; channel++) {
                int value = argb[x] >> (16 - 8 * channel) & 0xFF;
                rgb[x * CHANNELS + channel] = (byte) ((value * alpha + WHITE * (WHITE - alpha) + 127) / WHITE);
            }
        }
    }

    /** The coefficients of one axis: for every output, from which input on, and one for each input. */
    private static final class Axis {
        private final int[] first;
        private final int[][] coefficients;

        Axis(int inputs, int outputs) {
            first = new int[outputs];
            coefficients = new int[outputs][];
            for (int output = 0; output < outputs; output++) {
                plan(inputs, outputs, output);
            }
        }

        private void plan(long inputs, long outputs, int output) {
            long reach = 2 * Math.max(inputs, outputs); // half the base of the triangle, in units of 1 / (2·in·out)
            long centre = (2L * output + 1) * inputs;
            int low = (int) Math.max(0, Math.floorDiv(centre - reach - outputs, 2 * outputs));
            int high = (int) Math.min(inputs - 1, Math.floorDiv(centre + reach, 2 * outputs));
            long[] weights = new long[high - low + 1];
            long total = 0;
            for (int n = 0; n < weights.length; n++) {
                weights[n] = Math.max(0, reach - Math.abs((2L * (low + n) + 1) * outputs - centre));
                total += weights[n];
            }
            int[] row = new int[weights.length];
            int residual = 1 << ONE_BITS;
            int largest = 0;
            for (int n = 0; n < row.length; n++) {
                row[n] = (int) (((weights[n] << (ONE_BITS + 1)) + total) / (2 * total));
                residual -= row[n];
                largest = row[n] > row[largest] ? n : largest;
            }
            row[largest] += residual;
            first[output] = low;
            coefficients[output] = row;
        }

        /** Each output is a run of {@code count} bytes; runs of the inputs and outputs lie a stride apart. */
        void squash(byte[] from, int fromAt, int fromStride, byte[] to, int toAt, int toStride, int count) {
            for (int output = 0; output < first.length; output++) {
                int[] row = coefficients[output];
                for (int channel = 0; channel < count; channel++) {
                    int sum = 1 << (ONE_BITS - 1);
                    int place = fromAt + first[output] * fromStride + channel;
                    for (int coefficient : row) {
                        sum += coefficient * (from[place] & 0xFF);
                        place += fromStride;
                    }
                    to[toAt + output * toStride + channel] = (byte) Math.max(0, Math.min(255, sum >> ONE_BITS));
                }
            }
        }
    }
}
