"""The section about pruning methods says what the sweep's document says, and what it lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import methods
from capprune.config.reading import load_config
from capprune.sweeping.grid import expand, read_grid
from capprune.sweeping.groups import compared, grouped
from capprune.sweeping.results import Cost, Document, Row, Scores, Sizes, write_document, write_scores
from method_results import methods_section
from method_rows import ROWS
from result_text import ratio

PHOTOS = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
CIDER = {"dense": 0.5, "supermask": 0.49, "gradual": 0.45, "keep": 0.495}
BUDGET = ("training.epochs=6", "training.learning_rate=4e-3", "data.limit=100")
SEED_STEP = 0.02


def made(tmp_path: Path) -> Path:
    """A sweep of the real grid in which only a few runs are done."""
    base = load_config(methods.CONFIG, ["data.folder=/somewhere/flickr8k", *BUDGET])
    rows, scores = [], Scores()
    for run in expand(base, read_grid([str(methods.GRID)]), tmp_path):
        plain = {"run": run.name, "method": run.method, "seed": run.seed, "start": run.start, "keys": run.keys}
        for weights in run.weights:
            row = Row.model_validate({**plain, "weights": weights, "decoder": run.config.decoder.model_dump()})
            if run.method in CIDER and not set(run.keys) & {"decoder.cell"} and run.config.pruning.sparsity == 0.975:
                row = done(row, scores)
            elif run.method == "snip":
                row = row.model_copy(update={"status": "failed", "error": {"what": "no luck", "exit_code": 4}})
            rows.append(row)
    rows = list(compared(rows, scores))
    document = Document(
        created_by="capprune",
        config=base.as_tree(),
        data="flickr8k",
        split="test",
        photos=len(PHOTOS),
        beam=3,
        tokenizer="plain",
        environment={
            "cpu_count": 2,
            "cpu_model": "a processor",
            "machine": "x86_64",
            "runtime": "ai-edge-litert",
            "runtime_version": "2",
            "threads": 1,
            "python": "3.11",
            "emulated": False,
        },
        rows=tuple(rows),
        groups=grouped(rows, scores),
    )
    write_document(tmp_path, document)
    write_scores(tmp_path, scores, PHOTOS)
    return tmp_path


def done(row: Row, scores: Scores) -> Row:
    import numpy as np

    width, small = row.decoder["hidden"], row.decoder["hidden"] < 512
    cider = CIDER[row.method] + SEED_STEP * (row.seed == 2) - 0.1 * small
    scores[row.key] = np.array([cider - 0.1, cider + 0.1, cider, cider], np.float32)
    size = 19_000_000 if row.method == "dense" and not small else 1_000_000 * (width / 16 if small else 1)
    return row.model_copy(
        update={
            "status": "done",
            "training": Cost(
                photos=100, captions=500, epochs=6, best_epoch=5, seconds=60.0, epochs_in_all=6, seconds_in_all=60.0
            ),
            "sparsity": 0.0 if row.method == "dense" else 0.975,
            "quality": {"cider_d": cider, "bleu_4": 0.2, "meteor": None},
            "health": {"distinct_words": 300, "unknown_share": 0.0, "bad_ending_share": 0.01, "mean_words": 9.5},
            "sizes": Sizes(
                decoder_bytes=int(size),
                encoder_bytes=None,
                step_us={"p10": 90.0, "p50": 100.0, "p90": 120.0},
                runtime="ai-edge-litert",
                load=1.0,
            ),
        }
    )


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    return methods.copied(made(tmp_path))


def tables(section: str) -> list[list[dict[str, str]]]:
    """Every table of a section, its rows by the names of their columns."""
    found: list[list[dict[str, str]]] = []
    columns: list[str] = []
    for one in section.splitlines():
        cells = [cell.strip() for cell in one.split("|")[1:-1]]
        if not cells:
            columns = []
        elif not columns:
            columns = cells
            found.append([])
        elif set(cells[0]) != {"-"}:
            found[-1].append(dict(zip(columns, cells, strict=True)))
    return found


def line(section: str, table: int = 0, **settings: str) -> dict[str, str]:
    """The only row of a table with these cells; all other settings are those of a plain run."""
    plain = {"cell": "LSTM", "width": "512", "block": "", "photos per batch": "10", "tuning": "", **settings}
    rows = [
        row for row in tables(section)[table] if all(row.get(name, value) == value for name, value in plain.items())
    ]
    assert len(rows) == 1, rows
    return rows[0]


def test_seeds_stand_as_mean_and_spread_with_the_paired_change(document: dict[str, Any]) -> None:
    section = methods_section(document)
    row = line(section, method="supermask", target="97.5 %")
    assert (row["row"], row["seeds"], row["CIDEr-D"]) == ("2", "3", "0.4967 ± 0.0115")  # 0.49, 0.49, 0.51
    assert row["against dense"].startswith("-2.0% [")  # (0.4967 - 0.5067) / 0.5067
    assert (row["zeros"], row["decoder, bytes"], row["step, µs"]) == ("97.50%", "1,000,000", "100 ± 0")
    assert line(section, method="dense", row="1")["against dense"] == "—"
    health = {row["row"]: row for row in tables(section)[-1]}
    assert (health["2"]["words"], health["2"]["learning rate"]) == ("300", "0.004")  # the config's
    tuned = line(section, tuning="cross-entropy, 1/3 dropout", **{"photos per batch": "20"})
    assert health[tuned["row"]]["learning rate"] == "0.001"  # its own


def test_row_that_was_not_trained_says_so(document: dict[str, Any]) -> None:
    section = methods_section(document)
    for settings, reason in (
        ({"cell": "GRU", "method": "supermask"}, "not run"),
        ({"method": "lottery from gradual"}, "not run"),
        ({"method": "snip"}, "failed"),
    ):
        row = line(section, **settings)
        assert (row["target"], row["seeds"]) == ("97.5 %", reason)
    assert "- snip-sparsity0.975-seed8888, float32: no luck" in section
    document["groups"] = []
    assert methods_section(document).count("| not run |") == len(ROWS)


def test_grid_asks_for_every_row_of_the_table(document: dict[str, Any]) -> None:
    for group in document["groups"]:
        group["runs"] = group["runs"] or ["one"]
        group["figures"] = document["groups"][0]["figures"]
    assert "| not run |" not in methods_section(document)


def test_run_in_blocks_or_of_another_limit_is_no_row_of_the_table(document: dict[str, Any]) -> None:
    document["groups"] = [group for group in document["groups"] if group["name"] != "supermask-sparsity0.975"]
    document["pairs"] = []
    section = methods_section(document)
    assert line(section, method="supermask", target="97.5 %")["seeds"] == "not run"
    assert line(section, method="supermask", block="1x16", target="80 %")["seeds"] == "not run"
    assert line(section, method="supermask", **{"photos per batch": "20"})["seeds"] == "2"
    assert line(section, method="supermask", target="37 µs")["seeds"] == "1"


def test_tuned_and_limited_runs_stand_beside_their_baselines(document: dict[str, Any]) -> None:
    limited, _, rewarded, _, tuned, _ = document["pairs"]
    assert tuned["against"] == "dense"  # of those with as many epochs the best
    assert tuned["seeds"] == [1, 8888] and limited["seeds"] == [8888]
    assert tuned["change"]["relative"]["estimate"] == pytest.approx(0.495 / 0.5 - 1, rel=0.05)
    assert (tuned["smaller"], tuned["faster"]) == (19.0, 1.0)
    assert (limited["against"], limited["cider_d"]) == ("supermask-sparsity0.975", pytest.approx(0.49))
    assert (rewarded["against"], rewarded["seeds"]) == ("supermask-sparsity0.975", [8888])
    assert rewarded["change"]["relative"]["estimate"] == pytest.approx(0.495 / 0.49 - 1, rel=1e-4)
    section = methods_section(document)
    number = line(section, tuning="cross-entropy, 1/3 dropout", **{"photos per batch": "20"})["row"]
    pair = next(row for row in tables(section)[2] if row["row"] == number)
    assert (pair["compared with row"], pair["seeds"]) == ("1", "2")
    assert (pair["file"], pair["step"]) == ("19.00x smaller", "equal")


def test_rewarded_runs_name_objective_and_dropout(document: dict[str, Any]) -> None:
    section = methods_section(document)
    assert line(section, tuning="SCST alone, no dropout")["method"] == "supermask"
    assert line(section, tuning="SCST and cross-entropy, no dropout")["method"] == "supermask"


def test_blocks_of_int8_stand_beside_the_dense_model_of_their_shape_in_int8(document: dict[str, Any]) -> None:
    blocked = document["pairs"][-1]
    assert (blocked["name"], blocked["weights"]) == ("supermask-block-1x16-sparsity0.975", "int8")
    assert (blocked["against"], blocked["seeds"]) == ("dense", [8888])
    section = methods_section(document)
    number = line(section, table=1, method="supermask", block="1x16", target="97.5 %", weights="int8")["row"]
    pair = next(row for row in tables(section)[2] if row["row"] == number)
    assert pair["compared with row"] == line(section, table=1, method="dense")["row"]
    assert pair["file"] == "19.00x smaller"
    document["pairs"] = document["pairs"][:-1]
    assert "- blocks in int8:" not in methods_section(document)


def test_ratios_are_never_under_one() -> None:
    assert ratio(0.25, "smaller", "larger") == "4.00x larger"
    assert ratio(4.0, "smaller", "larger", digits=1) == "4.0x smaller"
    assert ratio(1.001, "faster", "slower") == "equal" and ratio(None, "faster", "slower") == "—"


def test_budget_and_baseline_of_equal_bytes_are_told(document: dict[str, Any]) -> None:
    section = methods_section(document)
    runs = len({row["run"] for row in document["rows"] if row["status"] == "done"})
    assert "trained on 100 photos with embedding 256, hidden 512, attention 512, context 512" in section
    assert f"; {runs} minutes of training in all" in section
    usual = methods_section(None).splitlines()[-2]
    assert f"{usual} data.limit=100 training.epochs=6 training.learning_rate=0.004\n" in section
    small = line(section, method="dense", width="16")["row"]
    assert f"At equal bytes: the dense model of row {small} (1,000,000 bytes)" in section


def test_copy_does_not_tell_where_the_data_was(tmp_path: Path) -> None:
    results = tmp_path / "methods.json"
    assert methods.main(["--copy", "--out", str(made(tmp_path / "sweep")), "--results", str(results)]) == 0
    assert "/somewhere" not in results.read_text()
    assert json.loads(results.read_text())["config"]["data"]["folder"] == "flickr8k"


def test_copy_of_no_sweep_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert methods.main(["--copy", "--out", str(tmp_path)]) == 5
    assert "there is no sweep" in capsys.readouterr().err
