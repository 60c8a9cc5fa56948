package org.capprune.core;

import java.util.LinkedHashMap;
import java.util.Map;

/** JSON objects in the order in which they are written. */
public final class Json {
    private Json() {}

    /** An object of keys and values in turn; whole numbers become {@code Long}. */
    public static Map<String, Object> object(Object... keysAndValues) {
        Map<String, Object> tree = new LinkedHashMap<>();
        for (int n = 0; n < keysAndValues.length; n += 2) {
            Object value = keysAndValues[n + 1];
            tree.put((String) keysAndValues[n], value instanceof Integer number ? (Object) number.longValue() : value);
        }
        return tree;
    }
}
