"""Compile the shim over the TfLite C API: for this machine with gcc, for Android with clang and lld, without an NDK."""

from __future__ import annotations

import shutil
from pathlib import Path

from machine import ANDROID_DEMO, DESKTOP, RUNTIME, run

SOURCE = ANDROID_DEMO / "core/src/main/c/capprune_tflite.c"
SHIM = "libcapprune_tflite.so"
PAGE_BYTES = 16_384  # of Android 15 and later
_TARGETS = {"arm64-v8a": "aarch64-linux-android24", "x86_64": "x86_64-linux-android24"}
_WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter")


def jdk_home() -> Path:
    """The folder of the JDK."""
    javac = shutil.which("javac")
    assert javac is not None, "missing_packages() comes first"
    return Path(javac).resolve().parents[1]


def jdk_headers() -> tuple[Path, Path]:
    """The folders of jni.h and jni_md.h."""
    include = jdk_home() / "include"
    return include, include / "linux"


def compile_desktop(parts: Path, out: Path) -> Path:
    """The shim for this machine, in a folder of its own, which is returned."""
    out.mkdir(parents=True, exist_ok=True)
    headers = [f"-I{folder}" for folder in jdk_headers()]
    library = parts / DESKTOP
    run(
        [
            "gcc",
            "-O2",
            "-shared",
            "-fPIC",
            *_WARNINGS,
            *headers,
            SOURCE,
            "-o",
            out / SHIM,
            f"-L{library}",
            f"-l:{RUNTIME}",
        ]
    )
    return out


def compile_android(abi: str, parts: Path, out: Path) -> Path:
    """The shim for one kind of Android device; the library that was made.

    jni.h asks for stdio.h and stdarg.h: an empty one, and the compiler's own. No C library is there, and none is used.
    """
    empty = out / "empty-headers"
    empty.mkdir(parents=True, exist_ok=True)
    (empty / "stdio.h").write_text("")
    resources = run(["clang", "-print-resource-dir"]).strip()
    headers = [f"-I{folder}" for folder in (empty, *jdk_headers())]
    target = f"--target={_TARGETS[abi]}"
    code, library = out / f"{abi}.o", out / abi / SHIM
    library.parent.mkdir(exist_ok=True)
    freestanding = ["-ffreestanding", "-nostdlib", "-nostdinc", "-fno-stack-protector", "-O2", "-fPIC"]
    # A name without a path, or the file would hold where it was compiled.
    run(
        [
            "clang",
            target,
            *freestanding,
            *_WARNINGS,
            *headers,
            "-isystem",
            f"{resources}/include",
            "-c",
            SOURCE,
            "-o",
            code,
        ]
    )
    run([
        "ld.lld", "-shared", "-z", f"max-page-size={PAGE_BYTES}", "-z", "defs", "--hash-style=both", "--build-id=none",
        "--strip-all", "--allow-shlib-undefined", "-soname", SHIM, code, f"-L{parts / abi}", f"-l:{RUNTIME}", "-o", library,
    ])  # fmt: skip
    return library
