"""Every command as a user types it: results, exit codes, messages, and nothing half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cli.conftest import Walk, capprune


def test_help_costs_little_and_imports_no_torch() -> None:
    import resource
    import subprocess
    import sys

    program = (
        "import sys; sys.argv = ['capprune', '--help']\n"
        "from capprune.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as stop: code = stop.code\n"
        "heavy = sorted({'torch', 'numpy', 'PIL', 'pydantic', 'rich', 'ai_edge_litert'} & set(sys.modules))\n"
        "print('heavy', heavy, 'code', code)\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "heavy [] code 0" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3


def test_every_command_of_the_help_has_a_help_of_its_own() -> None:
    from capprune.cli.app import COMMANDS

    for name in COMMANDS:
        done = capprune(name, "--help")
        assert done.code == 0 and "Usage: capprune" in done.out, name


def test_inspect_shows_how_a_run_was_pruned(walk: Walk) -> None:
    document = capprune("inspect", walk.run, "--json").document
    assert document["kept"] == sum(layer["kept"] for layer in document["layers"])
    assert abs(1 - document["kept"] / document["prunable"] - 0.8) < 0.1
    assert "output.weight" in capprune("inspect", walk.run).out


def test_inspect_shows_how_a_bundle_is_stored(walk: Walk) -> None:
    document = capprune("inspect", walk.bundle, "--json").document
    decoder = next(file for file in document["ledger"] if file["file"] == "decoder.tflite")
    lines = {line["tensor"]: line for line in decoder["lines"]}
    assert (lines["rnn.weight"]["form"], lines["rnn.weight"]["kernel"]) == ("densify_float32", "dense, expanded")
    assert lines["rnn.weight"]["file_bytes"] < lines["rnn.weight"]["dense_bytes"]
    assert "decoder.tflite" in capprune("inspect", walk.bundle).out


def test_inspect_refuses_what_is_neither_run_nor_bundle(tmp_path: Path) -> None:
    done = capprune("inspect", tmp_path)
    assert done.code == 2 and "neither a run nor a bundle" in done.err


def test_verify_proves_the_golden_photos(walk: Walk) -> None:
    document = capprune("verify", walk.bundle, "--json").document
    assert len(document["golden"]) == 4
    assert all(one["same"] and one["found"] == one["expected"] for one in document["golden"])
    assert "4 of 4" in capprune("verify", walk.bundle).out


def test_caption_says_a_sentence_and_says_it_in_json(walk: Walk) -> None:
    spoken = capprune("caption", walk.photo, "--bundle", walk.bundle)
    assert spoken.code == 0 and len(spoken.out.split()) >= 2
    document = capprune("caption", walk.photo, walk.photo, "--bundle", walk.bundle, "--json").document
    assert document["schema_version"] == 1
    assert [one["caption"] for one in document["captions"]] == [spoken.out.strip()] * 2


def test_validate_compares_with_torch_token_by_token(walk: Walk) -> None:
    others = ("--also", "tensorflow", "--also", "tflite-runtime")
    done = capprune("validate", walk.bundle, "--data", walk.scenes, "--reference", walk.run, *others, "--json")
    assert done.code == 0, done.err
    document = done.document
    assert set(document["parity"]) == {"ai-edge-litert", "tensorflow", "tflite-runtime"}
    for parity in document["parity"].values():
        assert parity["photos"] == 20 and parity["holds"]
    assert document["gate"] == {"passed": True, "checked": ["max_drop", "parity"]}
    assert document["latency"]["step"]["count"] > 20


@pytest.mark.parametrize("options", [("--max-drop", "2%"), ("--also", "tensorflow"), ("--also", "nothing")])
def test_validate_refuses_what_needs_a_reference_before_any_work(walk: Walk, options: tuple[str, ...]) -> None:
    done = capprune("validate", walk.bundle, "--data", walk.scenes, *options)
    assert done.code == 2 and options[0] in done.err and "--reference RUN" in done.err
    assert "captions:" not in done.err and done.out == ""


def test_validate_refuses_an_unknown_runtime_before_any_work(walk: Walk) -> None:
    for option in (
        ("--also", "nothing", "--reference", walk.run),
        ("--runtime", "nothing"),
        ("--runtime", "onnxruntime"),
    ):
        done = capprune("validate", walk.bundle, "--data", walk.scenes, *option)
        assert done.code == 2 and "ai-edge-litert" in done.err
        assert "captions:" not in done.err and done.out == ""


def test_validate_without_limits_passes_none(walk: Walk) -> None:
    document = capprune("validate", walk.bundle, "--data", walk.scenes, "--limit", 2, "--json").document
    assert document["gate"] == {"passed": True, "checked": []}


def test_validate_exits_3_over_a_limit_and_says_where_it_went(walk: Walk) -> None:
    done = capprune("validate", walk.bundle, "--data", walk.scenes, "--max-bytes", "1MB", "--limit", 5)
    assert done.code == 3 and "encoder.tflite" in done.err
    document = capprune("validate", walk.bundle, "--data", walk.scenes, "--max-bytes", "1MB", "--limit", 5, "--json")
    assert document.code == 3 and document.document["gate"]["passed"] is False


def test_training_a_finished_run_again_changes_nothing(walk: Walk) -> None:
    before = (walk.run / "weights.safetensors").read_bytes()
    done = capprune("train", walk.config, "--out", walk.run, "--cache", walk.cache, "--json")
    assert done.code == 0 and done.document["sparsity"] > 0.7
    assert (walk.run / "weights.safetensors").read_bytes() == before


def test_train_refuses_a_folder_that_holds_another_run(walk: Walk) -> None:
    done = capprune("train", walk.config, "training.epochs=14", "--out", walk.run, "--cache", walk.cache)
    assert done.code == 2 and "another config" in done.err


def test_train_names_the_nearest_key_for_an_unknown_one(walk: Walk, tmp_path: Path) -> None:
    done = capprune("train", walk.config, "training.epoch=3", "--out", tmp_path / "run")
    assert done.code == 2 and "did you mean epochs?" in done.err and not (tmp_path / "run").exists()


def test_train_refuses_an_unreachable_target_before_it_starts(walk: Walk, tmp_path: Path) -> None:
    done = capprune("train", walk.config, "pruning.kappa=200", "--out", tmp_path / "run", "--cache", walk.cache)
    assert done.code == 2 and "too weak" in done.err and "pruning.kappa=" in done.err
    assert not (tmp_path / "run").exists()


def test_train_names_captions_whose_photos_are_not_there(walk: Walk, tmp_path: Path) -> None:
    shutil.copytree(walk.scenes, tmp_path / "scenes")
    (tmp_path / "scenes" / "photos" / "scene-00003.png").unlink()
    done = capprune("train", walk.config, f"data.folder={tmp_path / 'scenes'}", "--out", tmp_path / "run")
    assert done.code == 4 and "scene-00003.png" in done.err and not (tmp_path / "run").exists()


def test_validate_names_the_splits_when_one_is_empty(walk: Walk) -> None:
    done = capprune("validate", walk.bundle, "--data", walk.scenes, "--split", "dev")
    assert done.code == 4 and "train" in done.err and "test" in done.err


@pytest.mark.parametrize("content", [b"", b"not a photo", b"cut"], ids=["empty", "text", "truncated"])
def test_caption_refuses_a_photo_that_cannot_be_read(walk: Walk, tmp_path: Path, content: bytes) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(walk.photo.read_bytes()[:200] if content == b"cut" else content)
    done = capprune("caption", photo, "--bundle", walk.bundle)
    assert done.code == 4 and "photo.png" in done.err


def test_caption_goes_on_past_a_photo_that_cannot_be_read(walk: Walk, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"not a photo")
    done = capprune("caption", tmp_path / "bad.png", walk.photo, "--bundle", walk.bundle)
    assert done.code == 4 and "bad.png" in done.err and done.out.startswith(f"{walk.photo}\t")


def test_caption_of_a_missing_photo_or_bundle_is_a_usage_error(walk: Walk, tmp_path: Path) -> None:
    assert capprune("caption", tmp_path / "none.jpg", "--bundle", walk.bundle).code == 2
    assert capprune("caption", walk.photo, "--bundle", tmp_path / "none").code == 2


def test_a_flipped_byte_is_refused_by_every_command_that_runs_a_bundle(walk: Walk, tmp_path: Path) -> None:
    broken = tmp_path / "bundle"
    shutil.copytree(walk.bundle, broken)
    data = bytearray((broken / "decoder.tflite").read_bytes())
    data[len(data) // 2] ^= 1
    (broken / "decoder.tflite").write_bytes(data)
    for arguments in (("verify", broken), ("caption", walk.photo, "--bundle", broken), ("inspect", broken)):
        done = capprune(*arguments)
        assert done.code == 5 and "decoder.tflite" in done.err, arguments


def test_export_refuses_a_vocabulary_that_does_not_match(walk: Walk, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(walk.run, run)
    words = (run / "vocabulary.txt").read_text().splitlines()
    (run / "vocabulary.txt").write_text("\n".join(words[:-1]) + "\n")
    done = capprune("export", run, "--out", tmp_path / "bundle")
    assert done.code == 5 and "do not fit" in done.err and not (tmp_path / "bundle").exists()


def test_export_offers_the_beam_that_it_uses() -> None:
    from capprune import exporting
    from capprune.cli import export

    assert export.DEFAULT_BEAM == exporting.DEFAULT_BEAM


@pytest.mark.slow
def test_export_stores_the_encoder_in_int8_and_the_bundle_still_speaks(walk: Walk, tmp_path: Path) -> None:
    weights = ("--weights", "float32", "--encoder-weights", "weight_only_int8")
    done = capprune("export", walk.run, *weights, "--out", tmp_path / "bundle", "--json")
    assert done.code == 0, done.err
    whole = capprune("inspect", walk.bundle, "--json").document["manifest"]["files"]["encoder.tflite"]["size_bytes"]
    assert done.document["files"]["encoder.tflite"] < 0.4 * whole
    golden = capprune("verify", tmp_path / "bundle", "--json").document["golden"]
    assert len(golden) == 4 and all(one["found"] for one in golden)  # which words, int8 may decide otherwise


def test_export_refuses_a_target_it_does_not_know(walk: Walk, tmp_path: Path) -> None:
    done = capprune("export", walk.run, "--target", "coreml", "--out", tmp_path / "bundle")
    assert done.code == 2 and "tflite" in done.err


def test_errors_are_one_json_document_when_json_is_asked_for(tmp_path: Path) -> None:
    done = capprune("inspect", tmp_path / "none", "--json")
    assert done.code == 2
    assert json.loads(done.out)["exit_code"] == 2


def test_data_check_counts_every_split(walk: Walk) -> None:
    document = capprune("data", "check", walk.scenes, "--json").document
    assert {one["split"]: one["photos"] for one in document["splits"]} == {"train": 100, "val": 20, "test": 20}


def test_doctor_names_what_is_missing_and_how_to_get_it() -> None:
    document = capprune("doctor", "--json").document
    assert document["packages"]["numpy"] and document["commands"]["train"] is True
