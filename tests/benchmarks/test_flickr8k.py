"""The benchmark of trained models, on drawn scenes and a small run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from small_run import Measured

import flickr8k
import make_results
from capprune.training.run import METRICS
from capprune_runtime.caption.interpreter import available_runtimes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def written(measured: Measured, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the JSON that the script wrote."""
    out = tmp_path_factory.mktemp("results")
    arguments = ["--data", str(measured.data), "--sparse", str(measured.run), str(measured.bundle)]
    assert flickr8k.main([*arguments, "--limit", "3", "--out", str(out)]) == 0
    assert [path.name for path in out.iterdir()] == ["flickr8k_sparse.json"]
    return out


def test_document_holds_what_validate_measures_on_the_test_split(written: Path) -> None:
    document = json.loads((written / "flickr8k_sparse.json").read_text(encoding="utf-8"))
    results = document["results"]
    assert results["data"] == {"name": "scenes", "split": "test", "photos": 3}
    assert results["quality"]["beam"] == 3
    assert results["reference"]["name"] == "flickr8k-sparse"
    assert results["parity"].keys() == set(available_runtimes())
    assert all(parity["holds"] and parity["photos"] == 3 for parity in results["parity"].values())
    assert results["bundle"]["kept_weights"] < 0.11 * results["bundle"]["prunable_weights"]
    assert results["latency"]["step"]["p50_us"] > 0


def test_document_tells_of_the_training_and_of_the_yardstick(written: Path) -> None:
    document = json.loads((written / "flickr8k_sparse.json").read_text(encoding="utf-8"))
    assert document["training"] == {
        "name": "flickr8k-sparse",
        "epochs": 2,
        "best_epoch": 1,
        "seconds_per_epoch": 9.0,
        "validation": [
            {"epoch": 0, "cider": 0.125, "seconds": 8.0, "sparsity": 0.5},
            {"epoch": 1, "cider": 0.25, "seconds": 10.0, "sparsity": 0.9},
        ],
    }
    assert document["constant_caption"]["cider_d"] > 0
    assert document["constant_caption"]["caption"]


def test_commands_name_the_recipe_and_every_difference_from_it_but_no_folder_of_this_machine(
    written: Path, measured: Measured
) -> None:
    text = (written / "flickr8k_sparse.json").read_text(encoding="utf-8")
    train, export, benchmark = json.loads(text)["commands"]
    assert train == (
        "capprune train configs/flickr8k_sparse.yaml data.folder=flickr8k encoder.size=64 encoder.grid=2 "
        "decoder.embedding=64 decoder.hidden=64 decoder.attention=64 decoder.context=64 training.epochs=2 "
        "--out runs/flickr8k-sparse"
    )
    assert export == "capprune export runs/flickr8k-sparse --target tflite --out bundles/flickr8k-sparse"
    assert benchmark.endswith("--sparse runs/flickr8k-sparse bundles/flickr8k-sparse --limit 3")
    assert str(measured.data.parent) not in text


def test_document_becomes_a_section_of_the_results(written: Path) -> None:
    document = json.loads((written / "flickr8k_sparse.json").read_text(encoding="utf-8"))
    text = make_results.render(written)
    lines = text.splitlines()
    assert f"| bundle, bytes | {document['results']['bundle']['total_bytes']:,} |" in lines
    assert "| parity in ai-edge-litert | 3 of 3 |" in lines
    assert "| training, seconds per epoch | 9 |" in lines
    assert "| 2 | 0.2500 | 90.00% |" in lines
    assert document["commands"][0] in lines


def test_bundle_of_another_run_is_refused(
    measured: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(measured.run, other)
    config = (other / "config.yaml").read_text().replace("flickr8k-sparse", "flickr8k-dense")
    (other / "config.yaml").write_text(config)
    arguments = ["--data", str(measured.data), "--dense", str(other), str(measured.bundle), "--out", str(tmp_path)]
    assert flickr8k.main(arguments) == 5
    assert "this bundle was not made from this run" in capsys.readouterr().err
    assert not (tmp_path / "flickr8k_dense.json").exists()


def test_run_without_a_finished_epoch_is_refused(
    measured: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    young = tmp_path / "young"
    shutil.copytree(measured.run, young)
    (young / METRICS).write_text('{"step": 5, "epoch": 0, "loss": 3.5, "learning_rate": 0.001}\n')
    arguments = ["--data", str(measured.data), "--sparse", str(young), str(measured.bundle), "--out", str(tmp_path)]
    assert flickr8k.main(arguments) == 5
    assert "has not finished an epoch" in capsys.readouterr().err
