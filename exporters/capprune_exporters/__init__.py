"""Export trained weights to a bundle for devices: convert, make sparse or int8, write, verify."""
