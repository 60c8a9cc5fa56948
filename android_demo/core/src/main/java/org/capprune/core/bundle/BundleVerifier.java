package org.capprune.core.bundle;

import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SortedSet;
import java.util.TreeSet;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.Printable;
import org.capprune.core.StrictJson;
import org.capprune.core.bundle.Manifest.FileEntry;
import org.capprune.core.tflite.ExpectedTensor;
import org.capprune.core.tflite.StoredBytes;
import org.capprune.core.tflite.TfliteCheck;
import org.capprune.core.tflite.TfliteModel;
import org.capprune.core.tflite.TfliteModel.Signature;
import org.capprune.core.tflite.TfliteModel.Tensor;
import org.capprune.core.tflite.TfliteReader;

/**
 * Whether a bundle is what its manifest says, before anything in it is used.
 *
 * <pre>
 * names and kinds → sizes and SHA-256 → vocabulary → model files → their signatures against the manifest
 * </pre>
 */
public final class BundleVerifier {
    private static final long MOST_VALUES = 1_000_000; // of quality.json, each of which takes memory when it is read

    private final Members members;
    private final Manifest manifest;
    private final Map<String, byte[]> files = new LinkedHashMap<>();
    private final List<Long> work = new ArrayList<>(); // of encode and step: the products that one run adds up

    private BundleVerifier(Members members) {
        this.members = members;
        byte[] content = members.read(Manifest.NAME, Manifest.MOST_BYTES);
        manifest = ManifestReader.read(content, members.where(Manifest.NAME));
        files.put(Manifest.NAME, content);
    }

    /** Check the files of a bundle, wherever they lie. */
    static Bundle verify(Members members) {
        return new BundleVerifier(members).verify();
    }

    private Bundle verify() {
        checkNames();
        manifest.files().forEach((name, entry) -> files.put(name, readListed(name, entry)));
        Vocabulary vocabulary = Vocabulary.read(files.get(BundleFiles.VOCABULARY), members.where(BundleFiles.VOCABULARY),
                manifest.tokens());
        StepInterface step = manifest.step();
        if (vocabulary.size() != step.vocabulary()) {
            throw new CapPruneException(ErrorKind.BAD_VOCABULARY, "the vocabulary does not fit the model")
                    .at(members.where(BundleFiles.VOCABULARY)).expected(step.vocabulary() + " tokens")
                    .found(vocabulary.size());
        }
        ModelFile encoder = model(
                manifest.encoderFile(), Manifest.ENCODE_SIGNATURE, manifest.encodeInputs(), step.encodeOutputs());
        ModelFile decoder = model(
                manifest.decoderFile(), Manifest.STEP_SIGNATURE, step.stepInputs(), step.stepOutputs());
        String place = members.place();
        Familiarity familiarity = Familiarity.read(files, step, members.where(BundleFiles.QUALITY));
        Bundle bundle = new Bundle(place, manifest, vocabulary, files, encoder, decoder,
                GoldenReader.read(files, place, manifest, vocabulary), familiarity);
        long sizeBytes = members.packedBytes() > 0
                ? members.packedBytes() : files.values().stream().mapToLong(content -> content.length).sum();
        BundleCosts.check(manifest, bundle.golden(), work.get(0), work.get(1), sizeBytes, place);
        GoldenReader.checkPhotos(files, place, BundleCosts.photoSize(manifest));
        return bundle;
    }

    private void checkNames() {
        SortedSet<String> extra = members.names(BundleFiles.MOST_FILES);
        SortedSet<String> missing = new TreeSet<>(manifest.files().keySet());
        missing.removeAll(extra);
        extra = new TreeSet<>(extra);
        extra.removeAll(manifest.files().keySet());
        extra.remove(Manifest.NAME);
        if (!missing.isEmpty()) {
            throw new CapPruneException(ErrorKind.MISSING_FILE, "a file of the bundle is missing")
                    .at(members.where(missing.first()));
        }
        if (!extra.isEmpty()) {
            throw new CapPruneException(
                    ErrorKind.MISSING_FILE, "a file in the bundle is not listed in its manifest")
                    .at(members.where(extra.first()));
        }
    }

