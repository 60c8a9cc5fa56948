from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_world import PHOTOS, World

from capprune.data.captions import CaptionedPhoto
from capprune.data.photos import open_photos
from capprune.validation.gate import check_gates
from capprune.validation.validate import Reference, inputs, parity_in_runtime, validate_bundle
from capprune.validation.worker import captions_in_subprocess
from capprune_runtime.caption import interpreter
from capprune_runtime.errors import (
    BundleError,
    CapPruneError,
    DataError,
    GateFailed,
    HashMismatch,
    PhotoError,
    UsageError,
)

INSTALLED = interpreter.available_runtimes()


@pytest.mark.parametrize("beam", [1, 3])
def test_float_bundle_says_what_torch_says(world: World, beam: int) -> None:
    told = []
    with open_photos(world.folder) as store:
        validation = validate_bundle(
            world.bundle,
            world.photos,
            store,
            beam=beam,
            progress=lambda done, count: told.append((done, count)),
            reference=world.reference(beam),
            score_gap=world.score_gap,
            tokenizer="plain",
            meteor=False,
        )
    assert validation.parity is not None and validation.parity.holds
    assert (validation.parity.photos, validation.parity.differences) == (PHOTOS, ())
    assert validation.captions == {name: own.caption for name, own in world.reference(beam).items()}
    assert len(set(validation.captions.values())) > 3  # the photos matter
    assert validation.scores == validation.reference_scores
    assert validation.change is not None and validation.change.drop == 0
    assert told == [(done, PHOTOS) for done in range(1, PHOTOS + 1)]


def test_greedy_captions_that_are_a_reference_score_high_and_are_timed(world: World) -> None:
    with open_photos(world.folder) as store:
        validation = validate_bundle(world.bundle, world.photos, store, beam=1, tokenizer="plain", meteor=False)
    assert validation.scores.bleu[3] == pytest.approx(1)
    assert validation.cider_d.low < validation.cider_d.estimate == pytest.approx(validation.scores.cider_d)
    assert validation.health.captions == PHOTOS
    assert (validation.runtime, validation.measurement.environment.threads, validation.beam) == (INSTALLED[0], 1, 1)
    assert validation.parity is None and validation.change is None
    latency = validation.latency
    assert latency.encode.count == latency.caption.count == PHOTOS
    steps = sum(min(len(tokens) + 1, 8) for tokens in validation.tokens.values())
    assert latency.step.count == steps
    assert 0 < latency.step.p50_us <= latency.step.p90_us <= latency.step.p99_us
    assert latency.caption.p50_us > latency.encode.p50_us
    assert validation.unfinished == sum(len(tokens) == 8 for tokens in validation.tokens.values())


def test_beam_of_the_bundle_is_the_default_and_limit_takes_the_first_photos(world: World) -> None:
    with open_photos(world.folder) as store:
        validation = validate_bundle(world.bundle, world.photos, store, limit=3, tokenizer="plain", meteor=False)
    assert validation.beam == world.bundle.manifest.decoding.beam
    assert list(validation.captions) == [photo.name for photo in world.photos[:3]]


def test_bundle_that_says_something_else_is_found_out(world: World) -> None:
    """Torch's captions are those of other photos, as if the export had mixed up its weights."""
    own = world.reference(1)
    mixed = dict(zip(own, [*list(own.values())[1:], next(iter(own.values()))], strict=True))
    with open_photos(world.folder) as store:
        validation = validate_bundle(
            world.bundle,
            world.photos,
            store,
            beam=1,
            reference={**mixed, "more.png": Reference((), "")},
            score_gap=world.score_gap,
            tokenizer="plain",
            meteor=False,
        )
        better = validate_bundle(
            world.bundle,
            [replace(photo, captions=(mixed[photo.name].caption,)) for photo in world.photos],
            store,
            beam=1,
            reference=mixed,
            tokenizer="plain",
            meteor=False,
        )
    assert validation.parity is not None and not validation.parity.holds
    assert not any(difference.excused for difference in validation.parity.differences)
    assert validation.change is not None and validation.change.drop < 0  # the bundle is the better one
    with pytest.raises(GateFailed, match=r"CIDEr-D fell from \d"):
        check_gates(change=better.change, max_drop=0.02)


