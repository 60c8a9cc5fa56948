package org.capprune.demo;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.util.HashMap;
import java.util.Map;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.bundle.ModelFile;
import org.capprune.core.caption.Interpreter;
import org.tensorflow.lite.TensorFlowLite;

/** The interpreter of this build: LiteRT's Java API. */
final class Engines {
    private Engines() {}

    static Interpreter.Engine open() {
        try {
            TensorFlowLite.init();
        } catch (UnsatisfiedLinkError error) {
            throw new CapPruneException(ErrorKind.DEVICE, "the interpreter cannot be loaded on this device")
                    .found(error.getMessage()).from(error);
        }
        return new LiteRtEngine();
    }

    private static final class LiteRtEngine implements Interpreter.Engine {
        @Override
        public String name() {
            return "tflite";
        }

        @Override
        public String version() {
            return TensorFlowLite.runtimeVersion();
        }

        @Override
        public Interpreter load(ModelFile model, int threads) {
            return new LiteRtInterpreter(model, threads);
        }
    }

    /** One model; inputs and outputs go by their place in the subgraph, through buffers that are kept. */
    private static final class LiteRtInterpreter implements Interpreter {
        private final ModelFile file;
        private final org.tensorflow.lite.Interpreter interpreter;
        private final Object[] inputs;
        private final FloatBuffer[] floats; // the same bytes as numbers
        private final Map<Integer, Object> outputs = new HashMap<>();

        LiteRtInterpreter(ModelFile file, int threads) {
            this.file = file;
            ByteBuffer data = direct(file.data().length);
            data.put(file.data());
            inputs = new Object[file.inputs().size()];
            floats = new FloatBuffer[inputs.length];
            try {
                interpreter = new org.tensorflow.lite.Interpreter(
                        data, new org.tensorflow.lite.Interpreter.Options().setNumThreads(threads));
                interpreter.allocateTensors();
            } catch (IllegalArgumentException | IllegalStateException error) {
                throw new CapPruneException(ErrorKind.BUNDLE, "the interpreter does not accept a model")
                        .at(file.signature()).found(error.getMessage()).from(error);
            }
            file.inputs().values().forEach(place -> {
                ByteBuffer input = direct(interpreter.getInputTensor(place).numBytes());
                inputs[place] = input;
                floats[place] = input.asFloatBuffer();
            });
            file.outputs().values().forEach(
                    place -> outputs.put(place, direct(interpreter.getOutputTensor(place).numBytes())));
        }

        private static ByteBuffer direct(int bytes) {
            return ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder());
        }

        @Override
        public void set(String name, float[] values) {
            write(name, 0, values);
        }

        @Override
        public void write(String name, int offset, float[] values) {
            FloatBuffer input = floats[file.inputs().get(name)];
            ((java.nio.Buffer) input).position(offset);
            input.put(values);
        }

        @Override
        public void set(String name, int value) {
            ((ByteBuffer) inputs[file.inputs().get(name)]).putInt(0, value);
        }

        @Override
        public void run() {
            for (Object output : outputs.values()) {
                ((java.nio.Buffer) output).rewind();
            }
            try {
                interpreter.runForMultipleInputsOutputs(inputs, outputs);
            } catch (IllegalArgumentException | IllegalStateException error) {
                throw new CapPruneException(ErrorKind.BUNDLE, "the interpreter failed to run a model")
                        .at(file.signature()).found(error.getMessage()).from(error);
            }
        }

        @Override
        public void get(String name, float[] into) {
            java.nio.Buffer output = (java.nio.Buffer) outputs.get(file.outputs().get(name));
            output.rewind();
            ((ByteBuffer) output).asFloatBuffer().get(into);
        }

        @Override
        public void close() {
            interpreter.close();
        }
    }
}
