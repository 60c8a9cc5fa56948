"""The section of RESULTS.md about pruning methods, from the document of `capprune sweep`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from method_rows import DENSE, RATE, ROWS, SETTINGS, Line, Wanted, exact_lines, other_lines
from result_text import Document, commands, machine, missing, ratio, table

__all__ = ["ROWS", "blocks_section", "methods_section", "wide_section"]

COMMAND = "python benchmarks/methods.py --data flickr8k --out sweeps/methods"
WIDE = (
    "python benchmarks/methods.py --data flickr8k --grid configs/sweep_wide.yaml --out sweeps/wide "
    "--results benchmarks/results/methods_wide.json"
)
BLOCKS = (
    "python benchmarks/methods.py --data flickr8k --grid configs/sweep_blocks.yaml --out sweeps/blocks "
    "--results benchmarks/results/methods_blocks.json"
)
FIGURES = ("seeds", "CIDEr-D", "against dense", "BLEU-4", "zeros", "decoder, bytes", "step, µs")
HEALTH = ("row", "method", "target", "words", "with `<unk>`", "bad endings", "length", "learning rate", "minutes")
PAIRS = ("row", "compared with row", "seeds", "CIDEr-D", "the other's CIDEr-D", "change", "file", "step")


def methods_section(document: Document | None) -> str:
    """Return the section with every method at its target, baselines of equal size, caption statistics, and the cost."""
    return _section("## Pruning methods", document, ROWS, COMMAND)


def wide_section(document: Document | None) -> str:
    """Return the same section for runs with more width and time, whatever their rows are."""
    return _section("## Pruning wide decoders in longer runs", document, (), WIDE)


def blocks_section(document: Document | None) -> str:
    """Return the same section for blocks that start from a dense model, beside dense models of the same stages."""
    return _section("## Blocks that start from a dense model", document, (), BLOCKS)


def _section(title: str, document: Document | None, rows: Sequence[Wanted], command: str) -> str:
    if document is None:
        return f"{title}\n\n{missing('them', [command])}"
    exact, found = exact_lines(document, rows)
    other = other_lines(document, len(exact))
    parts = [
        title,
        _what(document),
        table((*SETTINGS, *FIGURES), [[*line.cells, *_quality(line.group)] for line in exact]),
        _other_formats(other),
        _baselines(found, exact),
        _pairs(document, [*exact, *other]),
        "Health of the captions, and cost of the training with the run that a row starts from. Words: different words in all "
        "captions. Bad endings: captions that stop at a word such as *a* or *of*. Length: words per caption.",
        table(HEALTH, [_health(line, document) for line in exact if line.has_runs]),
        _failures(document),
        machine(document["environment"]),
        commands([command + _overrides(document)]),
    ]
    return "\n\n".join(part for part in parts if part)


def _what(document: Document) -> str:
    config, training = document["config"], [row["training"] for row in document["rows"] if row["training"]]
    decoder = config["decoder"]
    shape = ", ".join(f"{name} {decoder[name]}" for name in ("embedding", "hidden", "attention", "context"))
    photos = f"{training[0]['photos']:,} photos" if training else "the training photos"
    minutes = sum(one["seconds"] for one in _once(document)) / 60
    return (
        f"Soft-attention decoders on {document['data']}, trained on {photos} with {shape} unless a row names another width; "
        f"{minutes:,.0f} minutes of training in all. Scored on {document['photos']:,} photos of `{document['split']}`, beam "
        f"{document['beam']}, {document['tokenizer']} tokens, by the trained models in torch.\n\n"
        "- Several seeds: mean ± standard deviation.\n"
        "- Epochs: with those of the run that a row starts from. Tuning: objective and dropout (as a share of the dense "
        "model's) of the last stage of a row that keeps the masks of another run.\n"
        "- Against dense: relative change of CIDEr-D against the dense run of the same seed and cell, with the 95 % interval "
        "over photos, paired."
    )


def _once(document: Document) -> list[Document]:
    """Return the cost of every run, each counted once."""
    return list({row["run"]: row["training"] for row in document["rows"] if row["training"]}.values())


def _pairs(document: Document, lines: Sequence[Line]) -> str:
    """Return the comparisons of the sweep, by the numbers of their rows."""
    if not document.get("pairs"):
        return ""
    numbers = {(line.group["name"], line.group["weights"]): str(line.number) for line in lines if line.group}
    rows = [
        [
            *(numbers.get((pair[side], _form(pair)), pair[side]) for side in ("name", "against")),
            str(len(pair["seeds"])),
            f"{pair['cider_d']:.4f}",
            f"{pair['its_cider_d']:.4f}",
            _change(pair["change"]),
            ratio(pair["smaller"], "smaller", "larger"),
            ratio(pair["faster"], "faster", "slower"),
        ]
        for pair in document["pairs"]
    ]
    small = any(_form(pair) != "float32" for pair in document["pairs"])
    in_blocks = "\n- blocks in int8: with the best dense model of the same shape in int8" if small else ""
    return (
        "Paired comparisons, over the seeds that both rows have:\n\n"
        "- a tuned row: with the best dense model of no more epochs in all, whatever its width\n"
        "- a row trained by SCST: with the run that it started from\n"
        f"- a row with a limit: with the supermasks whose target counts all weights alike{in_blocks}\n\n"
        + table(PAIRS, rows)
    )


def _form(pair: Document) -> str:
    return str(pair.get("weights", "float32"))


def _quality(group: Document | None) -> list[str]:
    if group is None or not group["runs"]:
        reason = "failed" if group is not None and group["failed"] else "not run"
        return [reason, *[""] * (len(FIGURES) - 1)]
    short = [f"{group[name]} {word}" for name, word in (("failed", "failed"), ("waiting", "not run")) if group[name]]
    return [
        ", ".join([str(len(group["runs"])), *short]),
        _spread(group, "cider_d", ".4f"),
        _change(group["change"]),
        _spread(group, "bleu_4", ".4f"),
        _mean(group, "sparsity", ".2%"),
        _mean(group, "decoder_bytes", ",.0f"),
        _spread(group, "step_us", ".0f"),
    ]


def _health(line: Line, document: Document) -> list[str]:
    assert line.group is not None, "only rows with runs have captions"
    minutes = line.group["figures"]["seconds_in_all"]["mean"] / 60
    method, *_, target = line.settings
    return [
        str(line.number),
        method,
        target,
        _mean(line.group, "distinct_words", ".0f"),
        _mean(line.group, "unknown_share", ".1%"),
        _mean(line.group, "bad_ending_share", ".1%"),
        _mean(line.group, "mean_words", ".1f"),
        f"{line.group['keys'].get(RATE, document['config']['training']['learning_rate']):g}",
        f"{minutes:.0f}",
    ]


def _baselines(found: Mapping[Wanted, Document | None], lines: Sequence[Line]) -> str:
    """Return the dense model whose file size is nearest to that of the supermask at 97.5 %."""
    sparse = found.get(Wanted("lstm", 0.975, "supermask"))
    promised = [group for group in found.values() if group is not None]
    dense = [
        line
        for line in lines
        if line.group
        and line.group["method"] == DENSE
        and line.group not in promised
        and "decoder_bytes" in line.group["figures"]
    ]
    if sparse is None or "decoder_bytes" not in sparse["figures"] or not dense:
        return ""
    size = sparse["figures"]["decoder_bytes"]["mean"]
    baseline = min(
        dense, key=lambda line: abs(line.group["figures"]["decoder_bytes"]["mean"] - size) if line.group else size
    )
    assert baseline.group is not None, "it has a size"
    its_size, its_score = _mean(baseline.group, "decoder_bytes", ",.0f"), _mean(baseline.group, "cider_d", ".4f")
    return (
        f"At equal bytes: the dense model of row {baseline.number} ({its_size} bytes) has CIDEr-D {its_score}, the supermask at "
        f"97.5 % ({size:,.0f} bytes) {_mean(sparse, 'cider_d', '.4f')}."
    )


def _other_formats(lines: Sequence[Line]) -> str:
    if not lines:
        return ""
    rows = [[*line.cells, line.group["weights"], *_quality(line.group)] for line in lines if line.group]
    return "Other export formats, captioned by the decoder's file in the interpreter:\n\n" + table(
        (*SETTINGS, "weights", *FIGURES), rows
    )


def _failures(document: Document) -> str:
    lines = [
        f"- {row['run']}, {row['weights']}: {row['error']['what']}"
        for row in document["rows"]
        if row["status"] == "failed"
    ]
    return "Failed:\n\n" + "\n".join(lines) if lines else ""


def _overrides(document: Document) -> str:
    """Return the budget as options of the command; the default budget has none."""
    config = document["config"]
    usual = {
        "data.limit": None,
        "training.epochs": 10,
        "training.precision": "float32",
        "training.photos_per_batch": 10,
        "training.learning_rate": 1e-3,
        "training.warmup": 0.0,
        "training.validation_photos": 500,
        "decoder.embedding": 256,
        "decoder.hidden": 512,
        "decoder.attention": 512,
        "decoder.context": 512,
        "encoder.grid": 4,
    }
    changed = []
    for key, value in usual.items():
        section, name = key.split(".")
        if config[section][name] != value:
            changed.append(f" {key}={config[section][name]}")
    return "".join(changed)


def _mean(group: Document, name: str, form: str) -> str:
    figure = group["figures"].get(name)
    return "—" if figure is None else format(figure["mean"], form)


def _spread(group: Document, name: str, form: str) -> str:
    figure = group["figures"].get(name)
    spread = "" if figure is None or figure["spread"] is None else f" ± {figure['spread']:{form}}"
    return _mean(group, name, form) + spread


def _change(change: Any) -> str:
    if change is None or change["relative"] is None:
        return "—"
    relative = change["relative"]
    return f"{relative['estimate']:+.1%} [{relative['low']:+.1%}, {relative['high']:+.1%}]"
