"""Every error a user can cause, with the exit code it ends in.

    CapPruneError            1   a defect of ours, or of the machine (disk, memory)
    ├── NotEnoughMemory          a photo or a model that this machine cannot hold
    ├── UsageError           2   an option, a path or a target that cannot be
    │   ├── ConfigError          an unknown key or an impossible value in a config
    │   ├── MissingExtra         a part of capprune that is not installed
    │   └── UnreachableTarget    a sparsity that this run could never reach
    ├── GateFailed           3   validation ran, and the model is over a limit
    ├── DataError            4   photos or captions
    │   └── PhotoError           one photo that cannot be read
    ├── BundleError          5   a bundle, run or model file that must not be used
    │   ├── MissingFile          a listed file that is not there, or one that is not listed
    │   ├── HashMismatch         a file that is not the one that was written
    │   ├── NewerFormat          written by a later capprune than this one
    │   ├── BadModelFile         a model file whose structure breaks a rule
    │   └── BadVocabulary        a vocabulary that cannot belong to the model
    ├── ExportError          6   a model that the target cannot hold
    └── DeviceError          7   a Raspberry Pi or a phone
        └── LinkLost             the link to one, while it worked

A message says what happened, where, what was expected and found, and what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping

MOST_CHARACTERS = 400  # of one part of a message: what a file holds may be of any length


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


class CapPruneError(Exception):
    """Base of all errors that are shown to the user as a message, never as a traceback.

    Args:
        what: What happened, one clause without a full stop.
        where: The file, key or option it happened at.
        expected: What would have been right.
        found: What was there instead.
        hint: The next thing to do, usually a command.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        expected: object = None,
        found: object = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(_cut(what))
        self.what = _cut(what)
        self.where = None if where is None else str(where)
        self.expected = None if expected is None else _cut(str(expected))
        self.found = None if found is None else _cut(str(found))
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what if self.where is None else f"{self.what}: {self.where}"]
        if self.expected is not None:
            lines.append(f"  expected  {self.expected}")
        if self.found is not None:
            lines.append(f"  found     {self.found}")
        if self.hint is not None:
            lines.append(f"  try       {self.hint}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """The same facts for `--json`; keys without a value are left out."""
        facts = {
            "error": type(self).__name__,
            "exit_code": self.exit_code,
            "what": self.what,
            "where": self.where,
            "expected": self.expected,
            "found": self.found,
            "try": self.hint,
        }
        return {key: value for key, value in facts.items() if value is not None}


def error_from_json(tree: Mapping[str, object], otherwise: type[CapPruneError] = CapPruneError) -> CapPruneError:
    """Build the error of another process again from `CapPruneError.as_json`.

    Args:
        tree: What the other process wrote.
        otherwise: The class of an error that this version does not have.
    """
    kind = globals().get(str(tree.get("error")))
    if not (isinstance(kind, type) and issubclass(kind, CapPruneError)):
        kind = otherwise
    hint = tree.get("try")
    return kind(
        str(tree.get("what")),
        where=tree.get("where"),
        expected=tree.get("expected"),
        found=tree.get("found"),
        hint=None if hint is None else str(hint),
    )


class NotEnoughMemory(CapPruneError):
    """A photo or a model that this machine, or this process's limit, cannot hold."""


class UsageError(CapPruneError):
    """An option, a path or a target that cannot be."""

    exit_code = 2


class ConfigError(UsageError):
    """An unknown key or an impossible value in a config."""


class MissingExtra(UsageError):
    """A part of capprune that is not installed."""


class UnreachableTarget(UsageError):
    """A sparsity that this run could never reach."""


class GateFailed(CapPruneError):
    """Validation ran to its end, and the model is over a limit."""

    exit_code = 3


class DataError(CapPruneError):
    """Photos or captions that cannot be used."""

    exit_code = 4


class PhotoError(DataError):
    """One photo that cannot be read."""


class BundleError(CapPruneError):
    """A bundle, run or model file that must not be used."""

    exit_code = 5


class MissingFile(BundleError):
    """A file that is listed and not there, or there and not listed."""


class HashMismatch(BundleError):
    """A file whose bytes are not those that were written."""


class NewerFormat(BundleError):
    """A file written by a later capprune than this one."""


class BadModelFile(BundleError):
    """A model file whose structure breaks a rule of the verifier."""


class BadVocabulary(BundleError):
    """A vocabulary that cannot belong to the model beside it."""


class ExportError(CapPruneError):
    """A model that the target cannot hold, or an export that came out wrong."""

    exit_code = 6


class DeviceError(CapPruneError):
    """A Raspberry Pi or a phone that cannot be reached or cannot do what was asked."""

    exit_code = 7


class LinkLost(DeviceError):
    """The link to a device broke while it worked; it may come back."""


class PhotoWarning(UserWarning):
    """A photo that is damaged and was read all the same."""
