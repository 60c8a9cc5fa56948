package org.capprune.core.bundle;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;

import java.io.File;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.capprune.core.CapPruneException;
import org.capprune.core.TestFiles;
import org.junit.Test;

/** Every file of tests/hostile, written by write_attacks.py: refused, and with the error that Python gives. */
public class HostileFilesTest {
    private static final int ONNX_ROW = 14;

    @Test
    public void everyHostileFileIsRefusedWithPythonsError() {
        File attacks = TestFiles.folder("attacks");
        List<String> wrong = new ArrayList<>();
        int refused = 0;
        for (Map<String, Object> entry : TestFiles.index(attacks)) {
            if (Boolean.TRUE.equals(entry.get("accept"))) {
                continue;
            }
            String expected = isOnnx(entry, attacks) ? "BundleError" : (String) entry.get("error");
            String found = judge(new File(attacks, (String) entry.get("path")));
            refused++;
            if (!expected.equals(found.split("\n", 2)[0])) {
                wrong.add(entry.get("path") + " " + entry.get("name") + ": " + expected + ", not " + found);
            }
        }
        assertEquals(String.join("\n", wrong), 0, wrong.size());
        assertTrue("only " + refused + " hostile files", refused > 300);
    }

    @Test
    public void soundFilesAreAccepted() {
        File attacks = TestFiles.folder("attacks");
        List<String> wrong = new ArrayList<>();
        int accepted = 0;
        for (Map<String, Object> entry : TestFiles.index(attacks)) {
            if (Boolean.TRUE.equals(entry.get("accept")) && !isOnnx(entry, attacks)) {
                accepted++;
                String found = judge(new File(attacks, (String) entry.get("path")));
                if (!found.equals("accepted")) {
                    wrong.add(entry.get("path") + ": " + found);
                }
            }
        }
        assertEquals(String.join("\n", wrong), 0, wrong.size());
        assertTrue("only " + accepted + " sound files", accepted >= 3);
    }

    /** ONNX models have no interpreter in the app: their bundles are refused for what they are. */
    private static boolean isOnnx(Map<String, Object> entry, File attacks) {
        boolean holdsOnnx = new File(attacks, entry.get("path") + "/encoder.onnx").exists();
        return holdsOnnx || Long.valueOf(ONNX_ROW).equals(entry.get("row"));
    }

    /** The name of the error and its message, or {@code accepted}; anything but an error of ours is a failure. */
    private static String judge(File place) {
        try {
            Bundle.open(place);
            return "accepted";
        } catch (CapPruneException error) {
            return error.kind().errorName + "\n" + error.getMessage();
        } catch (Throwable defect) {
            return defect + " at " + defect.getStackTrace()[0];
        }
    }
}
