"""Journal of generated captions on disk, so that the same command continues after an interruption.

{"session": {...}}                                            settings that must match for the captions to be used
{"photo": NAME, "of": IDENTITY, "labels": [[TEXT, LOG_P]]}    one line per photo; "error" instead of "labels" if broken
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from capprune.labelling.teacher import Label
from capprune_runtime.atomic import raise_if_unwritable
from capprune_runtime.errors import UsageError


class LabelJournal:
    """Captions that a teacher has generated so far.

    Args:
        path: The file; made if missing.
        session: Settings that must match for its captions to be used.

    Raises:
        UsageError: The file holds captions of another session, or cannot be written.
    """

    def __init__(self, path: Path, session: Mapping[str, Any]) -> None:
        self.path = path
        self._labels: dict[tuple[str, str], list[Label]] = {}
        self._errors: dict[tuple[str, str], str] = {}
        started = self._read(session) if path.exists() else False
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise_if_unwritable(error, path)
            raise
        if not started:
            self._write({"session": dict(session)})

    def labels(self, photo: str, identity: str) -> list[Label] | None:
        """Return the captions of a photo; None if there are none, or the photo file has changed."""
        return self._labels.get((photo, identity))

    def error(self, photo: str, identity: str) -> str | None:
        """Return why a photo could not be read; None if it could, or was not tried."""
        return self._errors.get((photo, identity))

    def add(self, photo: str, identity: str, labels: Sequence[Label]) -> None:
        """Record the captions of a photo."""
        self._labels[photo, identity] = list(labels)
        self._write({"photo": photo, "of": identity, "labels": [[one.text, one.log_probability] for one in labels]})

    def add_error(self, photo: str, identity: str, why: str) -> None:
        """Record that a photo cannot be read."""
        self._errors[photo, identity] = why
        self._write({"photo": photo, "of": identity, "error": why})

    def remove(self) -> None:
        """Delete the file after its content has been written to the data set."""
        self._file.close()
        self.path.unlink()

    def __enter__(self) -> LabelJournal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _read(self, session: Mapping[str, Any]) -> bool:
        lines = self.path.read_text(encoding="utf-8", errors="surrogateescape").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]  # the last one may be truncated
        try:
            head, *entries = [json.loads(line) for line in whole] or [None]
            if head is not None and head["session"] != json.loads(json.dumps(dict(session))):
                raise self._other_session()
            for entry in entries:
                key = entry["photo"], entry["of"]
                if "error" in entry:
                    self._errors[key] = str(entry["error"])
                else:
                    self._labels[key] = [Label(str(text), float(value)) for text, value in entry["labels"]]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                "this is not a file of generated captions", where=self.path, hint="move it away"
            ) from error
        if len(whole) < len(lines):
            self.path.write_text("".join(whole), encoding="utf-8", errors="surrogateescape")
        return head is not None

    def _other_session(self) -> UsageError:
        return UsageError(
            "an interrupted command with another teacher or other options has left captions here",
            where=self.path,
            hint="repeat that command, or delete this file to start again",
        )

    def _write(self, entry: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
        except OSError as error:
            raise_if_unwritable(error, self.path)
            raise
