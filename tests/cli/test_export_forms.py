"""`capprune export` with weights, plans, targets and packing, from a trained run to captions."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from capprune.cli.export import _what_is_faster
from capprune.exporting.quality import LARGEST_LOSS
from capprune_exporters.plan import Plan
from cli.conftest import Walk, capprune

INT8_ENCODERS = ("static_int8", "weight_only_int8")  # the second where the first costs too much


@pytest.fixture(scope="module")
def small(walk: Walk) -> Path:
    """The run in int8, by measurement, packed."""
    out = walk.folder / "small"
    if not out.exists():
        arguments = ("--weights", "int8", "--plan", "auto", "--photos", 20, "--pack", "--out", out, "--json")
        done = capprune("export", walk.run, *arguments)
        assert done.code == 0, done.err
        assert "int8: loss on 20 photos of val: CIDEr-D" in done.err
        assert done.document["capz"]["bytes"] == (walk.folder / "small.capz").stat().st_size
    return out


def test_int8_bundle_is_smaller_and_says_why_each_matrix_is_stored_so(walk: Walk, small: Path) -> None:
    plan = json.loads((small / "plan.json").read_text())
    assert plan["made"] == "measured" and plan["weights"] == "int8" and plan["encoder"] in INT8_ENCODERS
    assert {line["tensor"] for line in plan["lines"]} >= {
        "rnn.weight",
        "output.weight",
        "query.weight",
        "embedding.weight",
    }
    assert any("µs" in line["reason"] for line in plan["lines"])
    change = plan["change"]["relative"]
    assert change["low"] <= change["estimate"] <= change["high"]
    assert change["high"] >= -LARGEST_LOSS  # what costs more with its whole interval is taken back
    before, after = (sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) for folder in (walk.bundle, small))
    assert after < 0.5 * before


def test_golden_photos_of_an_int8_bundle_are_said_as_torch_says_them(small: Path) -> None:
    golden = capprune("verify", small, "--json").document["golden"]
    assert all(one["same"] for one in golden)


def test_packed_bundle_speaks_and_expands_to_the_same_bytes(walk: Walk, small: Path, tmp_path: Path) -> None:
    packed = walk.folder / "small.capz"
    # nearly all of it is the encoder, whose int8 weights have an entropy of some 7.4 bits
    assert packed.stat().st_size < 0.85 * sum(p.stat().st_size for p in small.rglob("*") if p.is_file())
    said = [capprune("caption", walk.photo, "--bundle", bundle).out for bundle in (small, packed)]
    assert said[0] == said[1] != ""
    assert capprune("unpack", packed, "--out", tmp_path / "again").code == 0
    for path in small.rglob("*"):
        if path.is_file():
            assert (tmp_path / "again" / path.relative_to(small)).read_bytes() == path.read_bytes()


def test_inspect_accounts_for_every_byte_of_both_models(small: Path) -> None:
    document = capprune("inspect", small, "--json").document
    for file in document["ledger"]:
        assert (
            sum(line["file_bytes"] for line in file["lines"]) == file["bytes"] == (small / file["file"]).stat().st_size
        )
        assert file["packed_bytes"] < file["bytes"] < file["dense_bytes"]
    decoder = document["ledger"][1]["lines"]
    kernels = {line["tensor"]: line["kernel"] for line in decoder}
    assert kernels["embedding.weight"] and kernels["output.weight"]
    assert all(line["floor_bytes"] > 0 for line in decoder if line["shape"])


@pytest.mark.parametrize("weights", ["float32", "codebook4"])
@pytest.mark.slow
def test_onnx_bundle_says_what_the_tflite_bundle_says(walk: Walk, tmp_path: Path, weights: str) -> None:
    arguments = ("--target", "onnx", "--weights", weights, "--photos", 20, "--out", tmp_path / "onnx", "--json")
    done = capprune("export", walk.run, *arguments)
    assert done.code == 0, done.err
    assert all(one["same"] for one in capprune("verify", tmp_path / "onnx", "--json").document["golden"])
    said = capprune("caption", walk.photo, "--bundle", tmp_path / "onnx").out
    assert said if weights == "codebook4" else said == capprune("caption", walk.photo, "--bundle", walk.bundle).out
    ledger = capprune("inspect", tmp_path / "onnx", "--json").document["ledger"]
    assert [file["file"] for file in ledger] == ["encoder.onnx", "decoder.onnx"]
    assert all(sum(line["file_bytes"] for line in file["lines"]) == file["bytes"] for file in ledger)


@pytest.mark.slow
def test_a_plan_of_another_bundle_can_be_given_and_a_wrong_one_is_refused(
    walk: Walk, small: Path, tmp_path: Path
) -> None:
    done = capprune("export", walk.run, "--plan", tmp_path / "none.json", "--out", tmp_path / "bundle")
    assert done.code == 2 and "none.json" in done.err
    (tmp_path / "wrong.json").write_text('{"rnn.weight": "csr_int8"}')
    done = capprune(
        "export", walk.run, "--weights", "int8", "--plan", tmp_path / "wrong.json", "--out", tmp_path / "bundle"
    )
    assert done.code == 2 and "rnn.weight" in done.err and "csr_float32" in done.err
    given = ("--weights", "int8", "--plan", small / "plan.json", "--photos", 5)
    done = capprune("export", walk.run, *given, "--out", tmp_path / "bundle", "--json")
    assert done.code == 0, done.err
    forms = [
        {line["tensor"]: line["form"] for line in plan["lines"]}
        for plan in (done.document["plan"], json.loads((small / "plan.json").read_text()))
    ]
    assert forms[0] == forms[1]


@pytest.mark.parametrize(
    "arguments",
    [("--weights", "int4"), ("--encoder-weights", "float16"), ("--target", "onnx", "--plan", "auto")],
    ids=["weights", "encoder", "plan"],
)
def test_forms_that_do_not_exist_are_usage_errors(walk: Walk, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = capprune("export", walk.run, *arguments, "--out", tmp_path / "bundle")
    assert done.code == 2 and arguments[-2] in done.err and not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("made", "weights", "named", "unnamed"),
    [
        ("size", "int8", "--plan balanced", "--weights"),
        ("balanced", "int8", "--plan auto", "--plan balanced"),
        ("measured", "int8", "pruning.block=1x16", "--plan"),
        ("balanced", "float32", "--weights int8", "--plan"),
    ],
)
def test_a_slow_plan_names_what_would_change_it_and_was_not_chosen(
    made: str, weights: str, named: str, unnamed: str
) -> None:
    bundle = SimpleNamespace(made=SimpleNamespace(plan=Plan(weights, made, ())))
    note = _what_is_faster(bundle)  # type: ignore[arg-type]
    assert named in note and unnamed not in note
