"""Captions of many photos with times, on a machine that is described beside them."""
