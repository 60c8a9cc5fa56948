package org.capprune.core.bundle;

import java.util.LinkedHashMap;
import java.util.Map;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.tflite.ExpectedTensor;

/**
 * The whole of manifest.json: what the model is, how to feed it, and the hash of every other file.
 *
 * <p>{@link ManifestReader} makes it; docs/bundle_format.md is the specification.
 *
 * @param createdBy what wrote the bundle
 * @param model what the decoder is, for people
 * @param preprocessing what {@code encode} takes
 * @param decoding how captions are searched
 * @param encoderFile name of the model file of {@code encode}
 * @param decoderFile name of the model file of {@code step}
 * @param step what {@code step} takes and returns
 * @param tokens what the token ids stand for
 * @param pruning how the decoder was pruned
 * @param encoderWeights how the encoder's weights are stored, as the exporter names it
 * @param decoderWeights how the decoder's weights are stored
 * @param dataName what the model was trained on
 * @param dataLicence under which licence
 * @param files every file but the manifest, by name
 * @param described {@code preprocessing}, {@code decoding} and, where they are not words, {@code tokens} as a model file's metadata must have them
 */
public record Manifest(
        String createdBy,
        Model model,
        Preprocessing preprocessing,
        Decoding decoding,
        String encoderFile,
        String decoderFile,
        StepInterface step,
        TokenCoding tokens,
        Pruning pruning,
        String encoderWeights,
        String decoderWeights,
        String dataName,
        String dataLicence,
        Map<String, FileEntry> files,
        Map<String, Object> described) {

    public static final String NAME = "manifest.json";
    static final String ENCODE_SIGNATURE = "encode";
    static final String STEP_SIGNATURE = "step";
    static final int MOST_BYTES = 1_000_000;

    /** The widest beam. */
    public static final int MOST_BEAM = 100;
public static final int MOST_NO_REPEAT = 8;

    /** The name of the decoder family, the same in a few words, and its widths, layers and heads by name. */
    public record Model(String family, String description, Map<String, Long> sizes) {}

    /** What {@code encode} takes. */
    public sealed interface Preprocessing permits PhotoInput, RegionsInput {}

    /** A photo, squashed to {@code size} pixels a side, then (x - mean) / scale of red, green and blue. */
    public record PhotoInput(int size, double[] mean, double[] scale) implements Preprocessing {}

    /** Limits of the features that a detector gives: the most regions, and the channels of each. */
    public record RegionsInput(int regions, int channels) implements Preprocessing {}

    /**
     * Token ids that are never generated, the most tokens of a caption, the default beam width, and the length of the
     * sequences of tokens that a caption holds at most once, 0 for no such limit.
     */
    public record Decoding(int[] suppress, int maxTokens, int beam, int noRepeatNgram) {}

    /** {@code sparsity} (0 to 1) is the share of prunable weights that are zero. */
    public record Pruning(String method, double sparsity, long keptWeights, long prunableWeights) {}

    /** What one file of the bundle must be. */
    record FileEntry(String sha256, long sizeBytes) {}

    /** How a photo becomes the encoder's input; an error where the model takes features of regions instead. */
    public PhotoInput photo() {
        if (preprocessing instanceof PhotoInput photo) {
            return photo;
        }
        throw new CapPruneException(ErrorKind.USAGE, "this model takes features of regions, not photos")
                .expected("a bundle whose preprocessing.input is photo: this app has no detector of regions");
    }

    /** Side of the encoder's square, in pixels. */
    public int photoSize() {
        return photo().size();
    }

    /** What {@code encode} must take. */
    Map<String, ExpectedTensor> encodeInputs() {
        Map<String, ExpectedTensor> inputs = new LinkedHashMap<>();
        if (preprocessing instanceof RegionsInput input) {
            inputs.put("regions", ExpectedTensor.row(input.regions, input.channels));
            inputs.put("present", ExpectedTensor.row(input.regions));
        } else {
            inputs.put("photo", ExpectedTensor.row(photoSize(), photoSize(), 3));
        }
        return inputs;
    }
}
