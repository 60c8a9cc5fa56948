"""Captions as they are made, a line of JSON each, so that what was interrupted goes on where it stopped.

    {"session": {…what must be the same to go on…}, "before": {…}}      once for each process that worked on it
    {"said": {…}}   or   {"failed": {…}}                                once for each photo

The same lines travel from a device to the workstation, which keeps them in a journal of its own.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from capprune_runtime import strict_json, typed_json
from capprune_runtime.atomic import raise_if_unwritable
from capprune_runtime.errors import BundleError, UsageError
from capprune_runtime.measure.environment import Moment
from capprune_runtime.measure.results import FailedPhoto, SaidPhoto
from capprune_runtime.typed_json import Problem

_FIRST = b'{"session": '  # how every journal begins
# A link is not followed: what it leads to is not ours.
_OPEN_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_KINDS = {"said": SaidPhoto, "failed": FailedPhoto}


@dataclass(frozen=True)
class Line:
    """One line: the beginning of a session, or what came of a photo."""

    session: Mapping[str, Any] | None = None
    before: Moment | None = None
    photo: SaidPhoto | FailedPhoto | None = None

    def text(self) -> str:
        """The line as it is written, with its end."""
        if self.photo is None:
            before = None if self.before is None else dataclasses.asdict(self.before)
            tree: dict[str, Any] = {"session": self.session, "before": before}
        else:
            tree = {"said" if isinstance(self.photo, SaidPhoto) else "failed": dataclasses.asdict(self.photo)}
        return json.dumps(tree, ensure_ascii=False, allow_nan=False) + "\n"


def parse_line(text: str | bytes) -> Line | None:
    """Read a line; None when it is not one of a journal, or was cut off."""
    try:
        tree = strict_json.parse(text)
        if isinstance(tree, dict) and isinstance(tree.get("session"), dict):
            before = tree.get("before")
            return Line(tree["session"], None if before is None else typed_json.read(Moment, before, _refuse))
        for key, kind in _KINDS.items():
            if isinstance(tree, dict) and key in tree:
                return Line(photo=typed_json.read(kind, tree[key], _refuse))
    except BundleError:
        pass
    return None


class Journal:
    """The captions that there are, kept in a file when there is one.

    Args:
        path: The file, made or gone on with; None to keep them in memory alone.
        session: What must be the same for captions of another process to count; another journal is written over.

    Raises:
        UsageError: The file cannot be written to.
        CapPruneError: The disk is full.
    """

    def __init__(self, path: Path | None, session: Mapping[str, Any]) -> None:
        self._path = path
        self._session = dict(session)
        self._file: IO[str] | None = None
        self.said: dict[str, SaidPhoto] = {}
        self.failed: dict[str, FailedPhoto] = {}
        self.sessions = 0
        self.before: Moment | None = None
        if path is not None:
            whole = self._read(path)
            self._open(path, whole)

    @property
    def done(self) -> frozenset[str]:
        """The photos that need no second visit; one that failed is tried again."""
        return frozenset(self.said)

    def begin(self, before: Moment) -> None:
        """Note that a process begins to work on it."""
        self.write(Line(self._session, before))

    def write(self, line: Line) -> None:
        """Keep a line, on the disk before anything else happens."""
        self._count(line)
        if self._file is None or self._path is None:
            return
        try:
            self._file.write(line.text())
            self._file.flush()
        except OSError as error:
            raise_if_unwritable(error, self._path)
            raise

    def close(self, *, remove: bool = False) -> None:
        """Close the file, and remove it when what it held is written elsewhere."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if remove and self._path is not None:
            self._path.unlink(missing_ok=True)

    def _count(self, line: Line) -> None:
        if isinstance(line.photo, SaidPhoto):
            self.said[line.photo.photo] = line.photo
            self.failed.pop(line.photo.photo, None)
        elif line.photo is not None:
            self.failed[line.photo.photo] = line.photo
        else:
            self.sessions += 1
            self.before = self.before or line.before

    def _read(self, path: Path) -> int:
        """Count the lines of an earlier process; returns how many bytes of the file are whole lines of this journal."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise_if_unwritable(error, path)
            raise
        if path.is_symlink() or (content and not _is_ours(content)):
            raise UsageError(
                "there is another file here already, in the place of the journal",
                where=path,
                hint="choose another --out, or move this file away",
            )
        whole = 0
        for text in content.splitlines(keepends=True):
            line = parse_line(text) if text.endswith(b"\n") else None
            if line is None or (line.session is not None and line.session != self._session):
                break
            self._count(line)
            whole += len(text)
        return whole

    def _open(self, path: Path, whole: int) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.fdopen(os.open(path, _OPEN_FLAGS, 0o666), "a", encoding="utf-8")
            os.truncate(path, whole)
        except OSError as error:
            raise_if_unwritable(error, path)
            raise


def _is_ours(content: bytes) -> bool:
    """Whether a file begins as a journal does, also one whose first line was cut off."""
    return content.startswith(_FIRST) or _FIRST.startswith(content)


def _refuse(problem: Problem) -> Exception:
    return BundleError("a line of a journal is not as expected", where=problem.where)
