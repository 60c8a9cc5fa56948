"""Compile the app's Java, every warning an error."""

from __future__ import annotations

from pathlib import Path

from machine import ANDROID_DEMO, JUNIT, class_path, run

CORE = ANDROID_DEMO / "core/src/main/java"
CORE_RESOURCES = {
    "capprune/tflite/operators.json": ANDROID_DEMO.parent / "runtime_samples/capprune_runtime/tflite/operators.json",
}
CORE_TESTS = ANDROID_DEMO / "core/src/test/java"
# Text is put together without invokedynamic, which the dexer of the offline build does not know.
_STRICT = ("-Xlint:all", "-Werror", "-encoding", "UTF-8", "--release", "17", "-XDstringConcat=inline")


def compile_folder(sources: list[Path], out: Path, *libraries: Path) -> Path:
    """Compile all sources below some folders into a folder of classes, which is returned."""
    files = sorted(file for folder in sources for file in folder.rglob("*.java"))
    out.mkdir(parents=True, exist_ok=True)
    libraries_path = ["-cp", class_path(*libraries)] if libraries else []
    run(["javac", *_STRICT, *libraries_path, "-d", out, *files])
    return out


def compile_core_classes(out: Path) -> Path:
    """Compile `:core` into a folder of its classes and resources, which is returned."""
    for name, source in CORE_RESOURCES.items():
        place = out / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(source.read_bytes())
    return compile_folder([CORE], out)


def compile_core(out: Path) -> tuple[Path, Path]:
    """Compile `:core` and its tests; the folders of their classes."""
    core = compile_core_classes(out / "core")
    return core, compile_folder([CORE_TESTS], out / "core-tests", core, *JUNIT)


def run_junit(core: Path, tests: Path, files: Path, *options: str) -> str:
    """Run every test of `:core` on the files that Python wrote for it; what JUnit said.

    Args:
        core: The folder or jar of the classes.
        tests: The folder of their tests' classes.
        files: What Python wrote.
        options: More for the JVM.
    """
    sources = sorted(CORE_TESTS.rglob("*Test.java"))
    names = [".".join(file.relative_to(CORE_TESTS).with_suffix("").parts) for file in sources]
    classes = class_path(core, tests, *JUNIT)
    return run(["java", *options, f"-Dcapprune.files={files}", "-cp", classes, "org.junit.runner.JUnitCore", *names])
