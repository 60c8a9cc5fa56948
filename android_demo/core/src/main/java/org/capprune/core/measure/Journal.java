package org.capprune.core.measure;

import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.RandomAccessFile;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.Json;
import org.capprune.core.JsonText;
import org.capprune.core.StrictJson;
import org.capprune.core.bundle.FolderMembers;

/**
 * Captions as they are made, a line of JSON each, so that what was interrupted goes on where it stopped:
 * docs/results_schema.md, "How a device is called".
 */
final class Journal implements AutoCloseable {
    private final File file;
    private final Map<String, Object> session;
    private final OutputStream stream;

    /** What was said of each photo, by its name. */
    final Map<String, Map<String, Object>> said = new LinkedHashMap<>();

    /** Photos that could not be captioned, by their names. */
    final Map<String, Map<String, Object>> failed = new LinkedHashMap<>();

    /** How many processes have worked on it. */
    int sessions;

    /** When the first of them began. */
    Map<String, Object> before;

    /** Make a journal or go on with one whose session is the same. */
    Journal(File file, Map<String, Object> session) {
        this.file = file;
        this.session = session;
        try {
            long whole = file.exists() ? read() : 0;
            try (RandomAccessFile cut = new RandomAccessFile(file, "rw")) {
                cut.setLength(whole);
            }
            stream = new FileOutputStream(file, true);
        } catch (IOException error) {
            throw unwritable(error);
        }
    }

    /** The journal beside a results document: results.json has results.jsonl. */
    static File beside(File results) {
        String name = results.getName();
        String stem = name.endsWith(".json") ? name.substring(0, name.length() - ".json".length()) : name;
        return new File(results.getParentFile(), stem + ".jsonl");
    }

    /** Note that a process begins to work on it. */
    void begin(Map<String, Object> moment) {
        write(Json.object("session", session, "before", moment));
    }

    /** Keep a line, in the file before anything else happens. */
    void write(Map<String, Object> line) {
        count(line);
        String text = JsonText.of(line).replaceAll("\n *", " ").trim() + "\n"; // strings hold no line feed: it is escaped
        try {
            stream.write(text.getBytes(StandardCharsets.UTF_8));
            stream.flush();
        } catch (IOException error) {
            throw unwritable(error);
        }
    }

    @Override
    public void close() {
        try {
            stream.close();
        } catch (IOException error) {
            throw unwritable(error);
        }
    }

    /** Remove it, when what it held is written elsewhere. */
    void remove() {
        close();
        file.delete();
    }

    /** Count the lines of earlier processes; how many bytes of the file are whole lines of this journal. */
    private int read() {
        byte[] content = FolderMembers.readWhole(file);
        int whole = 0;
        for (int n = 0; n < content.length; n++) {
            if (content[n] == '\n') {
                Map<String, Object> line = parse(Arrays.copyOfRange(content, whole, n));
                if (line == null || !count(line)) {
                    break;
                }
                whole = n + 1;
            }
        }
        return whole;
    }

    @SuppressWarnings("unchecked") // StrictJson gives objects as Map<String, Object>
    private static Map<String, Object> parse(byte[] line) {
        try {
            Object tree = StrictJson.parse(line);
            return tree instanceof Map ? (Map<String, Object>) tree : null;
        } catch (CapPruneException error) {
            return null;
        }
    }

    /** Take a line in; false where it is none of this journal. */
    @SuppressWarnings("unchecked")
    private boolean count(Map<String, Object> line) {
        if (line.get("session") instanceof Map<?, ?> other) {
            if (!other.equals(session) || !(line.get("before") instanceof Map)) {
                return false;
            }
            sessions++;
            before = before == null ? (Map<String, Object>) line.get("before") : before;
            return true;
        }
        for (Map.Entry<String, Map<String, Map<String, Object>>> kind : kinds().entrySet()) {
            if (line.get(kind.getKey()) instanceof Map<?, ?> entry && entry.get("photo") instanceof String photo) {
                failed.remove(photo);
                kind.getValue().put(photo, (Map<String, Object>) entry);
                return true;
            }
        }
        return false;
    }

    private Map<String, Map<String, Map<String, Object>>> kinds() {
        Map<String, Map<String, Map<String, Object>>> kinds = new LinkedHashMap<>();
        kinds.put("said", said);
        kinds.put("failed", failed);
        return kinds;
    }

    private CapPruneException unwritable(IOException error) {
        return new CapPruneException(ErrorKind.USAGE, "this place cannot be written to").at(file)
                .found(error.getMessage()).from(error);
    }
}
