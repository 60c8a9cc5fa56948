package org.capprune.core;

import java.util.ArrayList;
import java.util.List;
import java.util.function.BooleanSupplier;

/** A bundle with its two models loaded: encodes a photo once, then searches word by word. One thread at a time. */
public final class Captioner implements AutoCloseable {
    private static final double NS_PER_US = 1000;
    private static final int MOST_THREADS = 64; // runtimes take any number, and end the process over a large one

    private final Bundle bundle;
    private final Interpreter encoder;
    private final Interpreter decoder;

    /**
     * @param bundle one that has been checked
     * @param engine makes the interpreters
     * @param threads threads that each may use, 1 to 64
     */
    public Captioner(Bundle bundle, Interpreter.Engine engine, int threads) {
        if (threads < 1 || threads > MOST_THREADS) {
            throw new CapPruneException(ErrorKind.USAGE, "the number of threads is out of range")
                    .expected("1 to " + MOST_THREADS).found(threads);
        }
        this.bundle = bundle;
        encoder = engine.load(bundle.encoder(), threads);
        try {
            decoder = engine.load(bundle.decoder(), threads);
        } catch (RuntimeException error) {
            encoder.close();
            throw error;
        }
    }

    /** Say a caption with the bundle's own beam. */
    public Caption caption(byte[] square) {
        return caption(square, bundle.manifest().decoding().beam(), () -> false);
    }

    /**
     * Say a caption.
     *
     * @param square (S, S, 3) RGB, as {@link Squash#squash} gives it
     * @param beam K of the search, 1 to 100
     * @param stopped asked before every word whether nobody wants the caption any more; then it ends with null
     */
    public Caption caption(byte[] square, int beam, BooleanSupplier stopped) {
        if (beam < 1 || beam > Manifest.MOST_BEAM) {
            throw new CapPruneException(ErrorKind.USAGE, "the beam is out of range")
                    .expected("1 to " + Manifest.MOST_BEAM).found(beam);
        }
        long started = System.nanoTime();
        List<float[]> startState = encode(square);
        double encodeUs = (System.nanoTime() - started) / NS_PER_US;
        List<Double> stepUs = new ArrayList<>();
        Search search = new Search((token, state) -> {
            long before = System.nanoTime();
            Search.Result result = step(token, state);
            stepUs.add((System.nanoTime() - before) / NS_PER_US);
            return result;
        }, bundle.manifest().decoding(), stopped);
        Search.Hypothesis found;
        try {
            found = search.beam(startState, beam);
        } catch (Search.Stopped noLonger) {
            return null;
        }
        double totalUs = (System.nanoTime() - started) / NS_PER_US;
        return new Caption(bundle.vocabulary().caption(found.tokens()), found.tokens(), found.logProbability(),
                found.attention(), found.finished(), encodeUs, stepUs, totalUs);
    }

    /** Run the encoder; the steps that follow look at this photo. */
    private List<float[]> encode(byte[] square) {
        Manifest manifest = bundle.manifest();
        int expected = manifest.photoSize() * manifest.photoSize() * 3;
        if (square.length != expected) {
            throw new CapPruneException(ErrorKind.USAGE, "a photo does not fit the encoder")
                    .expected(expected + " bytes").found(square.length + " bytes");
        }
        encoder.set("photo", Squash.normalise(square));
        encoder.run();
        Manifest.Model model = manifest.model();
        hold("keys", model.regions() * model.attention());
        hold("values", model.regions() * model.context());
        return state(encoder);
    }

    /** Hand an output of the encoder to the decoder, where it stays for all words of the photo. */
    private void hold(String name, int size) {
        float[] values = new float[size];
        encoder.get(name, values);
        decoder.set(name, values);
    }

    private List<float[]> state(Interpreter from) {
        List<float[]> state = new ArrayList<>();
        for (String name : bundle.manifest().state()) {
            float[] values = new float[bundle.manifest().model().hidden()];
            from.get(name, values);
            state.add(values);
        }
        return state;
    }

    private Search.Result step(int token, List<float[]> state) {
        Manifest manifest = bundle.manifest();
        decoder.set("token", token);
        for (int n = 0; n < state.size(); n++) {
            decoder.set(manifest.state().get(n), state.get(n));
        }
        decoder.run();
        float[] scores = new float[manifest.model().vocabulary()];
        float[] attention = new float[manifest.model().regions()];
        decoder.get("scores", scores);
        decoder.get("attention", attention);
        return new Search.Result(scores, state(decoder), attention);
    }

    @Override
    public void close() {
        encoder.close();
        decoder.close();
    }
}
