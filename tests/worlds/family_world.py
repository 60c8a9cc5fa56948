"""Every decoder family in a size that trains in a second, and drawn features that its captions tell of.

A family that is registered and has no line in `SIZES` fails the tests: give it one.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from capprune.config.decoder import DECODERS, decoder_config
from capprune.config.reading import parse_config
from capprune.config.run import RunConfig
from capprune.models.family import IN_STEP, Decoder, Tensors
from capprune.training.loop import Trainer
from capprune.training.outcome import Progress, Report, Split

sys.path.append(str(Path(__file__).parents[1] / "training"))
import tiny_training as tiny

REGIONS, FEATURES, VOCABULARY, LIMIT = 4, 16, 40, 8
SIZES: dict[str, dict[str, Any]] = {
    "soft_attention": {"embedding": 16, "hidden": 32, "attention": 16, "context": 16},
    "show_tell": {"embedding": 16, "hidden": 32},
    "up_down": {"embedding": 16, "hidden": 32, "attention": 16},
    "relation_transformer": {
        "width": 32,
        "feed_forward": 32,
        "heads": 2,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "dropout": {"layer": 0.0, "source": 0.0},
    },
    "retention": {
        "width": 32,
        "feed_forward": 32,
        "heads": 2,
        "key": 8,
        "layers": 2,
        "dropout": {"layer": 0.0, "source": 0.0},
    },
}
FAMILIES = DECODERS.names()
RATES: dict[str, str] = {
    "relation_transformer": "1e-2",
    "retention": "1e-2",
}  # learning rates of tiny trainings, where the usual one is too high


def random_decoder(family: str, *, seed: int = 0, kept: float = 0.4, padded: bool = False) -> Decoder:
    """A decoder in evaluation mode with sparse random weights, wild enough that captions differ from photo to photo."""
    torch.manual_seed(seed)
    kind: type[Decoder] = DECODERS.load(family, "family")
    config = decoder_config({"family": family, **SIZES[family]})
    decoder = kind(
        config, features=FEATURES, vocabulary=VOCABULARY, regions=REGIONS, max_tokens=LIMIT, padded=padded
    ).eval()
    with torch.no_grad():
        for name, role in decoder.roles().items():
            weight = decoder.get_submodule(name).get_parameter("weight")
            mask = torch.rand_like(weight) < kept
            weight.normal_(0, 1.5 * (weight.shape[-1] * kept) ** -0.5).mul_(mask)
            bias = getattr(decoder.get_submodule(name), "bias", None)
            if bias is not None and role in IN_STEP:
                bias.normal_(0, 0.3)
    return decoder


@torch.inference_mode()
def encoded(decoder: Decoder, photos: int, seed: int = 0, present: Tensor | None = None) -> tuple[Tensors, Tensors]:
    """What `encode` returns for random features."""
    torch.manual_seed(seed)
    return decoder.encode(torch.randn(photos, REGIONS, FEATURES) * 2, present)


def arrays_of(some: tuple[Tensors, Tensors], photo: int) -> dict[str, Any]:
    """The same for one photo, as a device has it."""
    return {name: part[photo : photo + 1].numpy() for tensors in some for name, part in tensors.items()}


def split(seed: int, photos: int) -> Split:
    """As `tiny_training.split`, over four regions of which each tells all."""
    made = tiny.split(seed, photos, FEATURES)
    features = np.repeat(made.features[np.arange(photos)][:, :1], REGIONS, axis=1)
    return Split(made.names, tiny.Table(features), made.captions)


def config(family: str, *overrides: str) -> RunConfig:
    tree = {**tiny.TREE, "encoder": {"grid": 2}, "decoder": {"family": family, **SIZES[family]}}
    rate = RATES.get(family)
    return parse_config(tree, [*([f"training.learning_rate={rate}"] if rate else []), *overrides])


def trainer(folder: Path, family: str, *overrides: str, report: Report | None = None) -> Trainer:
    validation = split(2, 12)
    return Trainer(
        config(family, *overrides),
        folder,
        vocabulary=tiny.VOCABULARY,
        train=split(1, tiny.PHOTOS),
        validation=validation,
        quality=tiny.share_right(validation),
        report=report,
    )


def main(folder: str, family: str, overrides: str, step: str) -> int:
    """Train, and send a signal after the step: `python family_world.py FOLDER FAMILY OVERRIDE,OVERRIDE 7`."""
    torch.set_num_threads(1)

    def report(progress: Progress) -> None:
        if progress.cider is None and progress.step == int(step):
            os.kill(os.getpid(), signal.SIGINT)

    try:
        trainer(Path(folder), family, *overrides.split(","), report=report).run()
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
