"""`python -m capprune_runtime`: what it prints, where, and the code it ends with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import capprune_runtime
from capprune_runtime.bundle import verify
from capprune_runtime.command import main
from capprune_runtime.measure.results import parse_measurements

COMMAND = [sys.executable, "-m", "capprune_runtime"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_caption_prints_the_caption_alone(bundle_folder: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["caption", str(bundle_folder), str(photo)]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and out.startswith("word")


def test_caption_of_several_photos_names_them(
    bundle_folder: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = bundle_folder / "golden" / "scene-0.png"
    assert main(["caption", str(bundle_folder), str(photo), str(golden), "--beam", "1", "--threads", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(photo), str(golden)]


def test_caption_json_is_one_document_with_what_was_measured(
    bundle_folder: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["caption", str(bundle_folder), str(photo), "--json", "--beam", "2"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1 and document["runtime"] == "ai-edge-litert"
    (row,) = document["captions"]
    assert row["photo"] == str(photo) and row["encode_us"] > 0 and len(row["step_us"]) >= 2
    assert row["caption"].split() == [f"word{token}" for token in row["tokens"]]
    assert row["log_probability"] < 0 and isinstance(row["finished"], bool)


def test_a_bad_photo_does_not_stop_the_others_and_its_code_is_returned(
    bundle_folder: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    assert main(["caption", str(bundle_folder), str(tmp_path / "bad.jpg"), str(photo), "--json"]) == 4
    captured = capsys.readouterr()
    rows = json.loads(captured.out)["captions"]
    assert rows[0]["error"] == "PhotoError" and rows[1]["caption"]
    assert "bad.jpg" in captured.err and "Traceback" not in captured.err


def test_a_missing_photo_is_a_usage_error_before_any_work(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["caption", str(tmp_path / "no bundle"), "absent.jpg"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "absent.jpg" in captured.err


def test_a_missing_photo_does_not_stop_the_others(
    bundle_folder: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["caption", str(bundle_folder), "absent.jpg", str(photo)]) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{photo}\tword") and "absent.jpg" in captured.err


def test_verify_says_what_the_bundle_is(bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(bundle_folder)]) == 0
    assert "LSTM with soft attention over 4 regions, 24 words, 75.00% sparse" in capsys.readouterr().out
    assert main(["verify", str(bundle_folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["verified"] is True and document["manifest"]["decoder"]["interface"]["vocabulary"] == 24
    assert document["files"] == 6 and document["schema_version"] == 1


@pytest.mark.parametrize("name", ["decoder.tflite", "manifest.json"])
def test_a_damaged_bundle_ends_in_5_with_the_facts_on_both_streams(
    name: str, bundle_folder: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle_folder / name).write_bytes(b"\x1b[31mdamaged")
    for arguments in (["verify", str(bundle_folder)], ["caption", str(bundle_folder), str(photo)]):
        assert main([*arguments, "--json"]) == 5
        captured = capsys.readouterr()
        assert json.loads(captured.out)["exit_code"] == 5
        assert str(bundle_folder / name) in captured.err and "Traceback" not in captured.err


def test_messages_spell_out_control_characters(bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle_folder / "a\x1b[31mb").write_bytes(b"")
    assert main(["verify", str(bundle_folder)]) == 5
    err = capsys.readouterr().err
    assert "\x1b" not in err and "a\\x1b[31mb" in err


@pytest.mark.parametrize(
    "arguments", [[], ["caption"], ["caption", "b"], ["verify"], ["verify", "b", "--beam", "2"], ["train"]]
)
def test_wrong_usage_ends_in_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--beam", "0"], ["--threads", "0"]])
def test_options_out_of_range_end_in_2(
    arguments: list[str], bundle_folder: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["caption", str(bundle_folder), str(photo), *arguments]) == 2
    assert arguments[0] in capsys.readouterr().err


def test_an_interrupt_ends_in_130_without_a_traceback(
    bundle_folder: Path, photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "verify_bundle", interrupted)
    assert main(["caption", str(bundle_folder), str(photo)]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_ctrl_c_at_a_running_process_ends_in_130(bundle_folder: Path, photo: Path) -> None:
    arguments = [*COMMAND, "caption", str(bundle_folder), *[str(photo)] * 20_000]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()  # it is at work
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        err = process.stderr.read()
    assert process.returncode == 130, err
    assert "Traceback" not in err


def test_a_closed_pipe_is_no_traceback(bundle_folder: Path, photo: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    arguments = [*COMMAND, "caption", str(bundle_folder), str(photo)]
    done = subprocess.run(arguments, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.returncode == 141 and "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


def test_run_writes_a_document_and_prints_captions(
    bundle_folder: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.json"
    assert main(["run", str(bundle_folder), str(photo.parent), "--out", str(out), "--beam", "2", "--limit", "2"]) == 0
    captured = capsys.readouterr()
    (found,) = parse_measurements(out.read_text(), out)
    assert captured.out.splitlines() == [f"{one.photo}\t{one.caption}" for one in found.captions]
    assert "do not trust these times" in captured.err and str(out) in captured.err and found.settings.beam == 2


def test_run_json_is_the_document_alone(bundle_folder: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photo.parent / "bad.png").write_bytes(b"no photo")
    assert main(["run", str(bundle_folder), str(photo.parent), "--json"]) == 4
    (found,) = parse_measurements(capsys.readouterr().out, "stdout")
    assert [failed.photo for failed in found.failures] == ["bad.png"]


def test_a_stream_has_every_caption_and_then_the_document(
    bundle_folder: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(bundle_folder), str(photo.parent), "--stream"]) == 0
    first, *rows, last = capsys.readouterr().out.splitlines()
    assert json.loads(first)["session"]["threads"] == 1
    assert all("caption" in json.loads(row)["said"] for row in rows) and len(rows) >= 1
    assert json.loads(last)["document"]["latency"]["caption"]["count"] == len(rows)
    assert main(["run", str(bundle_folder), "absent", "--stream"]) == 2
    assert json.loads(capsys.readouterr().out)["failure"]["error"] == "UsageError"


def test_a_run_that_is_terminated_goes_on_when_it_is_typed_again(
    bundle_folder: Path, photo: Path, tmp_path: Path
) -> None:
    photos, out = tmp_path / "many", tmp_path / "results.json"
    photos.mkdir()
    for number in range(400):
        (photos / f"{number:03}.png").hardlink_to(photo)
    arguments = [*COMMAND, "run", str(bundle_folder), str(photos), "--out", str(out)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()  # it is at work
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read().count("\n") < 399 and "Traceback" not in process.stderr.read()
    assert process.returncode == 143 and not out.exists()
    assert main(arguments[len(COMMAND) :]) == 0
    (found,) = parse_measurements(out.read_text(), out)
    assert len(found.captions) == 400 and found.settings.sessions == 2


def test_bench_times_bundles(bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "bench",
        str(bundle_folder),
        str(bundle_folder),
        "--rounds",
        "2",
        "--warm-up",
        "0",
        "--cold-loads",
        "0",
    ]
    assert main([*arguments, "--out", str(tmp_path / "bench.json"), "--stream"]) == 0
    *rounds, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert rounds == [{"round": 1, "rounds": 2}, {"round": 2, "rounds": 2}]
    assert json.loads((tmp_path / "bench.json").read_text()) == last["document"]
    assert main([*arguments[:2], *arguments[3:-1], "1"]) == 0
    shown = capsys.readouterr().err
    assert shown.count("2 captions in ai-edge-litert") == 1 and "cold loads, median of 1: process " in shown
    assert "temperature gate" in shown


def test_doctor_says_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["missing"] == [] and found["numpy"] and "ai-edge-litert" in found["runtimes"]
    assert main(["doctor"]) == 0
    assert "ai-edge-litert" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["caption", "doctor"])
def test_a_device_without_numpy_is_told_what_to_install(command: str, bundle_folder: Path, photo: Path) -> None:
    arguments = {"caption": [str(bundle_folder), str(photo)], "doctor": []}[command]
    bare = [sys.executable, "-S", "-c", "import runpy, sys; sys.argv[0] = 'capprune_runtime'; "
            "runpy.run_module('capprune_runtime', run_name='__main__')", command, *arguments]  # fmt: skip
    path = str(Path(capprune_runtime.__file__).parents[1])
    done = subprocess.run(bare, capture_output=True, text=True, env={"PYTHONPATH": path}, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "pip install numpy Pillow ai-edge-litert" in done.stdout + done.stderr


def test_the_main_api_is_exported_in_order() -> None:
    names = list(capprune_runtime.__all__)
    assert names == sorted(names)
    assert all(hasattr(capprune_runtime, name) for name in names)
