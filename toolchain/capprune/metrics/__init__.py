"""Metrics: scores of captions with intervals, signs of degenerate captions, and comparisons of benchmark times."""
