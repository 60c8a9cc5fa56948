package org.capprune.core.caption;

import org.capprune.core.bundle.ModelFile;

/** A loaded model. Inputs stay as they were set from run to run. Not safe to share between threads. */
public interface Interpreter extends AutoCloseable {
    /** Makes interpreters; give it only files that a bundle's check has passed. */
    interface Engine {
        /** The interpreter's name, for results. */
        String name();

        /** Its version, for results. */
        String version();

        /** Load a model. */
        Interpreter load(ModelFile model, int threads);
    }

    /** Set an input of floats, which fill it. */
    void set(String name, float[] values);

    /** Overwrite a part of an input of floats, from {@code offset} on; the rest stays as it is. */
    void write(String name, int offset, float[] values);

    /** Set an input of one whole number. */
    void set(String name, int value);

    /** Compute all outputs. */
    void run();

    /** Copy an output, which fills {@code into}. */
    void get(String name, float[] into);

    @Override
    void close();
}
