"""Imports checkpoints of other projects without executing anything in them.

files, zips                             the bytes, from a folder or an archive
described, pickled, tensors             arrays from the bytes
sentencepiece_words, reference_config   tokenizer and config of a checkpoint
reference                               all parts checked against each other
run                                     the checkpoint as a run folder
"""
