package org.capprune.core.bundle;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;

import java.io.File;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.capprune.core.CapPruneException;
import org.capprune.core.TestFiles;
import org.capprune.core.tflite.ExpectedTensor;
import org.junit.Test;

/** Manifests of both schemas, sound and mutated (tests/android/manifest_cases.py): read as Python reads them. */
public class ManifestEqualTest {
    private static final int FEWEST_CASES = 1500;
    private static final double NAMED = 0.98; // of all errors name the same key; where two rules break, another may come first

    @Test
    public void everyManifestMeetsPythonsVerdict() {
        File folder = TestFiles.folder("manifests");
        byte[] content = TestFiles.read(folder, "cases.bin");
        List<String> wrong = new ArrayList<>();
        Map<String, Integer> verdicts = new TreeMap<>();
        int named = 0;
        for (Map<String, Object> entry : TestFiles.index(folder)) {
            int offset = TestFiles.whole(entry, "offset");
            byte[] text = Arrays.copyOfRange(content, offset, offset + TestFiles.whole(entry, "length"));
            String found = judge(text, entry);
            named += found.split("\n", 2)[0].endsWith(": " + entry.get("where")) ? 1 : 0;
            verdicts.merge((String) entry.get("verdict"), 1, Integer::sum);
            if (!found.startsWith((String) entry.get("verdict"))) {
                wrong.add(entry.get("name") + ": " + entry.get("verdict") + ", not " + found);
            }
        }
        assertEquals(String.join("\n", wrong), 0, wrong.size());
        int refused = verdicts.get("BundleError") + verdicts.get("NewerFormat");
        assertTrue(named + " of " + refused + " name the key", named > NAMED * refused);
        assertTrue(verdicts.toString(), verdicts.get("accepted") > 50 && verdicts.get("BundleError") > FEWEST_CASES);
    }

    /** The name of the error and its message, {@code accepted}, or how what was read differs from Python's. */
    private static String judge(byte[] text, Map<String, Object> entry) {
        Manifest manifest;
        try {
            manifest = ManifestReader.read(text, "m");
        } catch (CapPruneException error) {
            return error.kind().errorName + ": " + error.getMessage();
        }
        Map<String, Object> found = new LinkedHashMap<>();
        found.put("encode_inputs", signature(manifest.encodeInputs()));
        found.put("encode_outputs", signature(manifest.step().encodeOutputs()));
        found.put("step_inputs", signature(manifest.step().stepInputs()));
        found.put("step_outputs", signature(manifest.step().stepOutputs()));
        Map<String, Object> model = new LinkedHashMap<>(manifest.model().sizes());
        found.put("model", Arrays.asList(manifest.model().family(), manifest.model().description(), model));
        found.put("described", manifest.described());
        return entry.get("verdict").equals("accepted") && !found.equals(entry.get("read"))
                ? "read as " + found + " instead of " + entry.get("read") : "accepted";
    }

    private static Map<String, Object> signature(Map<String, ExpectedTensor> tensors) {
        Map<String, Object> signature = new LinkedHashMap<>();
        tensors.forEach((name, tensor) -> {
            List<Object> facts = new ArrayList<>();
            facts.add(tensor.type().toString());
            Arrays.stream(tensor.shape().sizes()).forEach(size -> facts.add((long) size));
            signature.put(name, facts);
        });
        return signature;
    }
}
