package org.capprune.core.bundle;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;

/** Decoding streams of symbols: rANS with static tables and many lanes; docs/bundle_format.md, section 8.3. */
final class Entropy {
    static final int SYMBOLS = 256;
    static final int MOST_TABLE_BITS = 15; // so that one word is always enough to bring a state back above LOW
    static final long LOW = 1 << 16; // a state lies in [LOW, 2^32); it is LOW where the encoder began
    static final int MOST_LANES = 1 << 14;

    private static final long MOST_STEPS = 1 << 15; // of all lanes together, besides those of full lanes

    private Entropy() {}

    /** How often each symbol comes, in parts of 2^bits. */
    record Table(int bits, int[] frequencies) {}

    /** Symbols that stand one after another and share a table. */
    record Run(int count, Table table) {}

    /**
     * Decode all symbols of a stream.
     *
     * @param runs what is in it
     * @param states one for each lane, as the encoder left them, each in [2^16, 2^32)
     * @param words what the encoder wrote, 2 bytes each, little-endian
     * @return the symbols of each run
     */
    static List<byte[]> decode(List<Run> runs, long[] states, ByteBuffer words) {
        long steps = 0;
        long symbols = 0;
        for (Run run : runs) {
            steps += (run.count + states.length - 1) / states.length;
            symbols += run.count;
        }
        long limit = MOST_STEPS + symbols / MOST_LANES;
        if (steps > limit) {
            throw bad("too many steps for so few lanes").expected("at most " + limit).found(steps);
        }
        Stream stream = new Stream(states.clone(), words);
        List<byte[]> decoded = new ArrayList<>();
        for (Run run : runs) {
            decoded.add(stream.run(run));
        }
        stream.requireEnd();
        return decoded;
    }

    /** The states and words while they are used up. */
    private static final class Stream {
        private final long[] states;
        private final ByteBuffer words;
        private int position; // of the next word

        Stream(long[] states, ByteBuffer words) {
            this.states = states;
            this.words = words;
        }

        byte[] run(Run run) {
            int bits = run.table.bits;
            int mask = (1 << bits) - 1;
            byte[] symbolAt = new byte[1 << bits]; // by slot
            int[] first = new int[SYMBOLS];
            int slot = 0;
            for (int symbol = 0; symbol < SYMBOLS; symbol++) {
                first[symbol] = slot;
                for (int n = 0; n < run.table.frequencies[symbol]; n++) {
                    symbolAt[slot++] = (byte) symbol;
                }
            }
            byte[] symbols = new byte[run.count];
            for (int n = 0, lane = 0; n < run.count; n++) {
                long state = states[lane];
                int place = (int) state & mask;
                int symbol = symbolAt[place] & 0xFF;
                state = run.table.frequencies[symbol] * (state >> bits) + place - first[symbol];
                states[lane] = state < LOW ? state << 16 | word() : state;
                symbols[n] = (byte) symbol;
                lane = lane + 1 == states.length ? 0 : lane + 1;
            }
            return symbols;
        }

        private long word() {
            if (2 * position + 2 > words.capacity()) {
                throw bad("the words end early").found(position + " words");
            }
            return words.getShort(2 * position++) & 0xFFFF;
        }

        void requireEnd() {
            if (2 * position != words.capacity()) {
                throw bad("words are left over").expected(position).found(words.capacity() / 2);
            }
            for (long state : states) {
                if (state != LOW) {
                    throw bad("the decoder does not end where the encoder began");
                }
            }
        }
    }

    private static CapPruneException bad(String problem) {
        return new CapPruneException(ErrorKind.BUNDLE, "coded symbols: " + problem);
    }
}
