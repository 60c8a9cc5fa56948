"""Every error that a user can cause, with its exit code.

    CapPruneError            1   a defect of capprune, or a problem of the machine (disk, memory)
    ├── NotEnoughMemory          a photo or a model that this machine cannot hold
    ├── UsageError           2   an invalid option, path or target
    │   ├── ConfigError          an unknown key or an invalid value in a config
    │   ├── MissingExtra         a part of capprune that is not installed
    │   └── UnreachableTarget    a sparsity that this run cannot reach
    ├── GateFailed           3   validation ran, and the model exceeds a limit
    ├── DataError            4   photos or captions
    │   └── PhotoError           one photo that cannot be read
    ├── BundleError          5   a bundle, run or model file that must not be used
    │   ├── MissingFile          a listed file is missing, or a file is not listed
    │   ├── HashMismatch         a file that has changed since it was written
    │   ├── NewerFormat          written by a later version of capprune
    │   ├── BadModelFile         a model file whose structure breaks a rule
    │   └── BadVocabulary        a vocabulary that does not fit the model
    ├── ExportError          6   a model that the target cannot represent
    └── DeviceError          7   a Raspberry Pi or a phone
        └── LinkLost             the connection to one broke during the work

A message states what happened, where, what was expected and found, and what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping

MOST_CHARACTERS = 400  # of one part of a message: file content may have any length


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


class CapPruneError(Exception):
    """Base of all errors that are shown to the user as a message, without a traceback.

    Args:
        what: What happened, one clause without a full stop.
        where: The file, key or option it happened at.
        expected: The accepted value or state.
        found: The actual value or state.
        hint: The next step, usually a command.
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
        """Return the same facts for `--json`; keys without a value are left out."""
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
    """Rebuild an error of another process from the result of its `CapPruneError.as_json`.

    Args:
        tree: The JSON object that the other process wrote.
        otherwise: The class to use for errors unknown to this version.
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
    """A photo or a model that does not fit into the memory of this machine, or into the limit of this process."""


class UsageError(CapPruneError):
    """An invalid option, path or target."""

    exit_code = 2


class ConfigError(UsageError):
    """An unknown key or an invalid value in a config."""


class MissingExtra(UsageError):
    """A part of capprune that is not installed."""


class UnreachableTarget(UsageError):
    """A sparsity that this run cannot reach."""


class GateFailed(CapPruneError):
    """Validation finished, and the model exceeds a limit."""

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
    """A listed file is missing, or a file is not listed."""


class HashMismatch(BundleError):
    """A file whose bytes have changed since it was written."""


class NewerFormat(BundleError):
    """A file written by a later version of capprune."""


class BadModelFile(BundleError):
    """A model file whose structure breaks a rule of the verifier."""


class BadVocabulary(BundleError):
    """A vocabulary that does not fit the model beside it."""


class ExportError(CapPruneError):
    """A model that the target cannot represent, or an export with wrong results."""

    exit_code = 6


class DeviceError(CapPruneError):
    """A Raspberry Pi or a phone that cannot be reached, or on which a command failed."""

    exit_code = 7


class LinkLost(DeviceError):
    """The connection to a device broke during the work; a retry may succeed."""


class PhotoWarning(UserWarning):
    """A damaged photo that was read nevertheless."""
