package org.capprune.core.bundle;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.bundle.Entropy.Run;
import org.capprune.core.bundle.Entropy.Table;

/**
 * The plan of a model file inside a packed bundle: what its coded pieces are, where they lie, and their tables;
 * docs/bundle_format.md, section 8.2.
 */
final class CapzPlan {
    static final int MOST_BYTES = 1 << 20;
    static final int MOST_LOW_BITS = 30;

    private static final int MOST_PIECES = 4096;
    private static final int MOST_KEPT = 1 << 24; // positions of one piece, and rows
    private static final long MOST_PLACES = 1L << 40; // rows times columns
    private static final int ZERO_SYMBOL = 128; // of SCALED: the symbol of a weight that is zero
    // Kinds of pieces.
    private static final int BYTES = 0;
    private static final int SCALED = 1;
    private static final int POSITIONS = 3;
    private static final int WORDS = 4;

    private final ByteBuffer plan;
    private final int size; // of the expanded file

    private CapzPlan(byte[] plan, int size) {
        this.plan = ByteBuffer.wrap(plan).order(ByteOrder.LITTLE_ENDIAN);
        this.size = size;
    }

    /** What the pieces of a file of {@code size} bytes are. */
    static List<Piece> read(byte[] plan, int size) {
        CapzPlan reader = new CapzPlan(plan, size);
        long count = reader.number(0, MOST_PIECES);
        List<Piece> pieces = new ArrayList<>();
        for (int n = 0; n < count; n++) {
            pieces.add(reader.piece());
        }
        if (reader.plan.hasRemaining()) {
            throw bad("bytes follow the last piece").found(reader.plan.remaining());
        }
        return pieces;
    }

    /** A part of the file that a piece gives back: its first byte, and the one behind it. */
    record Cut(long first, long behind) {}

    /** A piece of the file. */
    sealed interface Piece permits BytesPiece, FloatPiece, PositionsPiece, WordsPiece {
        /** What it gives back. */
        List<Cut> cuts();

        /** What stands for it in the stream of symbols. */
        List<Run> runs();
    }

    /** Items of several bytes; byte n of every item is a run, or literal where the table is null. */
    record BytesPiece(int offset, int count, List<Table> planes) implements Piece {
        @Override
        public List<Cut> cuts() {
            return Collections.singletonList(new Cut(offset, offset + (long) count * planes.size()));
        }

        @Override
        public List<Run> runs() {
            List<Run> runs = new ArrayList<>();
            for (Table table : planes) {
                if (table != null) {
                    runs.add(new Run(count, table));
                }
            }
            return runs;
        }

        /** How many bytes are literal. */
        long literals() {
            return (long) count * Collections.frequency(planes, null);
        }
    }

    /** float32 values, each of them the entry of {@code book} that a symbol names. */
    record FloatPiece(int offset, int count, int[] book, Table table) implements Piece {
        @Override
        public List<Cut> cuts() {
            return Collections.singletonList(new Cut(offset, offset + 4L * count));
        }

        @Override
        public List<Run> runs() {
            return Collections.singletonList(new Run(count, table));
        }
    }

    /** Row pointers and column indices of a sparse tensor, counted in blocks where it has blocks. */
    record PositionsPiece(int pointers, int pointerBytes, int indices, int indexBytes, int rows, long columns, int kept,
            int mantissaBits, Table table) implements Piece {
        @Override
        public List<Cut> cuts() {
            return Arrays.asList(new Cut(pointers, pointers + (rows + 1L) * pointerBytes),
                    new Cut(indices, indices + (long) kept * indexBytes));
        }

        @Override
        public List<Run> runs() {
            return Collections.singletonList(new Run(kept, table));
        }
    }

    /** The bundle's vocabulary.txt, whole, which a model file may hold as metadata. */
    record WordsPiece(int offset, int count) implements Piece {
        @Override
        public List<Cut> cuts() {
            return Collections.singletonList(new Cut(offset, offset + (long) count));
        }

        @Override
        public List<Run> runs() {
            return Collections.emptyList();
        }
    }

