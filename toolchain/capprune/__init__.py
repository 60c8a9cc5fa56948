"""capprune: from photos with captions to a captioning model of a few megabytes, proven on its device."""

from capprune_runtime import __version__

__all__ = ["__version__"]
