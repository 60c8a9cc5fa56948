package org.capprune.core.measure;

import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.BooleanSupplier;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.Json;
import org.capprune.core.JsonText;
import org.capprune.core.Printable;
import org.capprune.core.bundle.Bundle;
import org.capprune.core.bundle.BundleVerifier;
import org.capprune.core.bundle.Manifest;
import org.capprune.core.caption.Caption;
import org.capprune.core.caption.Captioner;
import org.capprune.core.caption.Interpreter;

/**
 * A folder of photos to captions, token ids and times, line by line in a journal and in one document in the end: what
 * {@code capprune_runtime run} does, for devices without Python. docs/results_schema.md describes the document.
 */
public final class PhotoRun {
    private static final int SCHEMA_VERSION = 2;
    private static final int WARM_UP = 1; // captions that are made and not counted
    private static final double NS_PER_US = 1000;
    /** Those of Python's runtime; a photo that this device cannot decode is named among the failures. */
    private static final List<String> ENDINGS = Arrays.asList(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif",
            ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".heic", ".heif", ".hif", ".avif");

    private static final String APPLE_DOUBLE = "._"; // starts the name of a file in which macOS keeps another's metadata

    private final Request request;
    private final Interpreter.Engine engine;
    private final PhotoReader reader;
    private final Environment environment;
    private final String createdBy;

    /**
     * What is asked for.
     *
     * @param bundle a folder or a packed bundle
     * @param photos a folder, of which every photo is captioned
     * @param results where the document goes
     * @param beam K; 0 for the bundle's own
     * @param threads of the interpreter
     */
    public record Request(File bundle, File photos, File results, int beam, int threads) {
        /** Refuse to write anywhere but below a folder. */
        public void requireResultsBelow(File folder) {
            try {
                String root = folder.getCanonicalPath() + File.separator;
                if (!results.getCanonicalPath().startsWith(root)) {
                    throw new CapPruneException(ErrorKind.USAGE, "results must lie in the app's own folder").at(results)
                            .expected("a file below " + root);
                }
            } catch (IOException error) {
                throw new CapPruneException(ErrorKind.USAGE, "this place cannot be written to").at(results).from(error);
            }
        }
    }

    /** Reads a photo file as the encoder's square; an error of kind PHOTO where it cannot be read. */
    public interface PhotoReader {
        byte[] read(File photo, int size);
    }

    /** Told of progress. */
    public interface Progress {
        void done(int photos, int all);
    }

    public PhotoRun(
            Request request, Interpreter.Engine engine, PhotoReader reader, Environment environment, String createdBy) {
        this.request = request;
        this.engine = engine;
        this.reader = reader;
        this.environment = environment;
        this.createdBy = createdBy;
    }

    /** Caption every photo and write the document; false where it was stopped before, and only the journal stays. */
    public boolean run(Progress progress, BooleanSupplier stopped) {
        List<String> names = names();
        Map<String, Object> began = environment.moment();
        Long beforeBytes = Environment.peakBytes();
        long started = System.nanoTime();
        Bundle bundle = Bundle.open(request.bundle);
        int beam = request.beam == 0 ? bundle.manifest().decoding().beam() : request.beam;
        File folder = request.results.getAbsoluteFile().getParentFile();
        if (!folder.isDirectory() && !folder.mkdirs()) {
            throw new CapPruneException(ErrorKind.USAGE, "this place cannot be written to").at(folder);
        }
        try (Captioner captioner = new Captioner(bundle, engine, request.threads);
                Journal journal = new Journal(Journal.beside(request.results), session(bundle, beam))) {
            double loadUs = (System.nanoTime() - started) / NS_PER_US;
            if (!sayAll(captioner, bundle, beam, names, journal, began, progress, stopped)) {
                return false;
            }
            write(document(bundle, beam, names, journal, loadUs, beforeBytes));
            journal.remove();
            return true;
        }
    }

    /** Write what went wrong in place of the document. */
    public static void writeFailure(CapPruneException error, File results) {
        write(Json.object("failure", error.asJson()), results);
    }

    private List<String> names() {
        String[] found = request.photos.list();
        if (found == null) {
            throw new CapPruneException(ErrorKind.USAGE, "there is no such folder of photos").at(request.photos);
        }
        List<String> names = new ArrayList<>(Arrays.asList(found));
        names.removeIf(name -> name.startsWith(APPLE_DOUBLE)
                || ENDINGS.stream().noneMatch(name.toLowerCase(Locale.ROOT)::endsWith));
        names.sort(null);
        if (names.isEmpty()) {
            throw new CapPruneException(ErrorKind.DATA, "there are no photos").at(request.photos)
                    .expected(Printable.list(ENDINGS));
        }
        return names;
    }

    private Map<String, Object> session(Bundle bundle, int beam) {
        return Json.object("schema_version", SCHEMA_VERSION, "manifest_sha256", manifestSha256(bundle), "runtime",
                engine.name(), "threads", request.threads, "beam", beam);
    }

    private static String manifestSha256(Bundle bundle) {
        byte[] manifest = bundle.files().get(Manifest.NAME);
        return BundleVerifier.hex(BundleVerifier.sha256(manifest, 0, manifest.length));
    }

