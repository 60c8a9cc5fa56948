"""Work of seconds that several test files need: the first process of a test run that asks does it, the others get its result."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

FOLDER_VARIABLE = "CAPPRUNE_TESTS_SHARED"  # set for the time of one test run; its processes inherit it


def bytes_once(name: str, make: Callable[[], bytes]) -> bytes:
    """Return what `make` returned in the first process of this test run that asked for the name.

    Args:
        name: Name of the content; everything that changes the content must change the name.
        make: Makes the content. It must give equal content in every process.
    """

    def write(folder: Path) -> None:
        (folder / "content").write_bytes(make())

    return (folder_once(name, write) / "content").read_bytes() if FOLDER_VARIABLE in os.environ else make()


def folder_once(name: str, fill: Callable[[Path], None]) -> Path:
    """Return a folder that the first process of this test run filled. Nobody may change what is in it.

    Args:
        name: Name of the folder.
        fill: Fills the empty folder.
    """
    root = Path(os.environ[FOLDER_VARIABLE])
    folder, done = root / name, root / f"{name}.done"
    with FileLock(root / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a process left that failed
            folder.mkdir()
            fill(folder)
            done.touch()
    return folder
