package org.capprune.core.bundle;

import java.nio.charset.CharacterCodingException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.Printable;

/** The words or pieces that captions are made of, one a line, and the way from token ids back to a caption. */
public final class Vocabulary {
    static final int PAD = 0;
    public static final int START = 1;
    public static final int END = 2;
    static final int UNKNOWN = 3;
    static final int SPECIAL = 4; // tokens that are no words
    static final int MOST_BYTES = 16 << 20;

    private static final List<String> SPECIAL_TOKENS = Arrays.asList("<pad>", "<start>", "<end>", "<unk>");
    private static final int MOST_LINES = 1_000_000;
    private static final int MOST_TOKEN_CHARACTERS = 100;
    private static final int NON_JOINER = 0x200C;
    private static final int JOINER = 0x200D;
    private static final int LAST_ASCII = 0x7F;

    private final List<String> tokens;
    private final TokenCoding coding;

    private Vocabulary(List<String> tokens, TokenCoding coding) {
        this.tokens = Collections.unmodifiableList(tokens);
        this.coding = coding;
    }

    /** Read the bytes of a vocabulary.txt whose tokens are words. */
    public static Vocabulary read(byte[] content, String where) {
        return read(content, where, TokenCoding.WORDS);
    }

    /** Read the bytes of a vocabulary.txt; {@code where} is its name, for messages. */
    public static Vocabulary read(byte[] content, String where, TokenCoding coding) {
        String text;
        try {
            text = Printable.utf8(content);
        } catch (CharacterCodingException error) {
            throw bad("the vocabulary is not UTF-8", where).found(error.getMessage());
        }
        if (!text.endsWith("\n")) {
            throw bad("the vocabulary does not end with a line feed", where).hint("it may have been cut off");
        }
        List<String> tokens = new ArrayList<>();
        for (int start = 0; start < text.length(); ) {
            int end = text.indexOf('\n', start);
            tokens.add(text.substring(start, end));
            start = end + 1;
        }
        if (tokens.size() > MOST_LINES) {
            throw bad("the vocabulary is too long", where).expected("at most " + MOST_LINES + " lines").found(tokens.size());
        }
        check(tokens, where);
        long most = (long) coding.base() * coding.base();
        if (coding.kind() == TokenCoding.Kind.RADIX && tokens.size() - SPECIAL > most) {
            throw bad("there are more words than radix tokens can number", where).expected("at most " + most)
                    .found(tokens.size() - SPECIAL);
        }
        return new Vocabulary(tokens, coding);
    }

    /** V, the number of token ids of the decoder. */
    public int size() {
        return coding.decoderSize(tokens.size());
    }

    /** The text of token ids: the one way from a search to a caption. */
    public String caption(int[] ids) {
        List<String> words = words(ids);
        return coding.isPieces() ? TokenCoding.joinedPieces(words) : TokenCoding.joinedWords(words);
    }

    /** One text for each of a caption's ids, to stand beside the token's attention. */
    public List<String> shown(int[] ids) {
        return TokenCoding.shown(coding, words(ids), ids.length);
    }

    /** The words or pieces of ids; {@code <pad>}, {@code <start>} and {@code <end>} are left out. */
    private List<String> words(int[] ids) {
        int[] spoken = Arrays.stream(ids).filter(id -> id != PAD && id != START && id != END).toArray();
        int width = coding.perWord();
        List<String> words = new ArrayList<>();
        for (int n = 0; n + width <= spoken.length; n += width) { // a digit without its second is left out
            int line = width == 1 ? spoken[n] : numbered(spoken[n], spoken[n + 1]);
            words.add(tokens.get(line));
        }
        return words;
    }

    /** The line of a word by its two digits; that of {@code <unk>} where they number no word. */
    private int numbered(int first, int second) {
        if (first < SPECIAL || second < SPECIAL) {
            return UNKNOWN;
        }
        long line = SPECIAL + (long) (first - SPECIAL) * coding.base() + (second - SPECIAL);
        return line < tokens.size() ? (int) line : UNKNOWN;
    }

    private static void check(List<String> tokens, String where) {
        for (int line = 0; line < SPECIAL_TOKENS.size(); line++) {
            String found = line < tokens.size() ? tokens.get(line) : "";
            if (!found.equals(SPECIAL_TOKENS.get(line))) {
                throw bad("a special token is not in its place", line(where, line)).expected(SPECIAL_TOKENS.get(line))
                        .found(Printable.ascii(found));
            }
        }
        Map<String, Integer> lines = new HashMap<>();
        for (int line = 0; line < tokens.size(); line++) {
            String token = tokens.get(line);
            String problem = problem(token);
            if (problem != null) {
                throw bad("a token " + problem, line(where, line)).found(Printable.ascii(token));
            }
            Integer first = lines.put(token, line + 1);
            if (first != null) {
                throw bad("a token stands twice", line(where, line)).found(token + ", first on line " + first);
            }
        }
    }

    private static String problem(String token) {
        if (token.isEmpty()) {
            return "is empty";
        }
        if (token.codePointCount(0, token.length()) > MOST_TOKEN_CHARACTERS) {
            return "is longer than " + MOST_TOKEN_CHARACTERS + " characters";
        }
        int before = -1;
        for (int codePoint : token.codePoints().toArray()) {
            // joiners are part of the spelling in Persian and in Indic scripts
            boolean joins = (codePoint == NON_JOINER || codePoint == JOINER) && (before < 0 || before > LAST_ASCII);
            if (Printable.isControlOrSpace(codePoint) && !joins) {
                return "holds a space or a control character";
            }
            before = codePoint;
        }
        return null;
    }

    private static String line(String where, int line) {
        return where + ", line " + (line + 1);
    }

    private static CapPruneException bad(String what, String where) {
        return new CapPruneException(ErrorKind.BAD_VOCABULARY, what).at(where);
    }
}
