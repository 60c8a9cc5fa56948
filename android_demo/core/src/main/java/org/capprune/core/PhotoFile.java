package org.capprune.core;

import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * What is checked of a photo file before a decoder of the device sees it, and afterwards: Python's photo_file.py for the formats
 * that phones decode.
 *
 * <p>A phone's own decoders also open raw photos, icons and WBMP, decode a JPEG of thousands of scans for hours, and fill up the
 * rows that a file lacks without an error.
 */
public final class PhotoFile {
    /** The most bytes of a file; less than in Python, as they are read into the memory of an app. */
    public static final int MOST_BYTES = 64 << 20;

    private static final int MOST_DECODED_PIXELS = 32_000_000; // four bytes each
    private static final int MOST_EXACT_PIXELS = 16_000_000; // of a PNG that this package decodes, on the heap of the app
    private static final int MOST_SCANS = 100;
    private static final int MISSING_SHARE = 16; // 1/16 of a JPEG's rows may be missing at its end
    private static final int MARKER = 0xFF;
    private static final int SCAN = 0xDA;
    private static final int END = 0xD9;
    private static final int FTYP_AT = 4;
    private static final int LEAST_WEBP_BYTES = 26; // headers alone
    private static final String HEIF_BRANDS = "heic heix heim heis hevc hevx hevm hevs mif1 msf1 avif avis";

    private PhotoFile() {}

    /** The kinds of files that are photos, by how they start. */
    private enum Kind { JPEG, PNG, WEBP, GIF, BMP, HEIF }

    /** Read a photo file; a pipe, a folder, a device or a file that is too large is refused before it is read. */
    public static byte[] read(File file) {
        if (!file.isFile()) {
            throw unreadable(file.getPath()).found(file.exists() ? "not a plain file" : "there is no such file");
        }
        requireSize(file.length(), file.getPath());
        try (InputStream stream = new FileInputStream(file)) {
            return read(stream, file.getPath());
        } catch (IOException error) {
            throw unreadable(file.getPath()).found(error.getMessage());
        }
    }

    /** Read a stream to its end; one that never ends is refused. {@code where} is its name, for messages. */
    public static byte[] read(InputStream stream, String where) throws IOException {
        ByteArrayOutputStream content = new ByteArrayOutputStream();
        byte[] part = new byte[1 << 16];
        for (int count = stream.read(part); count >= 0; count = stream.read(part)) {
            content.write(part, 0, count);
            requireSize(content.size(), where);
        }
        return content.toByteArray();
    }

    /**
     * Refuse what is no photo, or is dear to decode.
     *
     * @return whether the file holds its end; of a JPEG without one, {@link #requireRows} must be asked after it was decoded
     */
    public static boolean check(byte[] content, String where) {
        if (content.length == 0) {
            throw new CapPruneException(ErrorKind.PHOTO, "a photo is empty").at(where).found("0 bytes");
        }
        requireSize(content.length, where);
        Kind kind = kind(content);
        if (kind == null) {
            throw new CapPruneException(ErrorKind.PHOTO, "a file is not a photo that can be read").at(where)
                    .expected("one of " + Arrays.toString(Kind.values()));
        }
        boolean whole = switch (kind) {
            case JPEG -> jpegHasEnd(content, where);
            case PNG -> Png.hasEnd(content);
            case WEBP -> content.length >= LEAST_WEBP_BYTES && littleEndian(content, 4) + 8 <= content.length;
            case BMP -> bmpHasPixels(content);
            case GIF -> endsWith(content, (byte) ';');
            case HEIF -> true; // its decoders refuse what is cut off
        };
        if (!whole && kind != Kind.JPEG) {
            throw new CapPruneException(ErrorKind.PHOTO, "a photo cannot be decoded").at(where).found("it is cut off");
        }
        return whole;
    }

    /** Refuse a decoded JPEG of which more than a few rows are missing: decoders fill them up with one colour. */
    public static void requireRows(Pixels photo, String where) {
        int[] row = new int[photo.width()];
        photo.row(Math.max(0, photo.height() - photo.height() / MISSING_SHARE - 1), row);
        if (Arrays.stream(row).allMatch(pixel -> pixel == row[0])) {
            throw new CapPruneException(ErrorKind.PHOTO, "a photo cannot be decoded").at(where).found("it is cut off");
        }
    }

    /** By what a decoder should divide width and height, a power of two, so that the photo fits into memory. */
    public static int sampleSize(int width, int height, String where) {
        Squash.requirePossible(width, height, where);
        int sample = 1;
        while ((long) (width / sample) * (height / sample) > MOST_DECODED_PIXELS) {
            sample *= 2;
        }
        return sample;
    }

