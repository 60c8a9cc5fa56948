package org.capprune.core.bundle;

import static java.util.Arrays.asList;
import static org.capprune.core.bundle.ManifestSection.notAllowed;
import static org.capprune.core.bundle.ManifestSection.require;

import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.Json;
import org.capprune.core.Printable;
import org.capprune.core.StrictJson;
import org.capprune.core.bundle.Manifest.Decoding;
import org.capprune.core.bundle.Manifest.FileEntry;
import org.capprune.core.bundle.Manifest.Model;
import org.capprune.core.bundle.Manifest.PhotoInput;
import org.capprune.core.bundle.Manifest.Preprocessing;
import org.capprune.core.bundle.Manifest.Pruning;
import org.capprune.core.bundle.Manifest.RegionsInput;

/**
 * Reads manifest.json, strictly: an unknown, missing or repeated key, a wrong type or a value out of range is an error
 * that names the key. Manifests of schema 1 are lifted to schema 2 by {@link ManifestSchema1}.
 */
final class ManifestReader {
    private static final String NO_REPEAT = "no_repeat_ngram";
    private static final String FORMAT = "capprune-bundle";
    private static final int SCHEMA_VERSION = 2;
    private static final String RESIZE = "squash-triangle-q15";
    private static final double SPARSITY_TOLERANCE = 1e-3; // the exporter may round what it prints, not more
    private static final int CHANNELS = 3;
    private static final int MOST_REGIONS = 1024;
    private static final int MOST_CHANNELS = 65_536;
    private static final int MOST_MODEL_SIZES = 64;
    private static final long MOST_MODEL_SIZE = 1L << 31;
    private static final Pattern SHA256 = Pattern.compile("[0-9a-f]{64}");

    private ManifestReader() {}

    /** Read the content of a manifest.json; {@code where} is its name, for messages. */
    static Manifest read(byte[] content, String where) {
        try {
            return manifest(StrictJson.parse(content));
        } catch (CapPruneException error) {
            throw error.inside(where);
        }
    }

    private static Manifest manifest(Object document) {
        checkVersion(document);
        Map<String, Object> tree = new ManifestSection(document, "").tree();
        boolean old = tree.get("schema_version").equals(1L);
        ManifestSection root = new ManifestSection(old ? ManifestSchema1.lifted(tree) : tree, "");
        root.requireKeys("format", "schema_version", "created_by", "model", "preprocessing", "decoding", "tokens",
                "encoder",
                "decoder", "pruning", "quantisation", "data", "config", "files");
        ManifestSection data = root.section("data", "name", "licence");
        ManifestSection quantisation = root.section("quantisation", "encoder", "decoder");
        Preprocessing preprocessing = preprocessing(root.section("preprocessing"));
        ManifestSection decoder = root.section("decoder", "interface", "file", "signature");
        ManifestSection decodingTree = decodingSection(root);
        int maxTokens = (int) decodingTree.whole("max_tokens", 1, 1000);
        ManifestSection tokens = root.section("tokens", "kind", "base", "per_word");
        TokenCoding coding = TokenCoding.of(tokens.string("kind"), tokens.whole("base", 0, TokenCoding.MOST_DIGITS),
                tokens.whole("per_word", 1, TokenCoding.RADIX_DIGITS));
        StepInterface step = InterfaceReader.read(decoder.section("interface"), maxTokens);
        Decoding decoding = decoding(decodingTree, maxTokens, step.vocabulary());
        root.section("encoder", "file", "signature").requireModel(BundleFiles.ENCODER, Manifest.ENCODE_SIGNATURE);
        decoder.requireModel(BundleFiles.DECODER, Manifest.STEP_SIGNATURE);
        root.section("config");
        return new Manifest(
                root.text("created_by"), model(root), preprocessing, decoding, BundleFiles.ENCODER, BundleFiles.DECODER,
                step, coding, pruning(root), quantisation.nameValue("encoder"), quantisation.nameValue("decoder"),
                data.text("name"), data.text("licence"), files(root),
                described(preprocessing, decodingTree.tree(), coding, tokens.tree()));
    }

    private static void checkVersion(Object document) {
        if (!(document instanceof Map<?, ?> tree) || !FORMAT.equals(tree.get("format"))) {
            throw new CapPruneException(ErrorKind.BUNDLE, "a file is not the manifest of a bundle")
                    .expected("\"format\": \"" + FORMAT + "\"");
        }
        if (!(tree.get("schema_version") instanceof Long version) || version < 1) {
            throw notAllowed("schema_version", "a whole number from 1");
        }
        if (version > SCHEMA_VERSION) {
            throw new CapPruneException(ErrorKind.NEWER_FORMAT, "the bundle was written by a later capprune")
                    .at("schema_version").expected("at most " + SCHEMA_VERSION).found(version)
                    .hint("take a later version of this app");
        }
    }

