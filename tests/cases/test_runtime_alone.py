"""The runtime by itself on a small device: old Pythons, NumPy 2, ASCII, unsure captions."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import capprune_runtime
from capprune_runtime.archive import archive_bytes
from cases import run, unsure_photo

PACKAGE = Path(capprune_runtime.__file__).parent
FIRST = ("__init__.py", "__main__.py")  # what an old Python reads before it knows that it is too old


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "capprune_runtime.pyz"
    path.write_bytes(archive_bytes())
    return path


@pytest.mark.parametrize("version", [(3, 4), (3, 6), (3, 9)])
def test_the_first_files_parse_on_old_pythons(archive: Path, version: tuple[int, int]) -> None:
    with zipfile.ZipFile(archive) as files:
        sources = [files.read("__main__.py").decode()] + [(PACKAGE / name).read_text() for name in FIRST]
    for source in sources:
        source.encode("ascii")  # Python 2 takes no others without a declaration
        tree = ast.parse(source, feature_version=version)
        kinds = {type(node) for node in ast.walk(tree)}
        assert not kinds & {ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.AsyncFunctionDef, ast.Nonlocal}
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):  # annotations, * and keyword-only arguments are of Python 3
                assert node.returns is None and not any(one.annotation for one in node.args.args)
                assert not node.args.kwonlyargs and not node.args.posonlyargs
            if isinstance(node, ast.Name):
                assert node.id != "print"


OLD = """
import sys
class Version(tuple):
    pass
sys.version_info = Version((3, 9, 2, "final", 0))
import runpy
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("command", [["doctor"], ["caption", "BUNDLE", "PHOTO"], ["doctor", "--json"]])
def test_an_old_python_is_named_by_every_command(archive: Path, command: list[str]) -> None:
    code = OLD.format(argv=[str(archive), *command])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "Python 3.11 or later" in done.stderr and "3.9.2" in done.stderr
    assert ("--json" in command) == bool(done.stdout) and (not done.stdout or json.loads(done.stdout)["exit_code"] == 2)


def old_pythons() -> list[str]:
    """Old Pythons on this machine, where pyenv or the system keeps them."""
    names = ("python2.7", "python3.6", "python3.7", "python3.8", "python3.9", "python3.10")
    found = [path for name in names for path in (Path.home() / ".pyenv" / "versions").glob(f"*/bin/{name}")]
    return sorted({*map(str, found), *(path for name in names if (path := shutil.which(name)) and "shims" not in path)})


@pytest.mark.parametrize("python", old_pythons() or ["none"])
@pytest.mark.parametrize("way", ["archive", "module"])
def test_old_pythons_themselves_name_the_reason(archive: Path, python: str, way: str) -> None:
    if python == "none":
        pytest.skip("there is no old Python on this machine")
    given = [str(archive)] if way == "archive" else ["-m", "capprune_runtime"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGE.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([python, *given, "doctor"], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2 and "Python 3.11 or later" in done.stderr and "Traceback" not in done.stderr


NEW_NUMPY = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("ai_edge_litert", "tensorflow") else found(name, *rest)
import numpy
numpy.__version__ = "2.4.0"
from capprune_runtime.command import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", ["doctor", "caption"])
def test_tflite_runtime_with_numpy_2_is_named(command: str, photo: Path, ready: Path) -> None:
    pytest.importorskip("tflite_runtime")
    arguments = {"doctor": [], "caption": [str(ready), str(photo)]}[command]
    done = subprocess.run(
        [sys.executable, "-c", NEW_NUMPY, command, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "needs numpy below 2, and this is 2.4.0" in done.stdout + done.stderr
    assert command == "doctor" or "pip install 'numpy<2'" in done.stderr


@pytest.mark.parametrize("limit", ["0", "-3", "many"])
def test_a_limit_of_no_photos_is_a_wrong_usage(limit: str, album: Path, ready: Path) -> None:
    done = run("run", ready, album, "--limit", limit, program="capprune_runtime")
    assert done.code == 2 and "--limit" in done.err


def test_unsure_captions_are_marked_as_capprune_caption_marks_them(photo: Path, ready: Path) -> None:
    flat = photo.with_name("flat.png")
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(flat)
    unsure = Path(shutil.copyfile(unsure_photo(), photo.with_name("unsure.jpg")))
    said = run("caption", flat, photo, unsure).out
    assert run("caption", ready, flat, photo, unsure, program="capprune_runtime").out == said
    assert "(not sure)" in said and "flat.png\tthis does not look like a photo that I know" in said
    both = [json.loads(run("caption", *first, flat, "--json", program=program).out)["captions"][0]
            for program, first in (("capprune", ()), ("capprune_runtime", (ready,)))]  # fmt: skip
    for key in ("caption", "tokens", "low_confidence", "mean_log_probability", "confidence", "familiar"):
        assert both[0][key] == both[1][key], key
    marked = run("run", ready, photo.parent, program="capprune_runtime").out
    assert sorted(line.partition("\t")[2] for line in marked.splitlines()) == sorted(
        line.partition("\t")[2] for line in said.splitlines()
    )


def test_the_archive_captions(archive: Path, photo: Path, ready: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(archive), "caption", str(ready), str(photo)],
        capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout == run("caption", photo).out
