"""What a user may do wrong, or a terminal may be: never a defect of ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from base_install import ROOT, in_base

from capprune.cli.app import COMMANDS as HELP
from capprune.extras import COMMANDS, PACKAGES, extra_of_module, keys_of
from cases import run


@pytest.mark.parametrize(
    ("arguments", "extras"),
    [
        (("train", "tiny.yaml", "--out", "OUT"), "train"),
        (("demo", "--out", "OUT"), "train,tflite"),
        (("sweep", "tiny.yaml", "--grid", "training.seed=1", "--out", "OUT"), "train,tflite"),
        (("prune", "RUN", "--method", "hard", "--out", "OUT"), "train"),
        (("finetune", "RUN", "--out", "OUT"), "train"),
        (("export", "RUN", "--out", "OUT"), "train,tflite"),
        (("export", "RUN", "--target", "onnx", "--out", "OUT"), "train,onnx"),
        (("validate", "--data", "RUN"), "train"),
        (("inspect", "RUN"), "train"),
        (("report", "RUN"), "train,report"),
        (("length", "RUN", "--data", "RUN", "--out", "OUT"), "train"),
        (("ensemble", "RUN", "--photos", "RUN", "--out", "OUT"), "train"),
        (("label", "RUN", "--teacher", "hf:RUN", "--out", "OUT"), "train,hf"),
        (("import", "RUN", "--out", "OUT"), "train"),
        (("bench", "--baselines", "--run", "RUN"), "train,tflite,onnx"),
        (("serve",), "serve"),
    ],
)
def test_a_missing_extra_is_named_before_any_work(
    base_install: Path, tmp_path: Path, arguments: tuple[str, ...], extras: str
) -> None:
    run_folder, out = tmp_path / "run", tmp_path / "out"
    run_folder.mkdir()
    (run_folder / "config.yaml").write_text("name: x\n")
    given = [{"RUN": run_folder, "OUT": out}.get(one, one) for one in arguments]
    done = in_base(base_install, *given)
    assert done.code == 2 and f"pip install 'capprune[{extras}]'" in done.err
    assert done.out == "" and not out.exists()


def test_the_base_install_captions_and_its_doctor_names_the_extras(
    base_install: Path, photo: Path, ready: Path
) -> None:
    assert in_base(base_install, "caption", photo).code == 0
    done = in_base(base_install, "doctor")
    for extra in ("train", "tflite", "onnx", "report", "photos"):
        assert f"pip install 'capprune[{extra}]'" in done.out
    assert "no   capprune train" in done.out and "yes  capprune caption" in done.out


def test_the_table_of_extras_covers_every_command_and_agrees_with_the_project() -> None:
    assert {key.split()[0] for key in COMMANDS} == set(HELP)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for name, package in PACKAGES.items():
        for extra in (package.extra, *package.also):
            wanted = project["dependencies"] if extra == "base" else extras[extra]
            assert any(one.lower().startswith(name.lower()) for one in wanted), name
    assert keys_of("export", {"target": "onnx", "out": Path("x")}) == ["export", "export --target onnx"]
    assert extra_of_module("yaml") == extra_of_module("torch.nn") == "train" and extra_of_module("nowhere") is None


@pytest.mark.parametrize("name", ["run[int8]", "[b]x[/b]", "my[/b]set", "a[/x]", "[red]x"])
@pytest.mark.slow_but_for("[b]x[/b]")
def test_names_with_brackets_are_printed_as_they_are(name: str, ready: Path, tmp_path: Path) -> None:
    place = tmp_path / name.replace("/", "∕") / name.rpartition("/")[2]
    place.parent.mkdir()
    shutil.copy(ready, place)
    done = run("inspect", place, COLUMNS="200")
    assert done.code == 0 and name.rpartition("/")[2] in "".join(done.out.split("\n"))


@pytest.fixture
def odd_names(photo: Path) -> Path:
    """A folder with a name that is no UTF-8 and one with a control character."""
    for name in (b"latin1-\xe9.jpg", b"bell-\x1b[31m.jpg"):
        Path(os.fsdecode(os.fsencode(photo.parent) + b"/" + name)).write_bytes(photo.read_bytes())
    return photo.parent


@pytest.mark.parametrize("ending", [".csv", ".json"])
def test_names_that_are_no_utf8_are_escaped(odd_names: Path, ready: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"t{ending}"
    done = run("caption", odd_names, "--out", out)
    assert done.code == 0 and r"latin1-\xe9.jpg" in out.read_text("utf-8").replace(r"\\", "\\")
    assert "latin1-" in done.out and "\x1b" not in done.out and done.out.count("\n") == 3


def test_the_runtime_escapes_names_too(odd_names: Path, ready: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    done = run("run", ready, odd_names, "--out", out, program="capprune_runtime")
    assert done.code == 0 and [one["photo"] for one in json.loads(out.read_text("utf-8"))["captions"]][1:] == [
        r"latin1-\xe9.jpg", "photo.jpg"]  # fmt: skip
    assert done.out.count("\n") == 3


@pytest.mark.parametrize("program", ["capprune", "capprune_runtime"])
def test_a_stdout_of_ascii_escapes_names(photo: Path, ready: Path, program: str) -> None:
    other = photo.with_name("ü.jpg")
    other.write_bytes(photo.read_bytes())
    bundle = () if program == "capprune" else (ready,)
    done = run("caption", *bundle, other, photo, program=program, PYTHONIOENCODING="ascii")
    assert done.code == 0 and done.out.count("\n") == 2


def shell(script: str, **names: object) -> subprocess.CompletedProcess[str]:
    """Run a line of bash; `capprune` and `runtime` are the commands, other names are given."""
    python = f"{sys.executable} -m"
    environment = {**os.environ, "capprune": f"{python} capprune", "runtime": f"{python} capprune_runtime"}
    environment |= {name: str(value) for name, value in names.items()}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert "Traceback" not in done.stderr and "this is a defect" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize(
    "command",
    ["$capprune caption $photo", "$capprune caption $photo --json", "$capprune doctor", "$runtime caption $ready $photo",
     "$runtime doctor", "$runtime caption $ready $photo --json"],
)  # fmt: skip
def test_a_full_stdout_is_a_full_disk(command: str, photo: Path, ready: Path) -> None:
    done = shell(f"{command} >/dev/full", photo=photo, ready=ready)
    assert done.returncode == 1 and "the disk is full" in done.stderr


@pytest.mark.parametrize("command", ["$capprune caption $photo", "$runtime caption $ready $photo", "$capprune doctor"])
def test_a_closed_stdout_or_stderr_is_no_failure(command: str, photo: Path, ready: Path) -> None:
    for closed in (">&-", "2>&-", ">&- 2>&-", "2>/dev/full"):
        assert shell(f"{command} {closed}", photo=photo, ready=ready).returncode == 0, closed


def test_a_wrong_usage_keeps_its_code_when_stderr_is_full() -> None:
    assert shell("$capprune caption --bogus 2>/dev/full").returncode == 2


def test_a_reader_that_goes_away_costs_no_table(album: Path, ready: Path, tmp_path: Path) -> None:
    for out, command in (("t.csv", "$capprune caption $album"), ("t.json", "$runtime run $ready $album")):
        script = f"{command} --out $out 2>/dev/null | head -1; exit ${{PIPESTATUS[0]}}"
        done = shell(script, album=album, ready=ready, out=tmp_path / out)
        assert done.returncode == 0 and done.stdout.count("\n") == 1
        assert (tmp_path / out).read_text().count("photo.jpg") >= 1


@pytest.mark.parametrize("command", ["$capprune doctor", "$capprune caption $album", "$runtime run $ready $album"])
def test_a_reader_that_goes_away_is_no_defect(command: str, album: Path, ready: Path) -> None:
    for number in range(60):
        (album / f"{number}.jpg").symlink_to(album / "photo.jpg")
    done = shell(f"{command} | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}", album=album, ready=ready)
    assert done.returncode in (0, 141) and "error" not in done.stderr


def test_a_wrong_usage_with_json_is_a_document(ready: Path) -> None:
    for program, arguments in (("capprune", ["caption", "--bogus"]), ("capprune", ["bogus"]), ("capprune", ["train"]),
                               ("capprune_runtime", ["caption", "--bogus"]), ("capprune_runtime", ["bogus"])):  # fmt: skip
        done = run(*arguments, "--json", program=program)
        document = json.loads(done.out)
        assert done.code == 2 and document["exit_code"] == 2 and document["schema_version"] == 1 and document["what"]


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [("caption", f"{LONG}.jpg"), ("caption", "PHOTO", "--out", f"{LONG}.csv"), ("caption", "PHOTO", "--bundle", LONG),
     ("inspect", LONG), ("verify", LONG), ("unpack", "READY", "--out", LONG), ("data", "check", LONG),
     ("pack", LONG), ("caption", ""), ("caption", "PHOTO", "--explain", LONG), ("train", f"{LONG}.yaml", "--out", "x")],
)  # fmt: skip
def test_names_that_no_file_can_have_are_the_users(
    arguments: tuple[str, ...], photo: Path, ready: Path, tmp_path: Path
) -> None:
    done = run(*({"PHOTO": photo, "READY": ready}.get(one, one) for one in arguments))
    assert done.code == 2 and not (tmp_path / "x").exists(), done.err


def test_the_longest_name_that_a_file_can_have_is_written(photo: Path, ready: Path, tmp_path: Path) -> None:
    out = tmp_path / ("x" * 251 + ".csv")
    assert run("caption", photo, "--out", out).code == 0 and out.is_file()


def test_a_current_folder_that_is_gone_is_named(photo: Path) -> None:
    done = shell("mkdir $folder && cd $folder && rmdir $folder && $capprune caption $photo", folder=photo.parent / "f",
                 photo=photo)  # fmt: skip
    assert done.returncode == 2 and "the current folder no longer exists" in done.stderr
