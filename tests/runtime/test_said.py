from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from capprune_runtime.caption.captioner import Caption
from capprune_runtime.caption.confidence import confidence_of, mean_log_probability
from capprune_runtime.caption.explain import explanation, explanation_places, write_explanation
from capprune_runtime.caption.said import Said, as_cell, check_table, write_table
from capprune_runtime.command import main
from capprune_runtime.errors import BundleError, DataError, PhotoError, UsageError
from capprune_runtime.photo_folder import find_photos


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=cmd|' /C calc'!A1", "'=cmd|' /C calc'!A1"),
        (" @SUM(A1)", "' @SUM(A1)"),
        ("\t=1", "\\t=1"),
        ("-2+3", "'-2+3"),
        ("+1", "'+1"),
        ("a dog\r\n=1", "a dog\\r\\n=1"),
        ("a \x1b[31mred\x1b[0m \u202edog", "a \\x1b[31mred\\x1b[0m \\u202edog"),
        ("a dog, running", "a dog, running"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("a dog; =1+1", "a dog; '=1+1"),
        ("a dog; running", "a dog; running"),
    ],
)
def test_cell_of_a_table_is_no_formula_and_one_line(text: str, cell: str) -> None:
    assert as_cell(text) == cell


def test_the_name_of_a_photo_makes_no_lines_and_fields(
    bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, forged = tmp_path / "plain.png", tmp_path / "a.png\ta fine caption\nb.png"
    for path in (plain, forged):
        Image.linear_gradient("L").save(path, "PNG")
    assert main(["caption", str(bundle_folder), str(plain), str(forged)]) == 0
    lines = capsys.readouterr().out.splitlines()
    command = [sys.executable, "-m", "capprune", "caption", plain, forged, "--bundle", bundle_folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines() == lines
    names = [line.split("\t")[0] for line in lines]
    assert names == [str(plain), f"{tmp_path}/a.png\\ta fine caption\\nb.png"]


def caption(log_probability: float = -3.0, **changed: Any) -> Caption:
    facts: dict[str, Any] = {
        "text": "a dog, running",
        "tokens": (4, 5, 6),
        "log_probability": log_probability,
        "attention": np.eye(3, 4, dtype=np.float32),
        "finished": True,
        "encode_us": 1.0,
        "step_us": (1.0,),
    }
    return Caption(**{**facts, **changed})


def test_the_end_counts_as_a_word_where_it_was_said() -> None:
    assert mean_log_probability(caption(-4.0)) == -1.0
    assert mean_log_probability(caption(-3.0, finished=False)) == -1.0
    assert mean_log_probability(caption(-3.0, tokens=(), finished=False)) == -3.0


def test_unsure_is_said_only_where_a_limit_was_measured() -> None:
    photo = Path("a.jpg")
    assert Said(photo, caption(-4.0), -0.9, None).unsure is True
    assert Said(photo, caption(-4.0), -1.1, None).unsure is False
    assert Said(photo, caption(-4.0), None, None).unsure is None
    assert Said(photo, None, -1.0, PhotoError("broken")).unsure is None


def test_caption_of_a_hardly_known_photo_is_unsure() -> None:
    photo = Path("a.jpg")
    for confidence, expected in ((0.69, True), (0.71, False)):
        own = caption(-4.0, confidence=confidence)
        assert Said(photo, own, None, None).unsure is expected
        assert Said(photo, own, -1.1, None).unsure is expected
        assert Said(photo, own, -0.9, None).unsure is True
    assert Said(photo, caption(-4.0, confidence=0.6), None, None).marked == "a dog, running  (not sure)"


@pytest.mark.parametrize("quality", ["[", '{"confidence": 3}', '{"confidence": {"low_below": "high"}}', "[" * 100_000])
def test_a_broken_record_is_a_bad_bundle_and_no_crash(quality: str) -> None:
    with pytest.raises(BundleError):
        confidence_of(SimpleNamespace(files={"quality.json": quality.encode()}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"quality.json": b"{}"}, None),
        ({"quality.json": b'{"confidence": {"low_below": null}}'}, None),
        ({"quality.json": b'{"confidence": {"low_below": -1.5}}'}, -1.5),
    ],
)
def test_the_limit_is_the_recorded_one(files: dict[str, bytes], limit: float | None) -> None:
    assert confidence_of(SimpleNamespace(files=files)) == limit  # type: ignore[arg-type]


