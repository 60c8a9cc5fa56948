"""What capprune promises of a decoder family, held for each one that is registered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import family_world as world
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from capprune.config.pruning import PruningConfig
from capprune.models.exportable import StepCall
from capprune.models.family import IN_STEP, Decoder, Role
from capprune.models.search import SUPPRESSED, beam
from capprune.pruning.learned import SupermaskPruner
from capprune.training.encoder import Joined
from capprune.training.run import BEST, read_run
from capprune_exporters.onnx.convert import convert_onnx
from capprune_exporters.onnx.weights import make_gapped
from capprune_exporters.plan import plan_by_size
from capprune_exporters.tflite.convert import convert
from capprune_exporters.tflite.sparse import make_sparse, stored_names
from capprune_runtime.bundle.manifest import DecodingSection
from capprune_runtime.bundle.vocabulary import END, START
from capprune_runtime.caption.decoder import DecoderStep
from capprune_runtime.caption.interpreter import available_runtimes, open_model
from capprune_runtime.caption.search import search
from capprune_runtime.formats import NEXT
from capprune_runtime.onnx.check import check_onnx
from capprune_runtime.tflite.check import check_tflite

PHOTOS, CAPTIONS = 6, 2
DECODING = DecodingSection(start=START, end=END, suppress=SUPPRESSED, max_tokens=world.LIMIT, beam=3)
SAME = 1e-4  # of step outputs in float32, whose sums run in another order in every runtime
families = pytest.mark.parametrize("family", world.FAMILIES)
padded_families = [name for name in world.FAMILIES if world.random_decoder(name).supports_padding]


def test_every_registered_family_has_a_size_here() -> None:
    assert set(world.SIZES) == set(world.FAMILIES)


@families
def test_scores_of_whole_captions_are_those_of_one_step_after_the_other(family: str) -> None:
    decoder = world.random_decoder(family)
    features, inputs, targets = captions()
    expected = Decoder.scores(decoder, features, inputs, targets)
    found = decoder.scores(features, inputs, targets)
    assert found.shape == (int((targets >= 0).sum()), world.VOCABULARY)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert float((found[0] - found[-1]).detach().abs().max()) > 0.1  # words and photos matter


@families
def test_captions_of_a_photo_are_scored_alike_alone_and_beside_others(family: str) -> None:
    decoder = world.random_decoder(family)
    features, inputs, targets = captions()
    together = decoder.scores(features, inputs, targets)
    own = slice(CAPTIONS, 2 * CAPTIONS)  # of the second photo
    alone = decoder.scores(features[1:2], inputs[own], targets[own])
    start = int((targets[:CAPTIONS] >= 0).sum())
    torch.testing.assert_close(together[start : start + len(alone)], alone, rtol=1e-4, atol=1e-4)
    other = decoder.scores(features[2:3], inputs[own], targets[own])
    assert not torch.allclose(alone, other, atol=1e-2)


@families
def test_the_interface_names_what_encode_and_step_return(family: str) -> None:
    decoder = world.random_decoder(family)
    interface = decoder.interface()
    interface.check("decoder.interface", world.LIMIT)
    held, first = world.encoded(decoder, 1)
    encoded = {name: (tuple(part.shape), "float32") for name, part in {**held, **first}.items()}
    assert encoded == dict(interface.encode_outputs())
    call = StepCall(decoder).eval()
    with torch.inference_mode():
        outputs = call(**call.example())
    assert {name: (tuple(part.shape), "float32") for name, part in outputs.items()} == dict(interface.step_outputs())


@families
def test_every_matrix_with_a_role_gets_gates_and_nothing_else_does(family: str) -> None:
    decoder = world.random_decoder(family)
    for name in decoder.roles():
        assert isinstance(decoder.get_submodule(name), nn.Linear | nn.Embedding)
    assert Role.PER_WORD in decoder.roles().values()
    pruner = SupermaskPruner(Joined(decoder), PruningConfig(method="supermask", sparsity=0.5), steps=600)
    assert {name.removesuffix(".weight") for name in pruner.gates} == set(decoder.roles())


@families
def test_blocks_can_stand_on_the_matrices_that_are_multiplied_per_word(family: str) -> None:
    decoder = world.random_decoder(family)
    config = PruningConfig(method="supermask", sparsity=0.5, block="1x16")
    pruner = SupermaskPruner(Joined(decoder), config, steps=600)
    words = {name for name, role in decoder.roles().items() if role is Role.PER_WORD}
    assert words == {*pruner.blocks.widths, *pruner.blocks.left_single}
    assert pruner.blocks.widths


@families
def test_cost_of_what_is_attended_is_the_size_of_what_is_held(family: str) -> None:
    decoder = world.random_decoder(family)
    held, _ = world.encoded(decoder, 1)
    assert Joined(decoder).attended == sum(part.numel() for part in held.values())


@families
@pytest.mark.parametrize("kind", ["tflite", "onnx"])
@pytest.mark.slow_but_for("tflite-soft_attention", "tflite-up_down")
def test_exported_step_generates_the_captions_of_torch(family: str, kind: str) -> None:
    decoder = world.random_decoder(family)
    data = exported(decoder, kind, "float32")
    same_captions(decoder, data, kind)


@pytest.mark.parametrize("family", padded_families)
@pytest.mark.parametrize("kind", ["tflite", "onnx"])
@pytest.mark.slow_but_for("tflite-up_down")
def test_photos_of_fewer_regions_are_captioned_as_in_torch(family: str, kind: str) -> None:
    decoder = world.random_decoder(family, padded=True)
    present = torch.ones(PHOTOS, world.REGIONS)
    present[1, 2:] = present[3, 1:] = 0
    same_captions(decoder, exported(decoder, kind, "float32"), kind, present)


@pytest.mark.parametrize("family", padded_families)
def test_what_stands_in_a_filler_does_not_matter(family: str) -> None:
    decoder = world.random_decoder(family, padded=True)
    features, inputs, targets = captions()
    present = torch.ones(PHOTOS, world.REGIONS)
    present[:, 2:] = 0
    found = decoder.scores(features, inputs, targets, present)
    features[:, 2:] = 0
    torch.testing.assert_close(decoder.scores(features, inputs, targets, present), found)
    whole = decoder.scores(features, inputs, targets, torch.ones_like(present))
    assert not torch.allclose(whole, found, atol=1e-3)


@families
@pytest.mark.parametrize("kind", ["tflite", "onnx"])
@pytest.mark.slow_but_for("tflite-soft_attention")
def test_int8_step_stays_near_torch(family: str, kind: str) -> None:
    decoder = world.random_decoder(family)
    step = open_model(exported(decoder, kind, "int8"), "step")
    generator = np.random.default_rng(5)
    inputs = step_inputs(decoder, generator)
    found = step.run(inputs)
    with torch.inference_mode():
        expected = StepCall(decoder)(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    scores = expected["scores"].numpy()
    assert np.abs(found["scores"] - scores).max() < 0.15 * np.abs(scores).max()


@families
@pytest.mark.slow_but_for("soft_attention", "show_tell")
def test_training_learns_and_a_supermask_reaches_its_target(family: str, tmp_path: Path) -> None:
    dense = world.trainer(tmp_path / "dense", family, "training.epochs=30")
    assert dense.run().cider > 0.8
    sparse = world.trainer(tmp_path / "sparse", family, *world.tiny.SPARSE)
    assert sparse.run().sparsity == pytest.approx(0.8, abs=0.02)
    masks = read_run(tmp_path / "sparse").masks
    assert {name.removesuffix(".weight") for name in masks} == set(sparse.decoder.roles())
    kept, size = (sum(count(mask) for mask in masks.values()) for count in (torch.count_nonzero, torch.numel))
    assert int(kept) / size == pytest.approx(0.2, abs=0.02)


@families
@pytest.mark.slow_but_for("show_tell")
def test_an_interrupted_training_ends_with_the_weights_of_an_undisturbed_one(family: str, tmp_path: Path) -> None:
    overrides = world.tiny.SPARSE
    undisturbed = world.trainer(tmp_path / "undisturbed", family, *overrides)
    undisturbed.run()
    command = [sys.executable, world.__file__, str(tmp_path / "run"), family, ",".join(overrides), "57"]
    stopped = subprocess.run(command, capture_output=True, text=True, check=False)
    assert stopped.returncode == 130, stopped.stderr
    again = subprocess.run([*command[:-1], "100000"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    found, expected = (load_file(tmp_path / name / "last.safetensors") for name in ("run", "undisturbed"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert (tmp_path / "run" / BEST).exists() == (tmp_path / "undisturbed" / BEST).exists()


def captions() -> tuple[Tensor, Tensor, Tensor]:
    """Features, inputs and targets of captions of unequal lengths."""
    torch.manual_seed(2)
    features = torch.randn(PHOTOS, world.REGIONS, world.FEATURES)
    words = torch.randint(4, world.VOCABULARY, (PHOTOS * CAPTIONS, world.LIMIT - 1))
    inputs = torch.cat([torch.full((len(words), 1), START), words], 1)
    targets = torch.cat([words, torch.full((len(words), 1), END)], 1)
    for row in range(len(targets)):
        targets[row, 1 + row % world.LIMIT :] = -1
    return features, inputs, targets


def exported(decoder: Decoder, kind: str, weights: str) -> bytes:
    """The step in a file that the verifier has passed."""
    step = StepCall(decoder).eval()
    interface = decoder.interface()
    matrices = {name: value.numpy() for name, value in decoder.matrices(*IN_STEP).items()}
    if kind == "tflite":
        converted = convert(step, "step", step.example())
        stored = stored_names(converted, matrices)
        plan = plan_by_size(matrices, tuple(decoder.matrices(Role.LOOKED_UP)), weights)
        forms = {name: form for name, form in plan.forms.items() if name in stored}
        data = make_sparse(converted, one_row=True, plan=forms, weights=plan.quantised, names=matrices).data
        model = check_tflite(data, "decoder.tflite", "step")
        signature = model.signatures["step"]
        assert signature.inputs.keys() == interface.step_inputs().keys()
        return data
    rows = not interface.position
    converted = convert_onnx(step, step.example(), rows=rows)
    data = make_gapped(converted, weights=weights, names=matrices, dynamic=True).data
    inputs, outputs = interface.step_inputs(), interface.step_outputs()
    both = inputs.keys() & outputs.keys()
    named = {NEXT + name if name in both else name: tensor for name, tensor in outputs.items()}
    check_onnx(data, "decoder.onnx", inputs, named, rows=rows)
    return data


def same_captions(decoder: Decoder, data: bytes, kind: str, present: Tensor | None = None) -> None:
    encoded = world.encoded(decoder, PHOTOS, present=present)
    for runtime in available_runtimes(kind):
        if runtime == "tensorflow":
            continue  # in a process of its own: tests/exporters
        step = DecoderStep(open_model(data, "step", runtime=runtime), decoder.interface())
        for width in (1, 3):
            expected = beam(decoder, encoded, world.LIMIT, width).tokens
            found = [
                search(step, step.look_at(world.arrays_of(encoded, photo)), DECODING, width).tokens
                for photo in range(PHOTOS)
            ]
            assert found == expected
            assert len(set(expected)) > 1  # a decoder that generates one caption for every photo would prove little


def step_inputs(decoder: Decoder, generator: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    made: dict[str, NDArray[np.generic]] = {}
    for name, (shape, dtype) in decoder.interface().step_inputs().items():
        random = generator.normal(size=shape).astype(np.float32) / 2
        made[name] = np.full(shape, 3, np.int32) if dtype == "int32" else random
    return made
