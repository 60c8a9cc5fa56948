"""Export targets: they convert the two calls of a trained model to the two model files of a bundle.

registry        the names of all targets, including those of other packages
target          the base class of all targets
tflite, onnx    the built-in targets
"""
