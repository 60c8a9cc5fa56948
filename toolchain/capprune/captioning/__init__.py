"""Captions of people's own photos: the package's own bundle, how sure it was, where it looked."""
