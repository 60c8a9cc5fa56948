"""Read and check .tflite files before an interpreter may see them."""
