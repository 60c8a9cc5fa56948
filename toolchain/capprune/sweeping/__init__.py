"""Sweeps: the runs of a grid, their results, and one table."""
