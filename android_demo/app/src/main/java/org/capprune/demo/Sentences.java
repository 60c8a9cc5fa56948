package org.capprune.demo;

import android.content.Context;
import org.capprune.core.CapPruneException;

/** What to say on screen when something went wrong. */
final class Sentences {
    private Sentences() {}

    /** A sentence for people, and below it the facts for those who can use them. */
    static String of(Context context, Throwable error) {
        if (error instanceof OutOfMemoryError) {
            return context.getString(R.string.low_memory);
        }
        if (error instanceof LinkageError) {
            return context.getString(R.string.no_interpreter) + "\n\n" + error.getMessage();
        }
        if (error instanceof CapPruneException known) {
            return context.getString(forKind(known)) + "\n\n" + known.getMessage();
        }
        return context.getString(R.string.defect) + "\n\n" + error;
    }

    private static int forKind(CapPruneException error) {
        return switch (error.kind()) {
            case PHOTO, DATA -> R.string.bad_photo;
            case DEVICE -> R.string.no_interpreter;
            case NEWER_FORMAT -> R.string.newer_bundle;
            case BUNDLE, MISSING_FILE, HASH_MISMATCH, BAD_MODEL_FILE, BAD_VOCABULARY -> R.string.bad_bundle;
            case USAGE -> R.string.not_possible;
            case DEFECT -> R.string.defect;
        };
    }
}
