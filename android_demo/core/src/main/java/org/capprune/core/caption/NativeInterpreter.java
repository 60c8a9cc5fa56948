package org.capprune.core.caption;

import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.Map;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.bundle.ModelFile;

/**
 * One model in the C API of TFLite, with the XNNPACK delegate that other builds of TFLite add by themselves. Native methods
 * take addresses that only this class makes and frees.
 */
final class NativeInterpreter implements Interpreter {
    private static final int OK = 0;

    private final ModelFile file;
    private final ByteBuffer data; // the model's bytes, which must stay while it is loaded
    private final Map<String, Long> inputs = new HashMap<>();
    private final Map<String, Long> outputs = new HashMap<>();
    private long model;
    private long delegate;
    private long interpreter;

    NativeInterpreter(ModelFile file, ByteBuffer data, int threads) {
        this.file = file;
        this.data = data;
        try {
            model = createModel(data, file.data().length);
            delegate = model == 0 ? 0 : createDelegate(threads);
            interpreter = delegate == 0 ? 0 : createInterpreter(model, delegate, threads);
            if (interpreter == 0 || allocate(interpreter) != OK) {
                throw new CapPruneException(ErrorKind.BUNDLE, "the interpreter does not accept a model")
                        .at(file.signature());
            }
            file.inputs().forEach((name, place) -> inputs.put(name, input(interpreter, place)));
            file.outputs().forEach((name, place) -> outputs.put(name, output(interpreter, place)));
        } catch (RuntimeException error) {
            close();
            throw error;
        }
    }

    @Override
    public void set(String name, float[] values) {
        writeFloats(tensor(inputs, name, values.length), 0, values);
    }

    @Override
    public void write(String name, int offset, float[] values) {
        requireOpen();
        Long tensor = inputs.get(name);
        if (tensor == null || tensor == 0 || offset < 0 || bytes(tensor) < 4L * (offset + (long) values.length)) {
            throw unfit(inputs, name, values.length);
        }
        writeFloats(tensor, offset, values);
    }

    @Override
    public void set(String name, int value) {
        writeInt(tensor(inputs, name, 1), value);
    }

    @Override
    public void run() {
        requireOpen();
        if (invoke(interpreter) != OK) {
            throw new CapPruneException(ErrorKind.BUNDLE, "the interpreter failed to run a model").at(file.signature());
        }
    }

    @Override
    public void get(String name, float[] into) {
        readFloats(tensor(outputs, name, into.length), into);
    }

    @Override
    public void close() {
        if (interpreter != 0) {
            deleteInterpreter(interpreter);
        }
        if (delegate != 0) { // behind the interpreter, which uses it
            deleteDelegate(delegate);
        }
        if (model != 0) {
            deleteModel(model);
        }
        interpreter = 0;
        delegate = 0;
        model = 0;
        inputs.clear();
        outputs.clear();
    }

    /** The address of a tensor that holds {@code count} numbers of 4 bytes. */
    private long tensor(Map<String, Long> tensors, String name, int count) {
        requireOpen();
        Long tensor = tensors.get(name);
        if (tensor == null || tensor == 0 || bytes(tensor) != 4L * count) {
            throw unfit(tensors, name, count);
        }
        return tensor;
    }

    private static CapPruneException unfit(Map<String, Long> tensors, String name, int count) {
        return new CapPruneException(ErrorKind.BUNDLE, "the inputs do not fit the model").at(name)
                .expected(tensors.keySet()).found(count + " numbers");
    }

    private void requireOpen() {
        if (interpreter == 0 || data.capacity() == 0) {
            throw new IllegalStateException("a closed interpreter");
        }
    }

    static native String version();

    private static native long createModel(ByteBuffer data, long size);

    private static native long createDelegate(int threads);

    private static native long createInterpreter(long model, long delegate, int threads);

    private static native int allocate(long interpreter);

    private static native long input(long interpreter, int place);

    private static native long output(long interpreter, int place);

    private static native long bytes(long tensor);

    private static native void writeFloats(long tensor, int offset, float[] values);

    private static native void writeInt(long tensor, int value);

    private static native void readFloats(long tensor, float[] into);

    private static native int invoke(long interpreter);

    private static native void deleteInterpreter(long interpreter);

    private static native void deleteDelegate(long delegate);

    private static native void deleteModel(long model);
}
