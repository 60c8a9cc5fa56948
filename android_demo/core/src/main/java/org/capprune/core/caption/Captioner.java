package org.capprune.core.caption;

import java.util.ArrayList;
import java.util.List;
import java.util.function.BooleanSupplier;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.Squash;
import org.capprune.core.bundle.Bundle;
import org.capprune.core.bundle.Familiarity;
import org.capprune.core.bundle.Manifest;

/** A bundle with its two models loaded: encodes a photo once, then searches word by word. One thread at a time. */
public final class Captioner implements AutoCloseable {
    private static final double NS_PER_US = 1000;
    private static final int MOST_THREADS = 64; // runtimes take any number, and end the process over a large one

    private final Bundle bundle;
    private final Interpreter encoder;
    private final Interpreter decoder;
    private final DecoderStep step;

    /**
     * @param bundle one that has been checked, whose model takes photos
     * @param engine makes the interpreters
     * @param threads threads that each may use, 1 to 64
     */
    public Captioner(Bundle bundle, Interpreter.Engine engine, int threads) {
        if (threads < 1 || threads > MOST_THREADS) {
            throw new CapPruneException(ErrorKind.USAGE, "the number of threads is out of range")
                    .expected("1 to " + MOST_THREADS).found(threads);
        }
        this.bundle = bundle;
        Manifest manifest = bundle.manifest();
        manifest.photo(); // or an error that says what the model takes instead
        encoder = engine.load(bundle.encoder(), threads);
        try {
            decoder = engine.load(bundle.decoder(), threads);
        } catch (RuntimeException error) {
            encoder.close();
            throw error;
        }
        try {
            step = new DecoderStep(decoder, manifest.step(), manifest.decoding().maxTokens());
        } catch (RuntimeException error) {
            close();
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
        DecoderStep.State startState = encode(square);
        double encodeUs = (System.nanoTime() - started) / NS_PER_US;
        Familiarity familiarity = bundle.familiarity();
        double[] pooled = familiarity == null ? null : familiarity.pool(bundle.manifest().step(), encoder::get);
        List<Double> stepUs = new ArrayList<>();
        Search<DecoderStep.State> search = new Search<>((token, state, position) -> {
            long before = System.nanoTime();
            Search.Result<DecoderStep.State> result = step.run(token, state, position);
            stepUs.add((System.nanoTime() - before) / NS_PER_US);
            return result;
        }, bundle.manifest().decoding(), stopped);
        Search.Hypothesis<DecoderStep.State> found;
        try {
            found = search.beam(startState, beam);
        } catch (Search.Stopped noLonger) {
            return null;
        }
        double totalUs = (System.nanoTime() - started) / NS_PER_US;
        Caption caption = new Caption(bundle.vocabulary().caption(found.tokens()), found.tokens(), found.logProbability(),
                bundle.manifest().step().regions() == null ? null : found.attention(), found.finished(), encodeUs, stepUs, totalUs,
                null);
        return pooled == null
                ? caption : caption.with(familiarity.confidence(pooled, Confidence.meanLogProbability(caption)));
    }

    /** Run the encoder; the steps that follow look at this photo. */
    private DecoderStep.State encode(byte[] square) {
        Manifest.PhotoInput photo = bundle.manifest().photo();
        int expected = photo.size() * photo.size() * 3;
        if (square.length != expected) {
            throw new CapPruneException(ErrorKind.USAGE, "a photo does not fit the encoder")
                    .expected(expected + " bytes").found(square.length + " bytes");
        }
        encoder.set("photo", Squash.normalise(square, photo.mean(), photo.scale()));
        encoder.run();
        return step.lookAt(encoder);
    }

    @Override
    public void close() {
        encoder.close();
        decoder.close();
    }
}
