package org.capprune.core.tflite;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.Printable;

/**
 * A small flatbuffer reader that never reads outside the file, whatever the file says.
 *
 * <p>Only what a .tflite needs. Every access is checked before it is made, and the bytes handed out are counted, so that
 * a small file whose tables point at the same vector again and again cannot cost more than a few passes over itself.
 *
 * <pre>
 * table      int32 distance back to its vtable, then the fields
 * vtable     uint16 own size, uint16 the table's size, then for each field its uint16 offset in the table (0: absent)
 * reference  uint32 distance forward to a table, vector or string
 * vector     uint32 count, then the items; a string is a vector of bytes with a zero byte behind it
 * </pre>
 */
final class Flatbuffer {
    private static final int PASSES = 4; // a well-formed file is read about once; shared vtables are why this is not 1
    private static final int SLACK_BYTES = 1 << 16;
    private static final int IDENTIFIER_AT = 4;

    private final String where;
    private final ByteBuffer data;
    private long budget;
    private int tables;

    /**
     * @param content the whole file
     * @param where the file's name, for messages
     * @param identifier the four characters that name the kind of file
     */
    Flatbuffer(byte[] content, String where, String identifier) {
        this.where = where;
        data = ByteBuffer.wrap(content).order(ByteOrder.LITTLE_ENDIAN);
        budget = (long) PASSES * content.length + SLACK_BYTES;
        if (content.length < 8) {
            throw error("flatbuffer: the file is cut off", 0).expected("at least 8 bytes").found(content.length);
        }
        String found = new String(content, IDENTIFIER_AT, 4, StandardCharsets.ISO_8859_1);
        if (!found.equals(identifier)) {
            throw error("flatbuffer: the file is of another kind", IDENTIFIER_AT).expected(identifier)
                    .found(Printable.ascii(found));
        }
    }

    /** The table that the file starts from. */
    FlatTable root() {
        return new FlatTable(this, follow(0));
    }

    /** Count one table that is read: each takes some time, however small it is. */
    void countTable(long offset) {
        tables++;
        long most = OperatorRule.limit("tables");
        if (tables > most) {
            throw error("flatbuffer: too many tables", offset).expected("at most " + most);
        }
    }

    /** An error at a byte of the file. */
    CapPruneException error(String rule, long offset) {
        return new CapPruneException(ErrorKind.BAD_MODEL_FILE, rule).at(where + ", byte " + offset);
    }

    /** One number, aligned to its size; unsigned 64-bit numbers come as they are stored. */
    long read(Scalar scalar, long offset) {
        int place = slice(offset, scalar.bytes, scalar.bytes);
        return switch (scalar) {
            case I8 -> data.get(place);
            case U8 -> data.get(place) & 0xFF;
            case BOOL -> data.get(place) == 0 ? 0 : 1;
            case U16 -> data.getShort(place) & 0xFFFF;
            case I32 -> data.getInt(place);
            case U32 -> data.getInt(place) & 0xFFFFFFFFL;
            case I64, U64 -> data.getLong(place);
        };
    }

    /** One float32, aligned. */
    float readFloat(long offset) {
        return data.getFloat(slice(offset, Float.BYTES, Float.BYTES));
    }

    /** The place that the reference at {@code offset} points at. */
    long follow(long offset) {
        long distance = read(Scalar.U32, offset);
        if (distance < 4) {
            throw error("flatbuffer: a reference points at itself", offset).expected("at least 4").found(distance);
        }
        return offset + distance;
    }

    /** The place of {@code size} bytes from {@code offset} on, which must lie in the file. */
    int slice(long offset, long size, int alignment) {
        if (offset < 0 || offset + size > data.capacity()) {
            throw error("flatbuffer: something lies outside the file", offset).expected(data.capacity() + " bytes");
        }
        if (offset % alignment != 0) {
            throw error("flatbuffer: something is not aligned", offset).expected("a multiple of " + alignment);
        }
        budget -= size;
        if (budget < 0) {
            throw error("flatbuffer: tables or vectors overlap", offset);
        }
        return (int) offset;
    }

    /** How many items the vector at {@code offset} has; that they lie in the file is checked when they are read. */
    long count(long offset, int itemBytes) {
        long count = read(Scalar.U32, offset);
        if (count * itemBytes > data.capacity()) {
            throw error("flatbuffer: a vector is longer than the file", offset).found(count + " items");
        }
        return count;
    }

    /** Bytes that {@link #slice} has allowed. */
    StoredBytes stored(int place, int length) {
        return new StoredBytes(data, place, length);
    }

    /** The numbers that stand in a flatbuffer. */
    enum Scalar {
        I8(1), U8(1), BOOL(1), U16(2), I32(4), U32(4), I64(8), U64(8);

        final int bytes;

        Scalar(int bytes) {
            this.bytes = bytes;
        }
    }
}
