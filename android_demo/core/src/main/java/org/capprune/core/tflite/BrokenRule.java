package org.capprune.core.tflite;

import org.capprune.core.tflite.TfliteModel.Tensor;

/** A rule that a model file breaks, on its way to {@link TfliteCheck}, which names the file. */
final class BrokenRule extends RuntimeException {
    private static final long serialVersionUID = 1;

    final String rule;
    final transient Tensor tensor;
    final transient Object expected;
    final transient Object found;

    /** {@code tensor}, {@code expected} and {@code found} may be null. */
    BrokenRule(String rule, Tensor tensor, Object expected, Object found) {
        super(rule);
        this.rule = rule;
        this.tensor = tensor;
        this.expected = expected;
        this.found = found;
    }

    BrokenRule(String rule, Tensor tensor) {
        this(rule, tensor, null, null);
    }

    /** Operands of an operator that do not go together; {@code how} says why. */
    static void requireFit(boolean holds, String how) {
        if (!holds) {
            throw new BrokenRule(how, null);
        }
    }
}