def test_tables_hold_every_photo_and_what_was_wrong_with_it(tmp_path: Path) -> None:
    said = [Said(Path("a.jpg"), caption(-4.0), -0.9, None), Said(Path("b.jpg"), None, -0.9, PhotoError("it is cut"))]
    write_table(tmp_path / "out.csv", said)
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "photo": "a.jpg",
        "caption": "a dog, running",
        "mean_log_probability": "-1.0000",
        "low_confidence": "true",
        "error": "",
    }
    assert (rows[1]["photo"], rows[1]["caption"], rows[1]["error"]) == ("b.jpg", "", "it is cut")
    write_table(tmp_path / "out.json", said)
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [one["photo"] for one in found["captions"]] == ["a.jpg", "b.jpg"]
    assert found["captions"][0]["low_confidence"] is True


def test_a_table_of_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match=r"\.csv or a \.json"):
        check_table(Path("out.txt"))


def test_photos_of_a_folder_come_by_name_and_an_empty_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("b.JPG", "a.png", "inner/c.webp", "notes.txt", "._b.JPG", ".DS_Store", "README"):
        (tmp_path / name).touch()
    (tmp_path / "inner" / "up").symlink_to(tmp_path)  # a circle
    found = find_photos(tmp_path)
    assert [path.name for path in found.photos] == ["a.png", "b.JPG", "c.webp"]
    assert found.left_out == {".txt": 1, "AppleDouble (._*)": 1, ".DS_Store": 1, "without ending": 1}
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no photos"):
        find_photos(tmp_path / "empty")


def test_explanations_have_names_that_a_file_can_have(tmp_path: Path) -> None:
    photos = [
        Path("a/x.jpg"),
        Path("b/X.png"),
        Path("y.png"),
        Path("-"),
        *(Path(n) / ("ü" * 120 + ".jpg") for n in "pq"),
    ]
    names = [place.name for place in explanation_places(tmp_path, photos).values()]
    assert names[:4] == ["a_x.png", "b_X.png", "y.png", "stdin.png"]
    assert len({name.casefold() for name in names}) == len(photos)
    assert all(len(name.encode()) <= 255 for name in names)


def test_the_picture_is_brightest_where_the_model_looked(tmp_path: Path) -> None:
    grey = Image.new("RGB", (300, 200), (200, 200, 200))
    sheet = np.asarray(explanation(grey, caption(text="one two three")))
    left = 6 + 224 + 6  # the tile of the first word, whose attention lies on the first of 2 x 2 regions
    tile = sheet[32 : 32 + 224, left : left + 224].astype(float)
    assert tile[20:60, 20:60].mean() > 3 * tile[160:200, 160:200].mean()
    write_explanation(tmp_path / "new" / "out.png", np.asarray(grey), caption())
    with Image.open(tmp_path / "new" / "out.png") as drawn:
        assert drawn.size == explanation(grey, caption()).size


def test_a_table_names_unfamiliar_photos_only_where_a_bundle_knows(tmp_path: Path) -> None:
    photo, known = Path("a.jpg"), caption(-4.0, confidence=0.7)
    said = [
        Said(photo, known, -2.0, None),
        Said(photo, caption(-4.0, confidence=0.2), -0.9, None),
        Said(photo, None, None, None),
    ]
    write_table(tmp_path / "known.csv", said)
    with (tmp_path / "known.csv").open(encoding="utf-8") as file:
        assert [row["familiar"] for row in csv.DictReader(file)] == ["true", "false", ""]
    assert [one.marked for one in said] == ["a dog, running", "this does not look like a photo that I know", None]
    write_table(tmp_path / "plain.csv", [Said(photo, caption(-4.0), -2.0, None)])
    assert "familiar" not in (tmp_path / "plain.csv").read_text(encoding="utf-8")
