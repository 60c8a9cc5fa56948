"""Converts a trained run to a verified bundle, for `capprune export`."""

from capprune.exporting.contents import DEFAULT_BEAM
from capprune.exporting.export import Exported, Wanted, export

__all__ = ["DEFAULT_BEAM", "Exported", "Wanted", "export"]
