"""The pruning methods: their starting weights, whether they choose masks, and the limits that they support.

The config, training, `capprune prune`, sweeps and messages use this table. Other packages add methods through the entry point
`capprune.pruning`; docs/extending.md shows one.
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
    """The weights that a method starts from."""

    DRAWN = "drawn"  # random weights
    EITHER = "either"  # random weights, or those of the run at `start`
    DENSE = "dense"  # weights of a trained dense run
    REWOUND = "rewound"  # initial weights of a trained run; its trained weights choose the masks
    MASKED = "masked"  # weights of a sparse run, with its masks


@dataclass(frozen=True)
class Method:
    """A pruning method.

    Attributes:
        pruner: The class, a `capprune.pruning.pruner.Pruner`, as "module:Class".
        starts_from: The weights that it starts from.
        chooses_masks: Whether it chooses the weights to prune.
        limits: Keys of `pruning` that it supports instead of `sparsity`: `bytes`, `step_us` or both.
    """

    pruner: str
    starts_from: StartsFrom = StartsFrom.EITHER
    chooses_masks: bool = True
    limits: tuple[str, ...] = ()

    @property
    def prunes(self) -> bool:
        """Whether runs of this method are sparse."""
        return self.chooses_masks or self.starts_from is StartsFrom.MASKED

    @property
    def needs_start(self) -> bool:
        """Whether it needs a run to start from."""
        return self.starts_from in (StartsFrom.DENSE, StartsFrom.REWOUND, StartsFrom.MASKED)

    @property
    def prunes_trained_runs(self) -> bool:
        """Whether it makes a sparse run from a trained one, as `capprune prune` does."""
        return self.chooses_masks and self.starts_from is not StartsFrom.DRAWN

    @property
    def command(self) -> str:
        """The command that starts from a trained run; `METHOD` is a placeholder for the name."""
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
    """Return the names of our methods that make a sparse run from a trained one."""
    return tuple(name for name in METHODS.own if METHODS.load(name, "--method").prunes_trained_runs)
