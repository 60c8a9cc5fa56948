"""Journal of captions, one line of JSON each, so that an interrupted run resumes where it stopped.

    {"session": {…settings that must be equal…}, "before": {…}}      once for each process of the run
    {"said": {…}}   or   {"failed": {…}}                                once for each photo

A device sends the same lines to the workstation, which stores them in its own journal.
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
from capprune_runtime.measure.plausible import first_fault
from capprune_runtime.measure.results import FailedPhoto, SaidPhoto
from capprune_runtime.typed_json import Fault, Problem

_FIRST = b'{"session": '  # start of every journal
# Links are not followed, because their targets are not ours.
_OPEN_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_KINDS: dict[str, type[SaidPhoto | FailedPhoto]] = {"said": SaidPhoto, "failed": FailedPhoto}


@dataclass(frozen=True)
class Line:
    """One line: the start of a session, or the result of a photo."""

    session: Mapping[str, Any] | None = None
    before: Moment | None = None
    photo: SaidPhoto | FailedPhoto | None = None

    def text(self) -> str:
        """Return the line as written, with its line feed."""
        if self.photo is None:
            before = None if self.before is None else dataclasses.asdict(self.before)
            tree: dict[str, Any] = {"session": self.session, "before": before}
        else:
            tree = {"said" if isinstance(self.photo, SaidPhoto) else "failed": dataclasses.asdict(self.photo)}
        return json.dumps(tree, ensure_ascii=False, allow_nan=False) + "\n"


def parse_line(text: str | bytes) -> Line | None:
    """Parse a line; return None if it does not belong to a journal, or was cut off."""
    try:
        return line_of(strict_json.parse(text))
    except BundleError:
        return None


def line_of(tree: Any) -> Line | None:
    """Return the line of a parsed document; None if it is not a line of a journal.

    Raises:
        BundleError: It is one, but has a key that is missing, of another type, or has a value that no measurement has.
    """
    if not isinstance(tree, dict) or ("session" not in tree and not tree.keys() & _KINDS.keys()):
        return None
    if (fault := first_fault(tree)) is not None:
        raise _refuse(fault)
    if "session" in tree:
        before = tree.get("before")
        session = tree["session"]
        if not isinstance(session, dict):
            raise _refuse(Problem(Fault.TYPE, "session", "an object", type(session).__name__))
        return Line(session, None if before is None else typed_json.read(Moment, before, _refuse))
    key = next(key for key in _KINDS if key in tree)
    photo = typed_json.read(_KINDS[key], tree[key], _refuse, key)
    if isinstance(photo, SaidPhoto) and not photo.step_us:
        raise _refuse(Problem(Fault.VALUE, f"{key}.step_us", "at least one time", "none"))
    return Line(photo=photo)


class Journal:
    """The captions made so far, kept in a file if there is one.

    Args:
        path: The file to create or resume; None to keep captions only in memory.
        session: What must be equal for captions of another process to be reused; another session's journal is
            overwritten.

    Raises:
        UsageError: The file cannot be written.
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
        """The photos that are finished; failed photos are tried again."""
        return frozenset(self.said)

    def begin(self, before: Moment) -> None:
        """Record that a process starts to work on the run."""
        self.write(Line(self._session, before))

    def write(self, line: Line) -> None:
        """Record a line, and write it to the disk at once."""
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
        """Close the file; remove it if its content has been written elsewhere."""
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
        """Read the lines of an earlier process; return how many bytes of the file are whole lines of this journal."""
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
    """Return whether a file starts like a journal, even if its first line was cut off."""
    return content.startswith(_FIRST) or _FIRST.startswith(content)


def _refuse(problem: Problem) -> BundleError:
    return BundleError("a line of a journal is not as expected", where=problem.where, expected=problem.expected,
                       found=problem.found)  # fmt: skip
