"""The export target of docs/extending.md, installed as a package of its own; and targets that must not be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_attentive_families import photos, random_run
from toy_package import EXAMPLES, environment, install

from capprune.data.scenes import draw_scenes
from capprune.exporting import Wanted, export
from capprune_exporters.targets.registry import TARGETS
from capprune_exporters.targets.target import find_target
from capprune_runtime.caption.captioner import Captioner
from capprune_runtime.errors import BundleError, ExportError, UsageError

GROUP = "capprune.targets"
PLACES = {
    "plain_onnx": "plain_onnx:PlainOnnx",
    "unverified": "odd_targets:Unverified",
    "mislabelled": "odd_targets:Mislabelled",
    "mixed": "odd_targets:Mixed",
    "without_static": "odd_targets:WithoutStatic",
    "no_target": "odd_targets:NOTHING",
    "onnx": "odd_targets:Unverified",
}
ODD = """
from plain_onnx import PlainOnnx
from capprune_exporters.stored import SparseModel
from capprune_exporters.targets.tflite import TfliteTarget

NOTHING = object()

class Unverified(PlainOnnx):
    kind = "coreml"

class Mislabelled(PlainOnnx):
    kind = "tflite"

class WithoutStatic(TfliteTarget):  # its static int8 is refused by the verifier
    def write_encoder(self, converted, weights, calibration):
        if weights == "static_int8":
            return super().write_encoder(converted, "float32", ())[:1000]
        return super().write_encoder(converted, weights, calibration)

class Mixed(PlainOnnx):
    def write_decoder(self, converted, plan):
        return SparseModel(b"\\0\\0\\0\\0TFL3" + converted, ())
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    site = install(tmp_path / "site", GROUP, PLACES, EXAMPLES / "plain_onnx.py")
    (site / "odd_targets.py").write_text(ODD)
    monkeypatch.syspath_prepend(str(site))
    yield site
    for name in ("plain_onnx", "odd_targets"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("installed")
def test_a_target_of_another_package_writes_a_bundle_that_captions(tmp_path: Path) -> None:
    run = random_run("retention")
    made = export(run, tmp_path / "plain", Wanted(target="plain_onnx"))  # compares golden captions with torch
    assert made.bundle.manifest.decoder.file == "decoder.onnx"
    assert find_target("plain_onnx").default_weights() == "float32"  # the only one that it has
    assert {tensor.form for tensor in made.tensors} == {"dense_float32"}
    assert {line.form for line in made.plan.lines} == {"dense_float32"}
    assert len(made.bundle.decoder) > 4 * sum(tensor.shape[0] * tensor.shape[1] for tensor in made.tensors)
    assert len({Captioner(made.bundle).caption(photo).tokens for photo in photos(4)}) > 1


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("wanted", "where", "found"),
    [
        (Wanted(target="unverified"), "--target unverified", "coreml"),
        (Wanted(target="no_target"), "no_target", None),
        (Wanted(target="plain_onx"), "--target", "plain_onx"),
        (Wanted(target="plain_onnx", weights="int8"), "--weights", "int8"),
        (Wanted(target="plain_onnx", encoder_weights="weight_only_int8"), "--encoder-weights", "weight_only_int8"),
        (Wanted(target="plain_onnx", plan="auto"), "--plan", "auto"),
        (Wanted(target="plain_onnx", plan={"output.weight": "dense_float32"}), "--plan", "a file"),
        (Wanted(target="onnx", plan="auto"), "--plan", "auto"),
        (Wanted(target="tflite", plan="fastest"), "--plan", "fastest"),
        (Wanted(target="tflite", plan={"no.weight": "csr_float32"}), "no.weight", None),
        (Wanted(target="tflite", plan={"output.weight": "csr_int8"}), "output.weight", "csr_int8"),
        (Wanted(target="tflite", encoder_weights="static_int8"), "--encoder-weights", None),
        (Wanted(target="tflite", costs="no-such-table"), "--costs", "no-such-table"),
        (Wanted(target="onnx", costs="x86-64"), "--costs x86-64", None),
    ],
)
def test_what_a_target_cannot_do_is_refused_before_any_work(
    tmp_path: Path, wanted: Wanted, where: str, found: str | None
) -> None:
    said: list[str] = []
    with pytest.raises(UsageError) as caught:
        export(random_run("retention"), tmp_path / "bundle", wanted, said.append)
    assert caught.value.where == where and caught.value.found == found
    assert said == [] and not (tmp_path / "bundle").exists()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("target", "error"), [("mislabelled", ExportError), ("mixed", BundleError)])
def test_files_that_the_verifier_refuses_never_become_a_bundle(
    tmp_path: Path, target: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        export(random_run("retention"), tmp_path / "bundle", Wanted(target=target))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.usefixtures("installed")
@pytest.mark.usefixtures("installed")
@pytest.mark.slow
def test_a_default_encoder_that_the_verifier_refuses_is_replaced_and_a_chosen_one_is_not(tmp_path: Path) -> None:
    draw_scenes(tmp_path / "scenes", count={"train": 2, "val": 100}, seed=1, size=64)
    said: list[str] = []
    wanted = Wanted(target="without_static", weights="int8", data=tmp_path / "scenes")
    made = export(random_run("retention"), tmp_path / "bundle", wanted, said.append)
    assert made.bundle.manifest.quantisation.encoder == "weight_only_int8"
    assert any("cannot be computed in int8" in line for line in said)
    few: list[str] = []
    export(random_run("retention"), tmp_path / "few", replace(wanted, photos=99), few.append)
    assert any("99 val photos are too few" in line for line in few)
    with pytest.raises(BundleError):
        export(random_run("retention"), tmp_path / "other", replace(wanted, encoder_weights="static_int8"))
    assert not (tmp_path / "other").exists()


def test_no_package_replaces_a_target_of_ours() -> None:
    assert TARGETS.names()[:2] == ("tflite", "onnx") and "onnx" not in TARGETS.added()


def test_help_names_the_targets_of_other_packages(installed: Path) -> None:
    import subprocess

    command = [sys.executable, "-m", "capprune", "export", "--help"]
    done = subprocess.run(command, env=environment(installed), capture_output=True, text=True, check=True)
    assert "plain_onnx" in done.stdout
