"""The familiarity of the browser is that of Python, and refuses the same values."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from axe import NODE_MODULES, require_packages

from capprune_runtime.bundle.familiarity import channel_count, familiarity_of, pool
from capprune_runtime.bundle.interface import StateSpec, StepInterface, TensorSpec
from capprune_runtime.caption.confidence import is_unsure
from capprune_runtime.errors import BundleError

INTERFACE = StepInterface(
    24,
    {"values": TensorSpec((4, 3)), "keys": TensorSpec((2, 2, 5))},
    {"h": StateSpec((6,)), "z": StateSpec((9,), "zeros")},
)
SOUND: dict[str, Any] = {"weights": [0.5, -1, 0.25], "log_probability": 2.0, "offset": 0.125}
BAD: tuple[Any, ...] = (
    [],
    3,
    {},
    *({**SOUND, "weights": weights} for weights in ([], [0.0] * 15, "1", [1, "2"], [None], [True], [1.1e6])),
    {**SOUND, "log_probability": [1]},
    {**SOUND, "offset": None},
)
PROGRAM = """
import {buildSync} from 'esbuild';
import {readFileSync} from 'node:fs';
const folder = process.argv.at(-1);
buildSync({entryPoints: ['src/familiarity.ts'], bundle: true, format: 'esm', platform: 'node', outfile: `${folder}/built.mjs`});
const {Familiarity, isUnsure} = await import(`${folder}/built.mjs`);
const {step, good, bad, captions} = JSON.parse(readFileSync(`${folder}/cases.json`));
const bytes = (text) => new TextEncoder().encode(text);
const found = good.map(({quality, encoded, mean}) => {
  const one = Familiarity.parse(bytes(quality), step);
  if (one === null) return null;
  const arrays = Object.fromEntries(Object.entries(encoded).map(([name, values]) => [name, Float32Array.from(values)]));
  const pooled = one.pool(arrays);
  return {pooled, confidence: one.confidence(pooled, mean)};
});
const refused = bad.map((quality) => {
  try {
    return Familiarity.parse(bytes(quality), step) === null ? 'none' : 'accepted';
  } catch (error) {
    return error.what;
  }
});
const unsure = captions.map(([caption, low]) => isUnsure(caption, low));
console.log(JSON.stringify({found, refused, unsure}));
"""


def test_confidences_and_refusals_are_those_of_python(when_absent: Callable[[str, str], None], tmp_path: Path) -> None:
    require_packages(when_absent)
    random = np.random.default_rng(4)
    place, good, expected = Path("bundle"), [], []
    for count in (1, 2, 5, 13, channel_count(INTERFACE)):
        tree = {**SOUND, "weights": random.normal(0, 2, count).round(4).tolist()}
        quality = json.dumps({"familiarity": tree})
        encoded = {
            name: random.normal(size=shape).astype(np.float32)
            for name, (shape, _) in INTERFACE.encode_outputs().items()
        }
        mean = float(random.uniform(-2, 0))
        chosen = familiarity_of({"quality.json": quality.encode()}, INTERFACE, place)
        assert chosen is not None
        pooled = pool(encoded, count)
        expected.append((pooled.tolist(), chosen.confidence(pooled, mean)))
        flat = {name: array.ravel().tolist() for name, array in encoded.items()}
        good.append({"quality": quality, "encoded": flat, "mean": mean})
    good += [{"quality": quality, "encoded": {}, "mean": 0} for quality in ("{}", "[", '{"familiarity": null}')]
    bad = [json.dumps({"familiarity": tree}) for tree in BAD] + [
        '{"familiarity": {"weights": [1e999]}}',
        '{"familiarity"',
    ]
    for quality in bad:
        with pytest.raises(BundleError):
            familiarity_of({"quality.json": quality.encode()}, INTERFACE, place)
    step = {
        "held": {name: {"shape": spec.shape} for name, spec in INTERFACE.held.items()},
        "state": {name: {"shape": spec.shape, "first": spec.first} for name, spec in INTERFACE.state.items()},
    }
    captions = [
        ({"log_probability": -4.0, "tokens": [5, 6, 7], "finished": True} | known, low)
        for known in ({}, {"confidence": 0.69}, {"confidence": 0.71})
        for low in (None, -0.99, -1.01)
    ]
    cases = {"step": step, "good": good, "bad": bad, "captions": captions}
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    done = subprocess.run(
        ["node", "--input-type=module", "-", str(tmp_path)],
        input=PROGRAM, cwd=NODE_MODULES.parent, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    said = json.loads(done.stdout)
    assert said["found"][len(expected) :] == [None] * 3
    for one, (pooled_there, confidence) in zip(said["found"], expected, strict=False):
        assert one["pooled"] == pytest.approx(pooled_there, abs=1e-12)
        assert one["confidence"] == pytest.approx(confidence, abs=1e-12)
    there = [is_unsure(SimpleNamespace(**{"confidence": None, **one}), low) for one, low in captions]
    assert said["unsure"] == there == [None, True, False, True, True, True, False, True, False]
    assert not {"none", "accepted"} & set(said["refused"]), said["refused"]
