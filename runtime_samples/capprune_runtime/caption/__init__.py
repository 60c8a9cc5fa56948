"""From a verified bundle to captions: interpreters, search, and the proof on golden photos."""
