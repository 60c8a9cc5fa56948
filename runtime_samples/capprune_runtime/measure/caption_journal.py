"""Journal of captions on the disk, so that the same command resumes after an interruption.

{"session": {…settings that must be equal for the captions to be reused…}}
{"file": [path, bytes, time of change], "said": {…}}                 once for each photo
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from capprune_runtime import strict_json
from capprune_runtime.atomic import raise_if_unwritable
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.caption.captioner import Caption
from capprune_runtime.errors import BundleError
from capprune_runtime.streams import shown_name

Key = tuple[Any, ...]

# Links are not followed, because their targets are not ours.
_OPEN_FLAGS = os.O_WRONLY | os.O_TRUNC | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_NAME_BYTES = 100  # of the table's name in the journal's name; longer names are distinguished by their hash


class CaptionJournal:
    """The captions of an unfinished table, in a hidden file beside it.

    Args:
        table: The table; None to store nothing.
        session: What must be equal for captions to be reused; a journal of another session is overwritten.

    Raises:
        UsageError: The journal cannot be written.
        CapPruneError: The disk is full.
    """

    def __init__(self, table: Path | None, session: Mapping[str, Any]) -> None:
        self.path = None if table is None else journal_path(table)
        self._file: IO[str] | None = None
        self._done: dict[tuple[Any, ...], Caption] = {}
        if self.path is None:
            return
        try:
            self._done = _read(self.path, session)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.fdopen(os.open(self.path, _OPEN_FLAGS, 0o666), "w", encoding="utf-8")
            self._write({"session": dict(session)})
            for key, caption in self._done.items():
                self._write({"file": key, "said": caption.as_json()})
        except OSError as error:
            raise_if_unwritable(error, self.path)
            raise

    @property
    def count(self) -> int:
        """Number of captions that an interrupted command has left."""
        return len(self._done)

    def caption(self, photo: Path, identity: Key | None = None) -> Caption | None:
        """Return the stored caption of a photo, without its attention; None if there is none or the photo has changed.

        Args:
            photo: A file.
            identity: A key that identifies the photo and its content, if it is not a file of its own.
        """
        key = identity or _key(photo)
        return None if key is None else self._done.get(key)

    def keep(self, photo: Path, caption: Caption, identity: Key | None = None) -> None:
        """Write a caption to the disk; see `caption`.

        Raises:
            CapPruneError: The disk is full.
        """
        key = identity or _key(photo)
        if self._file is not None and key is not None:
            self._write({"file": key, "said": caption.as_json()})

    def close(self, *, finished: bool) -> None:
        """Close the journal, and remove it if the table is finished."""
        if self._file is None or self.path is None:
            return
        self._file.close()
        self._file = None
        if finished:
            self.path.unlink(missing_ok=True)

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None and self.path is not None
        try:
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise_if_unwritable(error, self.path)
            raise


def journal_path(table: Path) -> Path:
    """Return the path of a table's journal, a hidden file beside it."""
    name = os.fsencode(table.name)
    short = table.name if len(name) <= _NAME_BYTES else hashlib.sha256(name).hexdigest()
    return table.with_name(f".{short}.captions")


def session_of(bundle: Bundle, runtime: str, beam: int | None) -> dict[str, Any]:
    """Return the settings that must be equal for the captions of an interrupted command to be reused."""
    from capprune_runtime.measure.results import bundle_facts

    width = bundle.manifest.decoding.beam if beam is None else beam
    return {"manifest_sha256": bundle_facts(bundle).manifest_sha256, "runtime": runtime, "beam": width}


def _key(photo: Path) -> tuple[Any, ...] | None:
    """Return a key that identifies a file and its content; None if it is not a plain file."""
    try:
        status = photo.stat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return (shown_name(photo.absolute()), status.st_size, status.st_mtime_ns)


def _read(path: Path, session: Mapping[str, Any]) -> dict[tuple[Any, ...], Caption]:
    """Return the captions of a journal of the same session, without a last line that was cut off."""
    done: dict[tuple[Any, ...], Caption] = {}
    if not path.is_file():
        return done
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines):
        try:
            tree = strict_json.parse(line)
            if number == 0:
                if tree != {"session": dict(session)}:
                    return {}
                continue
            done[tuple(tree["file"])] = _caption(tree["said"])
        except (BundleError, KeyError, TypeError, ValueError, OverflowError):
            break
    return done


def _caption(tree: Mapping[str, Any]) -> Caption:
    return Caption(
        text=str(tree["caption"]),
        tokens=tuple(int(token) for token in tree["tokens"]),
        log_probability=float(tree["log_probability"]),
        attention=np.zeros((0, 0), np.float32),
        finished=bool(tree["finished"]),
        encode_us=float(tree["encode_us"]),
        step_us=tuple(float(step) for step in tree["step_us"]),
        confidence=None if tree.get("confidence") is None else float(tree["confidence"]),
    )
