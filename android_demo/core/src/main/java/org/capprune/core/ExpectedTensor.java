package org.capprune.core;

import org.capprune.core.TfliteModel.Type;

/** The type and shape that a tensor of a signature must have. */
record ExpectedTensor(Type type, Shape shape) {
    /** A float32 tensor of one row. */
    static ExpectedTensor row(Shape shape) {
        return new ExpectedTensor(Type.FLOAT32, Shape.of(new int[] {1}, shape.sizes()));
    }

    /** A float32 tensor of one row of these sizes. */
    static ExpectedTensor row(int... sizes) {
        return row(new Shape(sizes));
    }

    /** One int32 number. */
    static ExpectedTensor number() {
        return new ExpectedTensor(Type.INT32, new Shape(1));
    }
}
