package org.capprune.core.tflite;

import org.capprune.core.tflite.TfliteModel.Type;

/** The type and shape that a tensor of a signature must have. */
public record ExpectedTensor(Type type, Shape shape) {
    /** A float32 tensor of one row. */
    public static ExpectedTensor row(Shape shape) {
        return new ExpectedTensor(Type.FLOAT32, Shape.of(new int[] {1}, shape.sizes()));
    }

    /** A float32 tensor of one row of these sizes. */
    public static ExpectedTensor row(int... sizes) {
        return row(new Shape(sizes));
    }

    /** One int32 number. */
    public static ExpectedTensor number() {
        return new ExpectedTensor(Type.INT32, new Shape(1));
    }
}
