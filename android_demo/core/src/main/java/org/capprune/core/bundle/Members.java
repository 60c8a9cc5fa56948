package org.capprune.core.bundle;

import java.util.SortedSet;

/** The files of a bundle, in a folder or packed: names, and bytes by name. */
interface Members {
    /** Where they lie, for messages. */
    String place();

    /** The size of the file that they are packed in; 0 where they are not. */
    default long packedBytes() {
        return 0;
    }

    /** Every name, with {@code /} between folders; an error beyond {@code cap} of them. */
    SortedSet<String> names(int cap);

    /** One file, whole; an error when it is missing or larger than {@code capBytes}. */
    byte[] read(String name, long capBytes);

    /** A member's place, for messages. */
    default String where(String name) {
        return place() + "/" + name;
    }
}
