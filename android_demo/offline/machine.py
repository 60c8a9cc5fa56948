"""What of this machine builds and runs the app without Google's Maven: Debian's packages and two fetched parts.

The fetched parts lie in one folder, which `CAPPRUNE_ANDROID_PARTS` names and `fetch_parts.py` fills:

    arm64-v8a/liblitert-lm.so    the TfLite C API for phones
    x86_64/liblitert-lm.so       for emulators
    linux/liblitert-lm.so        for this machine
    dx.jar                       the dexer
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ANDROID_DEMO = Path(__file__).resolve().parents[1]
PARTS_VARIABLE = "CAPPRUNE_ANDROID_PARTS"
RUNTIME = "liblitert-lm.so"
ABIS = ("arm64-v8a", "x86_64")
DESKTOP = "linux"

_JARS = Path("/usr/share/java")
JUNIT = (_JARS / "junit4.jar", _JARS / "hamcrest.jar")
ASM = (_JARS / "asm.jar", _JARS / "asm-tree.jar")
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")

# Commands and files by the Debian package that brings them.
_COMMANDS = {
    "javac": "openjdk-17-jdk-headless",
    "gcc": "gcc",
    "clang": "clang",
    "ld.lld": "lld",
    "aapt": "aapt",
    "apksigner": "apksigner",
    "proguard": "proguard-cli",
    "dexdump": "dexdump",
}
_FILES = {
    **dict.fromkeys(JUNIT, "junit4"),
    **dict.fromkeys(ASM, "libasm-java"),
    FRAMEWORK: "android-framework-res",
}


class BuildFailed(Exception):
    """A step of the build that failed; the text is what its tool said."""


def missing_packages(*, junit_only: bool = False) -> list[str]:
    """The Debian packages that this machine lacks, sorted: for all of the build, or to compile the core and run JUnit."""
    commands = {package for command, package in _COMMANDS.items() if shutil.which(command) is None}
    missing = commands | {package for file, package in _FILES.items() if not file.exists()}
    return sorted(missing & {_COMMANDS["javac"], "junit4"} if junit_only else missing)


def parts_folder() -> Path | None:
    """The folder of the fetched parts, where the environment names one that is whole."""
    named = os.environ.get(PARTS_VARIABLE)
    if not named:
        return None
    folder = Path(named)
    return folder if all((folder / name).is_file() for name in part_names()) else None


def part_names() -> tuple[str, ...]:
    """The files of the folder of fetched parts."""
    return (*(f"{place}/{RUNTIME}" for place in (*ABIS, DESKTOP)), "dx.jar")


def run(command: list[object], *, cwd: Path | None = None, environment: dict[str, str] | None = None) -> str:
    """Run a tool and return what it printed.

    Raises:
        BuildFailed: It ended with an error.
    """
    words = [str(word) for word in command]
    env = None if environment is None else {**os.environ, **environment}
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise BuildFailed(f"{' '.join(words[:4])} … ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def class_path(*entries: Path) -> str:
    """Java's form of a list of folders and jars."""
    return os.pathsep.join(map(str, entries))
