"""The engines that run models inside a browser: their files, SHA-256 hashes, and download."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from capprune.data.cache_folder import default_cache
from capprune_runtime.atomic import write_bytes
from capprune_runtime.errors import HashMismatch, MissingExtra, UsageError

NPM_SECONDS = 300


@dataclass(frozen=True)
class Engine:
    """One npm package that runs the model files of one format.

    Attributes:
        title: Its displayed name.
        package: Its npm name.
        version: The required version.
        licence: Licence of the package.
        inner: Folder inside the npm package with the files.
        folder: Folder of the page for the files.
        option: Option of `capprune serve` for the unpacked package.
        files: SHA-256 of each file by name.
        first_visit: The files that a browser loads at the first visit.
    """

    title: str
    package: str
    version: str
    licence: str
    inner: str
    folder: str
    option: str
    files: Mapping[str, str]
    first_visit: tuple[str, ...]

    @property
    def cache(self) -> Path:
        """Folder of the downloaded files."""
        return default_cache() / f"{self.title.lower().replace('.', '-')}-{self.version}"


ENGINES: Mapping[str, Engine] = {
    "tflite": Engine(
        "LiteRT.js",
        "@litertjs/core",
        "2.5.3",
        "Apache-2.0",
        inner="wasm",
        folder="litert",
        option="--engine",
        files={  # a browser without relaxed SIMD loads the second pair
            "litert_wasm_internal.js": "68efb69f770e3f76aff36a377de629ca496c131b86ac0f0f4b592a1543a898eb",
            "litert_wasm_internal.wasm": "7280cf4471774867e385e6c3cd53e2b45e2975b80fea338fff4ef359b0865614",
            "litert_wasm_compat_internal.js": "4d8f894b7883654fd6e8439730aa41e79ceaab7d19184fc4f1f0b0f1a2a2c8a5",
            "litert_wasm_compat_internal.wasm": "5255c8ad06eabdbd2522cdebf6b22fc10faf74625c23a49b9e072570cd1fa41c",
        },
        first_visit=("litert_wasm_internal.js", "litert_wasm_internal.wasm"),
    ),
    "onnx": Engine(
        "onnxruntime-web",
        "onnxruntime-web",
        "1.27.0",
        "MIT",
        inner="dist",
        folder="onnxruntime",
        option="--onnx-engine",
        files={
            "ort-wasm-simd-threaded.wasm": "d1ab1b94b16a65b29d710d0b587b29e7bed336827577623913479b8afe8113e6",
        },
        first_visit=("ort-wasm-simd-threaded.wasm",),
    ),
}


def engine_files(engine: Engine, folder: Path | None, say: Callable[[str], None]) -> dict[str, bytes]:
    """Return the files of an engine by name, after checking their SHA-256.

    Args:
        engine: One of `ENGINES`.
        folder: The unpacked npm package; None for the cache, which npm fills once.
        say: Receives progress messages.

    Raises:
        UsageError: The folder is not the package.
        HashMismatch: A file differs from the one of this version.
        MissingExtra: The cache is empty, and npm is not installed or cannot download the package.
    """
    if folder is not None:
        return _read(engine, folder)
    if not all((engine.cache / engine.inner / name).is_file() for name in engine.files):
        say(f"downloading {engine.package} {engine.version} with npm to {engine.cache}")
        _fetch(engine)
    return _read(engine, engine.cache)


def _read(engine: Engine, folder: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for name, digest in engine.files.items():
        place = folder / engine.inner / name
        try:
            files[name] = place.read_bytes()
        except OSError as error:
            raise UsageError(
                f"this is not the npm package of {engine.title}",
                where=place,
                found=error.strerror,
                hint=f"npm pack {engine.package}@{engine.version}, and unpack it: {engine.option} package",
            ) from None
        if (found := hashlib.sha256(files[name]).hexdigest()) != digest:
            raise HashMismatch(
                f"a file is not the one of {engine.package} {engine.version}", where=place, expected=digest, found=found
            )
    return files


def _fetch(engine: Engine) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise MissingExtra(
            f"{engine.title} is not downloaded yet, and npm is not installed",
            hint=f"install npm; or download {engine.package} {engine.version} elsewhere, unpack it, and give its folder with "
            f"{engine.option}",
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{engine.package}@{engine.version}", "--silent", "--pack-destination", folder]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=NPM_SECONDS, check=False, cwd=folder)
        except subprocess.TimeoutExpired:
            raise MissingExtra("npm took too long", where=" ".join(command), expected=f"{NPM_SECONDS} s") from None
        archives = sorted(Path(folder).glob("*.tgz"))
        if done.returncode or not archives:
            raise MissingExtra(
                f"npm cannot download {engine.title}",
                where=f"{engine.package}@{engine.version}",
                found=done.stderr.strip()[-300:],
                hint=f"download it elsewhere, unpack it, and give its folder with {engine.option}",
            )
        with tarfile.open(archives[0]) as archive:
            for name in engine.files:
                member = archive.extractfile(f"package/{engine.inner}/{name}")
                assert member is not None
                write_bytes(engine.cache / engine.inner / name, member.read())
