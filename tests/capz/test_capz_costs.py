"""Sections of a few kilobytes that ask for much: each takes little time and memory to expand or to refuse."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from test_capz_pieces import numbers

from capprune_runtime.bundle.capz_pieces import SECTION
from capprune_runtime.bundle.capz_plan import BYTES, MAX_KEPT, MAX_PIECES, POSITIONS, SCALED
from capprune_runtime.bundle.rans import LOW, MOST_LANES, MOST_STEPS, MOST_TABLE_BITS

MEASURE = """
import json, re, sys, time
from pathlib import Path
from capprune_runtime.bundle.capz_pieces import expand_pieces
from capprune_runtime.errors import BundleError
section, size, outcome = Path(sys.argv[1]).read_bytes(), int(sys.argv[2]), "expanded"
start = time.process_time()
try:
    expand_pieces(memoryview(section), size)
except BundleError as error:
    outcome = error.what
seconds = time.process_time() - start
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(json.dumps([outcome, seconds, int(peak[1]) * 1024]))
"""
# A bundle has two model files, and `verify` has 5 seconds and 300 MB for a small one.
MOST_SECONDS, MOST_BYTES = 2.5, 200e6
EXPANDED = 60 << 20  # a small .capz may expand to this much
ONE_SYMBOL = numbers(MOST_TABLE_BITS, 0, 1, 1 << MOST_TABLE_BITS)  # the table of a stream that takes no bytes
EVERY_SYMBOL = numbers(8, 0, 256, *[1] * 256)


def section(plan: bytes, lanes: int) -> bytes:
    packed, literals = zlib.compress(plan, 9), zlib.compress(b"")
    head = SECTION.pack(len(packed), len(plan), len(literals), 0, 0, lanes)
    return head + packed + literals + struct.pack(f"<{lanes}I", *[LOW] * lanes)


def tables(table: bytes, pieces: int) -> tuple[bytes, int]:
    """Many pieces of one item, each of four tables."""
    plan = numbers(pieces) + b"".join(numbers(BYTES, 4 * n, 1, 4) + 4 * table for n in range(pieces))
    return section(plan, 1), 4 * pieces


def positions(rows: int, kept: int, matrices: int = 1) -> tuple[bytes, int]:
    """Matrices of 256 columns."""
    pointers, plan, end = 4 * (rows + 1), numbers(matrices), 0
    for _ in range(matrices):
        plan += numbers(POSITIONS, end, 4, end + pointers, 1, rows, 256, kept, 0) + ONE_SYMBOL
        end += pointers + kept
    return section(plan, MOST_LANES), end


def one_run(count: int, lanes: int) -> tuple[bytes, int]:
    return section(numbers(1, BYTES, 0, count, 1) + ONE_SYMBOL, lanes), count


CASES = {
    "as many steps as are allowed": (one_run(MOST_STEPS + 2, 1), "expanded"),
    "a step more": (one_run(MOST_STEPS + 3, 1), "coded symbols: too many steps for so few lanes"),
    "as many symbols as a small file may have": (one_run(EXPANDED, MOST_LANES), "expanded"),
    "a large table for every symbol": (tables(ONE_SYMBOL, MAX_PIECES), "expanded"),
    "a plan of full tables": (tables(EVERY_SYMBOL, 1000), "coded symbols: the words end early"),
    "as many kept weights as are allowed": (positions(1 << 17, MAX_KEPT - 1, 3), "expanded"),
    "as many rows as a small file may have": (positions(EXPANDED // 4 - 100, 1), "expanded"),
    "as many floats as a small file may have": (
        (section(numbers(1, SCALED, 0, EXPANDED // 4) + struct.pack("<f", 1) + ONE_SYMBOL, MOST_LANES), EXPANDED),
        "expanded",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_small_section_that_asks_for_much_is_cheap(name: str, tmp_path: Path) -> None:
    (data, size), outcome = CASES[name]
    assert len(data) < 100_000
    (tmp_path / "section").write_bytes(data)
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "section"), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found, seconds, most_bytes = json.loads(done.stdout)
    print(f"{name}: {len(data):,} bytes, {seconds:.1f} s, {most_bytes / 1e6:.0f} MB")
    assert found == outcome
    assert seconds < MOST_SECONDS and most_bytes < MOST_BYTES
