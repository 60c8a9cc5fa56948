package org.capprune.core.bundle;

import java.io.DataInputStream;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.Deque;
import java.util.SortedSet;
import java.util.TreeSet;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;

/** The files of a bundle that is a folder: plain files only, up to a cap, each read once. */
public record FolderMembers(File folder) implements Members {
    @Override
    public String place() {
        return folder.getPath();
    }

    @Override
    public SortedSet<String> names(int cap) {
        SortedSet<String> names = new TreeSet<>();
        Deque<String> pending = new ArrayDeque<>();
        pending.push("");
        int seen = 0;
        while (!pending.isEmpty()) {
            String prefix = pending.pop();
            String[] entries = new File(folder, prefix).list();
            if (entries == null) {
                throw bad("a folder of the bundle cannot be read", prefix);
            }
            Arrays.sort(entries);
            seen += entries.length;
            if (seen > cap) {
                throw new CapPruneException(ErrorKind.BUNDLE, "a bundle holds too many files").at(place())
                        .expected("at most " + cap).found(seen);
            }
            for (String entry : entries) {
                if (new File(folder, prefix + entry).isDirectory() && !isLink(prefix + entry)) {
                    pending.push(prefix + entry + "/");
                } else {
                    requirePlain(prefix + entry);
                    names.add(prefix + entry);
                }
            }
        }
        return names;
    }

    @Override
    public byte[] read(String name, long capBytes) {
        File file = new File(folder, name);
        if (!file.exists() && !isLink(name)) {
            throw new CapPruneException(ErrorKind.MISSING_FILE, "a file of the bundle is missing").at(where(name));
        }
        requirePlain(name);
        long length = file.length();
        if (length > capBytes) {
            throw bad("a file of the bundle is too large", name).expected("at most " + capBytes + " bytes")
                    .found(length + " bytes");
        }
        return readWhole(file);
    }

    /** A plain file, whole, whose size the caller has looked at. */
    public static byte[] readWhole(File file) {
        byte[] content = new byte[(int) file.length()];
        try (DataInputStream stream = new DataInputStream(new FileInputStream(file))) {
            stream.readFully(content);
            return content;
        } catch (IOException error) {
            throw new CapPruneException(ErrorKind.BUNDLE, "a file of the bundle cannot be read").at(file)
                    .found(error.getMessage());
        }
    }

    private void requirePlain(String name) {
        if (isLink(name)) {
            throw bad("a bundle holds plain files only", name).found("a symbolic link");
        }
        if (!new File(folder, name).isFile()) {
            throw bad("a bundle holds plain files only", name).found("a folder, device, socket or pipe");
        }
    }

    /** Whether the last part of a path is a symbolic link: then it lies elsewhere than its folder says. */
    private boolean isLink(String name) {
        File file = new File(folder, name);
        try {
            File beside = new File(file.getParentFile().getCanonicalFile(), file.getName());
            return !beside.getCanonicalFile().equals(beside.getAbsoluteFile());
        } catch (IOException error) {
            throw bad("a file of the bundle cannot be read", name).found(error.getMessage());
        }
    }

    private CapPruneException bad(String what, String name) {
        return new CapPruneException(ErrorKind.BUNDLE, what).at(where(name));
    }
}
