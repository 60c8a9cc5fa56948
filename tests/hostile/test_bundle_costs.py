"""What `verify` of a whole bundle may cost: the costliest ones that are accepted stay within seconds and memory of their size."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_mutations import Files, MemoryMembers, sealed
from PIL import Image
from world import World

from capprune_exporters.pack.capz import pack
from capprune_runtime.bundle.manifest import MAX_BEAM
from capprune_runtime.bundle.verify import verify_bundle, verify_members
from capprune_runtime.bundle.vocabulary import MAX_LINES, MAX_VOCABULARY_BYTES, SPECIAL_TOKENS
from capprune_runtime.errors import CapPruneError

# A small process in between, because a new process begins with the memory of the one that it is forked from.
MEASURE = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss * 1024]))
"""
BASE_SECONDS, SECONDS_PER_MB = 5.0, 1.0
BASE_BYTES, BYTES_PER_BYTE = 300e6, 4


def with_golden(world: World) -> Files:
    """The ONNX bundle with a golden photo."""
    size = json.loads(world.onnx["manifest.json"])["preprocessing"]["size"]
    buffer = io.BytesIO()
    Image.effect_noise((size, size), 100).convert("RGB").save(buffer, "PNG")
    entry = json.loads(world.bundles["lstm"]["golden/golden.json"])
    return {**world.onnx, "golden/scene-0.png": buffer.getvalue(), "golden/golden.json": json.dumps(entry).encode()}


def golden(files: Files, count: int, beam: int, tokens: int) -> Files:
    """The bundle with this number of golden entries, beam and length."""
    (entry, *_) = json.loads(files["golden/golden.json"])
    entries = json.dumps([{**entry, "beam": beam}] * count).encode()
    changed = {**files, "golden/golden.json": entries}
    return sealed(changed, lambda tree: tree["decoding"].update(beam=1, max_tokens=tokens))


def photos(files: Files, count: int) -> Files:
    """The bundle with this number of golden photos."""
    (entry, *_) = json.loads(files["golden/golden.json"])
    size = Image.open(io.BytesIO(files[entry["photo"]])).size
    made, entries = dict(files), []
    for number in range(count):
        buffer = io.BytesIO()
        Image.effect_noise(size, 100).convert("RGB").save(buffer, "PNG")
        made[f"golden/scene-{number}.png"] = buffer.getvalue()
        entries.append({**entry, "photo": f"golden/scene-{number}.png"})
    made["golden/golden.json"] = json.dumps(entries).encode()
    return sealed(made)


def padded(files: Files, count: int) -> Files:
    """The bundle with documents of this many megabytes, which pack to little."""
    spaces = b"{}" + b" " * (count << 20)
    return sealed({**files, "quality.json": spaces, "plan.json": spaces[: 4 << 20], "MODEL_CARD.md": spaces[: 4 << 20]})


def largest(make: Callable[[int], Files], most: int) -> Files:
    """The bundle of the largest number that the verifier accepts."""
    low, high = 1, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        try:
            verify_members(MemoryMembers(make(middle)))
        except CapPruneError:
            high = middle
        else:
            low = middle
    return make(low)


CASES: dict[str, Callable[[World], Files]] = {
    "many golden photos of one word": lambda w: largest(lambda n: golden(w.bundles["lstm"], n, 1, 4), 1024),
    "a few golden photos with wide beams": lambda w: largest(
        lambda n: golden(w.bundles["lstm"], n, MAX_BEAM, 100), 1024
    ),
    "long captions": lambda w: largest(lambda n: golden(w.bundles["gru"], 1, MAX_BEAM, n), 1000),
    "many files": lambda w: largest(lambda n: photos(w.bundles["lstm"], n), 245),
    "ONNX, many golden photos": lambda w: largest(lambda n: golden(with_golden(w), n, 1, 20), 1024),
    "ONNX, a wide beam": lambda w: largest(lambda n: golden(with_golden(w), n, MAX_BEAM, 100), 1024),
}


def cost(place: Path) -> tuple[float, float]:
    """Processor seconds, and bytes of the largest process, of `capprune verify` and its child."""
    command = [sys.executable, "-c", MEASURE, sys.executable, "-m", "capprune", "verify", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    code, seconds, most_bytes = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    return seconds, most_bytes


def assert_bounded(place: Path, size_bytes: int) -> None:
    seconds, most_bytes = cost(place)
    print(f"{place.name}: {size_bytes:,} bytes, {seconds:.1f} s, {most_bytes / 1e6:.0f} MB")
    assert seconds < BASE_SECONDS + SECONDS_PER_MB * size_bytes / 1e6
    assert most_bytes < BASE_BYTES + BYTES_PER_BYTE * size_bytes


@pytest.mark.parametrize("name", CASES)
def test_costliest_accepted_bundle_is_bounded(name: str, world: World, tmp_path: Path) -> None:
    files = CASES[name](world)
    place = tmp_path / name
    for member, content in files.items():
        (place / member).parent.mkdir(parents=True, exist_ok=True)
        (place / member).write_bytes(content)
    verify_bundle(place)
    assert_bounded(place, sum(map(len, files.values())))


def test_packed_bundle_that_expands_most_is_bounded(world: World, tmp_path: Path) -> None:
    place, packed = tmp_path / "bundle", tmp_path / "bundle.capz"
    for member, content in padded(world.bundles["lstm"], 55).items():
        (place / member).parent.mkdir(parents=True, exist_ok=True)
        (place / member).write_bytes(content)
    pack(place, packed)
    assert_bounded(packed, packed.stat().st_size)


VOCABULARY_CODE = """
import json, re, sys, time
from pathlib import Path
from capprune_runtime.bundle.tokens import TokensSection
from capprune_runtime.bundle.vocabulary import read_vocabulary
start = time.process_time()
read_vocabulary(Path(sys.argv[1]), TokensSection("radix", 1000, 2))
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(json.dumps([time.process_time() - start, int(peak[1]) * 1024]))
"""
WORDS = {
    "as many lines as are allowed": [f"{number:x}" for number in range(MAX_LINES - 4)],
    "as many characters as are allowed": [
        f"{'a' * 93}{number:06d}" for number in range(MAX_VOCABULARY_BYTES // 100 - 1)
    ],
}


@pytest.mark.parametrize("name", WORDS)
def test_costliest_vocabulary_is_bounded(name: str, tmp_path: Path) -> None:
    (tmp_path / "vocabulary.txt").write_text("\n".join((*SPECIAL_TOKENS, *WORDS[name])) + "\n")
    command = [sys.executable, "-c", VOCABULARY_CODE, str(tmp_path / "vocabulary.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    seconds, most_bytes = json.loads(done.stdout)
    print(f"{name}: {seconds:.1f} s, {most_bytes / 1e6:.0f} MB")
    assert 2 * seconds < BASE_SECONDS and most_bytes < BASE_BYTES  # `verify` and its child read it
