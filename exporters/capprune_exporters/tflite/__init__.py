"""The TFLite target: litert-torch converts the graph, and capprune rewrites its weights."""
