package org.capprune.core;

import java.util.List;
import java.util.Map;

/**
 * The whole of manifest.json: what the model is, how to feed it, and the hash of every other file.
 *
 * <p>{@link ManifestReader} makes it; docs/bundle_format.md is the specification.
 *
 * @param createdBy what wrote the bundle
 * @param model the decoder's kind and sizes
 * @param photoSize side of the encoder's square, in pixels
 * @param decoding how captions are searched
 * @param encoderFile name of the model file of {@code encode}
 * @param decoderFile name of the model file of {@code step}
 * @param state names of the tensors that go from step to step
 * @param pruning how the decoder was pruned
 * @param encoderWeights how the encoder's weights are stored, as the exporter names it
 * @param decoderWeights how the decoder's weights are stored
 * @param dataName what the model was trained on
 * @param dataLicence under which licence
 * @param files every file but the manifest, by name
 * @param described {@code preprocessing} and {@code decoding} as the file gives them
 */
public record Manifest(
        String createdBy,
        Model model,
        int photoSize,
        Decoding decoding,
        String encoderFile,
        String decoderFile,
        List<String> state,
        Pruning pruning,
        String encoderWeights,
        String decoderWeights,
        String dataName,
        String dataLicence,
        Map<String, FileEntry> files,
        Map<String, Object> described) {

    static final String NAME = "manifest.json";
    static final String ENCODE_SIGNATURE = "encode";
    static final String STEP_SIGNATURE = "step";
    static final int MOST_BYTES = 1_000_000;

    /** The widest beam. */
    public static final int MOST_BEAM = 100;

    /** The decoder's kind and sizes. */
    public record Model(
            String cell, int embedding, int hidden, int attention, int context, int regions, int vocabulary) {}

    /** Token ids that are never said, the most words of a caption, the beam's default width. */
    public record Decoding(int[] suppress, int maxTokens, int beam) {}

    /** {@code sparsity} (0 to 1) is the share of prunable weights that are zero. */
    public record Pruning(String method, double sparsity, long keptWeights, long prunableWeights) {}

    /** What one file of the bundle must be. */
    record FileEntry(String sha256, long sizeBytes) {}
}
