package org.capprune.core;

import java.util.LinkedHashMap;
import java.util.Map;

/** An error that is shown to the user as a sentence: what happened, where, what was expected and found, what to try. */
public final class CapPruneException extends RuntimeException {
    private static final long serialVersionUID = 1;

    private static final int MOST_CHARACTERS = 400; // of one part: what a file holds may be of any length

    private final ErrorKind kind;
    private final String what;
    private String where;
    private String expected;
    private String found;
    private String hint;

    /**
     * @param kind what kind of error it is
     * @param what what happened, one clause without a full stop
     */
    public CapPruneException(ErrorKind kind, String what) {
        super(what);
        this.kind = kind;
        this.what = cut(what);
    }

    /** The same error with the file, key or option it happened at. */
    public CapPruneException at(Object place) {
        where = String.valueOf(place);
        return this;
    }

    /** The same error, its place inside a larger one. */
    public CapPruneException inside(Object place) {
        return at(where == null ? place : place + ", " + where);
    }

    /** The same error with what would have been right. */
    public CapPruneException expected(Object value) {
        expected = cut(String.valueOf(value));
        return this;
    }

    /** The same error with what was there instead. */
    public CapPruneException found(Object value) {
        found = cut(String.valueOf(value));
        return this;
    }

    /** The same error with the next thing to do. */
    public CapPruneException hint(String next) {
        hint = next;
        return this;
    }

    /** The same error with the exception that it came from. */
    public CapPruneException from(Throwable cause) {
        initCause(cause);
        return this;
    }

    public ErrorKind kind() {
        return kind;
    }

    /** What happened, without the rest. */
    public String what() {
        return what;
    }

    /** What was found and where, in one line; for an error that is told of inside another. */
    public String details() {
        if (found == null) {
            return where == null ? what : what + " (" + where + ")";
        }
        return what + ": " + found;
    }

    @Override
    public String getMessage() {
        StringBuilder text = new StringBuilder(where == null ? what : what + ": " + where);
        append(text, "expected", expected);
        append(text, "found", found);
        append(text, "try", hint);
        return text.toString();
    }

    /** The same facts for a JSON document; keys without a value are left out. */
    public Map<String, Object> asJson() {
        Map<String, Object> facts = new LinkedHashMap<>();
        facts.put("error", kind.errorName);
        facts.put("exit_code", (long) kind.exitCode);
        facts.put("what", what);
        facts.put("where", where);
        facts.put("expected", expected);
        facts.put("found", found);
        facts.put("try", hint);
        facts.values().removeIf(value -> value == null);
        return facts;
    }

    private static String cut(String text) {
        return text.length() <= MOST_CHARACTERS ? text : text.substring(0, MOST_CHARACTERS - 1) + "…";
    }

    private static void append(StringBuilder text, String name, String value) {
        if (value != null) {
            text.append("\n  ").append(name);
            for (int n = name.length(); n < 10; n++) {
                text.append(' ');
            }
            text.append(value);
        }
    }
}
