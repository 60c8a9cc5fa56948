package org.capprune.core.caption;

import java.util.Arrays;
import org.capprune.core.ArrayPixels;
import org.capprune.core.Png;
import org.capprune.core.Squash;
import org.capprune.core.bundle.Bundle;
import org.capprune.core.bundle.GoldenCaption;

/**
 * Whether a device says of a bundle's own photos what the trained model said.
 *
 * @param photos how many there are
 * @param identical how many gave the same tokens
 * @param lines for each, what was said and, where it differs, what should have been
 */
public record SelfTest(int photos, int identical, String lines) {
    /** Caption every golden photo of a bundle. */
    public static SelfTest run(Bundle bundle, Captioner captioner) {
        int identical = 0;
        StringBuilder lines = new StringBuilder();
        for (GoldenCaption golden : bundle.golden()) {
            ArrayPixels photo = Png.decode(bundle.files().get(golden.photo()), golden.photo(), Squash.MOST_SIDE);
            byte[] square = Squash.squash(photo, bundle.manifest().photoSize());
            Caption said = captioner.caption(square, golden.beam(), () -> false);
            boolean same = Arrays.equals(said.tokens(), golden.tokens());
            identical += same ? 1 : 0;
            lines.append(golden.photo()).append(": ").append(said.text()).append('\n');
            if (!same) {
                lines.append("  expected: ").append(golden.caption()).append('\n');
            }
        }
        return new SelfTest(bundle.golden().size(), identical, lines.toString());
    }

    /** Whether there are photos, and all gave the same tokens. */
    public boolean holds() {
        return photos > 0 && identical == photos;
    }
}
