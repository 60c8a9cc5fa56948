from __future__ import annotations

import pytest

from capprune.config.reading import parse_config
from capprune.ineffective import ineffective_notes, refuse_ineffective
from capprune_runtime.errors import UsageError

LEAST = {"data": {"folder": "photos"}}


@pytest.mark.parametrize(
    ("override", "needs"),
    [
        ("pruning.sparsity=0.9", "pruning.method=supermask"),
        ("pruning.block=1x16", "pruning.method=supermask"),
        ("training.reward.samples=3", "training.objective=scst"),
        ("training.distillation.weight=0.3", "training.distillation.teacher=RUN"),
        ("data.radix_base=100", "data.tokens=radix"),
        ("data.minimum_count=2", "data.vocabulary=null"),
        ("encoder.capsules=4", "encoder.pooling=capsules"),
        ("encoder.regions=10", "encoder.name=regions"),
        ("data.subword_pieces=200", "data.tokens=subwords"),
    ],
)
def test_override_without_effect_is_refused_with_what_it_needs(override: str, needs: str) -> None:
    vocabulary = ["data.vocabulary=runs/other"] if "vocabulary" in needs else []
    config = parse_config(LEAST, [override, *vocabulary])
    with pytest.raises(UsageError, match=rf"(?s)no effect in this run: {override}.*{needs}"):
        refuse_ineffective(config, [override])
    refuse_ineffective(parse_config(LEAST, [override, needs]), [override, needs])


def test_overrides_that_count_pass() -> None:
    overrides = ["training.epochs=3", "pruning.method=none", "encoder.learning_rate=1e-3"]
    refuse_ineffective(parse_config(LEAST, overrides), overrides)
    assert ineffective_notes(parse_config(LEAST, overrides), overrides) == (
        "note: encoder.learning_rate has no effect: encoder.train is frozen",
    )
    learning = [*overrides[:-1], "encoder.train=all", "encoder.learning_rate=1e-3"]
    assert ineffective_notes(parse_config(LEAST, learning), learning) == ()
