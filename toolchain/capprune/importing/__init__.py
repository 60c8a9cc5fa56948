"""Checkpoints of other projects, read without running anything that is in them.

files → zips → pickled → tensors        bytes of the checkpoint to arrays
sentencepiece_words, reference_config   what stands beside them
reference                               all of it checked against each other
run                                     the checkpoint as a run folder
"""
