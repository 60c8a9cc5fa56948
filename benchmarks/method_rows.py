"""Rows of the tables about pruning methods: their groups of the sweep, and the settings that distinguish them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from result_text import Document

DENSE, EXACT, RATE, EPOCHS = "dense", "float32", "training.learning_rate", "training.epochs"
SETTINGS = ("row", "method", "cell", "width", "block", "photos per batch", "epochs", "tuning", "target")


class Wanted(NamedTuple):
    """A row of the comparison, and the settings that identify its group of the sweep."""

    cell: str
    sparsity: float | None
    method: str
    start: str | None = None  # if not the method's default
    scope: str | None = None

    @property
    def label(self) -> str:
        """Name of the method in the table."""
        return f"{self.method}{f' from {self.start}' if self.start else ''}{f' ({self.scope})' if self.scope else ''}"


MAIN = ("supermask", "gradual")
# All rows of the comparison; rows that were not trained are marked in the table.
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
# Settings that distinguish rows; a group with another key (a width, blocks, a limit in bytes) does not match
COMPARED = {"decoder.cell", "pruning.method", "pruning.scope", "pruning.sparsity", "start", "training.seed"}
COMPARED |= {RATE, f"start.{RATE}"}
RETRAINED = {"hard": {EPOCHS, f"start.{EPOCHS}"}}  # by method: additional keys that a matching group may have


@dataclass(frozen=True)
class Line:
    """A row of the tables.

    Attributes:
        number: Number of the row in other tables.
        settings: Cells after the number, in the columns `SETTINGS`.
        group: Group of the sweep; None if the sweep lacks an expected row.
    """

    number: int
    settings: tuple[str, ...]
    group: Document | None

    @property
    def cells(self) -> list[str]:
        """The number and the settings."""
        return [str(self.number), *self.settings]

    @property
    def has_runs(self) -> bool:
        """Whether any of its runs was trained."""
        return self.group is not None and bool(self.group["runs"])


def exact_lines(document: Document, rows: Sequence[Wanted]) -> tuple[list[Line], dict[Wanted, Document | None]]:
    """Return the rows in float32, the expected ones first, and the group of every expected one."""
    exact = [group for group in document["groups"] if group["weights"] == EXACT]
    found = {wanted: _find(document, exact, wanted) for wanted in rows}
    used = {group["name"] for group in found.values() if group is not None}
    others = [group for group in exact if group["name"] not in used]
    settings = [(_promised(document, wanted, group), group) for wanted, group in found.items()]
    settings += [(_described(document, group), group) for group in others]
    return [Line(number, cells, group) for number, (cells, group) in enumerate(settings, 1)], found


def other_lines(document: Document, after: int) -> list[Line]:
    """Return the rows of other export formats, numbered after those in float32."""
    groups = [group for group in document["groups"] if group["weights"] != EXACT and group["runs"]]
    return [Line(number, _described(document, group), group) for number, group in enumerate(groups, after + 1)]


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


def _promised(document: Document, wanted: Wanted, group: Document | None) -> tuple[str, ...]:
    target = "" if wanted.sparsity is None else f"{wanted.sparsity * 100:g} %"
    return tuple(_cells(document, group, method=wanted.label, cell=wanted.cell, target=target))


def _described(document: Document, group: Document) -> tuple[str, ...]:
    """Return the settings of a group without an expected row."""
    keys = group["keys"]
    method = keys["start"] if group["method"] == "keep" else _with_start(group["method"], keys.get("start"))
    scope = f" ({keys['pruning.scope']})" if "pruning.scope" in keys else ""
    cell = keys.get("decoder.cell", document["config"]["decoder"]["cell"])
    return tuple(_cells(document, group, method=f"{method}{scope}", cell=cell, target=_target(document, group)))


def _with_start(method: str, start: str | None) -> str:
    """Return the method, with the run that it starts from; `hard` always prunes a trained one."""
    return method if start is None or method == "hard" else f"{method} from {start}"


def _cells(document: Document, group: Document | None, *, method: str, cell: str, target: str) -> Iterator[str]:
    keys: Mapping[str, Any] = {} if group is None else group["keys"]
    config = document["config"]
    yield method
    yield cell.upper()
    yield str(keys.get("decoder.hidden", config["decoder"]["hidden"]))
    yield keys.get("pruning.block", "")
    yield str(keys.get("training.photos_per_batch", config["training"]["photos_per_batch"]))
    yield _epochs(group) or str(keys.get(EPOCHS, config["training"]["epochs"]))
    yield "" if group is None else _tuning(document, group)
    yield target


def _epochs(group: Document | None) -> str:
    """Return the epochs, including those of the starting run; empty if nothing was trained."""
    figure = None if group is None else group["figures"].get("epochs_in_all")
    return "" if figure is None else f"{figure['mean']:.0f}"


def _tuning(document: Document, group: Document) -> str:
    """Return the last stage of a run that keeps the masks of another: its objective and its dropout."""
    keys = group["keys"]
    if group["method"] != "keep":
        return ""
    alone = keys.get("training.reward.cross_entropy") == 0.0
    reward = "SCST alone" if alone else "SCST and cross-entropy"
    objective = reward if keys.get("training.objective") == "scst" else "cross-entropy"
    factor = keys.get("pruning.dropout_factor", document["config"]["pruning"]["dropout_factor"])
    share = {0.0: "no", 1.0: "full"}.get(factor, "1/3" if abs(factor - 1 / 3) < 1e-9 else f"{factor:g}")
    return f"{objective}, {share} dropout"


def _target(document: Document, group: Document) -> str:
    keys = group["keys"]
    if "pruning.step_us" in keys:
        return f"{keys['pruning.step_us']:g} µs"
    if "pruning.bytes" in keys:
        return f"{keys['pruning.bytes']:,} bytes"
    sparsity = keys.get("pruning.sparsity", document["config"]["pruning"]["sparsity"])
    return "" if group["method"] == DENSE else f"{sparsity * 100:g} %"
