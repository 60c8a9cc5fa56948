package org.capprune.core.tflite;

import java.nio.ByteBuffer;

/**
 * Bytes of a model file, as numbers; nothing is copied.
 *
 * @param file the whole file, little-endian
 * @param offset where they start
 * @param length how many bytes
 */
public record StoredBytes(ByteBuffer file, int offset, int length) {
    byte int8(int index) {
        return file.get(offset + index);
    }

    int uint16(int index) {
        return file.getShort(offset + 2 * index) & 0xFFFF;
    }

    int int32(int index) {
        return file.getInt(offset + 4 * index);
    }

    long int64(int index) {
        return file.getLong(offset + 8 * index);
    }

    float float32(int index) {
        return file.getFloat(offset + 4 * index);
    }

    public byte[] copy() {
        byte[] content = new byte[length];
        for (int n = 0; n < length; n++) {
            content[n] = int8(n);
        }
        return content;
    }
}