    private static Model model(ManifestSection root) {
        ManifestSection model = root.section("model", "family", "description", "sizes");
        ManifestSection sizes = model.section("sizes");
        require(sizes.tree().size() <= MOST_MODEL_SIZES, model.name("sizes"), "at most " + MOST_MODEL_SIZES + " entries");
        Map<String, Long> named = new LinkedHashMap<>();
        sizes.tree().forEach((name, value) -> {
            String where = sizes.entryName(name);
            require(ManifestSection.isName(name), where, "a name in a-z, 0-9, _");
            require(value instanceof Long size && size >= 0 && size <= MOST_MODEL_SIZE, where, "a whole number of 0 to 2^31");
            named.put(name, (Long) value);
        });
        return new Model(model.nameValue("family"), model.text("description"), named);
    }

    private static Preprocessing preprocessing(ManifestSection section) {
        Object input = section.tree().get("input");
        if ("regions".equals(input)) {
            section.requireKeys("regions", "channels", "input");
            return new RegionsInput((int) section.whole("regions", 1, MOST_REGIONS),
                    (int) section.whole("channels", 1, MOST_CHANNELS));
        }
        require("photo".equals(input), section.name("input"), "photo or regions");
        section.requireKeys("size", "resize", "mean", "scale", "input");
        section.requireText("resize", RESIZE);
        return new PhotoInput((int) section.whole("size", 8, 2048),
                section.reals("mean", CHANNELS, 0, 255, "three numbers of 0 to 255"),
                section.reals("scale", CHANNELS, 0.5, 1024, "three numbers of 0.5 to 1024"));
    }

    private static Decoding decoding(ManifestSection decoding, int maxTokens, int vocabulary) {
        decoding.whole("start", Vocabulary.START, Vocabulary.START);
        decoding.whole("end", Vocabulary.END, Vocabulary.END);
        long[] ids = decoding.wholes("suppress");
        long last = -1;
        for (long id : ids) {
            require(id > last && id < vocabulary && id != Vocabulary.END, decoding.name("suppress"),
                    "token ids of the vocabulary, rising, without the end token");
            last = id;
        }
        return new Decoding(Arrays.stream(ids).mapToInt(id -> (int) id).toArray(), maxTokens,
                (int) decoding.whole("beam", 1, Manifest.MOST_BEAM),
                decoding.has(NO_REPEAT) ? (int) decoding.whole(NO_REPEAT, 1, Manifest.MOST_NO_REPEAT) : 0);
    }

    /** The section about the search; the limit on repetition is left out where there is none. */
    private static ManifestSection decodingSection(ManifestSection root) {
        return root.section("decoding").has(NO_REPEAT)
                ? root.section("decoding", "start", "end", "suppress", "max_tokens", "beam", NO_REPEAT)
                : root.section("decoding", "start", "end", "suppress", "max_tokens", "beam");
    }

    private static Pruning pruning(ManifestSection root) {
        ManifestSection pruning = root.section("pruning", "method", "sparsity", "kept_weights", "prunable_weights");
        long prunable = pruning.whole("prunable_weights", 0, 1L << 40);
        long kept = pruning.whole("kept_weights", 0, prunable);
        double counted = prunable > 0 ? 1 - (double) kept / prunable : 0;
        double sparsity = pruning.real("sparsity");
        require(sparsity >= 0 && sparsity <= 1 && Math.abs(sparsity - counted) <= SPARSITY_TOLERANCE, "pruning.sparsity",
                counted + ", as the counts give");
        return new Pruning(pruning.nameValue("method"), sparsity, kept, prunable);
    }

    private static Map<String, FileEntry> files(ManifestSection root) {
        Map<String, FileEntry> files = new LinkedHashMap<>();
        root.sections("files", "sha256", "size_bytes").forEach((name, entry) -> {
            require(BundleFiles.isAllowed(name) && !BundleFiles.ONNX.contains(name),
                    "files[" + Printable.ascii(name) + "]", "a file name of the bundle format");
            String sha256 = entry.string("sha256");
            require(SHA256.matcher(sha256).matches(), entry.name("sha256"), "64 hex digits");
            files.put(name, new FileEntry(sha256, entry.whole("size_bytes", 0, 1L << 31)));
        });
        for (String needed : asList(BundleFiles.ENCODER, BundleFiles.DECODER, BundleFiles.VOCABULARY)) {
            require(files.containsKey(needed), "files", "an entry for " + needed);
        }
        return files;
    }

    /** What the metadata of a model file must say: one number where the channels share a whole one. */
    private static Map<String, Object> described(Preprocessing preprocessing, Map<String, Object> decoding,
            TokenCoding coding, Map<String, Object> tokens) {
        Map<String, Object> described;
        if (preprocessing instanceof PhotoInput photo) {
            described = Json.object(
                    "size", photo.size(), "resize", RESIZE, "mean", shared(photo.mean()), "scale", shared(photo.scale()));
        } else {
            RegionsInput regions = (RegionsInput) preprocessing;
            described = Json.object(
                    "regions", regions.regions(), "channels", regions.channels(), "input", "regions");
        }
        return coding.equals(TokenCoding.WORDS)
                ? Json.object("preprocessing", described, "decoding", decoding)
                : Json.object("preprocessing", described, "decoding", decoding, "tokens", tokens);
    }

    private static Object shared(double[] numbers) {
        double first = numbers[0];
        if (Arrays.stream(numbers).allMatch(number -> number == first) && first == Math.rint(first)) {
            return (long) first;
        }
        return Arrays.stream(numbers).boxed().collect(Collectors.toList());
    }
}
