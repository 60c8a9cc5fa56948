"""LiteRT.js, which runs models inside a browser: its files, their SHA-256, and how they get here."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from capprune_runtime.atomic import write_bytes
from capprune_runtime.errors import HashMismatch, MissingExtra, UsageError

PACKAGE, VERSION = "@litertjs/core", "2.5.3"
NPM_SECONDS = 300
FOLDER = "wasm"  # of the npm package

# A browser loads the first pair, or the second one where it has no relaxed SIMD.
FILES: Mapping[str, str] = {
    "litert_wasm_internal.js": "68efb69f770e3f76aff36a377de629ca496c131b86ac0f0f4b592a1543a898eb",
    "litert_wasm_internal.wasm": "7280cf4471774867e385e6c3cd53e2b45e2975b80fea338fff4ef359b0865614",
    "litert_wasm_compat_internal.js": "4d8f894b7883654fd6e8439730aa41e79ceaab7d19184fc4f1f0b0f1a2a2c8a5",
    "litert_wasm_compat_internal.wasm": "5255c8ad06eabdbd2522cdebf6b22fc10faf74625c23a49b9e072570cd1fa41c",
}
FIRST_PAIR = tuple(FILES)[:2]


def engine_files(folder: Path | None, say: Callable[[str], None]) -> dict[str, bytes]:
    """Return the files of the engine by name, each with the SHA-256 above.

    Args:
        folder: The unpacked npm package; None for the cache, which npm fills once.
        say: Takes a line of progress.

    Raises:
        UsageError: The folder is not the package.
        HashMismatch: A file is not the one of this version.
        MissingExtra: The cache is empty, and npm is not there or cannot fetch the package.
    """
    if folder is not None:
        return _read(folder)
    cache = _cache()
    if not all((cache / FOLDER / name).is_file() for name in FILES):
        say(f"fetching {PACKAGE} {VERSION} by npm into {cache}, once")
        _fetch(cache)
    return _read(cache)


def _cache() -> Path:
    home = os.environ.get("CAPPRUNE_CACHE")
    base = Path(home) if home else Path.home() / ".cache" / "capprune"
    return base / f"litert-js-{VERSION}"


def _read(folder: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for name, digest in FILES.items():
        place = folder / FOLDER / name
        try:
            files[name] = place.read_bytes()
        except OSError as error:
            raise UsageError(
                "this is not the npm package of LiteRT.js",
                where=place,
                found=error.strerror,
                hint=f"npm pack {PACKAGE}@{VERSION}, and unpack it: --engine package",
            ) from None
        if (found := hashlib.sha256(files[name]).hexdigest()) != digest:
            raise HashMismatch(
                f"a file is not the one of {PACKAGE} {VERSION}", where=place, expected=digest, found=found
            )
    return files


def _fetch(cache: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise MissingExtra(
            "LiteRT.js is not here, and npm, which fetches it, is not installed",
            hint=f"install npm; or fetch {PACKAGE} {VERSION} elsewhere, unpack it, and name it with --engine",
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", folder]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=NPM_SECONDS, check=False, cwd=folder)
        except subprocess.TimeoutExpired:
            raise MissingExtra("npm does not end", where=" ".join(command), expected=f"{NPM_SECONDS} s") from None
        archives = sorted(Path(folder).glob("*.tgz"))
        if done.returncode or not archives:
            raise MissingExtra(
                "npm cannot fetch LiteRT.js",
                where=f"{PACKAGE}@{VERSION}",
                found=done.stderr.strip()[-300:],
                hint="fetch it elsewhere, unpack it, and name it with --engine",
            )
        with tarfile.open(archives[0]) as archive:
            for name in FILES:
                member = archive.extractfile(f"package/{FOLDER}/{name}")
                assert member is not None
                write_bytes(cache / FOLDER / name, member.read())
