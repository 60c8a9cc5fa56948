"""What an ONNX file may cost: small ones that ask for much are refused, and the costliest accepted ones are bounded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).parents[1] / "onnx"))
from test_onnx_operators import Case, check

from capprune_runtime.errors import BadModelFile

BASE_SECONDS, BASE_BYTES = 5.0, 300e6
MEASURE = """
import json, re, sys, time
from pathlib import Path
import numpy as np
from capprune_runtime.caption.interpreter import open_model
from capprune_runtime.onnx.check import check_onnx
data, (inputs, output) = Path(sys.argv[1]).read_bytes(), json.loads(sys.argv[2])
start = time.process_time()
check_onnx(data, "f", {name: (tuple(shape), "float32") for name, shape in inputs.items()},
           {"y": (tuple(output), "float32")}, rows=False)
open_model(data, "run").run({name: np.full(shape, 0.5, np.float32) for name, shape in inputs.items()})
seconds = time.process_time() - start
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(json.dumps([seconds, int(peak[1]) * 1024]))
"""


def ones(*shape: int) -> NDArray[np.float32]:
    return np.full(shape, 0.01, np.float32)


def convolution(side: int, channels: int, kernel: int, group: int = 1) -> Case:
    made, own = side - kernel + 1, channels // group
    weight = ones(channels, own, kernel, kernel)
    attributes = {"kernel_shape": [kernel, kernel], "group": group}
    return Case("Conv", ((1, channels, side, side), weight, ones(channels)), (1, channels, made, made), attributes)


def pool(window: int) -> Case:
    return Case(
        "MaxPool", ((1, 1, 2 * window, 2 * window),), (1, 1, window + 1, window + 1), {"kernel_shape": [window] * 2}
    )


GROWING: dict[str, Callable[[int], Case]] = {
    "a product of matrices": lambda n: Case("MatMul", ((1, n, n), (1, n, n)), (1, n, n)),
    "a convolution of a large photo": lambda n: convolution(n, 16, 3),
    "a convolution with wide windows": lambda n: convolution(n + 511, 1, n),
    "a convolution of a depth": lambda n: convolution(n, 32, 5, 32),
    "a pool with large windows": pool,
    "a softmax of many numbers": lambda n: Case("Softmax", ((1, n, n),), (1, n, n), {"axis": -1}),
    "an operator of one number each": lambda n: Case("Sqrt", ((1, n, n),), (1, n, n)),
}  # fmt: skip


def accepted(case: Case) -> bytes | None:
    try:
        return check(case)
    except BadModelFile as error:
        assert "for its size" in str(error) and len(str(error)) < 2_000, error
        return None


def costliest(make: Callable[[int], Case]) -> tuple[Case, bytes]:
    """The largest case that the verifier accepts."""
    low, high, data = 5, 5_000, check(make(5))
    while high - low > 1:
        middle = (low + high) // 2
        if (found := accepted(make(middle))) is None:
            high = middle
        else:
            low, data = middle, found
    assert low < 4_998, "there is no limit"
    return make(low), data


@pytest.mark.parametrize("name", GROWING)
def test_costliest_accepted_onnx_files_are_bounded(name: str, tmp_path: Path) -> None:
    case, data = costliest(GROWING[name])
    (tmp_path / "file").write_bytes(data)
    inputs = {f"x{number}": one for number, one in enumerate(case.inputs) if isinstance(one, tuple)}
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "file"), json.dumps([inputs, case.output])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    seconds, most_bytes = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {len(data):,} bytes, {case.output}, {seconds:.1f} s, {most_bytes / 1e6:.0f} MB")
    assert seconds < BASE_SECONDS + len(data) / 1e6
    assert most_bytes < BASE_BYTES + 4 * len(data)


REFUSED = {
    "windows of gigabytes": convolution(512, 1, 64),
    "windows of hours": pool(2_000),
    "products of hours": Case("MatMul", ((1, 8_000, 8_000), (1, 8_000, 8_000)), (1, 8_000, 8_000)),
    "a tensor of gigabytes": Case("Sqrt", ((1, 30_000, 30_000),), (1, 30_000, 30_000)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_small_onnx_file_that_costs_much_is_refused(name: str) -> None:
    assert accepted(REFUSED[name]) is None