    private boolean sayAll(Captioner captioner, Bundle bundle, int beam, List<String> names, Journal journal,
            Map<String, Object> began, Progress progress, BooleanSupplier stopped) {
        int size = bundle.manifest().photoSize();
        int warmUp = WARM_UP;
        if (!journal.said.keySet().containsAll(names)) {
            journal.begin(began);
        }
        for (int n = 0; n < names.size(); n++) {
            String name = names.get(n);
            if (journal.said.containsKey(name)) {
                continue;
            }
            long started = System.nanoTime();
            try {
                byte[] square = readWithinMemory(new File(request.photos, name), size);
                double readUs = (System.nanoTime() - started) / NS_PER_US;
                for (; warmUp > 0; warmUp--) {
                    captioner.caption(square, beam, stopped);
                }
                Caption caption = captioner.caption(square, beam, stopped);
                if (caption == null) {
                    return false;
                }
                journal.write(Json.object("said", said(name, caption, readUs)));
            } catch (CapPruneException error) {
                if (error.kind() != ErrorKind.PHOTO) {
                    throw error;
                }
                journal.write(Json.object("failed", Json.object(
                        "photo", name, "error", error.kind().errorName, "message", error.getMessage())));
            }
            progress.done(n + 1, names.size());
        }
        return true;
    }

    private byte[] readWithinMemory(File photo, int size) {
        try {
            return reader.read(photo, size);
        } catch (OutOfMemoryError error) {
            throw new CapPruneException(ErrorKind.PHOTO, "a photo is too large for the memory of this device").at(photo);
        }
    }

    private static Map<String, Object> said(String name, Caption caption, double readUs) {
        List<Object> steps = new ArrayList<>();
        caption.stepUs().forEach(us -> steps.add(tenths(us)));
        Map<String, Object> json = caption.asJson();
        return Json.object("photo", name, "caption", caption.text(), "tokens", json.get("tokens"), "log_probability",
                caption.logProbability(), "finished", caption.finished(), "read_us", tenths(readUs), "encode_us",
                tenths(caption.encodeUs()), "step_us", steps, "caption_us", tenths(caption.totalUs()),
                "confidence", caption.confidence());
    }

    /** Times to a tenth of a microsecond. */
    private static double tenths(double us) {
        return Math.rint(us * 10) / 10;
    }

    private Map<String, Object> document(
            Bundle bundle, int beam, List<String> names, Journal journal, double loadUs, Long beforeBytes) {
        List<Object> captions = new ArrayList<>();
        List<Object> failures = new ArrayList<>();
        for (String name : names) {
            if (journal.said.containsKey(name)) {
                captions.add(journal.said.get(name));
            } else {
                failures.add(journal.failed.get(name));
            }
        }
        if (captions.isEmpty()) {
            throw new CapPruneException(ErrorKind.DATA, "none of the photos can be read").at(request.photos)
                    .found(((Map<?, ?>) failures.get(0)).get("message"));
        }
        Map<String, Object> where =
                environment.describe(engine, request.threads, journal.before, environment.moment());
        return Json.object(
                "schema_version", SCHEMA_VERSION,
                "kind", "run",
                "created_by", createdBy,
                "bundle", bundleFacts(bundle),
                "settings", Json.object("beam", beam, "warm_up", WARM_UP, "sessions", journal.sessions),
                "captions", captions,
                "failures", failures,
                "latency", latency(captions, loadUs),
                "memory", Json.object("peak_rss_bytes", Environment.peakBytes(), "before_bytes", beforeBytes),
                "golden", null,
                "environment", where,
                "verdict", Verdict.judge(where, times(captions, "encode_us")));
    }

    private static Map<String, Object> bundleFacts(Bundle bundle) {
        Map<String, Object> files = new TreeMap<>();
        bundle.files().forEach((name, content) -> files.put(name, (long) content.length));
        long total = files.values().stream().mapToLong(size -> (Long) size).sum();
        Manifest.Pruning pruning = bundle.manifest().pruning();
        long prunable = pruning.prunableWeights();
        return Json.object("name", new File(bundle.place()).getName(), "manifest_sha256", manifestSha256(bundle), "files",
                files, "total_bytes", total, "kept_weights", pruning.keptWeights(), "prunable_weights", prunable,
                "sparsity", prunable > 0 ? 1 - (double) pruning.keptWeights() / prunable : 0.0);
    }

    private static Map<String, Object> latency(List<Object> captions, double loadUs) {
        return Json.object("load_us", tenths(loadUs), "read", summary(captions, "read_us"), "encode",
                summary(captions, "encode_us"), "step", summary(captions, "step_us"), "caption",
                summary(captions, "caption_us"));
    }

    private static Map<String, Object> summary(List<Object> captions, String key) {
        return new Percentiles(times(captions, key)).asJson();
    }

    /** All times of one kind, of all captions together. */
    private static List<Double> times(List<Object> captions, String key) {
        List<Double> times = new ArrayList<>();
        for (Object caption : captions) {
            Object value = ((Map<?, ?>) caption).get(key);
            for (Object time : value instanceof List<?> list ? list : Arrays.asList(value)) {
                times.add(((Number) time).doubleValue());
            }
        }
        return times;
    }

    private void write(Map<String, Object> document) {
        write(document, request.results);
    }

    private static void write(Map<String, Object> document, File results) {
        File partial = new File(results.getPath() + ".partial");
        try (OutputStream stream = new FileOutputStream(partial)) {
            stream.write(JsonText.of(document).getBytes(StandardCharsets.UTF_8));
        } catch (IOException error) {
            throw new CapPruneException(ErrorKind.USAGE, "this place cannot be written to").at(results)
                    .found(error.getMessage()).from(error);
        }
        if (!partial.renameTo(results)) {
            throw new CapPruneException(ErrorKind.USAGE, "this place cannot be written to").at(results);
        }
    }
}
