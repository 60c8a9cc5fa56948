"""Checkpoints of other projects, read without running anything that is in them.

files, zips                             the bytes, from a folder or an archive
described, pickled, tensors             bytes to arrays
sentencepiece_words, reference_config   what stands beside them
reference                               all of it checked against each other
run                                     the checkpoint as a run folder
"""
