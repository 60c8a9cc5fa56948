"""Detects overrides without an effect on the run, such as a sparsity for a dense run.

For keys of a trained encoder there is only a note, because users pass the same keys to runs with and without one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from capprune.config.run import RunConfig
from capprune_runtime.errors import UsageError


@dataclass(frozen=True)
class _Unheeded:
    """A rule for keys without an effect.

    Attributes:
        keys: Prefix of the keys.
        unless: The key that they depend on.
        value: A value of that key with which they have an effect.
        holds: Returns whether they have no effect in a config.
    """

    keys: str
    unless: str
    value: str
    holds: Callable[[RunConfig], bool]


_TEACHER: Final = "training.distillation.teacher"
UNHEEDED: Final = (
    _Unheeded("pruning.", "pruning.method", "supermask", lambda config: not config.pruning.prunes),
    _Unheeded("training.reward.", "training.objective", "scst", lambda config: config.training.objective != "scst"),
    _Unheeded("training.distillation.", _TEACHER, "RUN", lambda config: config.training.distillation.teacher is None),
    *(
        _Unheeded(f"encoder.{key}", "encoder.pooling", "capsules", lambda config: config.encoder.pooling != "capsules")
        for key in ("capsule", "routing_iterations")
    ),
    *(
        _Unheeded(f"encoder.{key}", "encoder.name", "regions", lambda config: config.encoder.name != "regions")
        for key in ("regions", "channels")
    ),
    _Unheeded("data.minimum_count", "data.vocabulary", "null", lambda config: config.data.vocabulary is not None),
    _Unheeded("data.shuffle_photos", "data.shards", "FOLDER", lambda config: config.data.shards is None),
    _Unheeded("data.radix_base", "data.tokens", "radix", lambda config: config.data.tokens != "radix"),
    _Unheeded("data.subword_", "data.tokens", "subwords", lambda config: config.data.tokens != "subwords"),
)


def refuse_ineffective(config: RunConfig, overrides: Sequence[str]) -> None:
    """Check that every override changes something in this run.

    Args:
        config: The config with the overrides applied.
        overrides: The user's `key=value` texts.

    Raises:
        UsageError: One of them has no effect; the message names the key that it depends on.
    """
    for override in overrides:
        key = override.partition("=")[0]
        for rule in UNHEEDED:
            if key.startswith(rule.keys) and key != rule.unless and rule.holds(config):
                raise UsageError(
                    "this override has no effect in this run",
                    where=override,
                    expected=f"{rule.unless}={rule.value}, or another value with which it has one",
                    hint=f"add {rule.unless}={rule.value}, or leave {key} out",
                )


def ineffective_notes(config: RunConfig, overrides: Sequence[str]) -> tuple[str, ...]:
    """Return a line for each override that changes nothing because the encoder is frozen."""
    if config.encoder.train != "frozen":
        return ()
    keys = [override.partition("=")[0] for override in overrides]
    unheeded = [key for key in keys if key in ("encoder.learning_rate", "encoder.frozen_blocks")]
    return tuple(f"note: {key} has no effect: encoder.train is frozen" for key in unheeded)
