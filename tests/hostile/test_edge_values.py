"""Roots, logarithms and quotients at the edges of their range, where every runtime must still agree with IEEE arithmetic.

Beyond these inputs the runtimes differ: docs/bundle_format.md, section 5.6, lists where.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from one_operator import Case, one_operator_file

from capprune_runtime import check_tflite

CODE = """
import json, sys
from pathlib import Path
import numpy as np
from capprune_runtime.caption.interpreter import open_model

data, given = Path(sys.argv[2]).read_bytes(), json.loads(sys.argv[3])
inputs = {name: np.array(values, np.float32) for name, values in given.items()}
(found,) = open_model(data, "run", runtime=sys.argv[1]).run(inputs).values()
print(json.dumps([float(value) for value in found]))
"""
LEAST, MOST, MOST_LOG = 2.0**-126, 2.0**124, 2.0**126  # where the kernels still compute roots, and logarithms
NAN, INF = float("nan"), float("inf")
EDGES = {
    "SQRT": (([0.0, LEAST, 1.0, 4.0, MOST, -1.0],), [0.0, 2.0**-63, 1.0, 2.0, 2.0**62, NAN]),
    "RSQRT": (([LEAST, 0.25, 1.0, 4.0, MOST, -1.0],), [2.0**63, 2.0, 1.0, 0.5, 2.0**-62, NAN]),
    "LOG": (([0.0, LEAST, 1e-6, 1.0, MOST_LOG, -1.0],), [-INF, *np.log([LEAST, 1e-6, 1.0, MOST_LOG]).tolist(), NAN]),
    "GELU": (([0.0, 10.0, -10.0, 1e30, -1e30, 1.0],), [0.0, 10.0, 0.0, 1e30, 0.0, 0.8413447]),
    "SQUARED_DIFFERENCE": (([0.0, 1e20, 1e-30, 3.0], [0.0, -1e20, 0.0, 1.0]), [0.0, INF, 0.0, 4.0]),
    "DIV": (([0.0, 1.0, -1.0, 1e30, 3.0], [0.0, 0.0, 0.0, 1e-30, 2.0]), [NAN, INF, -INF, INF, 1.5]),
}


@pytest.mark.parametrize("runtime", ["ai-edge-litert", "tensorflow", "tflite-runtime"])
@pytest.mark.parametrize("operator", EDGES)
@pytest.mark.slow_but_for("ai-edge-litert", "tflite-runtime")
def test_numbers_at_the_edge_are_those_of_ieee(operator: str, runtime: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(runtime.replace("-", "_")) is None:
        pytest.skip(f"{runtime} is not installed")
    given, expected = EDGES[operator]
    shape = (len(expected),)
    data = one_operator_file(Case(operator, (shape,) * len(given), (shape,)))
    check_tflite(data, "f", "run")
    (tmp_path / "file").write_bytes(data)
    inputs = json.dumps({f"t{n}": values for n, values in enumerate(given)})
    done = subprocess.run(
        [sys.executable, "-c", CODE, runtime, str(tmp_path / "file"), inputs],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
