package org.capprune.core;

import java.util.Collection;
import java.util.Iterator;
import java.util.Map;

/** Writes JSON: maps, collections, strings, whole numbers, finite doubles, truth values and null. */
public final class JsonText {
    private static final int INDENT = 2;

    private final StringBuilder text = new StringBuilder();

    private JsonText() {}

    /** A document with two spaces of indentation and a line feed at its end. */
    public static String of(Object value) {
        JsonText writer = new JsonText();
        writer.write(value, 0);
        return writer.text.append('\n').toString();
    }

    private void write(Object value, int depth) {
        if (value instanceof Map<?, ?> tree) {
            Iterator<? extends Map.Entry<?, ?>> entries = tree.entrySet().iterator();
            block('{', '}', depth, entries, entry -> {
                string((String) entry.getKey());
                text.append(": ");
                write(entry.getValue(), depth + 1);
            });
        } else if (value instanceof Collection<?> items) {
            block('[', ']', depth, items.iterator(), item -> write(item, depth + 1));
        } else if (value instanceof String string) {
            string(string);
        } else if (value instanceof Double number && (Double.isNaN(number) || Double.isInfinite(number))) {
            throw new IllegalArgumentException("JSON has no number " + number);
        } else if (value == null || value instanceof Boolean || value instanceof Long || value instanceof Double) {
            text.append(value);
        } else {
            throw new IllegalArgumentException("JSON has no " + value.getClass());
        }
    }

    /** Writes one item of a block. */
    private interface Item<T> {
        void write(T item);
    }

    private <T> void block(char open, char close, int depth, Iterator<T> items, Item<T> item) {
        text.append(open);
        boolean any = false;
        while (items.hasNext()) {
            text.append(any ? "," : "");
            line(depth + 1);
            item.write(items.next());
            any = true;
        }
        if (any) {
            line(depth);
        }
        text.append(close);
    }

    private void line(int depth) {
        text.append('\n');
        for (int n = 0; n < depth * INDENT; n++) {
            text.append(' ');
        }
    }

    private void string(String value) {
        text.append('"');
        for (int n = 0; n < value.length(); n++) {
            char character = value.charAt(n);
            if (character == '"' || character == '\\') {
                text.append('\\').append(character);
            } else if (character < ' ' || Character.isSurrogate(character)) {
                text.append("\\u").append(Integer.toHexString(0x10000 + character).substring(1));
            } else {
                text.append(character);
            }
        }
        text.append('"');
    }
}