    private byte[] readListed(String name, FileEntry entry) {
        byte[] content = members.read(name, BundleFiles.mostBytes(name));
        if (content.length != entry.sizeBytes()) {
            throw new CapPruneException(ErrorKind.HASH_MISMATCH, "a file of the bundle has another size")
                    .at(members.where(name)).expected(entry.sizeBytes() + " bytes").found(content.length + " bytes");
        }
        String digest = hex(sha256(content, 0, content.length));
        if (!digest.equals(entry.sha256())) {
            throw new CapPruneException(
                    ErrorKind.HASH_MISMATCH, "a file of the bundle is not the one that was written")
                    .at(members.where(name)).expected("sha256 " + entry.sha256()).found("sha256 " + digest)
                    .hint("copy the bundle again");
        }
        if (name.equals(BundleFiles.QUALITY) && values(content) > MOST_VALUES) {
            throw new CapPruneException(ErrorKind.BUNDLE, "a file of the bundle holds too many values")
                    .at(members.where(name)).expected("at most " + MOST_VALUES).found(values(content));
        }
        return content;
    }

    private static long values(byte[] json) {
        long count = 0;
        for (byte character : json) {
            count += character == ',' || character == '[' || character == '{' ? 1 : 0;
        }
        return count;
    }

    public static byte[] sha256(byte[] content, int offset, int length) {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            digest.update(content, offset, length);
            return digest.digest();
        } catch (NoSuchAlgorithmException error) { // every Java and every Android has it
            throw new IllegalStateException(error);
        }
    }

    public static String hex(byte[] digest) {
        StringBuilder text = new StringBuilder();
        for (byte part : digest) {
            text.append(Character.forDigit(part >> 4 & 0xF, 16)).append(Character.forDigit(part & 0xF, 16));
        }
        return text.toString();
    }

    private ModelFile model(
            String name, String key, Map<String, ExpectedTensor> inputs, Map<String, ExpectedTensor> outputs) {
        byte[] data = files.get(name);
        String where = members.where(name);
        TfliteModel model = TfliteCheck.check(data, where, key);
        Signature signature = model.signatures().get(0);
        checkTensors(model, where, "input", signature.inputs(), inputs);
        checkTensors(model, where, "output", signature.outputs(), outputs);
        checkMetadata(model, where);
        work.add(TfliteCheck.work(model));
        return new ModelFile(data, key, positions(signature.inputs(), model.inputs()),
                positions(signature.outputs(), model.outputs()));
    }

    private static void checkTensors(
            TfliteModel model, String where, String kind, Map<String, Long> found, Map<String, ExpectedTensor> expected) {
        if (!found.keySet().equals(expected.keySet())) {
            throw bad("the model's " + kind + "s are not those of the manifest", where)
                    .expected(Printable.list(expected.keySet()))
                    .found(Printable.ascii(Printable.list(found.keySet())));
        }
        expected.forEach((name, one) -> {
            Tensor tensor = model.tensors().get(found.get(name).intValue());
            if (!tensor.shape().equals(one.shape()) || tensor.type() != one.type()) {
                throw bad("the model's " + kind + " " + name + " does not fit the manifest", where)
                        .expected(one.shape() + " " + one.type()).found(tensor.shape() + " " + tensor.type());
            }
        });
    }

    /** What a .tflite says of the bundle around it, for those who have only the file, must be so. */
    private void checkMetadata(TfliteModel model, String where) {
        StoredBytes words = model.metadata().get(TfliteReader.VOCABULARY_METADATA);
        if (words != null && !Arrays.equals(words.copy(), files.get(BundleFiles.VOCABULARY))) {
            throw bad("metadata: another vocabulary than the bundle's", where);
        }
        StoredBytes described = model.metadata().get(TfliteReader.MODEL_METADATA);
        if (described == null) {
            return;
        }
        Object found;
        try {
            found = StrictJson.parse(described.copy());
        } catch (CapPruneException error) {
            throw bad("metadata: " + TfliteReader.MODEL_METADATA + " cannot be read", where).found(error.details());
        }
        if (!manifest.described().equals(found)) {
            throw bad("metadata: another preprocessing or decoding than the manifest's", where)
                    .expected(manifest.described());
        }
    }

    private static Map<String, Integer> positions(Map<String, Long> named, int[] all) {
        Map<String, Integer> positions = new LinkedHashMap<>();
        named.forEach((name, index) -> {
            for (int position = 0; position < all.length; position++) {
                if (all[position] == index) {
                    positions.put(name, position);
                }
            }
        });
        return positions;
    }

    private static CapPruneException bad(String what, String where) {
        return new CapPruneException(ErrorKind.BAD_MODEL_FILE, what).at(where);
    }
}
