"""Rounding a trained encoder to few values, before the decoder is tuned on it."""
