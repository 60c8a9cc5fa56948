"""The one typed tree that describes how a run is made: read from YAML, overridden by `key=value`, saved with the run.

Unknown keys are refused with the nearest name. Numbers carry their unit in their name or description.

data, encoder, decoder, training, pruning    the keys of each part
run                                          the whole tree
methods                                      the registry of pruning methods
reading                                      files and overrides to a tree
"""