    /** Whether a file is a PNG that {@link Png} may decode, to the bit as on every other device. */
    public static boolean isModestPng(byte[] content) {
        if (!Png.isPng(content) || content.length < 24) {
            return false;
        }
        long width = bigEndian(content, 16);
        long height = bigEndian(content, 20);
        return Math.max(width, height) <= Squash.MOST_SIDE && width * height <= MOST_EXACT_PIXELS;
    }

    private static Kind kind(byte[] content) {
        if (content.length >= 3 && unsigned(content, 0) == MARKER && unsigned(content, 1) == 0xD8
                && unsigned(content, 2) == MARKER) {
            return Kind.JPEG;
        }
        if (Png.isPng(content)) {
            return Kind.PNG;
        }
        String start = new String(content, 0, Math.min(content.length, 256), StandardCharsets.ISO_8859_1);
        if (start.startsWith("RIFF") && start.startsWith("WEBP", 8)) {
            return Kind.WEBP;
        }
        if (start.startsWith("GIF87a") || start.startsWith("GIF89a")) {
            return Kind.GIF;
        }
        if (start.startsWith("BM")) {
            return Kind.BMP;
        }
        return start.startsWith("ftyp", FTYP_AT) && isHeif(content, start) ? Kind.HEIF : null;
    }

    /** Whether one of the brands of a file is of HEIF or AVIF, and not of a video. */
    private static boolean isHeif(byte[] content, String start) {
        long end = Math.min(bigEndian(content, 0), start.length());
        for (int at = 8; at + 4 <= end; at += at == 8 ? 8 : 4) {
            if (Arrays.asList(HEIF_BRANDS.split(" ")).contains(start.substring(at, at + 4))) {
                return true;
            }
        }
        return false;
    }

    /** Whether a JPEG's first image has an end; one of too many scans, each of which takes time by the pixels, is refused. */
    private static boolean jpegHasEnd(byte[] content, String where) {
        int scans = 0;
        int at = 2;
        while (at + 1 < content.length) {
            int marker = unsigned(content, at + 1);
            boolean inData = marker <= 1 || (marker >= 0xD0 && marker <= 0xD7) || marker == MARKER;
            if (unsigned(content, at) != MARKER || inData) {
                at++;
                continue;
            }
            if (marker == END) {
                return true;
            }
            if (marker == SCAN && ++scans > MOST_SCANS) {
                throw new CapPruneException(ErrorKind.PHOTO, "a JPEG has too many scans").at(where)
                        .expected("at most " + MOST_SCANS).hint("convert it to PNG first");
            }
            at += 2 + (at + 3 < content.length ? unsigned(content, at + 2) << 8 | unsigned(content, at + 3) : 0);
        }
        return false;
    }

    /** Whether a BMP without compression holds all of its rows. */
    private static boolean bmpHasPixels(byte[] content) {
        if (content.length < 54 || littleEndian(content, 14) < 40) {
            return content.length >= 26; // the header of OS/2, which has other fields
        }
        long width = (int) littleEndian(content, 18);
        long height = Math.abs((long) (int) littleEndian(content, 22));
        long bits = unsigned(content, 28) | unsigned(content, 29) << 8;
        boolean plain = littleEndian(content, 30) == 0 || littleEndian(content, 30) == 3;
        return !plain || littleEndian(content, 10) + (width * bits + 31) / 32 * 4 * height <= content.length;
    }

    private static boolean endsWith(byte[] content, byte last) {
        int end = content.length;
        while (end > 0 && content[end - 1] == 0) { // padding
            end--;
        }
        return end > 0 && content[end - 1] == last;
    }

    private static void requireSize(long size, String where) {
        if (size > MOST_BYTES) {
            throw new CapPruneException(ErrorKind.PHOTO, "a photo file is too large").at(where)
                    .expected("at most " + MOST_BYTES + " bytes").hint("make a smaller copy of the photo");
        }
    }

    private static CapPruneException unreadable(String where) {
        return new CapPruneException(ErrorKind.PHOTO, "a photo cannot be read").at(where);
    }

    private static int unsigned(byte[] content, int at) {
        return content[at] & 0xFF;
    }

    private static long littleEndian(byte[] content, int at) {
        return at + 4 > content.length ? 0 : unsigned(content, at) | unsigned(content, at + 1) << 8
                | unsigned(content, at + 2) << 16 | (long) unsigned(content, at + 3) << 24;
    }

    private static long bigEndian(byte[] content, int at) {
        return at + 4 > content.length ? 0 : (long) unsigned(content, at) << 24 | unsigned(content, at + 1) << 16
                | unsigned(content, at + 2) << 8 | unsigned(content, at + 3);
    }
}
