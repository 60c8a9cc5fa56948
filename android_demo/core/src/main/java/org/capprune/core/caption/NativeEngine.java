package org.capprune.core.caption;

import java.nio.ByteBuffer;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.bundle.ModelFile;

/** TFLite through its C API, by the shim in {@code capprune_tflite.c}: on a phone, and on a desktop JVM alike. */
public final class NativeEngine implements Interpreter.Engine {
    private static final String LIBRARY = "capprune_tflite";

    private NativeEngine() {}

    /** Load the shim, which loads the runtime; both lie in the library path. */
    public static NativeEngine open() {
        try {
            System.loadLibrary(LIBRARY);
            return new NativeEngine();
        } catch (UnsatisfiedLinkError error) {
            throw new CapPruneException(ErrorKind.DEVICE, "the interpreter cannot be loaded on this device")
                    .at(System.mapLibraryName(LIBRARY)).found(error.getMessage())
                    .hint("install the app for this processor: " + System.getProperty("os.arch"))
                    .from(error);
        }
    }

    @Override
    public String name() {
        return "tflite";
    }

    @Override
    public String version() {
        return NativeInterpreter.version();
    }

    @Override
    public Interpreter load(ModelFile model, int threads) {
        ByteBuffer data = ByteBuffer.allocateDirect(model.data().length);
        data.put(model.data());
        return new NativeInterpreter(model, data, threads);
    }
}
