"""The published checkpoint: its weights are those of the paper's table, and its captions those of its authors' code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy_up_down import NumpyUpDown, Photo

from capprune.data.regions import open_regions
from capprune.importing.reference import ReferenceCheckpoint, read_reference
from capprune.importing.run import in_run_order
from capprune_runtime.bundle.vocabulary import END, START
from capprune_runtime.caption.search import StepResult
from capprune_runtime.errors import BundleError

KEPT = {
    "embed.0.weight": 1249,
    "fc_embed.0.weight": 24,
    "att_embed.0.weight": 3780,
    "logit.weight": 27747,
    "ctx2att.weight": 484,
    "core.att_lstm.weight_ih": 4437,
    "core.att_lstm.weight_hh": 1436,
    "core.lang_lstm.weight_ih": 6783,
    "core.lang_lstm.weight_hh": 838,
    "core.attention.h2att.weight": 447,
    "core.attention.alpha_net.weight": 39,
}
LOG_PROBABILITIES = {  # of the same model and search in another program, float32
    ("391895", 1): -6.1504,
    ("391895", 2): -5.4773,
    ("184613", 1): -13.5132,
    ("184613", 2): -8.3443,
}


@pytest.fixture(scope="module")
def checkpoint(tiny3: Path) -> ReferenceCheckpoint:
    return read_reference(tiny3)


@pytest.fixture(scope="module")
def model(checkpoint: ReferenceCheckpoint) -> NumpyUpDown:
    return NumpyUpDown({name: tensor.numpy() for name, tensor in checkpoint.tensors.items()})


def test_kept_weights_of_each_tensor_are_those_of_the_published_table(checkpoint: ReferenceCheckpoint) -> None:
    assert {name: int(mask.sum()) for name, mask in checkpoint.kept.items()} == KEPT
    assert (checkpoint.kept_weights, checkpoint.weights) == (47_264, 1_890_528)
    biases = [tensor for name, tensor in checkpoint.tensors.items() if name not in checkpoint.kept]
    assert sum(tensor.numel() for tensor in biases) == 5_785


def test_tensors_are_those_that_torch_reads(tiny3: Path, checkpoint: ReferenceCheckpoint) -> None:
    path = tiny3 / "model_best_pruned_sparse.pth"
    expected = torch.load(path, map_location="cpu", weights_only=True)
    assert expected.keys() == checkpoint.tensors.keys()
    for name, tensor in expected.items():
        assert torch.equal(checkpoint.tensors[name], tensor.to_dense() if tensor.is_sparse else tensor), name
        assert checkpoint.tensors[name].dtype == torch.float32


def test_words_are_those_of_the_vocabulary_beside_the_model(tiny3: Path, checkpoint: ReferenceCheckpoint) -> None:
    lines = (tiny3 / "tokenizer" / "word.vocab").read_text(encoding="utf-8").splitlines()
    assert list(checkpoint.tokens) == [line.split("\t")[0].removeprefix("▁") for line in lines]


def test_captions_are_those_of_the_authors_code(
    tiny3: Path, checkpoint: ReferenceCheckpoint, model: NumpyUpDown
) -> None:
    expected = json.loads((tiny3 / "expected.json").read_text(encoding="utf-8"))
    photos = {name: one for name, one in expected.items() if name.isdigit()}
    assert sorted(photos) == ["184613", "391895"]
    for name, one in photos.items():
        assert searched(checkpoint, model, open_regions(tiny3).regions(name), one["beam_size"])[0] == one["caption"], (
            name
        )


@pytest.mark.parametrize(("name", "beam"), LOG_PROBABILITIES)
def test_log_probabilities_are_those_of_another_program(
    tiny3: Path, checkpoint: ReferenceCheckpoint, model: NumpyUpDown, name: str, beam: int
) -> None:
    _, found = searched(checkpoint, model, open_regions(tiny3).regions(name), beam)
    assert found == pytest.approx(LOG_PROBABILITIES[name, beam], abs=2e-4)


def test_the_stored_vector_of_a_photo_is_the_mean_of_its_regions(tiny3: Path) -> None:
    for name in open_regions(tiny3).names():
        mean = open_regions(tiny3).regions(name).mean(0)
        assert np.array_equal(mean, np.load(tiny3 / f"{name}_fc.npy", allow_pickle=False))


def test_fillers_change_no_score(tiny3: Path, checkpoint: ReferenceCheckpoint, model: NumpyUpDown) -> None:
    regions = open_regions(tiny3).regions("391895")
    plain = model.step(2, model.first_state(), model.encode(regions))
    filled = model.step(2, model.first_state(), model.encode(regions, fillers=100 - len(regions)))
    assert np.abs(plain[0] - filled[0]).max() < 1e-5
    assert not filled[2][len(regions) :].any()


@pytest.mark.parametrize(("name", "beam"), [("391895", 2), ("184613", 1)])
def test_the_search_of_bundles_finds_the_same_captions(
    tiny3: Path, checkpoint: ReferenceCheckpoint, model: NumpyUpDown, name: str, beam: int
) -> None:
    """It suppresses `<unk>` and leaves finished hypotheses in the beam, and still the captions are the same."""
    from capprune_runtime.bundle.manifest import DecodingSection
    from capprune_runtime.caption import search

    special = checkpoint.special
    photo = model.encode(open_regions(tiny3).regions(name))
    decoding = DecodingSection(
        start=special.bos, end=special.eos, suppress=(special.pad, special.bos, special.unk), max_tokens=16, beam=beam
    )

    def step(token: int, state: Any, position: int) -> StepResult[Any]:
        return stepped(model, photo, token, state)

    found = search.beam(step, model.first_state()._asdict(), decoding, beam)
    expected = json.loads((tiny3 / "expected.json").read_text(encoding="utf-8"))[name]["caption"]
    assert " ".join(checkpoint.tokens[token] for token in found.tokens) == expected


@pytest.mark.parametrize(("name", "beam"), [("391895", 2), ("184613", 1)])
def test_captions_stay_the_same_in_a_runs_order_of_tokens(
    tiny3: Path, checkpoint: ReferenceCheckpoint, name: str, beam: int
) -> None:
    ordered = in_run_order(checkpoint)
    model = NumpyUpDown({key: tensor.numpy() for key, tensor in ordered.tensors.items()})
    photo = model.encode(open_regions(tiny3).regions(name))
    best = model.search(photo, beam=beam, bos=START, eos=END, max_tokens=16)[0]
    expected = json.loads((tiny3 / "expected.json").read_text(encoding="utf-8"))[name]["caption"]
    assert ordered.vocabulary.caption(best.tokens) == expected
    assert len(ordered.vocabulary) == 3000
    assert sum(int(mask.sum()) for mask in ordered.kept.values()) == 47_264


@pytest.mark.parametrize("bytes_left", [0, 10, 4000, 500_000, 978_638])
def test_a_truncated_copy_is_refused(tiny3: Path, tmp_path: Path, bytes_left: int) -> None:
    whole = (tiny3 / "model_best_pruned_sparse.pth").read_bytes()
    (tmp_path / "model.pth").write_bytes(whole[:bytes_left])
    with pytest.raises(BundleError, match=r"model\.pth") as caught:
        read_reference(tmp_path / "model.pth")
    assert caught.value.exit_code == 5


def stepped(model: NumpyUpDown, photo: Photo, token: int, state: object) -> StepResult:
    from numpy_up_down import State

    scores, following, attention = model.step(token, State(**state), photo)  # type: ignore[arg-type]
    return StepResult(scores, following._asdict(), attention)


def searched(checkpoint: ReferenceCheckpoint, model: NumpyUpDown, regions: np.ndarray, beam: int) -> tuple[str, float]:
    """The best caption and its log-probability."""
    special, config = checkpoint.special, checkpoint.config
    photo = model.encode(regions)
    best = model.search(photo, beam=beam, bos=special.bos, eos=special.eos, max_tokens=config.max_tokens)[0]
    return " ".join(checkpoint.tokens[token] for token in best.tokens if token != special.eos), best.log_probability
