"""The supported layouts of photos and captions, in one table for reading, messages and `--layout`.

A new layout is a module with a `Layout`, and an entry in `LAYOUTS`.
"""

from __future__ import annotations

from typing import Final

from capprune.data.folder import FolderContents
from capprune.data.layouts.coco import COCO
from capprune.data.layouts.found import FoundPhoto, FoundSet, Layout
from capprune.data.layouts.imagefolder import IMAGEFOLDER
from capprune.data.layouts.karpathy import KARPATHY
from capprune.data.layouts.parquet import PARQUET
from capprune.data.layouts.sidecar import SIDECAR
from capprune.data.layouts.table import TABLE
from capprune.data.layouts.token import TOKEN
from capprune.data.layouts.unknown import clash, unknown_layout
from capprune.data.layouts.vizwiz import VIZWIZ
from capprune.data.layouts.webdataset import WEBDATASET
from capprune_runtime.errors import UsageError

LAYOUTS: Final = (KARPATHY, COCO, VIZWIZ, TOKEN, TABLE, IMAGEFOLDER, PARQUET, WEBDATASET, SIDECAR)

__all__ = ["LAYOUTS", "FoundPhoto", "FoundSet", "Layout", "read_layout"]


def read_layout(contents: FolderContents, name: str | None = None) -> tuple[Layout, FoundSet]:
    """Detect the layout of a folder, and read it.

    Args:
        contents: The files of the data folder.
        name: The layout to read; None to detect it.

    Returns:
        The layout and the result of its reader.

    Raises:
        UsageError: The folder is in no known layout, or in several.
        DataError: A captions file is broken.
        MissingExtra: The layout needs a package that is not installed.
    """
    if name is not None:
        layout = _named(name)
        files = layout.claims(contents)
        if not files:
            raise UsageError(f"there is no {layout.title} in this folder", where=contents.folder, expected=layout.shape)
        return layout, layout.read(contents, _one(contents, layout, files))
    for weak in (False, True):
        claimed = {layout: files for layout in LAYOUTS if layout.weak is weak and (files := layout.claims(contents))}
        if len(claimed) > 1:
            raise clash(contents, claimed)
        for layout, files in claimed.items():
            return layout, layout.read(contents, _one(contents, layout, files))
    raise unknown_layout(contents, LAYOUTS)


def _named(name: str) -> Layout:
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    raise UsageError("there is no such layout", where="--layout", expected=", ".join(one.name for one in LAYOUTS))


def _one(contents: FolderContents, layout: Layout, files: tuple[str, ...]) -> tuple[str, ...]:
    """Return the files; if the layout has a single captions file, check that there is only one."""
    if layout in (KARPATHY, TOKEN) and len(files) > 1:
        raise UsageError(
            "a data folder holds one data set",
            where=contents.folder,
            expected=f"one file of {layout.title}",
            found=", ".join(files),
            hint="move the others away",
        )
    return files
