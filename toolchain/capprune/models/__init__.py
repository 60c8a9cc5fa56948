"""The encoder, the decoders and the search: what is trained is what is exported."""
