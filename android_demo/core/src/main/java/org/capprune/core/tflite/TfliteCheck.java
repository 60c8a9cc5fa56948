package org.capprune.core.tflite;

import java.util.Arrays;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.capprune.core.CapPruneException;
import org.capprune.core.ErrorKind;
import org.capprune.core.Printable;
import org.capprune.core.tflite.TfliteModel.Operator;
import org.capprune.core.tflite.TfliteModel.Signature;
import org.capprune.core.tflite.TfliteModel.Tensor;
import org.capprune.core.tflite.TfliteModel.Type;

/**
 * What a .tflite must be before an interpreter may see it.
 *
 * <p>Stock interpreters trust their files: a bad row pointer ends the process, a wrong one gives nonsense without a word.
 * Every rule is written down in docs/bundle_format.md, section 5.
 */
public final class TfliteCheck {
    private static final int MOST_DIMENSIONS = 4; // some kernels have arrays of four sizes and do not look
    private static final int MOST_SIZE = 1 << 24;
    private static final long MOST_TENSOR_BYTES = 256L << 20;

    private final TfliteModel model;
    private final Set<List<Object>> finite = new HashSet<>();

    private TfliteCheck(TfliteModel model) {
        this.model = model;
    }

    /**
     * Read a model file and check that every interpreter will compute what it says.
     *
     * @param data the whole .tflite file
     * @param where its name, for messages
     * @param signature the signature it must have; it may have no other
     */
    public static TfliteModel check(byte[] data, String where, String signature) {
        TfliteModel model = TfliteReader.read(data, where);
        TfliteCheck check = new TfliteCheck(model);
        try {
            check.sizes();
            model.tensors().forEach(check::tensor);
            check.graph();
            TfliteCosts.check(model);
            check.signature(signature);
        } catch (BrokenRule broken) {
            throw named(broken, where);
        }
        return model;
    }

    /** The products that one run of a checked model adds up. */
    public static long work(TfliteModel model) {
        return TfliteCosts.work(model);
    }

    private static CapPruneException named(BrokenRule broken, String where) {
        Tensor tensor = broken.tensor;
        String place = tensor == null ? where : where + ", tensor " + tensor.index() + " "
                + Printable.ascii(tensor.name()) + ", byte " + tensor.offset();
        CapPruneException error = new CapPruneException(ErrorKind.BAD_MODEL_FILE, broken.rule).at(place);
        if (broken.expected != null) {
            error.expected(broken.expected);
        }
        return broken.found == null ? error : error.found(broken.found);
    }

    /** Caps that hold before anything is computed. */
    private void sizes() {
        long stored = model.buffers().stream().mapToLong(buffer -> buffer.length()).sum();
        if (stored > model.sizeBytes()) {
            throw new BrokenRule("buffer: the buffers overlap", null, "at most " + model.sizeBytes() + " bytes", stored);
        }
        if (model.operators().isEmpty() || model.inputs().length == 0 || model.outputs().length == 0) {
            throw new BrokenRule("model: it computes nothing", null);
        }
        if (!model.buffers().isEmpty() && model.buffers().get(0).length() > 0) {
            throw new BrokenRule("buffer: the first must be empty, as it stands for `computed`", null);
        }
    }

    /** One tensor: its shape, its size, its quantisation and what is stored of it. */
    private void tensor(Tensor tensor) {
        Shape shape = tensor.shape();
        if (shape.rank() > MOST_DIMENSIONS) {
            throw new BrokenRule("tensor: too many dimensions", tensor, "at most " + MOST_DIMENSIONS, shape.rank());
        }
        if (!Arrays.stream(shape.sizes()).allMatch(size -> size >= 1 && size <= MOST_SIZE)) {
            throw new BrokenRule("tensor: impossible shape", tensor, "dimensions 1 to " + MOST_SIZE, shape);
        }
        if (tensor.denseBytes() > MOST_TENSOR_BYTES) {
            String most = "at most " + MOST_TENSOR_BYTES + " bytes";
            throw new BrokenRule("tensor: too large", tensor, most, tensor.denseBytes());
        }
        TfliteQuantisation.checkTensor(tensor);
        int stored = model.stored(tensor).length();
        if (tensor.sparsity() != null) {
            TfliteSparsity.checkTensor(tensor, stored);
        } else if (stored > 0 && stored != tensor.denseBytes()) {
            throw new BrokenRule("tensor: the stored bytes do not fill the shape", tensor, tensor.denseBytes(), stored);
        }
        values(tensor);
    }

    /** Every operator reads what is there already, and writes what nothing else writes. */
    private void graph() {
        Set<Integer> ready = new HashSet<>();
        model.tensors().stream().filter(model::isConstant).forEach(tensor -> ready.add(tensor.index()));
        for (int index : model.inputs()) {
            Tensor tensor = get(index, "model: there is no such input tensor");
            if (!ready.add(index)) {
                throw new BrokenRule("model: an input is stored in the file or stands twice", tensor);
            }
            if (tensor.shape().rank() == 0) {
                throw new BrokenRule("model: an input without dimensions, whose shape runtimes do not agree on", tensor);
            }
        }
        for (Operator operator : model.operators()) {
            reads(operator, ready);
            for (int index : operator.outputs()) {
                Tensor tensor = get(index, operator.title() + ": there is no such output tensor");
                writes(operator, tensor, ready);
                ready.add(index);
            }
            shapes(operator);
            TfliteQuantisation.checkOperator(model, operator);
            form(operator);
        }
        TfliteSparsity.checkDensified(model);
        for (int index : model.outputs()) {
            Tensor tensor = get(index, "model: there is no such output tensor");
            if (!ready.contains(index) || tensor.sparsity() != null) {
                throw new BrokenRule("model: an output is never computed", tensor);
            }
        }
    }

