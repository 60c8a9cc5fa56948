"""The app's core on a desktop JVM: the classes of the APK, its shim, and the real TFLite library of this machine."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).parents[2] / "android_demo" / "offline"))

sys.path.append(str(Path(__file__).parents[1] / "worlds"))

import compile_java
import compile_native
import machine
from made_once import folder_once


def core_classes() -> tuple[Path, Path]:
    """The folders of the classes of `:core` and of its tests."""
    folder = folder_once("core-classes", compile_java.compile_core)
    return folder / "core", folder / "core-tests"


@dataclass(frozen=True)
class DesktopJvm:
    """Compiled classes of `:core`, of its tests, and the shim for this machine.

    Args:
        parts: The folder of the fetched parts.
        core: Classes of `:core`.
        tests: Classes of its tests.
        shim: The folder of the shim.
    """

    parts: Path
    core: Path
    tests: Path
    shim: Path

    @classmethod
    def build(cls, parts: Path) -> DesktopJvm:
        shim = folder_once("desktop-shim", lambda out: compile_native.compile_desktop(parts, out))
        return cls(parts, *core_classes(), shim)

    def captions(
        self, bundle: Path, photos: Iterable[tuple[str, NDArray[np.uint8], int]], folder: Path, threads: int = 1
    ) -> list[dict[str, Any]]:
        """What the app's core says of decoded photos.

        Args:
            bundle: A folder or a packed bundle.
            photos: (name, (H, W, 3) uint8 RGB, beam).
            folder: An empty folder for the photos.
            threads: Of the interpreter.
        """
        index = []
        for name, rgb, beam in photos:
            (folder / name).write_bytes(rgb.tobytes())
            index.append({"file": name, "width": rgb.shape[1], "height": rgb.shape[0], "beam": beam})
        (folder / "index.json").write_text(json.dumps(index))
        self._java("caption.DesktopCaptions", bundle, folder, folder / "said.json", threads)
        said: list[dict[str, Any]] = json.loads((folder / "said.json").read_text())["captions"]
        return said

    def run_photos(self, bundle: Path, photos: Path, results: Path, beam: int = 0, stop_after: int = 1 << 30) -> None:
        """Do what the app does when the runner asks it: caption a folder of PNG photos and write the results document."""
        self._java("measure.DesktopRun", bundle, photos, results, beam, stop_after)

    def runner_command(self) -> str:
        """The command that does what `run_photos` does, for a stand-in of the phone: BUNDLE PHOTOS RESULTS BEAM STOP_AFTER."""
        variables = [f"{name}={value}" for name, value in self._library.items()]
        return shlex.join(["env", *variables, *self._command("measure.DesktopRun")])

    @property
    def _library(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self.parts / machine.DESKTOP)}

    def _command(self, program: str) -> list[str]:
        classes = machine.class_path(self.core, self.tests, *machine.JUNIT)
        return ["java", f"-Djava.library.path={self.shim}", "-cp", classes, f"org.capprune.core.{program}"]

    def _java(self, program: str, *arguments: object) -> None:
        machine.run([*self._command(program), *arguments], environment=self._library)
