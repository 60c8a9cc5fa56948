package org.capprune.demo;

import org.capprune.core.caption.Interpreter;
import org.capprune.core.caption.NativeEngine;

/** The interpreter of this build: the TfLite C API through our own shim. */
final class Engines {
    private Engines() {}

    static Interpreter.Engine open() {
        return NativeEngine.open();
    }
}
