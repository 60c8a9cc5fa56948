"""The section of RESULTS.md about pruning methods, from the document that `capprune sweep` wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from result_text import Document, commands, machine, missing, table

COMMAND = "python benchmarks/methods.py --data flickr8k --out sweeps/methods"
WIDE = (
    "python benchmarks/methods.py --data flickr8k --grid configs/sweep_wide.yaml --out sweeps/wide "
    "--results benchmarks/results/methods_wide.json"
)
DENSE, RATE, EPOCHS = "dense", "training.learning_rate", "training.epochs"


class Wanted(NamedTuple):
    """A row of the comparison: a group of the sweep is it when all of these agree."""

    cell: str
    sparsity: float | None
    method: str
    start: str | None = None  # that the method does not have by itself
    scope: str | None = None

    @property
    def label(self) -> str:
        """What the table calls it."""
        more = [f"from {self.start}"] if self.start else []
        more += [self.scope] if self.scope else []
        return " ".join([self.method, *more])


MAIN = ("supermask", "gradual")
# Every row that the comparison promises; those that were not trained stand in the table as such.
ROWS = (
    Wanted("lstm", None, DENSE),
    *(Wanted("lstm", 0.975, method) for method in (*MAIN, "lottery")),
    Wanted("lstm", 0.975, "lottery", start="gradual"),
    *(Wanted("lstm", 0.975, "hard", scope=scope) for scope in (None, "uniform", "distribution")),
    Wanted("lstm", 0.975, "snip"),
    *(Wanted("lstm", sparsity, method) for sparsity in (0.8, 0.95, 0.9875) for method in (*MAIN, "hard")),
    Wanted("gru", None, DENSE),
    *(Wanted("gru", 0.975, method) for method in MAIN),
)
# What tells rows apart; a group with another key (a width, blocks, a limit in bytes) is none of them
COMPARED = {"decoder.cell", "pruning.method", "pruning.scope", "pruning.sparsity", "start", "training.seed"}
COMPARED |= {RATE, f"start.{RATE}"}
RETRAINED = {"hard": {EPOCHS, f"start.{EPOCHS}"}}  # by method: keys that a row of it may have as well
COLUMNS = ("model", "target", "seeds", "CIDEr-D", "to dense", "BLEU-4", "zeros", "decoder, bytes", "step, µs")
HEALTH = ("model", "target", "words", "with `<unk>`", "bad endings", "length", "learning rate", "epochs", "minutes")


def methods_section(document: Document | None) -> str:
    """Every method at its target, rivals of equal bytes, the health of the captions, and what it all cost."""
    return _section("## Pruning methods", document, ROWS, COMMAND)


def wide_section(document: Document | None) -> str:
    """The same of runs that are given more width and time, whatever their rows are."""
    return _section("## Pruning wide decoders in longer runs", document, (), WIDE)


def _section(title: str, document: Document | None, rows: Sequence[Wanted], command: str) -> str:
    if document is None:
        return f"{title}\n\n{missing('them', [command])}"
    exact = [group for group in document["groups"] if group["weights"] == "float32"]
    found = [(wanted, _find(document, exact, wanted)) for wanted in rows]
    used = {group["name"] for _, group in found if group is not None}
    others = [group for group in exact if group["name"] not in used]
    rate = document["config"]["training"]["learning_rate"]
    parts = [
        title,
        _what(document),
        table(
            COLUMNS,
            [[*_named(wanted), *_quality(group)] for wanted, group in found]
            + [[*_described(document, group), *_quality(group)] for group in others],
        ),
        _rivals(document, found, others),
        _pairs(document),
        "What the captions look like, and what training took with the run that one starts from:",
        table(
            HEALTH,
            [[*_named(wanted), *_health(group, rate)] for wanted, group in found if group and group["runs"]]
            + [[*_described(document, group), *_health(group, rate)] for group in others if group["runs"]],
        ),
        _other_formats(document),
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
        f"Soft-Attention on {document['data']}: trained on {photos}, {config['training']['epochs']} epochs a run, {shape} "
        f"unless a row says otherwise; {minutes:,.0f} minutes of training in all. Scored on {document['photos']:,} photos of "
        f"`{document['split']}`, beam {document['beam']}, {document['tokenizer']} tokens, by the trained models in torch. "
        "Several seeds: mean ± standard deviation. To dense: relative change of CIDEr-D against the dense run of the same seed "
        "and cell, with the 95 % interval over photos, paired."
    )


def _once(document: Document) -> list[Document]:
    """The cost of every run, one time."""
    return list({row["run"]: row["training"] for row in document["rows"] if row["training"]}.values())


def _find(document: Document, groups: Sequence[Document], wanted: Wanted) -> Document | None:
    base = document["config"]
    for group in groups:
        keys = group["keys"]
        facts = (
            keys.get("decoder.cell", base["decoder"]["cell"]),
            None if group["method"] == DENSE else keys.get("pruning.sparsity", base["pruning"]["sparsity"]),
            group["method"],
            keys.get("start") if keys.get("start") != DENSE else None,
            keys.get("pruning.scope"),
        )
        if facts == wanted and keys.keys() <= COMPARED | RETRAINED.get(wanted.method, set()):
            return group
    return None


def _named(wanted: Wanted) -> list[str]:
    target = "" if wanted.sparsity is None else f"{wanted.sparsity * 100:g} %"
    return [f"{wanted.cell.upper()}, {wanted.label}", target]


def _described(document: Document, group: Document) -> list[str]:
    """What the tables call a group that no row is promised for, and its target."""
    keys, base = group["keys"], document["config"]
    parts = [keys.get("decoder.cell", base["decoder"]["cell"]).upper() + ",", group["method"]]
    if group["method"] == "keep":
        parts = [parts[0], keys["start"] + (", rewarded" if keys.get("training.objective") == "scst" else ", tuned")]
    parts += ["by the reward alone"] if keys.get("training.reward.cross_entropy") == 0.0 else []
    dropout, photos = keys.get("pruning.dropout_factor"), keys.get("training.photos_per_batch")
    of_dropout = {None: "", 0.0: "without dropout", 1.0: "with full dropout"}.get(
        dropout, f"with {dropout} of the dropout"
    )
    parts += [of_dropout] if of_dropout else []
    parts += [keys["pruning.scope"]] if "pruning.scope" in keys else []
    block, width = keys.get("pruning.block"), keys.get("decoder.hidden")
    parts += [f"in {block}"] if block else []
    parts += [f"{width} wide"] if width else []
    parts += [f"{photos} photos a batch"] if photos else []
    parts += [f"{keys[EPOCHS]} epochs"] if EPOCHS in keys and group["method"] == DENSE else []
    parts += [f"for {keys[EPOCHS]} epochs"] if _tuned_otherwise(document, group) else []
    parts += ["trained again for a whole run"] if EPOCHS not in keys and group["method"] == "hard" else []
    if "pruning.step_us" in keys:
        return [" ".join(parts), f"{keys['pruning.step_us']:g} µs"]
    if "pruning.bytes" in keys:
        return [" ".join(parts), f"{keys['pruning.bytes']:,} bytes"]
    sparsity = keys.get("pruning.sparsity", base["pruning"]["sparsity"])
    return [" ".join(parts), "" if group["method"] == DENSE else f"{sparsity * 100:g} %"]


def _tuned_otherwise(document: Document, group: Document) -> bool:
    """Whether the same masks are tuned for another number of epochs in another row."""
    own = {**group["keys"], EPOCHS: None}
    alike = [one for one in document["groups"] if one["weights"] == "float32" and {**one["keys"], EPOCHS: None} == own]
    return group["method"] == "keep" and len(alike) > 1


def _pairs(document: Document) -> str:
    """What was tuned beside the best dense model of its epochs, what has a limit beside those that have none."""
    if not document.get("pairs"):
        return ""
    named = {
        (group["name"], group["weights"]): " ".join(_described(document, group)).strip() for group in document["groups"]
    }
    rows = [
        [
            *(_in_form(named.get((pair[side], _form(pair)), pair[side]), pair) for side in ("name", "against")),
            str(len(pair["seeds"])),
            f"{pair['cider_d']:.4f}",
            f"{pair['its_cider_d']:.4f}",
            _change(pair["change"]),
            *("—" if pair[key] is None else f"{pair[key]:.2f} times" for key in ("smaller", "faster")),
        ]
        for pair in document["pairs"]
    ]
    small = any(_form(pair) != "float32" for pair in document["pairs"])
    in_blocks = "; what is stored in blocks of int8, and a dense model of its shape in int8" if small else ""
    return (
        "Beside each other, of the seeds that both have: what was tuned with its masks, and the best dense model of no more "
        "epochs in all, whatever its width; what was rewarded, and the run that it started from; what was pruned to a limit, "
        f"and supermasks that count all weights alike{in_blocks}:\n\n"
        + table(("model", "beside", "seeds", "CIDEr-D", "the other's", "change", "file smaller", "step faster"), rows)
    )


def _form(pair: Document) -> str:
    return str(pair.get("weights", "float32"))


def _in_form(name: str, pair: Document) -> str:
    return name if _form(pair) == "float32" else f"{name}, {_form(pair)}"


def _quality(group: Document | None) -> list[str]:
    if group is None or not group["runs"]:
        reason = "failed" if group is not None and group["failed"] else "not run"
        return [reason, *[""] * (len(COLUMNS) - 3)]
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


def _health(group: Document, rate: float) -> list[str]:
    minutes = group["figures"]["seconds_in_all"]["mean"] / 60
    return [
        _mean(group, "distinct_words", ".0f"),
        _mean(group, "unknown_share", ".1%"),
        _mean(group, "bad_ending_share", ".1%"),
        _mean(group, "mean_words", ".1f"),
        f"{group['keys'].get(RATE, rate):g}",
        _mean(group, "epochs_in_all", ".0f"),
        f"{minutes:.0f}",
    ]


def _rivals(document: Document, found: Sequence[tuple[Wanted, Document | None]], others: Sequence[Document]) -> str:
    """The dense model whose file is nearest in bytes to that of the supermask at 97.5 %."""
    sparse = next((group for wanted, group in found if wanted == Wanted("lstm", 0.975, "supermask")), None)
    dense = [group for group in others if group["method"] == DENSE and "decoder_bytes" in group["figures"]]
    if sparse is None or "decoder_bytes" not in sparse["figures"] or not dense:
        return ""
    size = sparse["figures"]["decoder_bytes"]["mean"]
    rival = min(dense, key=lambda group: abs(group["figures"]["decoder_bytes"]["mean"] - size))
    return (
        f"Of equal bytes: {_described(document, rival)[0]} ({_mean(rival, 'decoder_bytes', ',.0f')} bytes) has CIDEr-D "
        f"{_mean(rival, 'cider_d', '.4f')}, the supermask at 97.5 % ({size:,.0f} bytes) {_mean(sparse, 'cider_d', '.4f')}."
    )


def _other_formats(document: Document) -> str:
    groups = [group for group in document["groups"] if group["weights"] != "float32" and group["runs"]]
    if not groups:
        return ""
    rows = [[*_described(document, group), group["weights"], *_quality(group)] for group in groups]
    return "In other formats, said by the decoder's file in the interpreter:\n\n" + table(
        (*COLUMNS[:2], "weights", *COLUMNS[2:]), rows
    )


def _failures(document: Document) -> str:
    lines = [
        f"- {row['run']}, {row['weights']}: {row['error']['what']}"
        for row in document["rows"]
        if row["status"] == "failed"
    ]
    return "Failed:\n\n" + "\n".join(lines) if lines else ""


def _overrides(document: Document) -> str:
    """What the budget was, as options of the command; the usual one has none."""
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
