package org.capprune.core;

/** Every kind of error a user can cause; names and exit codes are those of {@code capprune_runtime.errors}. */
public enum ErrorKind {
    /** A defect of ours, or of the machine. */
    DEFECT("CapPruneError", 1),
    /** Something that is not there, or an option that cannot be. */
    USAGE("UsageError", 2),
    /** Photos that cannot be used. */
    DATA("DataError", 4),
    /** One photo that cannot be read. */
    PHOTO("PhotoError", 4),
    /** A bundle that must not be used. */
    BUNDLE("BundleError", 5),
    /** A file that is listed and not there, or there and not listed. */
    MISSING_FILE("MissingFile", 5),
    /** A file whose bytes are not those that were written. */
    HASH_MISMATCH("HashMismatch", 5),
    /** A file written by a later capprune. */
    NEWER_FORMAT("NewerFormat", 5),
    /** A model file whose structure breaks a rule. */
    BAD_MODEL_FILE("BadModelFile", 5),
    /** A vocabulary that cannot belong to the model. */
    BAD_VOCABULARY("BadVocabulary", 5),
    /** This device cannot do what was asked. */
    DEVICE("DeviceError", 7);

    /** The name of the error in Python and in JSON. */
    public final String errorName;

    /** What the command line ends with. */
    public final int exitCode;

    ErrorKind(String errorName, int exitCode) {
        this.errorName = errorName;
        this.exitCode = exitCode;
    }
}
