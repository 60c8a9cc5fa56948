"""The ONNX target: convert, quantise, and store sparse weights as gaps that standard operators expand at load."""
