package org.capprune.core;

import java.nio.charset.CharacterCodingException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** The words a model can say: one token a line, its id is the number of the line. */
public final class Vocabulary {
    static final int PAD = 0;
    static final int START = 1;
    static final int END = 2;
    static final int MOST_BYTES = 16 << 20;

    private static final List<String> SPECIAL_TOKENS = Arrays.asList("<pad>", "<start>", "<end>", "<unk>");
    private static final int MOST_TOKEN_CHARACTERS = 100;

    private final List<String> tokens;

    private Vocabulary(List<String> tokens) {
        this.tokens = Collections.unmodifiableList(tokens);
    }

    /** Read the bytes of a vocabulary.txt; {@code where} is its name, for messages. */
    static Vocabulary read(byte[] content, String where) {
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
        check(tokens, where);
        return new Vocabulary(tokens);
    }

    /** How many tokens there are. */
    public int size() {
        return tokens.size();
    }

    /** The token of an id. */
    public String word(int id) {
        return tokens.get(id);
    }

    /** The words of these ids with spaces between; {@code <pad>}, {@code <start>} and {@code <end>} are left out. */
    public String caption(int[] ids) {
        StringBuilder caption = new StringBuilder();
        for (int id : ids) {
            if (id != PAD && id != START && id != END) {
                caption.append(caption.length() == 0 ? "" : " ").append(tokens.get(id));
            }
        }
        return caption.toString();
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
        if (token.codePoints().anyMatch(Printable::isControlOrSpace)) {
            return "holds a space or a control character";
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
