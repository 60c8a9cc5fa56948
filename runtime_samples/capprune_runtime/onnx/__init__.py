"""Read and check .onnx files before an interpreter may see them."""
