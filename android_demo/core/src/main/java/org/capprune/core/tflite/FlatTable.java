package org.capprune.core.tflite;

import java.nio.charset.CharacterCodingException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.capprune.core.CapPruneException;
import org.capprune.core.Printable;
import org.capprune.core.tflite.Flatbuffer.Scalar;

/** One table of a flatbuffer; fields are numbered from 0 in the order of the schema. */
final class FlatTable {
    final long position;
    private final Flatbuffer buffer;
    private final long size;
    private final int[] offsets;

    /** The table at {@code position}; it and its vtable must lie in the file. */
    FlatTable(Flatbuffer buffer, long position) {
        this.buffer = buffer;
        this.position = position;
        buffer.countTable(position);
        long vtable = position - buffer.read(Scalar.I32, position);
        long vtableSize = buffer.read(Scalar.U16, vtable);
        size = buffer.read(Scalar.U16, vtable + 2);
        if (vtableSize < 4 || vtableSize % 2 != 0 || size < 4) {
            throw buffer.error("flatbuffer: a table's layout is impossible", vtable);
        }
        StoredBytes entries = buffer.stored(buffer.slice(vtable, vtableSize, 2), (int) vtableSize);
        buffer.slice(position, size, 1);
        offsets = new int[(int) vtableSize / 2 - 2];
        for (int field = 0; field < offsets.length; field++) {
            offsets[field] = entries.uint16(field + 2);
        }
    }

    /** An error at this table. */
    CapPruneException error(String rule) {
        return buffer.error(rule, position);
    }

    /** Refuse a table that has a field from {@code count} on: a later schema's, whose meaning is not known here. */
    void requireFields(int count) {
        for (int field = count; field < offsets.length; field++) {
            if (offsets[field] != 0) {
                throw error("flatbuffer: a table has a field that is not known").expected("below " + count).found(field);
            }
        }
    }

    /** Whether the field is there. */
    boolean has(int field) {
        return field < offsets.length && offsets[field] != 0;
    }

    /** A whole number or truth value, or {@code absent} where the field is not there. */
    long integer(int field, Scalar scalar, long absent) {
        return has(field) ? buffer.read(scalar, place(field, scalar.bytes)) : absent;
    }

    long integer(int field, Scalar scalar) {
        return integer(field, scalar, 0);
    }

    /** A float32; 0 where the field is not there. */
    float real(int field) {
        return has(field) ? buffer.readFloat(place(field, Float.BYTES)) : 0;
    }

    /** The table that a field refers to, or null. */
    FlatTable table(int field) {
        return has(field) ? new FlatTable(buffer, reference(field)) : null;
    }

    /** The tables of a vector; none when the field is absent. */
    List<FlatTable> tables(int field) {
        List<FlatTable> tables = new ArrayList<>();
        if (!has(field)) {
            return tables;
        }
        long place = reference(field);
        long count = buffer.count(place, 4);
        long most = OperatorRule.limit("tables");
        if (count > most) {
            throw error("flatbuffer: a vector holds too many tables").expected("at most " + most).found(count);
        }
        for (long n = 0; n < count; n++) {
            tables.add(new FlatTable(buffer, buffer.follow(place + 4 + 4 * n)));
        }
        return tables;
    }

    /** A vector of bytes; none when the field is absent. */
    StoredBytes bytes(int field) {
        return content(field, 1, 0);
    }

    int[] ints(int field) {
        StoredBytes content = content(field, Integer.BYTES, 0);
        int[] numbers = new int[content.length() / Integer.BYTES];
        Arrays.setAll(numbers, content::int32);
        return numbers;
    }

    int[] unsignedShorts(int field) {
        StoredBytes content = content(field, Short.BYTES, 0);
        int[] numbers = new int[content.length() / Short.BYTES];
        Arrays.setAll(numbers, content::uint16);
        return numbers;
    }

    int[] unsignedBytes(int field) {
        StoredBytes content = bytes(field);
        int[] numbers = new int[content.length()];
        Arrays.setAll(numbers, n -> content.int8(n) & 0xFF);
        return numbers;
    }

    long[] longs(int field) {
        StoredBytes content = content(field, Long.BYTES, 0);
        long[] numbers = new long[content.length() / Long.BYTES];
        Arrays.setAll(numbers, content::int64);
        return numbers;
    }

    float[] floats(int field) {
        StoredBytes content = content(field, Float.BYTES, 0);
        float[] numbers = new float[content.length() / Float.BYTES];
        for (int n = 0; n < numbers.length; n++) {
            numbers[n] = content.float32(n);
        }
        return numbers;
    }

    /** A string, which must be UTF-8 and end with a zero byte; null when the field is absent. */
    String text(int field) {
        if (!has(field)) {
            return null;
        }
        byte[] content = content(field, 1, 1).copy();
        int length = content.length - 1;
        if (content[length] != 0) {
            throw error("flatbuffer: a string has no end");
        }
        for (int n = 0; n < length; n++) {
            if (content[n] == 0) { // where C code takes it to end
                throw error("flatbuffer: a string ends before its end");
            }
        }
        try {
            return Printable.utf8(Arrays.copyOf(content, length));
        } catch (CharacterCodingException error) {
            throw error("flatbuffer: a string is not UTF-8").found(error.getMessage());
        }
    }

    private StoredBytes content(int field, int itemBytes, int behind) {
        if (!has(field)) {
            return buffer.stored(0, 0);
        }
        long place = reference(field);
        long bytes = buffer.count(place, itemBytes) * itemBytes + behind;
        return buffer.stored(buffer.slice(place + 4, bytes, itemBytes), (int) bytes);
    }

    private long reference(int field) {
        return buffer.follow(place(field, 4));
    }

    private long place(int field, int bytes) {
        int offset = offsets[field];
        if (offset < 4 || offset + bytes > size) {
            throw error("flatbuffer: a field lies outside its table").found("field " + field + " at " + offset);
        }
        return position + offset;
    }
}
