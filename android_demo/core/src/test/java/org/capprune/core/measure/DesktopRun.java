package org.capprune.core.measure;

import java.io.File;
import org.capprune.core.CapPruneException;
import org.capprune.core.PhotoFile;
import org.capprune.core.Png;
import org.capprune.core.Squash;
import org.capprune.core.caption.NativeEngine;

/** What the app's RunActivity does, on a desktop JVM: {@code DesktopRun BUNDLE PHOTOS RESULTS BEAM STOP_AFTER}. */
public final class DesktopRun {
    private DesktopRun() {}

    public static void main(String[] arguments) {
        File results = new File(arguments[2]);
        PhotoRun.Request request = new PhotoRun.Request(
                new File(arguments[0]), new File(arguments[1]), results, Integer.parseInt(arguments[3]), 1);
        int most = Integer.parseInt(arguments[4]);
        int[] done = new int[1];
        try {
            request.requireResultsBelow(results.getParentFile());
            PhotoRun run = new PhotoRun(request, NativeEngine.open(), DesktopRun::square, new Environment(new Desktop()),
                    "capprune-demo test");
            run.run((photos, all) -> done[0]++, () -> done[0] >= most);
        } catch (CapPruneException error) {
            PhotoRun.writeFailure(error, results);
        }
    }

    private static byte[] square(File photo, int size) {
        byte[] content = PhotoFile.read(photo);
        PhotoFile.check(content, photo.getPath());
        return Squash.squash(Png.decode(content, photo.getPath(), Squash.MOST_SIDE), size);
    }

    /** A desktop plays the phone, and says so. */
    private record Desktop() implements Host {
        @Override
        public String os() {
            return null;
        }

        @Override
        public String model() {
            return null;
        }

        @Override
        public Integer thermalStatus() {
            return 0;
        }

        @Override
        public String standIn() {
            return "a desktop JVM";
        }
    }
}
