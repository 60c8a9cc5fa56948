"""The search of the browser gives the tokens of the one in Python, on tables of scores with many ties."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from axe import NODE_MODULES, require_packages
from search_tables import write_searches

PROGRAM = """
import {buildSync} from 'esbuild';
import {readFileSync} from 'node:fs';
const [folder, source] = process.argv.slice(-2);
buildSync({entryPoints: [source], bundle: true, format: 'esm', platform: 'node', outfile: `${folder}/search.mjs`});
const {search} = await import(`${folder}/search.mjs`);
const found = [];
for (const one of JSON.parse(readFileSync(`${folder}/index.json`))) {
  const bytes = readFileSync(`${folder}/${one.file}`);
  const table = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const size = one.vocabulary;
  const step = async (token, state, position) => {
    const next = (state * 3 + token + 7 * position) % 101;
    const row = next % (table.length / size);
    return {scores: table.slice(row * size, (row + 1) * size), state: next, attention: null};
  };
  const {tokens, finished, logProbability} = await search(step, 0, {...one, start: 1, end: 2}, one.width);
  found.push({tokens, finished, logProbability});
}
console.log(JSON.stringify(found));
"""


def test_searches_in_the_browser_give_the_same_tokens(when_absent: Callable[[str, str], None], tmp_path: Path) -> None:
    require_packages(when_absent)
    write_searches(tmp_path / "search", np.random.default_rng(5))
    command = ["node", "--input-type=module", "-", str(tmp_path / "search"), "src/search.ts"]
    done = subprocess.run(
        command, input=PROGRAM, cwd=NODE_MODULES.parent, capture_output=True, text=True, check=True, timeout=120
    )
    expected = json.loads((tmp_path / "search" / "index.json").read_bytes())
    found = json.loads(done.stdout)
    assert len(found) == len(expected) > 200 and {one["no_repeat_ngram"] for one in expected} == {0, 1, 2, 3}
    for one, own in zip(expected, found, strict=True):
        assert (own["tokens"], own["finished"]) == (one["tokens"], one["finished"]), one
        assert own["logProbability"] == pytest.approx(one["log_probability"], abs=1e-9)
