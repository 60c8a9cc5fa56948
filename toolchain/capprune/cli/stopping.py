"""Ctrl-C and SIGTERM for the commands, as for what runs on a device."""

from capprune_runtime.stopping import INTERRUPTED, TERMINATED, listen, raise_if_requested

__all__ = ["INTERRUPTED", "TERMINATED", "listen", "raise_if_requested"]