@pytest.mark.parametrize("runtime", INSTALLED)
def test_every_interpreter_in_its_own_process_says_what_torch_says(world: World, runtime: str) -> None:
    told = []
    with open_photos(world.folder) as store:
        parity = parity_in_runtime(
            world.bundle,
            world.photos,
            store,
            world.reference(3),
            world.score_gap,
            runtime=runtime,
            beam=3,
            limit=5,
            progress=lambda done, count: told.append((done, count)),
        )
    assert parity.holds and parity.identical == parity.photos == 5
    assert told == [(done, 5) for done in range(1, 6)]


def test_worker_and_validation_import_neither_torch_nor_an_interpreter() -> None:
    heavy = ("torch", "tensorflow", "tflite_runtime", "ai_edge_litert")
    program = "import sys, capprune.validation.validate, capprune.validation.worker; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not set(heavy) & set(modules.split())


def test_error_of_the_worker_arrives_as_the_same_error(world: World, tmp_path: Path) -> None:
    damaged = shutil.copytree(world.bundle.place, tmp_path / "damaged")
    (damaged / "decoder.tflite").write_bytes(b"\0" * world.bundle.manifest.files["decoder.tflite"].size_bytes)
    photos = [np.zeros((16, 16, 3), np.uint8)] * 3
    with pytest.raises(HashMismatch, match=r"decoder\.tflite") as failure:
        captions_in_subprocess(damaged, photos, runtime=INSTALLED[0], beam=1)
    assert failure.value.exit_code == 5
    with pytest.raises(UsageError, match="no such runtime"):
        captions_in_subprocess(world.bundle.place, photos, runtime="onnx", beam=1)


def test_interpreter_that_dies_takes_only_its_own_process(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\necho 'invalid sparse tensor' >&2\nkill -SEGV $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    with pytest.raises(BundleError, match=r"died on this bundle(.|\n)*-11: invalid sparse tensor"):
        captions_in_subprocess(world.bundle.place, [np.zeros((16, 16, 3), np.uint8)], runtime="any", beam=1)


NOISY_WORKER = """
import os
from capprune.validation import worker
quiet = worker.Captioner.caption
def noisy(self, photo, beam):
    print("INFO: a delegate was made", flush=True)
    os.write(1, b"and native code writes past Python")
    return quiet(self, photo, beam)
worker.Captioner.caption = noisy
worker.main()
"""


def test_answers_stay_clean_although_an_interpreter_prints_on_stdout(world: World) -> None:
    command = [sys.executable, "-c", NOISY_WORKER, str(world.bundle.place), "--runtime", INSTALLED[0], "--beam", "1"]
    done = subprocess.run(
        command,
        input=2 * (b'{"dtype": "|u1", "shape": [16, 16, 3]}\n' + bytes(16 * 16 * 3)),
        capture_output=True,
        check=True,
    )
    answers: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 2 and answers[0] == answers[1] and list(answers[0]) == ["tokens"]
    assert done.stderr.count(b"a delegate was made") == 2


def test_nothing_to_validate_on_is_refused(world: World) -> None:
    with open_photos(world.folder) as store, pytest.raises(DataError, match="no photos"):
        validate_bundle(world.bundle, (), store)


def test_reference_that_lacks_a_photo_is_refused(world: World) -> None:
    few = dict(list(world.reference(1).items())[1:])
    with open_photos(world.folder) as store, pytest.raises(DataError, match=r"1 of 12 photos: 00\.png"):
        validate_bundle(world.bundle, world.photos, store, beam=1, reference=few, tokenizer="plain", meteor=False)


def test_truncated_and_missing_photos_are_named(world: World, tmp_path: Path) -> None:
    whole = (world.folder / "00.png").read_bytes()
    (tmp_path / "00.png").write_bytes(whole[: len(whole) // 2])
    with open_photos(tmp_path) as store:
        with pytest.raises(PhotoError, match=r"00\.png"):
            list(inputs(world.bundle, world.photos[:1], store))
        with pytest.raises(CapPruneError, match=r"99\.png") as failure:
            list(inputs(world.bundle, [CaptionedPhoto("99.png", "test", ("a dog",))], store))
    assert failure.value.exit_code == 4
