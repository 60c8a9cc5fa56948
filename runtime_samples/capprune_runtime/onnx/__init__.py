"""Read and check .onnx files before an interpreter loads them."""