    private Piece piece() {
        int kind = (int) number(BYTES, WORDS);
        if (kind == POSITIONS) {
            return positions();
        }
        int offset = (int) number(0, size);
        int count = (int) number(1, Math.max(size, 1));
        if (kind == WORDS) {
            return new WordsPiece(offset, count);
        }
        if (kind == BYTES) {
            List<Table> planes = new ArrayList<>();
            for (long width = number(1, 4); width > 0; width--) {
                planes.add(tableOrNone(Entropy.SYMBOLS));
            }
            return new BytesPiece(offset, count, planes);
        }
        int[] book = kind == SCALED ? scaled() : codebook();
        return new FloatPiece(offset, count, book, table(book.length));
    }

    /** The bits of scale · (symbol - 128), the product rounded to float32. */
    private int[] scaled() {
        float scale = Float.intBitsToFloat(take());
        int[] book = new int[Entropy.SYMBOLS];
        Arrays.setAll(book, symbol -> Float.floatToRawIntBits(scale * (symbol - ZERO_SYMBOL)));
        return book;
    }

    private int[] codebook() {
        int[] book = new int[(int) number(1, Entropy.SYMBOLS)];
        for (int n = 0; n < book.length; n++) {
            book[n] = take();
        }
        return book;
    }

    private PositionsPiece positions() {
        int pointers = (int) number(0, size);
        int pointerBytes = (int) number(1, 4);
        int indices = (int) number(0, size);
        int indexBytes = (int) number(1, 4);
        int rows = (int) number(1, MOST_KEPT);
        long columns = number(1, 1L << 32);
        int kept = (int) number(1, MOST_KEPT);
        int mantissaBits = (int) number(0, 7);
        int symbols = Math.min(Entropy.SYMBOLS, (MOST_LOW_BITS + 2) << mantissaBits);
        Table table = table(symbols);
        boolean fits = kept < 1L << (8 * pointerBytes) && columns <= 1L << (8 * indexBytes)
                && pointerBytes != 3 && indexBytes != 3 && rows * columns <= MOST_PLACES;
        if (!fits) {
            throw bad("positions do not fit their numbers").at("byte " + plan.position());
        }
        return new PositionsPiece(pointers, pointerBytes, indices, indexBytes, rows, columns, kept, mantissaBits, table);
    }

    private int take() {
        if (plan.remaining() < 4) {
            throw bad("it is cut off").at("byte " + plan.position());
        }
        return plan.getInt();
    }

    /** 7 bits a byte, low ones first; the top bit says that more follow. */
    private long number(long low, long high) {
        int start = plan.position();
        long value = 0;
        boolean more = true;
        for (int shift = 0; more && shift < 35; shift += 7) {
            if (!plan.hasRemaining()) {
                throw bad("it is cut off").at("byte " + plan.position());
            }
            byte part = plan.get();
            value |= (long) (part & 0x7F) << shift;
            more = part < 0;
        }
        if (more || value < low || value > high) {
            throw bad("a number is out of range").at("byte " + start).expected(low + " to " + high);
        }
        return value;
    }

    private Table table(int symbols) {
        Table found = tableOrNone(symbols);
        if (found == null) {
            throw bad("a table is missing").at("byte " + plan.position());
        }
        return found;
    }

    private Table tableOrNone(int symbols) {
        int bits = (int) number(0, Entropy.MOST_TABLE_BITS);
        if (bits == 0) {
            return null;
        }
        int first = (int) number(0, symbols - 1);
        int count = (int) number(1, symbols - first);
        int[] frequencies = new int[Entropy.SYMBOLS];
        int total = 0;
        for (int symbol = first; symbol < first + count; symbol++) {
            frequencies[symbol] = (int) number(0, 1L << bits);
            total += frequencies[symbol];
        }
        if (total != 1 << bits) {
            throw bad("a table is not normalised").expected(1 << bits).found(total);
        }
        return new Table(bits, frequencies);
    }

    private static CapPruneException bad(String problem) {
        return new CapPruneException(ErrorKind.BUNDLE, "plan: " + problem);
    }
}
