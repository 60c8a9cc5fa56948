package org.capprune.core.bundle;

import static org.capprune.core.bundle.ManifestSection.require;

import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import java.util.regex.Pattern;
import org.capprune.core.Printable;
import org.capprune.core.bundle.StepInterface.Carry;
import org.capprune.core.bundle.StepInterface.First;
import org.capprune.core.bundle.StepInterface.StateSpec;
import org.capprune.core.bundle.StepInterface.TensorSpec;
import org.capprune.core.tflite.Shape;

/** Reads {@code decoder.interface} of a manifest, under the rules of docs/bundle_format.md. */
final class InterfaceReader {
    static final int FEWEST_WORDS = 5;
    static final int MOST_WORDS = 1_000_000;

    private static final int MOST_TENSORS = 64; // held and state together
    private static final long MOST_BYTES = 64L << 20; // of all tensors of one hypothesis, and of all held tensors
    private static final int MOST_RANK = 3; // the kernels take four dimensions at most, and the batch is one of them
    private static final int MOST_SIZE = 1 << 16;
    private static final String NEXT = "next_"; // begins the names of state outputs in ONNX models
    private static final Pattern NAME = Pattern.compile("[a-z][a-z0-9_]{0,63}");
    private static final Set<String> RESERVED = new HashSet<>(Arrays.asList(
            StepInterface.TOKEN, StepInterface.POSITION, StepInterface.SCORES, StepInterface.ATTENTION));

    private final ManifestSection section;
    private final int maxTokens;

    private InterfaceReader(ManifestSection section, int maxTokens) {
        this.section = section;
        this.maxTokens = maxTokens;
    }

    /** Read an interface whose appended states must have room for captions of {@code maxTokens} tokens. */
    static StepInterface read(ManifestSection section, int maxTokens) {
        section.requireKeys("vocabulary", "held", "state", "regions", "position");
        return new InterfaceReader(section, maxTokens).read();
    }

    private StepInterface read() {
        int vocabulary = (int) section.whole("vocabulary", FEWEST_WORDS, MOST_WORDS);
        Integer regions = section.tree().get("regions") == null ? null : (Integer) (int) section.whole("regions", 1, MOST_SIZE);
        boolean position = section.truth("position");
        Map<String, ManifestSection> heldTrees = section.sections("held", "shape", "dtype");
        Map<String, ManifestSection> stateTrees = section.sections("state", "shape", "first", "carry");
        require(heldTrees.size() + stateTrees.size() <= MOST_TENSORS, section.name("state"),
                "at most " + MOST_TENSORS + " tensors, `held` included");
        Map<String, TensorSpec> held = new LinkedHashMap<>();
        Map<String, StateSpec> state = new LinkedHashMap<>();
        heldTrees.forEach((name, tree) -> held.put(name, held(name, tree)));
        stateTrees.forEach((name, tree) -> {
            require(!held.containsKey(name), where("state", name), "a name that `held` does not have");
            state.put(name, state(name, tree));
        });
        boolean appended = state.values().stream().anyMatch(StateSpec::isAppended);
        require(position || !appended, section.name("position"), "true, as a state is appended");
        requireBytes("state", state.values().stream().mapToLong(spec -> bytes(spec.shape())).sum());
        requireBytes("held", held.values().stream().mapToLong(spec -> bytes(spec.shape())).sum());
        return new StepInterface(vocabulary, held, state, regions, position);
    }

    private TensorSpec held(String name, ManifestSection tree) {
        requireName(where("held", name), name);
        Shape shape = shape(tree);
        tree.requireText("dtype", "float32");
        return new TensorSpec(shape);
    }

    private StateSpec state(String name, ManifestSection tree) {
        requireName(where("state", name), name);
        Shape shape = shape(tree);
        String first = tree.string("first");
        String carry = tree.string("carry");
        require(first.equals("encode") || first.equals("zeros"), tree.name("first"), "encode or zeros");
        require(carry.equals("replace") || carry.equals("append"), tree.name("carry"), "replace or append");
        if (carry.equals("append")) {
            require(first.equals("zeros"), tree.name("first"), "zeros, as it is appended");
            require(shape.rank() >= 2 && shape.size(0) >= maxTokens, tree.name("shape"),
                    "at least " + maxTokens + " slices, as decoding.max_tokens asks for");
        }
        return new StateSpec(shape, first.equals("zeros") ? First.ZEROS : First.ENCODE,
                carry.equals("append") ? Carry.APPEND : Carry.REPLACE);
    }

    private static void requireName(String where, String name) {
        require(NAME.matcher(name).matches() && !RESERVED.contains(name) && !name.startsWith(NEXT), where,
                "a name in a-z, 0-9, _, not " + Printable.list(RESERVED) + " and not beginning with " + NEXT);
    }

    private static Shape shape(ManifestSection tree) {
        long[] sizes = tree.wholes("shape");
        boolean fits = sizes.length >= 1 && sizes.length <= MOST_RANK
                && Arrays.stream(sizes).allMatch(size -> size >= 1 && size <= MOST_SIZE);
        require(fits, tree.name("shape"), "1 to " + MOST_RANK + " sizes of 1 to " + MOST_SIZE);
        return new Shape(Arrays.stream(sizes).mapToInt(size -> (int) size).toArray());
    }

    private static long bytes(Shape shape) {
        return Float.BYTES * shape.elements();
    }

    private void requireBytes(String key, long bytes) {
        require(bytes <= MOST_BYTES, section.name(key), "at most " + MOST_BYTES + " bytes in all");
    }

    private String where(String key, String name) {
        return section.name(key) + "[" + Printable.ascii(name) + "]";
    }
}
