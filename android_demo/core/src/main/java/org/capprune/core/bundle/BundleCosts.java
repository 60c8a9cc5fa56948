package org.capprune.core.bundle;

import java.util.List;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;

/**
 * What a bundle costs to run: its searches, its golden photos, and what a packed one expands to.
 *
 * <p>Beam, length and vocabulary are free within wide bounds, and a bundle may hold many golden photos, so that their product
 * is limited by the size of the bundle.
 */
final class BundleCosts {
    // Products that captioning the golden photos, or one photo with the manifest's beam, may add up.
    private static final long BASE_WORK = 20_000_000_000L;
    private static final long WORK_PER_BYTE = 8000;
    // Bytes that a packed bundle may expand to.
    private static final long BASE_BYTES = 64L << 20;
    private static final long BYTES_PER_BYTE = 16;
    private static final long MOST_GOLDEN_BYTES = 64L << 20; // of all golden photos, decoded; and of all states
    private static final long SCORE_WORK = 20; // of one score of one hypothesis
    private static final long PIXEL_WORK = 60;
    private static final long STEP_WORK = 1_000_000; // of a step besides its products: the host's part of it

    private BundleCosts() {}

    static void checkExpansion(long packedBytes, long totalBytes) {
        long limit = BASE_BYTES + BYTES_PER_BYTE * packedBytes;
        if (totalBytes > limit) {
            throw bad("the packed bundle would expand to too much for its size").expected("at most " + limit + " bytes")
                    .found(totalBytes + " bytes");
        }
    }

    /**
     * Check what captioning with a bundle costs.
     *
     * @param encode products that {@code encode} adds up
     * @param step products that {@code step} adds up
     * @param sizeBytes the size of the bundle as it is stored
     * @param place the bundle, for messages
     */
    static void check(
            Manifest manifest, List<GoldenCaption> golden, long encode, long step, long sizeBytes, String place) {
        long words = manifest.decoding().maxTokens();
        long state = manifest.step().state().values().stream().mapToLong(spec -> spec.shape().elements()).sum();
        long aWord = step + STEP_WORK + SCORE_WORK * (manifest.step().vocabulary() + state);
        long side = photoSize(manifest);
        long pixels = side * side;
        long decoded = golden.size() + manifest.files().keySet().stream().filter(BundleFiles::isGoldenPhoto).count();
        double photos = (double) PIXEL_WORK * pixels * decoded;
        long beam = manifest.decoding().beam();
        double one = encode + (double) words * beam * aWord;
        for (GoldenCaption caption : golden) {
            photos += encode + (double) words * caption.beam() * aWord;
            beam = Math.max(beam, caption.beam());
        }
        within("a search with the beam of the manifest", one, sizeBytes, place);
        within("captioning the golden photos", photos, sizeBytes, place);
        if (beam * Float.BYTES * state > MOST_GOLDEN_BYTES) {
            throw bad("the states of a search would need too much memory").at(place)
                    .expected("at most " + MOST_GOLDEN_BYTES + " bytes").found(beam * Float.BYTES * state + " bytes");
        }
        if (3 * pixels * golden.size() > MOST_GOLDEN_BYTES) {
            throw bad("the golden photos are too large together").at(place)
                    .expected("at most " + MOST_GOLDEN_BYTES + " bytes when decoded")
                    .found(3 * pixels * golden.size() + " bytes");
        }
    }

    /** S, the side of a golden photo in pixels; 0 for a model that reads features of regions. */
    static int photoSize(Manifest manifest) {
        return manifest.preprocessing() instanceof Manifest.PhotoInput photo ? photo.size() : 0;
    }

    private static void within(String what, double cost, long sizeBytes, String place) {
        double limit = BASE_WORK + (double) WORK_PER_BYTE * sizeBytes;
        if (cost > limit) {
            throw bad(what + " would cost too much for the size of the bundle").at(place)
                    .expected("at most " + limit + " products").found(cost);
        }
    }

    private static CapPruneException bad(String what) {
        return new CapPruneException(ErrorKind.BUNDLE, what);
    }
}
