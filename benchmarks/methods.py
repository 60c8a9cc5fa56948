"""Compare all pruning methods on Flickr8k with one budget: runs the sweep of configs/sweep_methods.yaml.

    python benchmarks/methods.py --data flickr8k --out sweeps/methods [KEY=VALUE]...

Runs `capprune.sweep`, which resumes after an interruption, and copies its sweep.json to benchmarks/results/methods.json. Runs
that are not trained yet are marked in it. For wider decoders and longer runs: `--grid configs/sweep_wide.yaml --results
benchmarks/results/methods_wide.json`. For blocks that start from the dense model: `configs/sweep_blocks.yaml` and
`methods_blocks.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from capprune.api.sweep import sweep
from capprune.sweeping.groups import grouped
from capprune.sweeping.results import DOCUMENT, read_document, read_scores
from capprune.training.progress import Lines
from capprune_runtime.atomic import write_text
from capprune_runtime.errors import CapPruneError, MissingFile
from method_pairs import pairs_of

RESULTS = Path(__file__).parent / "results" / "methods.json"
CONFIGS = Path(__file__).parents[1] / "configs"
CONFIG, GRID = CONFIGS / "flickr8k_sparse.yaml", CONFIGS / "sweep_methods.yaml"


def copied(folder: Path) -> dict[str, Any]:
    """Return the document of a sweep, finished or not, without its data folder.

    Raises:
        MissingFile: There is no sweep.
        BundleError: The document is invalid.
    """
    found = read_document(folder)
    if found is None:
        raise MissingFile("there is no sweep", where=folder, expected=f"a {DOCUMENT} in it")
    scores = read_scores(folder)
    groups = grouped(found.rows, scores)
    document: dict[str, Any] = found.model_copy(update={"groups": groups}).model_dump(mode="json")
    document["pairs"] = pairs_of(groups, found.rows, scores)
    document["config"]["data"]["folder"] = found.data  # so that no local path is published
    return document


def main(arguments: list[str] | None = None) -> int:
    """Run the sweep and copy its document; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="keys of the config, as for capprune sweep")
    parser.add_argument("--data", type=Path, help="folder of Flickr8k")
    parser.add_argument("--out", type=Path, required=True, help="folder of the sweep")
    parser.add_argument("--grid", type=Path, default=GRID, help="rows (default configs/sweep_methods.yaml)")
    parser.add_argument("--copy", action="store_true", help="only copy the sweep's current document, without training")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the JSON")
    asked = parser.parse_intermixed_args(arguments)
    if not asked.copy and asked.data is None:
        parser.error("--data is needed to train")
    try:
        if not asked.copy:
            own = [f"data.folder={asked.data}", *asked.overrides]
            done = sweep(CONFIG, grid=[str(asked.grid)], out=asked.out, overrides=own, progress=Lines())
            done.raise_if_all_failed()
        document = copied(asked.out)
        write_text(asked.results, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    except CapPruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return 130
    print(asked.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
