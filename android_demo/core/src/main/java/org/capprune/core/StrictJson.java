package org.capprune.core;

import java.math.BigInteger;
import java.nio.charset.CharacterCodingException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * JSON without its traps: no repeated keys, no NaN, no infinities, no depth that overflows the stack.
 *
 * <p>Values are {@code Map<String, Object>} in the order of the text, {@code List<Object>}, {@code String},
 * {@code Long} (whole numbers that do not fit become the nearest that does), {@code Double}, {@code Boolean}, null.
 */
public final class StrictJson {
    private static final int MOST_DEPTH = 200;
    private static final int MOST_DIGITS = 4300;
    private static final BigInteger LARGEST = BigInteger.valueOf(Long.MAX_VALUE);
    private static final BigInteger SMALLEST = BigInteger.valueOf(Long.MIN_VALUE);

    private final String text;
    private int position;

    private StrictJson(String text) {
        this.text = text;
    }

    /** Read one JSON document in UTF-8. */
    public static Object parse(byte[] content) {
        String text;
        try {
            text = Printable.utf8(content);
        } catch (CharacterCodingException error) {
            throw new CapPruneException(ErrorKind.BUNDLE, "a JSON file is not UTF-8").found(error.getMessage());
        }
        StrictJson reader = new StrictJson(text);
        Object value = reader.value(0);
        reader.skipSpace();
        if (reader.position != text.length()) {
            throw reader.bad("extra data");
        }
        return value;
    }

    private Object value(int depth) {
        if (depth > MOST_DEPTH) {
            throw new CapPruneException(ErrorKind.BUNDLE, "a JSON file is nested too deeply");
        }
        skipSpace();
        switch (peek()) {
            case '{':
                return object(depth);
            case '[':
                return array(depth);
            case '"':
                return string();
            case 't':
                return word("true", Boolean.TRUE);
            case 'f':
                return word("false", Boolean.FALSE);
            case 'n':
                return word("null", null);
            default:
                return number();
        }
    }

    private Map<String, Object> object(int depth) {
        Map<String, Object> tree = new LinkedHashMap<>();
        position++;
        skipSpace();
        if (peek() == '}') {
            position++;
            return tree;
        }
        while (true) {
            skipSpace();
            if (peek() != '"') {
                throw bad("a key must be in double quotes");
            }
            String key = string();
            skipSpace();
            take(':');
            Object value = value(depth + 1);
            if (tree.containsKey(key)) {
                throw new CapPruneException(ErrorKind.BUNDLE, "a key of a JSON file stands twice")
                        .at(Printable.ascii(key));
            }
            tree.put(key, value);
            skipSpace();
            if (peek() == '}') {
                position++;
                return tree;
            }
            take(',');
        }
    }

    private List<Object> array(int depth) {
        List<Object> items = new ArrayList<>();
        position++;
        skipSpace();
        if (peek() == ']') {
            position++;
            return items;
        }
        while (true) {
            items.add(value(depth + 1));
            skipSpace();
            if (peek() == ']') {
                position++;
                return items;
            }
            take(',');
        }
    }

    private String string() {
        StringBuilder value = new StringBuilder();
        position++;
        while (true) {
            char character = next();
            if (character == '"') {
                return value.toString();
            }
            if (character < ' ') {
                throw bad("a control character in a string");
            }
            value.append(character == '\\' ? escape() : character);
        }
    }

    private char escape() {
        char character = next();
        return switch (character) {
            case '"', '\\', '/' -> character;
            case 'b' -> '\b';
            case 'f' -> '\f';
            case 'n' -> '\n';
            case 'r' -> '\r';
            case 't' -> '\t';
            case 'u' -> unicode();
            default -> throw bad("an unknown escape in a string");
        };
    }

    private char unicode() {
        int value = 0;
        for (int n = 0; n < 4; n++) {
            char character = next();
            int digit = character < 0x80 ? Character.digit(character, 16) : -1;
            if (digit < 0) {
                throw bad("an escape that is no character");
            }
            value = value * 16 + digit;
        }
        return (char) value;
    }

    private Object number() {
        int start = position;
        if (peek() == '-') {
            position++;
        }
        int digits = digits();
        boolean whole = true;
        if (digits == 0 || (digits > 1 && text.charAt(position - digits) == '0')) {
            position = start;
            throw notANumber();
        }
        if (peek() == '.') {
            position++;
            whole = false;
            requireDigits();
        }
        if (peek() == 'e' || peek() == 'E') {
            position++;
            whole = false;
            if (peek() == '+' || peek() == '-') {
                position++;
            }
            requireDigits();
        }
        String written = text.substring(start, position);
        if (whole) {
            return wholeNumber(written, digits);
        }
        double value = Double.parseDouble(written);
        if (Double.isInfinite(value)) {
            throw new CapPruneException(ErrorKind.BUNDLE, "a JSON file holds a number that is too large")
                    .found(written.substring(0, Math.min(40, written.length())));
        }
        return value;
    }

    private static Long wholeNumber(String written, int digits) {
        if (digits > MOST_DIGITS) {
            throw new CapPruneException(ErrorKind.BUNDLE, "a JSON file holds a number that cannot be read")
                    .found(digits + " digits");
        }
        return new BigInteger(written).min(LARGEST).max(SMALLEST).longValue();
    }

    private CapPruneException notANumber() {
        for (String constant : new String[] {"NaN", "Infinity", "-Infinity"}) {
            if (text.startsWith(constant, position)) {
                return new CapPruneException(ErrorKind.BUNDLE, "a JSON file holds a value that JSON does not have")
                        .found(constant);
            }
        }
        return bad("a value was expected");
    }

    private int digits() {
        int start = position;
        while (peek() >= '0' && peek() <= '9') {
            position++;
        }
        return position - start;
    }

    private void requireDigits() {
        if (digits() == 0) {
            throw bad("a digit was expected");
        }
    }

    private Object word(String word, Object value) {
        if (!text.startsWith(word, position)) {
            throw bad("a value was expected");
        }
        position += word.length();
        return value;
    }

    private void skipSpace() {
        while (position < text.length() && " \t\n\r".indexOf(text.charAt(position)) >= 0) {
            position++;
        }
    }

    /** The next character, or 0 at the end. */
    private char peek() {
        return position < text.length() ? text.charAt(position) : 0;
    }

    private char next() {
        if (position == text.length()) {
            throw bad("it is cut off");
        }
        return text.charAt(position++);
    }

    private void take(char expected) {
        if (peek() != expected) {
            throw bad("'" + expected + "' was expected");
        }
        position++;
    }

    private CapPruneException bad(String problem) {
        int line = 1;
        int start = 0;
        for (int n = 0; n < Math.min(position, text.length()); n++) {
            if (text.charAt(n) == '\n') {
                line++;
                start = n + 1;
            }
        }
        return new CapPruneException(ErrorKind.BUNDLE, "a file is not JSON")
                .at("line " + line + ", column " + (position - start + 1)).found(problem);
    }
}
