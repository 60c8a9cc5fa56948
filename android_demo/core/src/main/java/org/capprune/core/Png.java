package org.capprune.core;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.zip.CRC32;
import java.util.zip.DataFormatException;
import java.util.zip.Inflater;

/**
 * A PNG decoder for the photos inside a bundle, so that every device sees the same pixels and refuses the same files.
 *
 * <p>All colour types and depths; of 16 bits the upper 8 are kept. Colour profiles are ignored.
 */
public final class Png {
    private static final byte[] SIGNATURE = {(byte) 0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
    private static final int END = 'I' << 24 | 'E' << 16 | 'N' << 8 | 'D';
    private static final int GREY = 0;
    private static final int RGB = 2;
    private static final int PALETTE = 3;
    private static final int[] CHANNELS = {1, 0, 3, 1, 2, 0, 4}; // by colour type; 0: there is none
    private static final int WITH_ALPHA = 4; // a bit of the colour type
    // x and y of the first pixel, steps in x and y; the whole picture, or the passes of Adam7
    private static final int[][] WHOLE = {{0, 0, 1, 1}};
    private static final int[][] ADAM7 = {
        {0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2},
    };

    private final String where;
    private final ByteArrayOutputStream data = new ByteArrayOutputStream();
    private int width;
    private int height;
    private int depth;
    private int colour;
    private boolean interlaced;
    private byte[] palette = new byte[0];
    private byte[] transparency = new byte[0];

    private Png(String where) {
        this.where = where;
    }

    /** Whether a file says that it is a PNG. */
    public static boolean isPng(byte[] content) {
        return content.length > SIGNATURE.length
                && Arrays.equals(Arrays.copyOf(content, SIGNATURE.length), SIGNATURE);
    }

    /** Whether the chunks of a PNG lead to its end. */
    static boolean hasEnd(byte[] content) {
        ByteBuffer chunks = ByteBuffer.wrap(content);
        int at = SIGNATURE.length;
        while (at >= 0 && at <= content.length - 12) {
            int length = chunks.getInt(at);
            if (chunks.getInt(at + 4) == END) {
                return true;
            }
            at = length < 0 || length > content.length - at - 12 ? -1 : at + 12 + length;
        }
        return false;
    }

    /** Decode a PNG of at most {@code mostSide} pixels a side; {@code where} is its name, for messages. */
    public static ArrayPixels decode(byte[] content, String where, int mostSide) {
        Png png = new Png(where);
        png.chunks(ByteBuffer.wrap(content), mostSide);
        return new ArrayPixels(png.width, png.height, png.pixels());
    }

    private void chunks(ByteBuffer content, int mostSide) {
        if (!isPng(content.array())) {
            throw bad("a golden photo is not a PNG");
        }
        content.get(new byte[SIGNATURE.length]);
        String kind = "";
        while (!kind.equals("IEND")) {
            byte[] body = chunk(content);
            kind = new String(body, 0, 4, java.nio.charset.StandardCharsets.ISO_8859_1);
            if (width == 0 && !kind.equals("IHDR")) {
                throw bad("a photo cannot be decoded").found("no header");
            }
            switch (kind) {
                case "IHDR":
                    header(ByteBuffer.wrap(body), mostSide);
                    break;
                case "PLTE":
                    palette = Arrays.copyOfRange(body, 4, body.length);
                    break;
                case "tRNS":
                    transparency = Arrays.copyOfRange(body, 4, body.length);
                    break;
                case "IDAT":
                    data.write(body, 4, body.length - 4);
                    break;
                case "eXIf": // which could turn it
                case "zTXt": // which could be a bomb
                    throw bad("a photo cannot be decoded").found("EXIF data or compressed text in a golden photo");
                default:
                    break;
            }
        }
    }

    /** The kind and content of the next chunk, whose checksum holds. */
    private byte[] chunk(ByteBuffer content) {
        if (content.remaining() < 12) {
            throw bad("a photo cannot be decoded").found("it is cut off");
        }
        int length = content.getInt();
        if (length < 0 || length > content.remaining() - 8) {
            throw bad("a photo cannot be decoded").found("it is cut off");
        }
        byte[] body = new byte[4 + length];
        content.get(body);
        CRC32 sum = new CRC32();
        sum.update(body);
        if ((int) sum.getValue() != content.getInt()) {
            throw bad("a photo cannot be decoded").found("a chunk whose checksum is wrong");
        }
        return body;
    }

    private void header(ByteBuffer body, int mostSide) {
        if (body.capacity() != 17 || width != 0) {
            throw bad("a photo cannot be decoded").found("an impossible header");
        }
        long wide = body.getInt(4) & 0xFFFFFFFFL;
        long high = body.getInt(8) & 0xFFFFFFFFL;
        if (Math.max(wide, high) > mostSide) {
            throw bad("a golden photo is too large").expected("sides up to " + mostSide).found(wide + "×" + high);
        }
        Squash.requirePossible(wide, high, where);
        width = (int) wide;
        height = (int) high;
        depth = body.get(12);
        colour = body.get(13);
        interlaced = body.get(16) == 1;
        boolean known = colour >= 0 && colour < CHANNELS.length && CHANNELS[colour] > 0 && (depth == 8
                || (depth == 16 && colour != PALETTE)
                || ((depth == 1 || depth == 2 || depth == 4) && (colour == GREY || colour == PALETTE)));
        if (!known || body.get(14) != 0 || body.get(15) != 0 || body.get(16) > 1 || body.get(16) < 0) {
            throw bad("a photo cannot be decoded").found("an impossible header");
        }
    }

    private int[] pixels() {
        int[] argb = new int[width * height];
        Inflater inflater = new Inflater();
        inflater.setInput(data.toByteArray());
        try {
            for (int[] pass : interlaced ? ADAM7 : WHOLE) {
                pass(inflater, pass, argb);
            }
        } finally {
            inflater.end();
        }
        return argb;
    }

    private void pass(Inflater inflater, int[] pass, int[] argb) {
        int columns = (width - pass[0] + pass[2] - 1) / pass[2];
        int rows = (height - pass[1] + pass[3] - 1) / pass[3];
        if (columns <= 0 || rows <= 0) {
            return;
        }
        int bits = depth * CHANNELS[colour];
        int step = Math.max(1, bits / 8);
        byte[] above = new byte[(columns * bits + 7) / 8 + step]; // with a pixel of zeros in front
        byte[] row = new byte[above.length];
        for (int y = 0; y < rows; y++) {
            byte[] filter = new byte[1];
            fill(inflater, filter, 0);
            fill(inflater, row, step);
            unfilter(filter[0], row, above, step);
            int start = (pass[1] + y * pass[3]) * width + pass[0];
            for (int x = 0; x < columns; x++) {
                argb[start + x * pass[2]] = pixel(row, step, x);
            }
            byte[] spare = above;
            above = row;
            row = spare;
        }
    }

    private void fill(Inflater inflater, byte[] row, int from) {
        try {
            for (int place = from; place < row.length; ) {
                int count = inflater.inflate(row, place, row.length - place);
                if (count == 0) {
                    throw bad("a photo cannot be decoded").found("its pixels end early");
                }
                place += count;
            }
        } catch (DataFormatException error) {
            throw bad("a photo cannot be decoded").found(error.getMessage());
        }
    }

    private void unfilter(int filter, byte[] row, byte[] above, int step) {
        if (filter < 0 || filter > 4) {
            throw bad("a photo cannot be decoded").found("an unknown filter");
        }
        for (int n = step; n < row.length; n++) {
            int left = row[n - step] & 0xFF;
            int up = above[n] & 0xFF;
            int corner = above[n - step] & 0xFF;
            row[n] += (byte) switch (filter) {
                case 1 -> left;
                case 2 -> up;
                case 3 -> (left + up) / 2;
                case 4 -> paeth(left, up, corner);
                default -> 0;
            };
        }
    }

    private static int paeth(int left, int up, int corner) {
        int toLeft = Math.abs(up - corner);
        int toUp = Math.abs(left - corner);
        int toCorner = Math.abs(left + up - 2 * corner);
        if (toLeft <= toUp && toLeft <= toCorner) {
            return left;
        }
        return toUp <= toCorner ? up : corner;
    }

    private int pixel(byte[] row, int start, int x) {
        int channels = CHANNELS[colour];
        if (colour == PALETTE) {
            return fromPalette(sample(row, start, x));
        }
        int grey = eightBits(sample(row, start, x * channels));
        boolean coloured = (colour & RGB) != 0;
        int green = coloured ? eightBits(sample(row, start, x * channels + 1)) : grey;
        int blue = coloured ? eightBits(sample(row, start, x * channels + 2)) : grey;
        int alpha = (colour & WITH_ALPHA) != 0 ? eightBits(sample(row, start, x * channels + channels - 1))
                : isTransparent(row, start, x) ? 0 : 255;
        return alpha << 24 | grey << 16 | green << 8 | blue;
    }

    /** Whether a pixel without alpha is the one colour that stands for transparent; never in 16-bit grey. */
    private boolean isTransparent(byte[] row, int start, int x) {
        int channels = CHANNELS[colour];
        if (transparency.length < 2 * channels || (colour == GREY && depth == 16)) {
            return false;
        }
        for (int channel = 0; channel < channels; channel++) {
            int wanted = (transparency[2 * channel] & 0xFF) << 8 | transparency[2 * channel + 1] & 0xFF;
            if (sample(row, start, x * channels + channel) != wanted) {
                return false;
            }
        }
        return true;
    }

    private int fromPalette(int index) {
        if (3 * index + 2 >= palette.length) {
            throw bad("a photo cannot be decoded").found("a colour that its palette lacks");
        }
        int alpha = index < transparency.length ? transparency[index] & 0xFF : 255;
        return alpha << 24 | (palette[3 * index] & 0xFF) << 16 | (palette[3 * index + 1] & 0xFF) << 8
                | palette[3 * index + 2] & 0xFF;
    }

    private int sample(byte[] row, int start, int index) {
        if (depth == 8) {
            return row[start + index] & 0xFF;
        }
        if (depth == 16) {
            return (row[start + 2 * index] & 0xFF) << 8 | row[start + 2 * index + 1] & 0xFF;
        }
        int bit = index * depth;
        return row[start + bit / 8] >> (8 - depth - bit % 8) & (1 << depth) - 1;
    }

    private int eightBits(int sample) {
        return depth == 16 ? sample >> 8 : sample * 255 / ((1 << depth) - 1);
    }

    private CapPruneException bad(String what) {
        return new CapPruneException(ErrorKind.PHOTO, what).at(where);
    }
}
