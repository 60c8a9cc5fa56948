package org.capprune.core.bundle;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.Pixels;
import org.capprune.core.Png;
import org.capprune.core.StrictJson;

/** Reads golden/golden.json: the photos that a bundle proves itself on, and what must be said of them. */
final class GoldenReader {
    private static final int MOST_ENTRIES = 1024;
    private static final Set<String> KEYS = new HashSet<>(Arrays.asList("photo", "beam", "tokens", "caption"));

    private final Manifest manifest;
    private final Vocabulary vocabulary;

    private GoldenReader(Manifest manifest, Vocabulary vocabulary) {
        this.manifest = manifest;
        this.vocabulary = vocabulary;
    }

    /** The golden captions of a bundle whose other files are checked; none when there is no golden.json. */
    static List<GoldenCaption> read(
            Map<String, byte[]> files, String place, Manifest manifest, Vocabulary vocabulary) {
        List<GoldenCaption> golden = new ArrayList<>();
        if (!files.containsKey(BundleFiles.GOLDEN)) {
            return golden;
        }
        String where = place + "/" + BundleFiles.GOLDEN;
        Object document;
        try {
            document = StrictJson.parse(files.get(BundleFiles.GOLDEN));
        } catch (CapPruneException error) {
            throw error.inside(where);
        }
        if (!(document instanceof List<?> entries) || entries.size() > MOST_ENTRIES) {
            throw new CapPruneException(ErrorKind.BUNDLE, "the golden captions are not as expected").at(where)
                    .expected("a list of at most " + MOST_ENTRIES + " entries");
        }
        GoldenReader reader = new GoldenReader(manifest, vocabulary);
        for (Object entry : entries) {
            golden.add(reader.entry(entry, where + ", entry " + golden.size()));
        }
        return golden;
    }

    /** Decode every photo of a bundle, whether golden.json names it or not. */
    static void checkPhotos(Map<String, byte[]> files, String place, int size) {
        files.forEach((name, content) -> {
            if (BundleFiles.isGoldenPhoto(name)) {
                String where = place + "/" + name;
                if (size == 0) {
                    throw new CapPruneException(ErrorKind.BUNDLE, "a golden photo of a model that reads no photos").at(where);
                }
                Pixels photo = Png.decode(content, where, size);
                if (photo.width() != size || photo.height() != size) {
                    throw new CapPruneException(
                            ErrorKind.PHOTO, "a golden photo has another size than the model reads").at(where)
                            .expected(size + " x " + size + " pixels").found(photo.width() + " x " + photo.height());
                }
            }
        });
    }

    private GoldenCaption entry(Object entry, String where) {
        if (entry instanceof Map<?, ?> tree && tree.keySet().equals(KEYS)
                && tree.get("photo") instanceof String photo && BundleFiles.isGoldenPhoto(photo)
                && manifest.files().containsKey(photo)
                && tree.get("beam") instanceof Long beam && beam >= 1 && beam <= Manifest.MOST_BEAM
                && tree.get("tokens") instanceof List<?> ids && areWords(ids)
                && tree.get("caption") instanceof String caption) {
            int[] tokens = ids.stream().mapToInt(id -> ((Long) id).intValue()).toArray();
            if (caption.equals(vocabulary.caption(tokens))) {
                return new GoldenCaption(photo, beam.intValue(), tokens, caption);
            }
        }
        throw new CapPruneException(ErrorKind.BUNDLE, "a golden caption is not as expected").at(where).expected(
                "{photo of this bundle, beam, tokens without <start> and <end>, caption of these tokens}");
    }

    private boolean areWords(List<?> ids) {
        return ids.size() <= manifest.decoding().maxTokens()
                && ids.stream().allMatch(id -> id instanceof Long token && token >= 0 && token < vocabulary.size()
                        && token != Vocabulary.START && token != Vocabulary.END);
    }
}
