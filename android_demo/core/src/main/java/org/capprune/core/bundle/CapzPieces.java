package org.capprune.core.bundle;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.Iterator;
import java.util.List;
import java.util.function.Supplier;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.bundle.CapzPlan.BytesPiece;
import org.capprune.core.bundle.CapzPlan.Cut;
import org.capprune.core.bundle.CapzPlan.FloatPiece;
import org.capprune.core.bundle.CapzPlan.Piece;
import org.capprune.core.bundle.CapzPlan.PositionsPiece;
import org.capprune.core.bundle.CapzPlan.WordsPiece;
import org.capprune.core.bundle.Entropy.Run;

/**
 * One model file inside a packed bundle: cut into literal bytes and coded pieces, and put together again.
 *
 * <pre>
 * section    sizes, plan (zlib), literals (zlib), low bits, rANS states, rANS words
 * plan       what each piece is: where it lies in the file, how many items it has, its tables
 * literals   the file without its pieces, and what of the pieces did not pay to code
 * </pre>
 */
final class CapzPieces {
    private static final int SIZES_BYTES = 24;

    private final byte[] content;
    private final byte[] literals;
    private final LowBits lowBits;
    private final Iterator<byte[]> symbols;
    private int used; // of the literals

    private CapzPieces(Parts parts, List<Piece> pieces, List<Cut> cuts, int size) {
        long left = size;
        for (Cut cut : cuts) {
            left -= cut.behind() - cut.first();
        }
        List<Run> runs = new ArrayList<>();
        for (Piece piece : pieces) {
            runs.addAll(piece.runs());
            left += piece instanceof BytesPiece bytes ? bytes.literals() : 0;
        }
        literals = Inflated.exactly(parts.literals, (int) left, "literals");
        symbols = Entropy.decode(runs, parts.states, parts.words).iterator();
        lowBits = new LowBits(parts.lowBits);
        content = new byte[size];
    }

    /**
     * Put a model file together again.
     *
     * @param section as the packed bundle holds it
     * @param size of the file, known to be possible
     * @param words gives the bundle's vocabulary.txt, where a piece stands for it
     */
    static byte[] expand(ByteBuffer section, int size, Supplier<byte[]> words) {
        Parts parts = new Parts(section);
        List<Piece> pieces = CapzPlan.read(Inflated.exactly(parts.plan, parts.planBytes, "plan"), size);
        List<Cut> cuts = sortedCuts(pieces, size);
        CapzPieces file = new CapzPieces(parts, pieces, cuts, size);
        file.fillLiterals(cuts);
        for (Piece piece : pieces) {
            if (piece instanceof BytesPiece bytes) {
                file.fill(bytes);
            } else if (piece instanceof FloatPiece floats) {
                file.fill(floats);
            } else if (piece instanceof PositionsPiece positions) {
                file.fill(positions);
            } else if (piece instanceof WordsPiece vocabulary) {
                file.fill(vocabulary, words.get());
            }
        }
        file.lowBits.requireEnd();
        return file.content;
    }

    /** The parts of a section, which fill it. */
    private static final class Parts {
        private final ByteBuffer section;
        private final int planBytes;
        private final ByteBuffer plan;
        private final ByteBuffer literals;
        private final ByteBuffer lowBits;
        private final long[] states;
        private final ByteBuffer words;
        private int position = SIZES_BYTES;

        Parts(ByteBuffer section) {
            this.section = section;
            if (section.capacity() < SIZES_BYTES) {
                throw bad("section: it is cut off").expected(SIZES_BYTES + " bytes").found(section.capacity());
            }
            long[] sizes = new long[6]; // plan coded, plan, literals coded, low bits, words, lanes
            long total = SIZES_BYTES;
            for (int n = 0; n < sizes.length; n++) {
                sizes[n] = section.getInt(4 * n) & 0xFFFFFFFFL;
            }
            if (sizes[1] > CapzPlan.MOST_BYTES) {
                throw bad("section: the plan is too long").expected(CapzPlan.MOST_BYTES).found(sizes[1]);
            }
            if (sizes[5] < 1 || sizes[5] > Entropy.MOST_LANES) {
                throw bad("section: number of lanes").expected("1 to " + Entropy.MOST_LANES).found(sizes[5]);
            }
            total += sizes[0] + sizes[2] + sizes[3] + 4 * sizes[5] + 2 * sizes[4];
            if (total != section.capacity()) {
                throw bad("section: its parts do not fill it").expected(section.capacity()).found(total);
            }
            planBytes = (int) sizes[1];
            plan = next(sizes[0]);
            literals = next(sizes[2]);
            lowBits = next(sizes[3]);
            states = states(next(4 * sizes[5]));
            words = next(2 * sizes[4]);
        }

        private ByteBuffer next(long bytes) {
            int start = section.arrayOffset() + position;
            position += (int) bytes;
            return ByteBuffer.wrap(section.array(), start, (int) bytes).slice().order(ByteOrder.LITTLE_ENDIAN);
        }

