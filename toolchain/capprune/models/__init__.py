"""Encoders, decoders and the search, as they are trained and exported."""
