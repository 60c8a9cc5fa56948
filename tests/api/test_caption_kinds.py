"""`capprune.load().caption`: every kind of photo, and what a notebook shows."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import capprune
from capprune.api.arguments import given_path
from capprune.api.html import html_table
from capprune_runtime.errors import DataError, UsageError
from capprune_runtime.photo import decode_photo

PHOTO = Path(__file__).parents[2] / "docs" / "gallery" / "coffee.jpg"


@pytest.fixture(scope="module")
def model() -> capprune.PhotoCaptioner:
    return capprune.load()


@pytest.fixture(scope="module")
def expected(model: capprune.PhotoCaptioner) -> capprune.PhotoCaption:
    return model.caption(PHOTO)


def same(one: capprune.PhotoCaption, other: capprune.PhotoCaption) -> bool:
    """Whether two captions come from the same pixels."""
    assert one.photo is not None and other.photo is not None
    return bool(one.text == other.text and np.array_equal(one.photo, other.photo))


def test_path_bytes_image_and_array_of_a_photo_give_the_same_caption(
    model: capprune.PhotoCaptioner, expected: capprune.PhotoCaption
) -> None:
    content = PHOTO.read_bytes()
    with Image.open(PHOTO) as image:
        image.load()
    array = decode_photo(content, PHOTO)
    for photo in (str(PHOTO), content, image, array):
        assert same(model.caption(photo), expected), type(photo)


def test_an_image_is_turned_upright_and_its_transparent_pixels_are_white(model: capprune.PhotoCaptioner) -> None:
    turned = Image.linear_gradient("L").convert("RGB").resize((64, 48))
    exif = Image.Exif()
    exif[0x0112] = 6  # the file lies on its side
    data = io.BytesIO()
    turned.save(data, "PNG", exif=exif)
    with Image.open(io.BytesIO(data.getvalue())) as image:
        assert same(model.caption(image), model.caption(np.asarray(ImageOps.exif_transpose(image))))
    clear = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    assert same(model.caption(clear), model.caption(np.full((32, 32, 3), 255, np.uint8)))


def test_a_grey_array_and_an_image_of_another_mode_are_photos(model: capprune.PhotoCaptioner) -> None:
    grey = np.asarray(Image.radial_gradient("L"))
    assert same(model.caption(grey), model.caption(np.stack([grey] * 3, axis=-1)))
    assert model.caption(Image.new("CMYK", (40, 40))).photo is not None


@pytest.mark.parametrize(
    "photo", [np.zeros((4, 4), np.float32), np.zeros((0, 3, 3), np.uint8), np.zeros((2, 2, 4), np.uint8), 3]
)
def test_other_values_are_refused_by_their_shape_or_type(model: capprune.PhotoCaptioner, photo: object) -> None:
    with pytest.raises(UsageError, match="not a photo"):
        model.caption(photo)  # type: ignore[arg-type]


def test_bytes_that_are_no_photo_are_refused(model: capprune.PhotoCaptioner) -> None:
    with pytest.raises(DataError):
        model.caption(b"not a photo")


def test_a_notebook_shows_a_caption_with_its_attention(expected: capprune.PhotoCaption) -> None:
    shown = expected._repr_html_()
    assert expected.attention is not None and len(expected.attention) >= len(expected.words)
    assert shown.count("<img ") == 1 + len(expected.words)  # the whole photo, and one for each word
    assert f"<b>{expected.text}</b>" in shown
    assert expected.explanation().width > 800


def test_a_table_escapes_what_it_shows() -> None:
    shown = html_table("<t>", ["a", "b"], [["<script>", "1"]])
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "&lt;t&gt;" in shown


def test_captions_of_a_folder_keep_the_errors_beside_the_captions(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(PHOTO.read_bytes())
    (tmp_path / "b.jpg").write_bytes(b"no photo")
    found = capprune.caption([tmp_path], out=tmp_path / "said.csv")
    assert [one.caption is None for one in found.captions] == [False, True] and len(found.errors) == 1
    assert (tmp_path / "said.csv").is_file() and "b.jpg" in found._repr_html_()
    assert found.as_json()["captions"][0]["caption"]


def test_handles_are_paths() -> None:
    assert Path(capprune.Bundle("bundles/x")) == Path("bundles/x")
    assert Path(capprune.Run("~/runs/x")) == Path.home() / "runs" / "x"  # type: ignore[arg-type]
    assert [str(given_path(place)) for place in ("~photo.jpg", Path("./~/x"))] == ["~photo.jpg", "~/x"]


def test_overrides_are_read_as_on_the_command_line() -> None:
    from capprune.api.arguments import override_texts

    given = {"training.epochs": 3, "data.folder": Path("a b"), "pruning.keep": ["x"], "start": None, "name": "y"}
    texts = ("training.epochs=3", "data.folder=a b", 'pruning.keep=["x"]', "start=null", "name=y")
    assert override_texts(given) == texts
    assert override_texts(["a=1"]) == ("a=1",)
