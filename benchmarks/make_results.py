"""Make RESULTS.md from the benchmarks' JSON; the same files give the same text.

python benchmarks/make_results.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from capprune_runtime.atomic import write_text
from capprune_runtime.errors import DataError
from decoder_step_results import decoder_step_section
from end_to_end_results import end_to_end_section
from export_results import entropy_section, exports_section
from first_caption_results import first_caption_section
from kept_bundle_results import kept_bundles_section
from method_results import blocks_section, methods_section, wide_section
from result_text import commands as _commands
from result_text import machine as _machine
from result_text import missing as _missing
from result_text import table as _table
from training_results import training_section

RESULTS = Path(__file__).parent / "results"
TEXT = Path(__file__).parent / "RESULTS.md"
MODELS = ("dense", "sparse")

Document = dict[str, Any]

HEAD = """\
# Results

`python benchmarks/make_results.py` generates this page from the JSON in `benchmarks/results/`, and a test compares them.
Times are medians (p50) with the first and the ninth decile (p10, p90). A ratio of medians is printed only where the ranges
from p10 to p90 do not overlap and the processor is not emulated."""


def render(results: Path) -> str:
    """Return the text of RESULTS.md.

    Args:
        results: Folder of the JSON files; for a missing file, the page shows the command that makes it.

    Raises:
        DataError: Two documents hold scores of different photos, beams or tokenizers.
    """
    models = {name: _read(results / f"flickr8k_{name}.json") for name in MODELS}
    found = {name: document for name, document in models.items() if document is not None}
    sections = [
        HEAD,
        decoder_step_section(_read(results / "decoder_step.json")),
        _flickr8k(found),
        kept_bundles_section(_read(results / "kept_bundles.json")),
        first_caption_section(_read(results / "first_caption.json")),
        methods_section(_read(results / "methods.json")),
        wide_section(_read(results / "methods_wide.json")),
        blocks_section(_read(results / "methods_blocks.json")),
        exports_section(_read(results / "exports.json")),
        entropy_section(_read(results / "entropy.json")),
        end_to_end_section({name: _read(results / f"end_to_end_{name}.json") for name in ("scenes", "flickr8k")}),
        training_section(_read(results / "training_speed.json")),
    ]
    return "\n\n".join(sections) + "\n"


def _flickr8k(models: dict[str, Document]) -> str:
    title = "## Flickr8k, trained models"
    how = [_missing(f"the {name} model", _usual_commands(name)) for name in MODELS if name not in models]
    if not models:
        return "\n\n".join([title, *how])
    results = [document["results"] for document in models.values()]
    data, beam, tokenizer = _same([(r["data"], r["quality"]["beam"], _tokenizer(r)) for r in results])
    what = (
        f"Soft-Attention LSTM on {data['name']}: split `{data['split']}`, {data['photos']:,} photos, beam {beam}, "
        f"{tokenizer} tokens. Intervals are 95 % bootstrap intervals over photos. Parity is the number of captions of "
        "the exported model that equal the trained model's, token for token."
    )
    figures = _table(["", *models], [[label, *map(figure, models.values())] for label, figure in _figures(models)])
    curve = "Validation during training, greedy CIDEr-D:\n\n" + _curve(models)
    machine = _machine(results[0]["environment"])
    done = [command for document in models.values() for command in document["commands"]]
    return "\n\n".join([title, what, figures, curve, machine, _commands(done), *how])


def _same(settings: Sequence[tuple[Document, int, str]]) -> tuple[Document, int, str]:
    """Return photos, beam and tokenizer, which must be equal for scores in one table."""
    first, *others = settings
    for other in others:
        if other != first:
            raise DataError(
                "scores of different photos, beams or tokenizers cannot be compared in one table",
                where="flickr8k_dense.json, flickr8k_sparse.json",
                expected=first,
                found=other,
                hint="measure both models with the same benchmarks/flickr8k.py command",
            )
    return first


def _tokenizer(results: Document) -> str:
    return str(results["quality"]["scores"]["tokenizer"])


def _figures(models: dict[str, Document]) -> list[tuple[str, Callable[[Document], str]]]:
    """Return the rows of the table: their names, and functions that read them from a document."""
    runtimes = dict.fromkeys(name for document in models.values() for name in document["results"]["parity"])
    return [
        ("BLEU-4", lambda d: f"{_scores(d)['bleu_4']:.4f}"),
        ("CIDEr-D", lambda d: f"{_scores(d)['cider_d']:.4f}"),
        ("CIDEr-D, interval", lambda d: _interval(d["results"]["quality"]["cider_d_interval"])),
        ("METEOR", lambda d: "—" if _scores(d)["meteor"] is None else f"{_scores(d)['meteor']:.4f}"),
        ("CIDEr-D of the trained model", lambda d: f"{d['results']['reference']['scores']['cider_d']:.4f}"),
        ("CIDEr-D of the best constant caption", lambda d: f"{d['constant_caption']['cider_d']:.4f}"),
        *((f"parity in {name}", lambda d, name=name: _parity(d, name)) for name in runtimes),
        ("weights kept", lambda d: f"{d['results']['bundle']['kept_weights']:,}"),
        ("weights in all", lambda d: f"{d['results']['bundle']['prunable_weights']:,}"),
        ("decoder, bytes", lambda d: f"{d['results']['bundle']['files']['decoder.tflite']:,}"),
        ("bundle, bytes", lambda d: f"{d['results']['bundle']['total_bytes']:,}"),
        ("step, µs p50", lambda d: f"{d['results']['latency']['step']['p50_us']:,.0f}"),
        ("step, µs p90", lambda d: f"{d['results']['latency']['step']['p90_us']:,.0f}"),
        ("encode, µs p50", lambda d: f"{d['results']['latency']['encode']['p50_us']:,.0f}"),
        ("caption, µs p50", lambda d: f"{d['results']['latency']['caption']['p50_us']:,.0f}"),
        ("training, epochs", lambda d: f"{d['training']['epochs']}"),
        ("training, seconds per epoch", lambda d: f"{d['training']['seconds_per_epoch']:.0f}"),
    ]


def _scores(document: Document) -> Document:
    scores: Document = document["results"]["quality"]["scores"]
    return scores


def _interval(interval: Document) -> str:
    return f"{interval['low']:.3f} to {interval['high']:.3f}"


def _parity(document: Document, runtime: str) -> str:
    parity = document["results"]["parity"].get(runtime)
    if parity is None:
        return "—"
    return f"{parity['identical']:,} of {parity['photos']:,}" + ("" if parity["holds"] else ", does not hold")


def _curve(models: dict[str, Document]) -> str:
    epochs = max(len(document["training"]["validation"]) for document in models.values())
    pruned = [name for name, document in models.items() if "sparsity" in document["training"]["validation"][0]]
    rows = []
    for epoch in range(epochs):
        lines = {name: _line(document, epoch) for name, document in models.items()}
        quality = ["" if line is None else f"{line['cider']:.4f}" for line in lines.values()]
        sparsity = ["" if (line := lines[name]) is None else f"{line['sparsity']:.2%}" for name in pruned]
        rows.append([str(epoch + 1), *quality, *sparsity])
    return _table(["epoch", *models, *(f"{name}, zeros" for name in pruned)], rows)


def _line(document: Document, epoch: int) -> Document | None:
    lines: list[Document] = document["training"]["validation"]
    return lines[epoch] if epoch < len(lines) else None


def _usual_commands(name: str) -> list[str]:
    run, bundle = f"runs/flickr8k-{name}", f"bundles/flickr8k-{name}"
    return [
        f"capprune train configs/flickr8k_{name}.yaml data.folder=flickr8k --out {run}",
        f"capprune export {run} --target tflite --out {bundle}",
        f"python benchmarks/flickr8k.py --data flickr8k --{name} {run} {bundle}",
    ]


def _read(path: Path) -> Document | None:
    if not path.is_file():
        return None
    document: Document = json.loads(path.read_text(encoding="utf-8"))
    return document


if __name__ == "__main__":
    write_text(TEXT, render(RESULTS))
    print(TEXT)
