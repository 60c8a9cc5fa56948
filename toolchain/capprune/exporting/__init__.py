"""A trained run to a proven bundle: what `capprune export` calls."""

from capprune.exporting.contents import DEFAULT_BEAM
from capprune.exporting.export import Exported, Wanted, export

__all__ = ["DEFAULT_BEAM", "Exported", "Wanted", "export"]
