"""From trained weights to a bundle that a device can run: convert, make sparse or int8, write, prove."""
