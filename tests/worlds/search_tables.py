"""Searches over tables of scores, with their results, for the runtimes that are not Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capprune_runtime.bundle.manifest import DecodingSection
from capprune_runtime.caption.search import StepResult, beam, greedy

STATES = 101  # of the decoder that reads these tables


def write_searches(folder: Path, random: np.random.Generator) -> None:
    """Tables of scores, with many ties; both sides take the row that token, state and position choose."""
    folder.mkdir()
    index = []
    for number in range(60):
        vocabulary = int(random.integers(5, 40))
        scale = 1.0 if number % 2 else 0.25
        # One row a state: from few rows, the same words in another order tie but for their rounding, which differs by runtime.
        table = (np.round(random.normal(0, 2, (STATES, vocabulary)) / scale) * scale).astype("<f4")
        suppress = sorted({0, 1} | set(random.integers(3, vocabulary, 2).tolist()))[: int(random.integers(0, 4))]
        decoding = DecodingSection(
            start=1, end=2, suppress=tuple(suppress), max_tokens=int(random.integers(1, 12)), beam=1,
            no_repeat_ngram=(0, 2, 3, 1)[number % 4],
        )  # fmt: skip
        (folder / str(number)).write_bytes(table.tobytes())
        for width in (1, 2, 3, 5, vocabulary * 2):
            start = np.zeros(1, np.float32)
            step = _table_step(table)
            found = greedy(step, start, decoding) if width == 1 else beam(step, start, decoding, width)
            index.append({
                "file": str(number), "vocabulary": vocabulary, "suppress": list(suppress), "max_tokens": decoding.max_tokens,
                "no_repeat_ngram": decoding.no_repeat_ngram,
                "width": width, "tokens": list(found.tokens), "finished": found.finished,
                "log_probability": float(found.log_probability),
            })  # fmt: skip
    (folder / "index.json").write_text(json.dumps(index, indent=1))


def _table_step(table: NDArray[np.float32]) -> Any:
    def step(token: int, state: NDArray[np.float32], position: int) -> StepResult[NDArray[np.float32]]:
        following = np.array([(float(state[0]) * 3 + token + 7 * position) % STATES], np.float32)
        return StepResult(table[int(following[0]) % len(table)], following, following)

    return step
