"""The Python API: one function for each command, with the command's options as its parameters.

The names are imported from `capprune` itself: `capprune.train`, `capprune.Run`. Modules here import heavy packages only inside
functions, so that `import capprune` costs nothing and the base install can caption.
"""
