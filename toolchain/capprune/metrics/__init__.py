"""Metrics: scores of captions with their intervals, signs of sick captions, and times of a bench compared."""
