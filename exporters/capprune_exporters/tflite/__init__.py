"""The TFLite target: litert-torch for the graph, our own rewrite of its weights."""
