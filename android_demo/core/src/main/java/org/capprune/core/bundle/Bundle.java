package org.capprune.core.bundle;

import java.io.File;
import java.util.List;
import java.util.Map;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;

/** A bundle that has passed every check of docs/bundle_format.md; what was checked is what is used. */
public final class Bundle {
    private final String place;
    private final Manifest manifest;
    private final Vocabulary vocabulary;
    private final Map<String, byte[]> files;
    private final ModelFile encoder;
    private final ModelFile decoder;
    private final List<GoldenCaption> golden;
    private final Familiarity familiarity;

    Bundle(String place, Manifest manifest, Vocabulary vocabulary, Map<String, byte[]> files, ModelFile encoder,
            ModelFile decoder, List<GoldenCaption> golden, Familiarity familiarity) {
        this.place = place;
        this.manifest = manifest;
        this.vocabulary = vocabulary;
        this.files = files;
        this.encoder = encoder;
        this.decoder = decoder;
        this.golden = golden;
        this.familiarity = familiarity;
    }

    /** Check a whole bundle, a folder or a packed file, and read it. */
    public static Bundle open(File place) {
        if (place.isFile()) {
            return BundleVerifier.verify(Capz.open(place));
        }
        if (!place.isDirectory()) {
            throw new CapPruneException(ErrorKind.USAGE, "there is no such bundle").at(place)
                    .hint("give the folder that holds manifest.json, or a .capz");
        }
        return BundleVerifier.verify(new FolderMembers(place));
    }

    /** Check a packed bundle and read it; {@code place} is its name, for messages. */
    public static Bundle open(byte[] capz, String place) {
        return BundleVerifier.verify(Capz.open(capz, place));
    }

    /** Where it lies. */
    public String place() {
        return place;
    }

    public Manifest manifest() {
        return manifest;
    }

    public Vocabulary vocabulary() {
        return vocabulary;
    }

    /** The checked bytes of every file, by name; not to be changed. */
    public Map<String, byte[]> files() {
        return files;
    }

    /** The model of {@code encode}. */
    public ModelFile encoder() {
        return encoder;
    }

    /** The model of {@code step}. */
    public ModelFile decoder() {
        return decoder;
    }

    /** What the trained model said of the bundle's own photos. */
    public List<GoldenCaption> golden() {
        return golden;
    }

    /** How to tell photos of the known kind from others; null where the bundle cannot. */
    public Familiarity familiarity() {
        return familiarity;
    }
}
