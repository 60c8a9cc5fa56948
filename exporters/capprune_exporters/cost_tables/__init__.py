"""Measured tables of the time of matrix products, one JSON file for each kind of processor."""
