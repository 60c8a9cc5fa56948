"""The typed config tree of a run: read from YAML, overridden by `key=value`, saved with the run.

An unknown key is an error that suggests the nearest name. The unit of a number is in its name or description.

data, encoder, decoder, training, pruning    the keys of each part
run                                          the whole tree
methods                                      the registry of pruning methods
reading                                      files and overrides to a tree
"""
