"""From Java sources to classes.dex, for a dexer that knows Java 7: compile, lower, backport, dex."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import stubs
from compile_java import compile_core_classes, compile_folder
from compile_native import jdk_home
from machine import ANDROID_DEMO, ASM, class_path, run

APP = ANDROID_DEMO / "app/src/main/java"
SHIM_ENGINE = ANDROID_DEMO / "app/src/shim/java"
LITERT_ENGINE = ANDROID_DEMO / "app/src/litert/java"
_OFFLINE = ANDROID_DEMO / "offline"
_PROGUARD = (
    "-target",
    "1.7",
    "-dontshrink",
    "-dontoptimize",
    "-dontobfuscate",
    "-dontwarn",
    "-dontnote",
    "-dontpreverify",
)
_JAVA_8 = b"\x00\x34"  # version of class files


@dataclass(frozen=True)
class Dexed:
    """What was made of the sources.

    Args:
        dex: classes.dex.
        lowered: The classes that it was made of, as a jar.
        platform: Jars of the stubs and of Java 8.
        members: Every member of Android that the stubs name.
    """

    dex: Path
    lowered: Path
    platform: tuple[Path, ...]
    members: tuple[stubs.Member, ...]


def make_dex(generated: Path, out: Path) -> Dexed:
    """Compile the core and the app, with the shim's engine, and dex them. The LiteRT engine is compiled too, and left out.

    Args:
        generated: The folder of R.java.
        out: An empty folder.
    """
    members = stubs.write_stubs(stubs.FOLDER / "android.txt", out / "android-stubs")
    android = compile_folder([out / "android-stubs"], out / "android-classes")
    core = compile_core_classes(out / "core")
    app = compile_folder([APP, SHIM_ENGINE, generated], out / "app", core, android)
    _compile_litert_engine(out, core, app, android)
    java_8 = write_java_8(out / "java8.jar")
    lowered = lower((core, app), java_8, out)
    dex = out / "classes.dex"
    run(["java", "-cp", _dexer(), "com.android.dx.command.Main", "--dex", f"--output={dex}", lowered])
    android_jar = _write_jar(android, out / "android.jar")
    return Dexed(dex, lowered, (android_jar, java_8), tuple(members))


def lower(classes: tuple[Path, ...], java_8: Path, out: Path, machine_kind: str = "dex") -> Path:
    """Lower folders of classes of Java 17 to Java 7; a jar of them.

    Args:
        classes: The folders.
        java_8: The platform, for ProGuard.
        out: A folder.
        machine_kind: `dex`, or `jvm` for classes that a JVM is to run.
    """
    first, lowered = out / f"lowered-{machine_kind}", out / f"lowered-{machine_kind}.jar"
    for folder in classes:
        run(["java", "-cp", class_path(*ASM), _OFFLINE / "Lower.java", folder, first, machine_kind])
    run(["proguard", "-injars", first, "-outjars", lowered, "-libraryjars", java_8, *_PROGUARD, "-keepattributes", "*"])
    return lowered


def references(dexed: Dexed) -> list[tuple[str, str]]:
    """What the dexed classes use of the platform: (class and member, the class that uses it)."""
    command: list[object] = [
        "java",
        "-cp",
        class_path(*ASM),
        _OFFLINE / "References.java",
        dexed.lowered,
        *dexed.platform,
    ]
    lines = run(command).splitlines()
    return [(member, user) for member, _, user in (line.partition("\t") for line in lines)]


def _compile_litert_engine(out: Path, *libraries: Path) -> None:
    stubs.write_stubs(stubs.FOLDER / "litert.txt", out / "litert-stubs")
    litert = compile_folder([out / "litert-stubs"], out / "litert-classes")
    compile_folder([LITERT_ENGINE], out / "litert-engine", *libraries, litert)


def _dexer() -> Path:
    from machine import parts_folder

    parts = parts_folder()
    assert parts is not None, "the caller has looked"
    return parts / "dx.jar"


def write_java_8(out: Path) -> Path:
    """A jar of the classes of java.base as they were in Java 8, from the JDK's own signatures."""
    with zipfile.ZipFile(jdk_home() / "lib" / "ct.sym") as signatures, zipfile.ZipFile(out, "w") as jar:
        for name in sorted(signatures.namelist()):
            releases, _, rest = name.partition("/")
            if "8" in releases and rest.startswith("java.base/java/") and rest.endswith(".sig"):
                content = signatures.read(name)
                place = rest.removeprefix("java.base/").removesuffix(".sig") + ".class"
                jar.writestr(place, content[:6] + _JAVA_8 + content[8:])
    return out


def _write_jar(classes: Path, out: Path) -> Path:
    with zipfile.ZipFile(out, "w") as jar:
        for file in sorted(classes.rglob("*.class")):
            jar.write(file, file.relative_to(classes))
    return out
