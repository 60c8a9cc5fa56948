"""capprune: from photos with captions to a captioning model of a few megabytes, proven on its device."""

__version__ = "0.1.0"
