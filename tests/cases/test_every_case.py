"""Every folder of the handed-over cases behaves as its case.txt expects; a folder without a check here fails."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from base_install import in_base
from PIL import Image
from test_memory_cases import peak_mb

from capprune.data.captions import load_caption_set
from capprune.data.scenes import draw_scenes
from capprune.data.vocabulary import build_vocabulary
from capprune_runtime.archive import archive_bytes
from capprune_runtime.bundle.vocabulary import read_vocabulary
from cases import COPIES, HANDED_OVER, Done, run, unsure_photo

RUNTIME = "capprune_runtime"
CONFIG = """
data: {folder: FOLDER, minimum_count: 1}
encoder: {size: 32}
decoder: {embedding: 8, hidden: 8, attention: 8, context: 8}
training: {epochs: 1, photos_per_batch: 10, validation_photos: 8}
"""


@dataclass(frozen=True)
class Case:
    """What a check works with.

    Attributes:
        inputs: The case's folder.
        new: A folder to write into.
        ready: The package's own bundle.
        photo: A drawn photo.
        site: The packages of the base install.
    """

    inputs: Path
    new: Path
    ready: Path
    photo: Path
    site: Path

    def data_check(self, name: str, *options: object) -> Done:
        """Check a data folder of the case, in a locale of ASCII."""
        command = ("data", "check", self.inputs / name, "--cache", self.new / "cache", *options)
        return run(*command, LC_ALL="C", PYTHONUTF8="0")

    def scenes(self, **counts: int) -> Path:
        """Draw a small data set."""
        draw_scenes(self.new / "scenes", count=counts or {"train": 8, "val": 2, "test": 2}, seed=1, size=32)
        return self.new / "scenes"

    def copied(self, name: str = "") -> Path:
        """Copy inputs to where they may be changed."""
        place = self.new / "copied" / name
        shutil.copytree(self.inputs / name, place)
        return place


def shell(script: str, *values: object) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `capprune` and `runtime` are the commands and $1, $2 the values."""
    head = f'capprune() {{ {sys.executable} -m capprune "$@"; }}; runtime() {{ {sys.executable} -m {RUNTIME} "$@"; }}; '
    command = ["bash", "-c", head + script, "bash", *map(str, values)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr and "this is a defect" not in done.stderr, done.stderr
    return done


def markup_of_extras(case: Case) -> None:
    out = in_base(case.site, "doctor").out
    assert all(f"pip install 'capprune[{extra}]'" in out for extra in ("train", "tflite", "onnx"))


def markup_in_names(case: Case) -> None:
    done = case.data_check("karp")
    assert done.code == 0 and "my[/b]set" in done.out


def base_install(case: Case) -> None:
    for command in (("train", case.inputs / "tiny.yaml", "--out", case.new / "r"), ("demo", "--out", case.new / "r"),
                    ("export", case.new, "--out", case.new / "r"),
                    ("sweep", case.inputs / "tiny.yaml", "--grid", "training.seed=1", "--out", case.new / "r")):  # fmt: skip
        done = in_base(case.site, *command)
        assert done.code == 2 and "pip install 'capprune[train" in done.err and not (case.new / "r").exists()


def limits_without_reference(case: Case) -> None:
    data = case.scenes()
    for option in (("--max-drop", "2%"), ("--also", "nothing")):
        done = run("validate", case.ready, "--data", data, "--limit", 2, *option)
        assert done.code == 2 and done.out == "" and f"{option[0]}" in done.err and "--reference" in done.err


def out_is_a_mount_point(case: Case) -> None:
    place = case.new / "mp"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "capprune", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount")
    try:
        assert run("unpack", case.ready, "--out", place).code == 0 and (place / "manifest.json").is_file()
        assert run("data", "scenes", "--out", place, "--train", 1).code == 2  # full by now
    finally:
        subprocess.run(["umount", str(place)], check=True)


def words_of_other_scripts(case: Case) -> None:
    config = case.new / "german.yaml"
    config.write_text(CONFIG.replace("FOLDER", str(case.inputs / "german")))
    done = run("train", config, "--out", case.new / "run", "--cache", case.new / "cache")
    assert done.code == 0, done.err
    words = set(read_vocabulary(case.new / "run" / "vocabulary.txt").tokens)
    assert {"mädchen", "läuft", "über", "größer"} <= words and not words & {"dchen", "m", "ber"}
    texts = [text for photo in load_caption_set(case.inputs / "chinese_mixed").photos for text in photo.captions]
    assert {"red", "个", "恤"} <= set(build_vocabulary(texts, minimum_count=1).tokens)


def every_layout(case: Case) -> None:
    folders = sorted(path.name for path in case.inputs.iterdir() if path.is_dir())
    assert len(folders) >= 11
    for name in folders:
        done = case.data_check(name, "--json")
        assert done.code == 0, (name, done.err)
        document = json.loads(done.out)
        assert document["ready"] and document["missing"] == document["broken"] == []
        photos = 32 if name == "coco_official" else 40
        assert sum(split["photos"] for split in document["splits"]) == photos
        one_a_photo = name.startswith(("hf_", "webdataset"))
        assert sum(split["captions"] for split in document["splits"]) == (1 if one_a_photo else 5) * photos


def name_that_is_no_utf8(case: Case) -> None:
    photos = case.copied("photos")
    one = next(photos.iterdir())
    Path(os.fsdecode(os.fsencode(photos) + b"/latin1-\xe9.jpg")).write_bytes(one.read_bytes())
    for out in (case.new / "t.csv", case.new / "t.json"):
        assert run("caption", photos, "--out", out).code == 0
        assert r"latin1-\xe9.jpg" in out.read_text("utf-8").replace(r"\\", "\\")
    assert run("run", case.ready, photos, program=RUNTIME).code == 0


def stdout_is_full(case: Case) -> None:
    for command in ('capprune caption "$1" --json', 'runtime caption "$2" "$1"'):
        done = shell(f"{command} >/dev/full", case.inputs / "UPPER.JPG", case.ready)
        assert done.returncode == 1 and "the disk is full" in done.stderr


def reader_goes_away(case: Case) -> None:
    album, out = case.new / "album", case.new / "t.csv"
    album.mkdir()
    for number in range(3):
        shutil.copy(case.inputs / "UPPER.JPG", album / f"{number}.JPG")
    done = shell('capprune caption "$1" --out "$2" | head -1; exit ${PIPESTATUS[0]}', album, out)
    assert done.returncode in (0, 141) and out.read_text().count("JPG") >= 3


def explanation_has_no_place(case: Case) -> None:
    photo = case.inputs / "UPPER.JPG"
    table = case.new / ("x" * 300 + ".csv")
    for options in (("--explain", "/proc/capprune/e"), ("--out", table), ("--explain", "y" * 300)):
        assert run("caption", photo, *options).code == 2


def little_memory(case: Case) -> None:
    for limit in (100_000, 160_000, 180_000, 210_000):
        done = run("caption", case.inputs / "UPPER.JPG", limit_kib=limit)
        assert done.code in (0, 1)
        assert ("not enough memory" in done.err or "memory limit of this process" in done.err) == (done.code == 1)


def small_photo_in_little_memory(case: Case) -> None:
    done = run("caption", case.inputs / "chelsea.jpg", limit_kib=400_000)
    assert done.code == 0 and done.out.strip()


def one_big_photo(case: Case) -> None:
    done = run("caption", case.inputs / "memf", "--out", case.new / "t.csv", limit_kib=1_100_000)
    assert done.code == 0 and (case.new / "t.csv").read_text().count("\n") == 4
    done = run("caption", case.inputs / "memf", "--out", case.new / "u.csv", limit_kib=250_000)
    assert done.code == 1 and "b.png" in done.err and (case.new / "u.csv").is_file() and done.out.count("\n") == 2


def old_python(case: Case) -> None:
    path = case.new / "capprune_runtime.pyz"
    path.write_bytes(archive_bytes())
    with zipfile.ZipFile(path) as files:
        ast.parse(files.read("__main__.py"), feature_version=(3, 4))
    code = (
        "import sys, runpy; sys.version_info = (3, 9, 2, 'final', 0); sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    for command in (["doctor"], ["caption", str(case.ready), str(case.photo)]):
        done = subprocess.run(
            [sys.executable, "-c", code, str(path), *command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2 and "Python 3.11 or later" in done.stderr and "Traceback" not in done.stderr


def numpy_2_with_tflite_runtime(case: Case) -> None:
    pytest.importorskip("tflite_runtime")
    code = (
        "import importlib.util, sys; found = importlib.util.find_spec; importlib.util.find_spec = lambda name, *rest: "
        "None if name in ('ai_edge_litert', 'tensorflow') else found(name, *rest); import numpy; "
        "numpy.__version__ = '2.4.0'; from capprune_runtime.command import main; sys.exit(main(sys.argv[1:]))"
    )
    for command in (["doctor"], ["caption", str(case.ready), str(case.photo)]):
        done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "needs numpy below 2" in done.stdout + done.stderr


def limit_of_nothing(case: Case) -> None:
    for limit in ("0", "-3"):
        done = run("run", case.ready, case.photo.parent, "--limit", limit, program=RUNTIME)
        assert done.code == 2 and "--limit" in done.err


def ascii_stdout(case: Case) -> None:
    other = case.photo.with_name("ü.jpg")
    other.write_bytes(case.photo.read_bytes())
    done = run("caption", case.ready, other, case.photo, program=RUNTIME, PYTHONIOENCODING="ascii")
    assert done.code == 0 and done.out.count("\n") == 2 and r"\xfc.jpg" in done.out


def broken_photos_in_data(case: Case) -> None:
    done = case.data_check("badphotos")
    assert done.code == 4 and sum(line.startswith("cannot be decoded: ") for line in done.out.splitlines()) == 4
    assert "not ready to train: 4 photos" in done.out and "--drop-broken" in done.out.splitlines()[-1]


def tilde(case: Case) -> None:
    config = case.inputs / "tiny.yaml"
    done = run("train", config, "data.folder=~/none", f"--out={case.new / 'r'}", HOME=str(case.new))
    assert done.code == 2 and f"{case.new}/none" in done.err
    assert run("data", "scenes", "--out=~/x", "--train", 1, "--val", 1, "--test", 1, HOME=str(case.new)).code == 0
    done = run("data", "check", "~/x", "--cache=~/c", HOME=str(case.new))
    assert done.code == 0 and (case.new / "x").is_dir() and (case.new / "c").is_dir() and not Path("~").exists()


def photo_without_captions(case: Case) -> None:
    done = case.data_check("coco_uncaptioned")
    assert done.code == 0 and "photos without captions: 1 (p/scene-00002.png)" in done.out


def cut_at_its_end(case: Case) -> None:
    done = run("caption", case.inputs / "trunc_last2.jpg", "--json")
    (row,) = json.loads(done.out)["captions"]
    assert done.code == 0 and row["caption"] and "lacks its end" in row["warning"] and "warning:" in done.err


def phone_photo(case: Case) -> None:
    assert peak_mb(case.inputs / "108mp.jpg") <= 350


def heic(case: Case) -> None:
    for name in ("photo.heic", "heic_named.jpg"):
        done = run("caption", case.inputs / name)
        assert done.code == 4 and "a HEIC photo" in done.err and "heif-convert" in done.err


def missing_among_others(case: Case) -> None:
    done = run("caption", case.photo, "nope.jpg", case.photo)
    assert done.code == 2 and done.out.count("\n") == 2 and "nope.jpg" in done.err


def out_is_checked_first(case: Case) -> None:
    bad = "/proc/capprune/out"
    for command in (("export", case.new), ("train", case.photo), ("caption", case.photo)):
        done = run(*command, "--out", f"{bad}.csv" if command[0] == "caption" else bad)
        assert done.code == 2 and "cannot be written to" in done.err and done.out == ""


def interrupted(case: Case) -> None:
    out = case.new / "t.csv"
    command = [sys.executable, "-m", "capprune", "caption", *[str(case.photo)] * 200, "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert "; resume with: capprune caption " in process.stderr.read()
    assert process.returncode == 130 and out.read_text().count("\n") >= 4


def url_and_pipe(case: Case) -> None:
    done = run("caption", "https://x/y.jpg")
    assert done.code == 2 and "URLs are not supported" in done.err and "https://x/y.jpg" in done.err
    said = run("caption", case.photo).out
    assert run("caption", "/dev/stdin", stdin=case.photo.read_bytes()).out == said


def usage_with_json(case: Case) -> None:
    done = run("caption", "--bogus", "--json")
    assert done.code == 2 and json.loads(done.out)["exit_code"] == 2


def symlink_as_out(case: Case) -> None:
    real, link = case.new / "real.csv", case.new / "l.csv"
    real.write_text("old")
    link.symlink_to(real)
    assert run("caption", case.photo, "--out", link).code == 0
    assert link.is_symlink() and real.read_text().startswith("photo,caption")


def not_sure(case: Case) -> None:
    noise = case.new / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(noise)
    unsure = unsure_photo()
    for photo, mark in ((noise, "this does not look like a photo that I know"), (unsure, "(not sure)")):
        said = run("caption", photo).out
        assert mark in said and run("caption", case.ready, photo, program=RUNTIME).out == said
        document = json.loads(run("caption", case.ready, photo, "--json", program=RUNTIME).out)
        assert document["captions"][0]["low_confidence"] is True
        assert document["captions"][0]["familiar"] is (photo == unsure)


def current_folder_is_gone(case: Case) -> None:
    config = case.new / "tiny.yaml"
    config.write_text(CONFIG)
    done = shell('mkdir "$1/f" && cd "$1/f" && rmdir "$1/f" && capprune train "$2" --out "$1/r"', case.new, config)
    assert done.returncode == 2 and "the current folder no longer exists" in done.stderr


def cache_has_no_place(case: Case) -> None:
    config = case.new / "tiny.yaml"
    config.write_text(CONFIG.replace("FOLDER", str(case.scenes())))
    environment = {"HOME": "/proc/capprune", "XDG_CACHE_HOME": "", "CAPPRUNE_CACHE": ""}
    done = run("train", config, "--out", case.new / "r", **environment)
    assert done.code == 2 and "--cache" in done.err and "CAPPRUNE_CACHE" in done.err


def broken_pipe(case: Case) -> None:
    assert shell("capprune doctor | head -1; exit ${PIPESTATUS[0]}").returncode in (0, 141)
    assert shell("capprune caption --bogus 2>/dev/full").returncode == 2


def early_interrupt(case: Case) -> None:
    for delay in (0.1, 0.2, 0.4, 0.8, 1.6):
        command = [sys.executable, "-m", "capprune", "caption", *[str(case.photo)] * 300]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            err = process.stderr.read()
        if "interrupted" in err:  # else Python itself had not started yet
            assert "Traceback" not in err and process.returncode in (130, -signal.SIGINT), err
            return
    pytest.fail(err)


CHECKS: dict[str, Callable[[Case], None]] = {
    "f01-doctor-markup": markup_of_extras,
    "f02-markup-crash": markup_in_names,
    "f03-base-install-extras": base_install,
    "f04-max-drop-no-reference": limits_without_reference,
    "f05-out-mount-point": out_is_a_mount_point,
    "f06-non-ascii-words": words_of_other_scripts,
    "f07-layouts": every_layout,
    "f11-non-utf8-name": name_that_is_no_utf8,
    "f14-stdout-full": stdout_is_full,
    "f15-pipe-head-loses-table": reader_goes_away,
    "f16-explain-unwritable": explanation_has_no_place,
    "f17-memory-codes": little_memory,
    "f18-256MiB-read": small_photo_in_little_memory,
    "f19-one-big-photo-ends-folder": one_big_photo,
    "f20-runtime-old-python": old_python,
    "f21-numpy2-tflite-runtime": numpy_2_with_tflite_runtime,
    "f22-runtime-limit": limit_of_nothing,
    "f23-runtime-ascii-stdout": ascii_stdout,
    "w01-bad-photos-in-data": broken_photos_in_data,
    "w02-tilde": tilde,
    "w04-coco-uncaptioned": photo_without_captions,
    "w06-truncated-2-bytes": cut_at_its_end,
    "w07-108mp": phone_photo,
    "w08-heic-message": heic,
    "w09-missing-among-others": missing_among_others,
    "w10-late-out-check": out_is_checked_first,
    "w11-interrupted-caption": interrupted,
    "w12-url-and-pipe": url_and_pipe,
    "w13-usage-json": usage_with_json,
    "w15-symlink-out": symlink_as_out,
    "w16-runtime-not-sure": not_sure,
    "w17-cwd-gone": current_folder_is_gone,
    "w18-cache-hint": cache_has_no_place,
    "w19-broken-pipe-code": broken_pipe,
    "w20-early-ctrl-c": early_interrupt,
}


def names_in(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("*/case.txt"))


@pytest.mark.parametrize("name", names_in(HANDED_OVER))
def test_a_case_behaves_as_it_expects(name: str, ready: Path, photo: Path, base_install: Path, tmp_path: Path) -> None:
    assert name in CHECKS, f"no check holds what {HANDED_OVER / name / 'case.txt'} expects"
    (tmp_path / "new").mkdir()
    CHECKS[name](Case(HANDED_OVER / name, tmp_path / "new", ready, photo, base_install))


def test_the_copies_are_the_small_cases_as_they_were_handed_over() -> None:
    assert len(names_in(COPIES)) >= 28 and set(names_in(COPIES)) <= set(CHECKS)
    for copy in COPIES.rglob("*"):
        original = HANDED_OVER / copy.relative_to(COPIES)
        if copy.is_file() and original.is_file():
            assert copy.read_bytes() == original.read_bytes()
