"""The pruning methods: what each starts from, whether it chooses masks, and which limits it can keep.

The one table of them: the config, training, `capprune prune`, sweeps and the messages read it. Other packages add methods through
the entry point `capprune.pruning`; docs/extending.md shows one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from capprune_runtime.errors import ConfigError
from capprune_runtime.registry import Registry, imported

NONE: Final = "none"  # the method of a dense run
KEEP: Final = "keep"  # the method of fine-tuning


class StartsFrom(StrEnum):
    """The weights that a method begins with."""

    DRAWN = "drawn"  # random ones
    EITHER = "either"  # random ones, or those of the run under `start`
    DENSE = "dense"  # those of a trained dense run
    REWOUND = "rewound"  # those that a trained run began with; what it became chooses the masks
    MASKED = "masked"  # those of a sparse run, with its masks


@dataclass(frozen=True)
class Method:
    """A pruning method.

    Attributes:
        pruner: The class that does it, a `capprune.pruning.pruner.Pruner`, as "module:Class".
        starts_from: The weights that it begins with.
        chooses_masks: Whether it chooses which weights go.
        limits: Keys of `pruning` that can take the place of `sparsity`: some of `bytes` and `step_us`.
    """

    pruner: str
    starts_from: StartsFrom = StartsFrom.EITHER
    chooses_masks: bool = True
    limits: tuple[str, ...] = ()

    @property
    def prunes(self) -> bool:
        """Whether a run by this method is sparse."""
        return self.chooses_masks or self.starts_from is StartsFrom.MASKED

    @property
    def needs_start(self) -> bool:
        """Whether it means nothing without a run to start from."""
        return self.starts_from in (StartsFrom.DENSE, StartsFrom.REWOUND, StartsFrom.MASKED)

    @property
    def prunes_trained_runs(self) -> bool:
        """Whether it makes a sparse run of a trained one, as `capprune prune` does."""
        return self.chooses_masks and self.starts_from is not StartsFrom.DRAWN

    @property
    def command(self) -> str:
        """The command that starts from a trained run; `METHOD` stands for the name."""
        return "capprune prune RUN --method METHOD" if self.prunes_trained_runs else "capprune finetune RUN"

    def load(self) -> Any:
        """Return the pruner's class.

        Raises:
            ConfigError: It cannot be imported.
        """
        try:
            return imported(self.pruner)
        except (ImportError, AttributeError) as error:
            raise ConfigError("a pruner cannot be loaded", where=self.pruner, found=error) from error


METHODS: Final = Registry[Method](
    "capprune.pruning",
    {
        NONE: Method("capprune.pruning.pruner:Pruner", StartsFrom.EITHER, chooses_masks=False),
        "supermask": Method("capprune.pruning.learned:SupermaskPruner", limits=("bytes", "step_us")),
        "gradual": Method("capprune.pruning.unlearned:GradualPruner"),
        "hard": Method("capprune.pruning.unlearned:HardPruner", StartsFrom.DENSE),
        "lottery": Method("capprune.pruning.unlearned:LotteryPruner", StartsFrom.REWOUND),
        "snip": Method("capprune.pruning.unlearned:SnipPruner", StartsFrom.DRAWN),
        KEEP: Method("capprune.pruning.unlearned:KeptMasks", StartsFrom.MASKED, chooses_masks=False),
    },
    "pruning method",
    kind=Method,
)


def methods_of_trained_runs() -> tuple[str, ...]:
    """Return the names of those of ours that make a sparse run of a trained one."""
    return tuple(name for name in METHODS.own if METHODS.load(name, "--method").prunes_trained_runs)
