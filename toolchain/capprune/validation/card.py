"""The model card of a bundle with measured quality: description, training data, scores and known failures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from capprune_runtime import strict_json
from capprune_runtime.bundle.manifest import PLAN
from capprune_runtime.bundle.verify import Bundle
from capprune_runtime.errors import BundleError

FAILURES = (
    "Colours, numbers of people or things, and who does what to whom are often wrong; a rare object becomes a frequent one. "
    "A photo unlike its training photos gets a fluent caption all the same. "
    "Captions repeat what people wrote of other photos, with their habits and prejudices."
)
OPTIONS = {"balanced": "balanced", "size": "size", "measured": "auto", "given": PLAN}  # by what plan.json says


def model_card(bundle: Bundle, quality: Mapping[str, Any]) -> str:
    """Return Markdown from the bundle's manifest and a recorded validation.

    Args:
        bundle: A verified bundle.
        quality: The document of a validation, with its `confidence` if it was chosen.
    """
    manifest, data = bundle.manifest, quality["data"]
    pruning, scores, interval = manifest.pruning, quality["quality"]["scores"], quality["quality"]["cider_d_interval"]
    health, where = quality["quality"]["health"], quality["environment"]
    sizes = {name: entry.size_bytes for name, entry in manifest.files.items()}
    meteor = "" if scores["meteor"] is None else f", METEOR {scores['meteor']:.3f}"
    lines = [
        f"# {manifest.config.get('name', manifest.data.name)}",
        "",
        f"{manifest.model.description} of a convolutional network.",
        "",
        f"- **Data**: {manifest.data.name}. **Terms: {manifest.data.licence}.** They hold for these weights; the licence of "
        "capprune's code does not. No photo and no caption of the data is in this bundle.",
        f"- **Weights**: {pruning.kept_weights:,} of {pruning.prunable_weights:,} that can be pruned are kept "
        f"({pruning.sparsity:.2%} sparse, by {pruning.method}). Those of the decoder are stored as "
        f"{manifest.quantisation.decoder}, those of the encoder as {manifest.quantisation.encoder}.",
        f"- **Bytes**: encoder {sizes[manifest.encoder.file]:,}, decoder {sizes[manifest.decoder.file]:,}, before packing.",
        f"- **Scores** on {data['name']} {data['split']} ({data['photos']:,} photos, beam {quality['quality']['beam']}, "
        f"{scores['tokenizer']} tokens): CIDEr-D {scores['cider_d']:.3f} (95 % interval {interval['low']:.3f} to "
        f"{interval['high']:.3f}), BLEU-4 {scores['bleu_4']:.3f}{meteor}.",
        f"- **Captions**: {health['distinct_words']:,} distinct words, {health['mean_words']:.1f} words on average, "
        f"{health['bad_ending_share']:.1%} stop at a word such as _a_ or _of_, "
        f"{health['unknown_share']:.1%} hold an unknown one.",
        *_confidence(quality.get("confidence")),
        *_familiarity(quality.get("familiarity")),
        f"- **Known failures of such models**: {FAILURES}",
        f"- **Made by** {manifest.created_by}: `capprune train` or `finetune` with the config in manifest.json, then `capprune "
        f"export RUN --target {PurePath(manifest.decoder.file).suffix[1:]} --weights {manifest.quantisation.decoder} "
        f"--encoder-weights {manifest.quantisation.encoder}{_plan(bundle)}` and `capprune validate BUNDLE --record`, "
        f"in {where['runtime']} {where['runtime_version']}. Every score stands in quality.json.",
        "",
        "Captions can be wrong. Do not rely on them where a mistake does harm.",
        "",
    ]
    return "\n".join(lines)


def _plan(bundle: Bundle) -> str:
    """Return the option for the bundle's plan; nothing if it is unknown. No verifier reads plan.json."""
    try:
        document = strict_json.parse(bundle.files.get(PLAN, b"{}"))
    except BundleError:
        return ""
    made = document.get("made") if isinstance(document, dict) else None
    return f" --plan {OPTIONS[made]}" if isinstance(made, str) and made in OPTIONS else ""


def _confidence(found: Mapping[str, Any] | None) -> list[str]:
    if found is None or found["low_below"] is None:
        return []
    return [
        f"- **Not sure**: captions whose mean log-probability a word lies below {found['low_below']:.3f} are marked; on "
        f"{found['split']} ({found['photos']:,} photos) that was {found['share']:.1%} of them, with a CIDEr-D of "
        f"{found['cider_d_below']:.3f} beside {found['cider_d']:.3f} of all."
    ]


def _familiarity(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    left_out = found["drawn_share"].values()
    drawn = f"; of drawn non-photos of a kind left out of the choice {min(left_out):.0%} or more" if left_out else ""
    return [
        f"- **Unfamiliar photos** get no caption but a statement: {found['share']:.1%} of {found['split']} "
        f"({found['photos']:,} photos){drawn}. Photos of other subjects are often taken for familiar."
    ]
