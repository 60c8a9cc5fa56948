package org.capprune.core;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.util.Collection;
import java.util.stream.Collectors;

/** Text that goes to screens and screen readers: what may stand in it, and how to show what may not. */
public final class Printable {
    private static final int MOST_SHOWN = 80;

    private Printable() {}

    /** UTF-8 without a byte that breaks its rules. */
    public static String utf8(byte[] content) throws CharacterCodingException {
        return StandardCharsets.UTF_8.newDecoder()
                .onMalformedInput(CodingErrorAction.REPORT)
                .onUnmappableCharacter(CodingErrorAction.REPORT)
                .decode(ByteBuffer.wrap(content))
                .toString();
    }

    /** Whether a character is of the Unicode categories C (control, format, unassigned) or Z (spaces). */
    public static boolean isControlOrSpace(int codePoint) {
        return switch (Character.getType(codePoint)) {
            case Character.CONTROL, Character.FORMAT, Character.SURROGATE, Character.PRIVATE_USE, Character.UNASSIGNED,
                    Character.SPACE_SEPARATOR, Character.LINE_SEPARATOR, Character.PARAGRAPH_SEPARATOR -> true;
            default -> false;
        };
    }

    /** Whether every character has a shape, or is the plain space. */
    public static boolean isPrintable(String text) {
        return text.codePoints().allMatch(codePoint -> codePoint == ' ' || !isControlOrSpace(codePoint));
    }

    /** Several words with commas between. */
    public static String list(Collection<String> words) {
        return words.stream().collect(Collectors.joining(", "));
    }

    /** A name from a file in quotes: its start, everything but printable ASCII spelled out. */
    public static String ascii(String text) {
        if (text == null) {
            return "nothing";
        }
        StringBuilder shown = new StringBuilder("'");
        for (int n = 0; n < Math.min(text.length(), MOST_SHOWN); n++) {
            char character = text.charAt(n);
            if (character >= ' ' && character < 0x7F) {
                shown.append(character);
            } else {
                shown.append("\\u").append(Integer.toHexString(0x10000 + character).substring(1));
            }
        }
        return shown.append('\'').toString();
    }
}