    /**
     * The one signature names exactly the subgraph's inputs and outputs.
     *
     * <p>A signature may not name a tensor inside the graph: quantisers have written such files, and the interpreter then
     * hands out a tensor whose memory was given to another.
     */
    private void signature(String key) {
        List<Signature> signatures = model.signatures();
        if (signatures.size() != 1 || !signatures.get(0).key().equals(key)) {
            throw new BrokenRule("signature: there must be exactly one", null, key, signatures.size() + " signatures");
        }
        namesAll("input", signatures.get(0).inputs(), model.inputs());
        namesAll("output", signatures.get(0).outputs(), model.outputs());
    }

    private static void namesAll(String kind, Map<String, Long> named, int[] all) {
        Collection<Long> places = named.values();
        long[] found = places.stream().mapToLong(Long::longValue).sorted().toArray();
        long[] expected = Arrays.stream(all).asLongStream().sorted().toArray();
        if (!Arrays.equals(found, expected)) {
            throw new BrokenRule("signature: its " + kind + "s are not those of the subgraph", null,
                    Arrays.toString(expected), Arrays.toString(found));
        }
    }

    private void reads(Operator operator, Set<Integer> ready) {
        OperatorRule rule = operator.rule();
        int inputs = operator.inputs().length;
        if (inputs < rule.leastInputs() || inputs > rule.mostInputs()) {
            throw new BrokenRule(operator.title() + ": wrong number of inputs", null,
                    rule.leastInputs() + " to " + rule.mostInputs(), inputs);
        }
        int outputs = rule.outputs() == 0 ? operator.option("outputs") : rule.outputs();
        if (operator.outputs().length != outputs) {
            throw new BrokenRule(operator.title() + ": wrong number of outputs", null, outputs,
                    operator.outputs().length);
        }
        for (int position = 0; position < inputs; position++) {
            int index = operator.inputs()[position];
            if (index == -1 && position == rule.mayOmit()) {
                continue;
            }
            Tensor tensor = get(index, operator.title() + ": there is no such input tensor");
            if (!ready.contains(index)) {
                throw new BrokenRule(operator.title() + ": it reads what was never computed", tensor);
            }
            if (rule.constants().contains(position) && !model.isConstant(tensor)) {
                throw new BrokenRule(
                        operator.title() + ": input " + position + " decides a shape and must be stored", tensor);
            }
            if (tensor.sparsity() != null) {
                sparseUse(operator, position, tensor);
            }
        }
    }

    private static void writes(Operator operator, Tensor tensor, Set<Integer> ready) {
        if (ready.contains(tensor.index()) || tensor.sparsity() != null) {
            throw new BrokenRule(operator.title() + ": it writes what is there already", tensor);
        }
        if (tensor.shape().rank() == 0) {
            throw new BrokenRule("tensor: a computed one without dimensions, whose shape runtimes do not agree on", tensor);
        }
        if (tensor.quantisation() != null && tensor.quantisation().scales().length > 1) {
            throw new BrokenRule("quantisation: computed numbers must have one scale", tensor);
        }
    }

    private void form(Operator operator) {
        if (!operator.rule().fits(model, operator)) {
            throw new BrokenRule(operator.title()
                    + ": no exporter writes this form, which runtimes may compute differently", null, null,
                    OperatorForm.of(model, operator));
        }
    }

    private void shapes(Operator operator) {
        List<TfliteShapes.Output> inferred;
        try {
            inferred = TfliteShapes.infer(model, operator);
        } catch (BrokenRule unfit) {
            throw new BrokenRule(operator.title() + ": its inputs do not fit", null, null, unfit.rule);
        }
        for (int n = 0; n < inferred.size(); n++) {
            Tensor tensor = model.tensors().get(operator.outputs()[n]);
            TfliteShapes.Output output = inferred.get(n);
            if (!tensor.shape().equals(output.shape()) || tensor.type() != output.type()) {
                throw new BrokenRule(operator.title() + ": its output has another shape or type than declared", tensor,
                        output.shape() + " " + output.type(), tensor.shape() + " " + tensor.type());
            }
        }
    }

    private void sparseUse(Operator operator, int position, Tensor tensor) {
        if (operator.is("FULLY_CONNECTED") && position == 1) {
            TfliteSparsity.checkWeight(model, operator);
        } else if (!operator.is("DENSIFY")) {
            throw new BrokenRule(operator.title() + ": it cannot read a sparse tensor", tensor,
                    "the weight of FULLY_CONNECTED, or DENSIFY", null);
        } else if (tensor.sparsity().blockMap().length > 0) {
            throw new BrokenRule("sparsity: DENSIFY reads tensors without blocks only", tensor);
        }
    }

    /** Stored float values are finite: no exponent of all ones. */
    private void values(Tensor tensor) {
        if ((tensor.type() != Type.FLOAT32 && tensor.type() != Type.FLOAT16)
                || !finite.add(Arrays.asList(tensor.buffer(), tensor.type()))) {
            return;
        }
        StoredBytes stored = model.stored(tensor);
        for (int n = 0; n < stored.length() / tensor.type().bytes; n++) {
            boolean isFinite = tensor.type() == Type.FLOAT32
                    ? (stored.int32(n) & 0x7F800000) != 0x7F800000
                    : (stored.uint16(n) & 0x7C00) != 0x7C00;
            if (!isFinite) {
                throw new BrokenRule("tensor: a weight is not a finite number", tensor, null, "at " + n);
            }
        }
    }

    private Tensor get(int index, String rule) {
        if (index < 0 || index >= model.tensors().size()) {
            throw new BrokenRule(rule, null, "0 to " + (model.tensors().size() - 1), index);
        }
        return model.tensors().get(index);
    }
}
