"""The ONNX target: convert, quantise, store what is sparse as gaps that standard operators expand when a file is loaded."""
