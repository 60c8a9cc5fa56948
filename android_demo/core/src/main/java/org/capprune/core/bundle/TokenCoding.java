package org.capprune.core.bundle;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;

/**
 * What the token ids of a decoder stand for, and how they become text; the rules of docs/bundle_format.md.
 *
 * @param kind what a token is
 * @param base of radix tokens; 0 for the other kinds
 * @param perWord tokens for a line of vocabulary.txt: 2 for radix tokens, 1 for the other kinds
 */
public record TokenCoding(Kind kind, int base, int perWord) {
    /** What a token is: a word, a code point, a piece of a word, or a digit of a word's number. */
    public enum Kind { WORDS, CHARACTERS, SUBWORDS, RADIX }

    static final TokenCoding WORDS = new TokenCoding(Kind.WORDS, 0, 1);
    static final int RADIX_DIGITS = 2;
    static final int FEWEST_DIGITS = 2;
    static final int MOST_DIGITS = 65_536;

    private static final char PIECE_SPACE = '\u2581'; // stands for a space in pieces

    // First and last code points of scripts that are written without spaces between words.
    private static final int[][] UNSPACED = {
        {0x0E00, 0x0EFF}, // Thai, Lao
        {0x1000, 0x109F}, // Myanmar
        {0x1780, 0x17FF}, // Khmer
        {0x2E80, 0x2FDF}, // CJK radicals
        {0x3005, 0x3007}, // CJK iteration mark, closing mark, zero
        {0x3040, 0x312F}, // Hiragana, Katakana, Bopomofo
        {0x31F0, 0x31FF}, // Katakana extensions
        {0x3400, 0x4DBF}, // CJK extension A
        {0x4E00, 0x9FFF}, // CJK
        {0xF900, 0xFAFF}, // CJK compatibility
        {0xFF66, 0xFF9F}, // halfwidth Katakana
        {0x20000, 0x3FFFF}, // CJK extensions B and later
    };

    /** The section {@code tokens} of a manifest. */
    public static TokenCoding of(String kind, long base, long perWord) {
        Kind found = null;
        for (Kind one : Kind.values()) {
            found = one.name().toLowerCase(Locale.ROOT).equals(kind) ? one : found;
        }
        require(found != null, "tokens.kind", "words or characters or subwords or radix");
        boolean radix = found == Kind.RADIX;
        require(radix ? base >= FEWEST_DIGITS && base <= MOST_DIGITS : base == 0, "tokens.base",
                radix ? FEWEST_DIGITS + " to " + MOST_DIGITS : "0, as only radix tokens have a base");
        require(perWord == (radix ? RADIX_DIGITS : 1), "tokens.per_word", radix ? "" + RADIX_DIGITS : "1");
        return new TokenCoding(found, (int) base, (int) perWord);
    }

    private static void require(boolean holds, String key, String expected) {
        if (!holds) {
            throw new CapPruneException(ErrorKind.BUNDLE, "a value of the manifest is not allowed").at(key)
                    .expected(expected);
        }
    }

    /** Whether tokens are parts of words that carry their own spaces. */
    boolean isPieces() {
        return kind == Kind.CHARACTERS || kind == Kind.SUBWORDS;
    }

    /** V, the number of token ids of a decoder, from the number of lines in vocabulary.txt. */
    int decoderSize(int lines) {
        return kind == Kind.RADIX ? base + Vocabulary.SPECIAL : lines;
    }

    /** Words with spaces between, but with nothing where both neighbours are of scripts without spaces. */
    static String joinedWords(List<String> words) {
        StringBuilder text = new StringBuilder();
        for (String word : words) {
            boolean close = text.length() == 0
                    || (isUnspaced(text.codePointBefore(text.length())) && isUnspaced(word.codePointAt(0)));
            text.append(close ? "" : " ").append(word);
        }
        return text.toString();
    }

    /** Pieces of words as text: runs of the marker become one space, and none at either end. */
    static String joinedPieces(List<String> pieces) {
        StringBuilder text = new StringBuilder();
        boolean space = false;
        for (String piece : pieces) {
            for (int n = 0; n < piece.length(); n++) {
                if (piece.charAt(n) == PIECE_SPACE) {
                    space = text.length() > 0;
                } else {
                    text.append(space ? " " : "").append(piece.charAt(n));
                    space = false;
                }
            }
        }
        return text.toString();
    }

    /** One text for each of a caption's ids, to stand beside the token's attention. */
    static List<String> shown(TokenCoding coding, List<String> words, int ids) {
        List<String> shown = new ArrayList<>();
        for (String word : words) {
            if (coding.kind == Kind.RADIX) {
                shown.add("…");
            }
            shown.add(word.replace(PIECE_SPACE, ' '));
        }
        if (shown.size() < ids) {
            shown.add("…"); // a digit without its second
        }
        return shown;
    }

    private static boolean isUnspaced(int codePoint) {
        for (int[] range : UNSPACED) {
            if (codePoint >= range[0] && codePoint <= range[1]) {
                return true;
            }
        }
        return false;
    }
}
