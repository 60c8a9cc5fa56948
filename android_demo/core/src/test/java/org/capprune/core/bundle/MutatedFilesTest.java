package org.capprune.core.bundle;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;

import java.io.File;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SortedSet;
import java.util.TreeMap;
import java.util.TreeSet;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.TestFiles;
import org.capprune.core.tflite.TfliteCheck;
import org.junit.Test;

/** Sound files changed at random: the verdict is Python's, accepted or refused, and the error's name too. */
public class MutatedFilesTest {
    /** Files in memory. */
    private record MemoryMembers(Map<String, byte[]> files) implements Members {
        @Override
        public String place() {
            return "bundle";
        }

        @Override
        public String where(String name) { // the lowered classes of the APK have no default methods
            return place() + "/" + name;
        }

        @Override
        public long packedBytes() {
            return 0;
        }

        @Override
        public SortedSet<String> names(int cap) {
            return new TreeSet<>(files.keySet());
        }

        @Override
        public byte[] read(String name, long capBytes) {
            if (!files.containsKey(name)) {
                throw new CapPruneException(ErrorKind.MISSING_FILE, "a file of the bundle is missing").at(name);
            }
            return files.get(name);
        }
    }

    @Test
    public void everyMutatedFileMeetsPythonsVerdict() {
        File folder = TestFiles.folder("mutated");
        byte[] content = TestFiles.read(folder, "cases.bin");
        List<String> wrong = new ArrayList<>();
        Map<String, Integer> verdicts = new TreeMap<>();
        for (Map<String, Object> entry : TestFiles.index(folder)) {
            String found = judge(entry, files(entry, content));
            verdicts.merge(found.split(":", 2)[0], 1, Integer::sum);
            if (!entry.get("verdict").equals(found.split(":", 2)[0])) {
                wrong.add("case " + entry.get("number") + ", " + entry.get("subject") + ", " + entry.get("part") + ": "
                        + entry.get("verdict") + ", not " + found);
            }
        }
        assertEquals(String.join("\n", wrong), 0, wrong.size());
        assertTrue(verdicts.toString(), verdicts.get("accepted") > 100 && verdicts.get("BadModelFile") > 300);
    }

    private static Map<String, byte[]> files(Map<String, Object> entry, byte[] content) {
        Map<String, byte[]> files = new LinkedHashMap<>();
        for (Object one : (List<?>) entry.get("files")) {
            Map<?, ?> file = (Map<?, ?>) one;
            int offset = ((Long) file.get("offset")).intValue();
            int length = ((Long) file.get("length")).intValue();
            files.put((String) file.get("name"), Arrays.copyOfRange(content, offset, offset + length));
        }
        return files;
    }

    private static String judge(Map<String, Object> entry, Map<String, byte[]> files) {
        try {
            if (entry.containsKey("signature")) {
                TfliteCheck.check(files.get("model.tflite"), "f", (String) entry.get("signature"));
            } else {
                BundleVerifier.verify(new MemoryMembers(files));
            }
            return "accepted";
        } catch (CapPruneException error) {
            return error.kind().errorName + ": " + error.getMessage();
        } catch (RuntimeException | Error defect) {
            return defect + " at " + Arrays.toString(Arrays.copyOf(defect.getStackTrace(), 3));
        }
    }
}
