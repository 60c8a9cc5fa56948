"""Export targets: what turns the two calls of a trained model into the two model files of a bundle.

registry    the names of all targets, those of other packages among them
target      what every target is
tflite, onnx    ours
"""