        private static long[] states(ByteBuffer stored) {
            long[] states = new long[stored.capacity() / 4];
            for (int lane = 0; lane < states.length; lane++) {
                states[lane] = stored.getInt(4 * lane) & 0xFFFFFFFFL;
                if (states[lane] < Entropy.LOW) {
                    throw bad("section: a state is out of range").expected("at least " + Entropy.LOW);
                }
            }
            return states;
        }
    }

    /** What the pieces cut from the file, in the order of the file. */
    private static List<Cut> sortedCuts(List<Piece> pieces, int size) {
        List<Cut> cuts = new ArrayList<>();
        pieces.forEach(piece -> cuts.addAll(piece.cuts()));
        cuts.sort(Comparator.comparingLong(Cut::first).thenComparingLong(Cut::behind));
        long behind = 0;
        for (Cut cut : cuts) {
            if (cut.first() < behind) {
                throw bad("plan: two pieces overlap").at("byte " + cut.first() + " of the file");
            }
            behind = cut.behind();
        }
        if (behind > size) {
            throw bad("plan: a piece lies behind the file").at("byte " + behind + " of the file");
        }
        return cuts;
    }

    private void fillLiterals(List<Cut> cuts) {
        int place = 0;
        for (Cut cut : cuts) {
            copyLiterals(place, (int) cut.first() - place);
            place = (int) cut.behind();
        }
        copyLiterals(place, content.length - place);
    }

    private void copyLiterals(int place, int count) {
        System.arraycopy(literals, used, content, place, count);
        used += count;
    }

    private void fill(BytesPiece piece) {
        int width = piece.planes().size();
        for (int plane = 0; plane < width; plane++) {
            boolean coded = piece.planes().get(plane) != null;
            byte[] from = coded ? symbols.next() : literals;
            int start = coded ? 0 : used;
            for (int n = 0; n < piece.count(); n++) {
                content[piece.offset() + n * width + plane] = from[start + n];
            }
            used += coded ? 0 : piece.count();
        }
    }

    private void fill(FloatPiece piece) {
        byte[] names = symbols.next();
        for (int n = 0; n < names.length; n++) {
            put(piece.offset() + 4 * n, piece.book()[names[n] & 0xFF], 4);
        }
    }

    private void fill(WordsPiece piece, byte[] words) {
        if (words.length != piece.count()) {
            throw bad("plan: the vocabulary has another length").expected(piece.count()).found(words.length);
        }
        System.arraycopy(words, 0, content, piece.offset(), words.length);
    }

    /** Kept weights by their gaps: docs/bundle_format.md, section 8.4. */
    private void fill(PositionsPiece piece) {
        byte[] tokens = symbols.next();
        int mantissa = piece.mantissaBits();
        long places = piece.rows() * piece.columns();
        long place = -1;
        int row = 0;
        for (int n = 0; n < tokens.length; n++) {
            int token = tokens[n] & 0xFF;
            int bits = Math.max((token >> mantissa) - 1, 0);
            long leading = token >> mantissa > 0 ? 1L << mantissa : 0;
            long gap = ((leading + token % (1 << mantissa)) << bits) + lowBits.take(bits);
            place += 1 + gap;
            if (place >= places) {
                throw bad("positions: a kept weight lies behind the last row").found(place);
            }
            put(piece.indices() + n * piece.indexBytes(), place % piece.columns(), piece.indexBytes());
            for (; row <= place / piece.columns(); row++) { // pointer r: how many places are below r · columns
                put(piece.pointers() + row * piece.pointerBytes(), n, piece.pointerBytes());
            }
        }
        for (; row <= piece.rows(); row++) {
            put(piece.pointers() + row * piece.pointerBytes(), tokens.length, piece.pointerBytes());
        }
    }

    private void put(int place, long value, int bytes) {
        for (int n = 0; n < bytes; n++) {
            content[place + n] = (byte) (value >> (8 * n));
        }
    }

    /** A stream of numbers of so many bits each, low bits first. */
    private static final class LowBits {
        private final ByteBuffer data;
        private long position; // in bits

        LowBits(ByteBuffer data) {
            this.data = data;
        }

        long take(int bits) {
            if (position + bits > 8L * data.capacity()) {
                throw bad("low bits: they end early").found(8L * data.capacity());
            }
            long value = 0;
            for (int n = 0; n < bits; n++, position++) {
                value |= (long) (data.get((int) (position >> 3)) >> (position & 7) & 1) << n;
            }
            return value;
        }

        void requireEnd() {
            if (8L * data.capacity() - position >= 8) {
                throw bad("low bits: some are left over").expected(position).found(8L * data.capacity());
            }
            if (position % 8 != 0 && (data.get((int) (position >> 3)) & 0xFF) >> (position % 8) != 0) {
                throw bad("low bits: the last byte holds more than its bits");
            }
        }
    }

    private static CapPruneException bad(String what) {
        return new CapPruneException(ErrorKind.BUNDLE, what);
    }
}
