"""Captions of people's own photos: the bundle that is shipped, how sure it was, where it looked."""
