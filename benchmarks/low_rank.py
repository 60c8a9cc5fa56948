"""Train the low-rank rival of a sparse decoder: every matrix a product of two thin ones, as many numbers as a sparsity keeps.

    python benchmarks/low_rank.py --data flickr8k --dense runs/dense --sparsity 0.975 --out runs/low_rank --json

The run starts from a trained dense one. Every few steps, and before each validation, all matrices are replaced by the nearest
ones of a rank r (truncated singular values, projected gradient descent). r is the same for all, and the largest at which both
factors together have no more numbers than a sparse decoder of that sparsity keeps. In int8 these numbers take a byte each; a
sparse decoder needs the places of its weights as well, which packing makes small. Scored in float32 on val and test, beam 3.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

import capprune
from capprune.config.methods import METHODS, Method, StartsFrom
from capprune.config.pruning import PruningConfig
from capprune.config.reading import load_config
from capprune.pruning.layers import prunable_layers, trained_weight
from capprune.pruning.pruner import PrunedRun, Pruner
from capprune.training.run import read_run
from capprune_runtime.errors import ConfigError
from printed import print_measured

SCHEMA_VERSION = 1
NAME = "low_rank"
EVERY = 20  # steps between two projections
METHOD = Method(f"{__name__}:LowRank", StartsFrom.EITHER, chooses_masks=False)


class LowRank(Pruner):
    """Keeps every matrix of the decoder at one rank.

    Args:
        weights: The matrices.
        rank: Their rank; a matrix with a smaller side keeps its own.
        run: Length of the run.
    """

    def __init__(self, weights: list[nn.Parameter], rank: int, run: PrunedRun) -> None:
        super().__init__()
        self.rank, self._weights, self._run = rank, weights, run

    @classmethod
    def for_run(cls, model: nn.Module, config: PruningConfig, run: PrunedRun) -> Self:
        """See `Pruner.for_run`; `pruning.sparsity` says how many numbers remain."""
        weights = [trained_weight(model.get_submodule(name)) for name in prunable_layers(model, config)]
        rank = rank_for([tuple(one.shape) for one in weights], 1 - config.sparsity)
        return cls(weights, rank, run)

    def begin(self, loss: object) -> None:
        """Project the weights that the run starts from."""
        self._project()

    def after(self, step: int) -> None:
        """Project every few steps and at the end of each epoch."""
        if (step + 1) % EVERY == 0 or (step + 1) % self._run.epoch == 0:
            self._project()

    @torch.no_grad()
    def _project(self) -> None:
        for weight in self._weights:
            weight.copy_(nearest(weight, self.rank))


def nearest(weight: Tensor, rank: int) -> Tensor:
    """Return the nearest matrix of a rank, by squared differences (Eckart and Young, 1936)."""
    if rank >= min(weight.shape):
        return weight
    tall = weight if weight.shape[0] >= weight.shape[1] else weight.T
    _, vectors = torch.linalg.eigh(tall.T @ tall)  # ascending
    kept = vectors[:, -rank:]
    found = tall @ kept @ kept.T
    return found if tall is weight else found.T


def rank_for(shapes: list[tuple[int, ...]], share: float) -> int:
    """Return the largest rank whose factors have no more numbers than `share` of the matrices' weights.

    Raises:
        ConfigError: Even rank 1 has more.
    """
    allowed = share * sum(rows * columns for rows, columns in shapes)
    rank = 0
    while numbers_at(shapes, rank + 1) <= allowed and rank < max(min(shape) for shape in shapes):
        rank += 1
    if rank == 0:
        raise ConfigError(
            "no rank is small enough", where="--sparsity", expected=f"{numbers_at(shapes, 1)} numbers", found=allowed
        )
    return rank


def numbers_at(shapes: list[tuple[int, ...]], rank: int) -> int:
    """Return the numbers in both factors of all matrices; a matrix that is not larger than its factors stays whole."""
    return sum(min(rank * (rows + columns), rows * columns) for rows, columns in shapes)


@contextmanager
def registered() -> Iterator[None]:
    """Let `pruning.method` name this file's method."""
    before = METHODS.own
    METHODS.own = {**before, NAME: METHOD}
    try:
        yield
    finally:
        METHODS.own = before


@registered()
def measure(
    data: Path, dense: Path, out: Path, cache: Path | None, *, sparsity: float, overrides: list[str], limit: int | None
) -> dict[str, Any]:
    """Train and score the rival.

    Args:
        data: The data folder.
        dense: The trained dense run.
        out: Folder of the run; an unfinished one is resumed.
        cache: Folder of feature caches; by default the usual one.
        sparsity: The sparsity whose count of kept weights is the limit.
        overrides: `key=value` of the run's config.
        limit: Score only the first photos of each split.

    Returns:
        The document that `--json` prints.

    Raises:
        CapPruneError: The run cannot be read or trained.
    """
    config = load_config(dense / "config.yaml", [f"data.folder={data}", f"start={dense}", *overrides])
    tree = config.model_dump(mode="json", exclude_none=True)
    tree["pruning"] = {"method": NAME, "sparsity": sparsity}
    run = capprune.train(tree, out=out, cache=cache, progress=capprune.Lines())
    weights = {name: value for name, value in read_run(out).weights.items() if not name.startswith("encoder.")}
    matrices = [value for name, value in weights.items() if name.endswith(".weight") and value.ndim == 2]
    shapes = [tuple(one.shape) for one in matrices]
    rank = rank_for(shapes, 1 - sparsity)
    with tempfile.TemporaryDirectory() as folder:
        bundle = run.export(Path(folder) / "bundle", weights="float32", encoder_weights="float32")
        scores = {
            split: bundle.validate(data, split=split, limit=limit, beam=3, progress=capprune.Lines()).as_json()
            for split in ("val", "test")
        }
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "low_rank",
        "sparsity": sparsity,
        "rank": rank,
        "ranks": [int(torch.linalg.matrix_rank(one.double(), rtol=1e-5)) for one in matrices],
        "numbers": numbers_at(shapes, rank),
        "weights": sum(rows * columns for rows, columns in shapes),
        "epochs": config.training.epochs,
        "cider_d": {
            split: {key: round(one["quality"]["cider_d_interval"][key], 4) for key in ("estimate", "low", "high")}
            for split, one in scores.items()
        },
    }


def main() -> None:
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dense", type=Path, required=True, help="a trained dense run")
    parser.add_argument("--sparsity", type=float, default=0.975)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args()

    def measured() -> dict[str, Any]:
        return measure(
            options.data,
            options.dense,
            options.out,
            options.cache,
            sparsity=options.sparsity,
            overrides=options.overrides,
            limit=None,
        )

    print_measured(measured, show, as_json=options.json)


def show(document: Mapping[str, Any]) -> None:
    """Print the rank and the scores."""
    scores = ", ".join(f"{split} {one['estimate']:.3f}" for split, one in document["cider_d"].items())
    print(f"rank {document['rank']}, {document['numbers']:,} of {document['weights']:,} numbers: CIDEr-D {scores}")


if __name__ == "__main__":
    main()
