package org.capprune.core.bundle;

import java.nio.ByteBuffer;
import java.util.zip.DataFormatException;
import java.util.zip.Inflater;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;

/** Expands zlib streams whose size is known. */
final class Inflated {
    private static final int MOST_RATIO = 1032; // what deflate can do at best
    private static final int SLACK_BYTES = 1 << 10;

    private Inflated() {}

    /** Expand one zlib stream that must fill {@code data} and give exactly {@code size} bytes. */
    static byte[] exactly(ByteBuffer data, int size, String what) {
        if (size > (long) MOST_RATIO * data.capacity() + SLACK_BYTES) { // before memory is asked for
            throw bad(what, "the stream has another length").expected(size + " bytes");
        }
        Inflater inflater = new Inflater();
        try {
            inflater.setInput(data.array(), data.arrayOffset(), data.capacity());
            byte[] content = new byte[size];
            int filled = 0;
            int count = 1;
            while (filled < size && count > 0) {
                count = inflater.inflate(content, filled, size - filled);
                filled += count;
            }
            if (filled < size || inflater.inflate(new byte[1]) > 0) {
                throw bad(what, "the stream has another length").expected(size + " bytes");
            }
            if (!inflater.finished() || inflater.getRemaining() > 0) {
                throw bad(what, "the stream ends early, or bytes follow it");
            }
            return content;
        } catch (DataFormatException error) {
            throw bad(what, "this is no zlib stream").found(error.getMessage());
        } finally {
            inflater.end();
        }
    }

    private static CapPruneException bad(String what, String problem) {
        return new CapPruneException(ErrorKind.BUNDLE, what + ": " + problem);
    }
}
