"""Read and check .tflite files before an interpreter loads them."""
