"""Captioning with a verified bundle: interpreters, search, and the test on golden photos."""
