package org.capprune.demo;

import android.content.Context;
import java.io.ByteArrayOutputStream;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.bundle.Bundle;
import org.capprune.core.caption.Captioner;
import org.capprune.core.caption.Confidence;
import org.capprune.core.caption.Interpreter;

/** The bundle that came with the app, checked and loaded once; only for the thread of {@link Worker}. */
final class Models {
    /** The packed bundle among the app's assets. */
    static final String ASSET = "bundle.capz";

    private static final int MOST_BYTES = 1 << 30;
    private static final int THREADS = 1;

    private static Models loaded;

    final Bundle bundle;
    final Captioner captioner;
    final Double lowBelow; // the limit of unsure captions; null where the bundle has none

    private Models(Bundle bundle, Interpreter.Engine engine) {
        this.bundle = bundle;
        captioner = new Captioner(bundle, engine, THREADS);
        lowBelow = Confidence.limitOf(bundle);
    }

    /** The loaded bundle; the first call takes its time. */
    static Models get(Context context) throws IOException {
        if (loaded == null) {
            Bundle bundle = Bundle.open(asset(context), ASSET);
            loaded = new Models(bundle, Engines.open());
        }
        return loaded;
    }

    /** The packed bundle as it came with the app. */
    static byte[] asset(Context context) throws IOException {
        try (InputStream stream = context.getAssets().open(ASSET)) {
            return readAll(stream, MOST_BYTES);
        } catch (FileNotFoundException error) {
            throw new CapPruneException(ErrorKind.MISSING_FILE, "the app was built without a bundle").at(ASSET)
                    .hint("put one in as android_demo/README.md says, and build again");
        }
    }

    /** A whole stream of at most so many bytes. */
    static byte[] readAll(InputStream stream, int most) throws IOException {
        ByteArrayOutputStream content = new ByteArrayOutputStream();
        byte[] part = new byte[1 << 16];
        for (int count = stream.read(part); count >= 0; count = stream.read(part)) {
            content.write(part, 0, count);
            if (content.size() > most) {
                throw new CapPruneException(ErrorKind.PHOTO, "a file is too large")
                        .expected("at most " + most + " bytes");
            }
        }
        return content.toByteArray();
    }
}
