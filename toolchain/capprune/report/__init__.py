"""One self-contained page from a run, a bundle and what was measured of it."""
