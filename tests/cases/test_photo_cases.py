"""Photos as people have them: HEIC and AVIF, cut off, from a pipe, beside macOS's own files."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from capprune_runtime.errors import PhotoError, PhotoWarning
from capprune_runtime.photo import ENDINGS, decode_photo
from capprune_runtime.photo_file import MISSING_SHARE
from cases import run

WITHOUT_HEIF = (
    "import sys; sys.modules['pillow_heif'] = None; sys.argv[0] = 'capprune'; from capprune.cli.app import main; main()"
)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_photos_of_phones_are_read(kind: str, drawn: Image.Image) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    pixels = decode_photo(encoded(drawn, kind, quality=95), "p")
    assert pixels.shape == (240, 320, 3)
    assert abs(pixels[100, 240].astype(int) - (10, 60, 200)).max() < 12


@pytest.mark.parametrize("name", ["photo.heic", "named.jpg"])
def test_heic_without_its_decoder_is_named_with_the_command(name: str, tmp_path: Path, ready: Path) -> None:
    (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    command = [sys.executable, "-c", WITHOUT_HEIF, "caption", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4 and "a HEIC photo, for which no decoder is installed" in done.stderr
    assert "pip install pillow-heif" in done.stderr and "heif-convert" in done.stderr


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\0\0\0\x20ftypisom\0\0\2\0", "a video"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"8BPS\0\1", "a Photoshop document"),
        (b"\xff\x0a\xfa\x1f", "a JPEG XL image"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\0\5\x16\7\0\2\0\0", "an AppleDouble file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"hello, I am text", "text"),
    ],
)
def test_what_is_no_photo_is_named_as_what_it_is(content: bytes, what: str) -> None:
    with pytest.raises(PhotoError) as raised:
        decode_photo(content + bytes(20) * (what != "text"), "photo.jpg")
    assert raised.value.found is not None and what in raised.value.found


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_jpeg_that_lacks_its_last_bytes_is_read_with_a_warning(
    drawn: Image.Image, missing: int, progressive: bool
) -> None:
    content = encoded(drawn, "JPEG", progressive=progressive)
    with pytest.warns(PhotoWarning, match="lacks its end"):
        cut = decode_photo(content[:-missing], "cut.jpg")
    whole = decode_photo(content, "whole.jpg")
    assert abs(cut[:200].astype(int) - whole[:200]).max() <= 40 * progressive


def test_a_jpeg_that_lacks_more_than_its_end_is_refused(drawn: Image.Image) -> None:
    noisy = Image.effect_noise((320, 240), 80).convert("RGB")  # as many bytes in every row
    content = encoded(noisy, "JPEG", quality=90)
    with pytest.warns(PhotoWarning):
        decode_photo(content[: int(len(content) * (1 - MISSING_SHARE / 2))], "nearly.jpg")
    for share in (0.5, 0.8):
        with pytest.raises(PhotoError, match="cannot be decoded"):
            decode_photo(content[: int(len(content) * share)], "cut.jpg")


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
@pytest.mark.parametrize("program", ["capprune", "capprune_runtime"])
def test_a_photo_comes_from_standard_input(name: str, program: str, photo: Path, ready: Path) -> None:
    bundle = () if program == "capprune" else (ready,)
    said = run("caption", *bundle, photo, program=program)
    assert run("caption", *bundle, name, program=program, stdin=photo.read_bytes()).out == said.out
    empty = run("caption", *bundle, name, program=program)
    assert empty.code == 4 and "a photo is empty" in empty.err


@pytest.mark.parametrize("url", ["https://x.org/y.jpg", "http://x/y.jpg", "s3://bucket/y.jpg", "file:///home/y.jpg"])
def test_a_url_is_answered_as_one(url: str, ready: Path) -> None:
    done = run("caption", url)
    assert done.code == 2 and "URLs are not supported" in done.err and url in done.err


def test_a_missing_photo_among_others_does_not_stop_them(photo: Path, ready: Path) -> None:
    done = run("caption", photo, "nope.jpg", photo)
    assert done.code == 2 and done.out.count("\n") == 2 and "nope.jpg" in done.err


@pytest.mark.parametrize("program", ["capprune", "capprune_runtime"])
def test_files_of_macos_are_left_out_and_counted(album: Path, ready: Path, program: str) -> None:
    (album / "._b.jpg").write_bytes(b"\0\5\x16\7" + bytes(80))
    (album / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (album / "notes.txt").write_text("notes")
    command = ("caption", album) if program == "capprune" else ("run", ready, album)
    done = run(*command, program=program)
    assert done.code == 0 and done.out.count("\n") == 3
    assert "1 AppleDouble (._*)" in done.err and "1 .DS_Store" in done.err and "1 .txt" in done.err


def test_both_commands_take_the_same_photos_of_a_folder(tmp_path: Path, drawn: Image.Image, ready: Path) -> None:
    for kind in ("bmp", "gif", "jpeg", "png", "tiff", "webp", "ppm", "avif"):
        drawn.save(tmp_path / f"photo.{kind}")
    names = [
        sorted(line.partition("\t")[0].rpartition("/")[2] for line in run(*command, program=program).out.splitlines())
        for program, command in (("capprune", ("caption", tmp_path)), ("capprune_runtime", ("run", ready, tmp_path)))
    ]
    assert names[0] == names[1] and len(names[0]) == 8
    assert {f".{name.rpartition('.')[2]}" for name in names[0]} <= ENDINGS


@pytest.fixture
def odd_album(album: Path) -> Path:
    """Three photos among files that are named like photos and cannot be read."""
    one = (album / "b.jpg").read_bytes()
    (album / "a-cut.jpg").write_bytes(one[: len(one) // 4])
    (album / "a-empty.png").touch()
    (album / "a-plain.ppm").write_bytes(b"P2 2 2 255\n1 2 3 4\n")
    (album / "a-scans.jpg").write_bytes(one[:-2] + one[one.rfind(b"\xff\xda") : -2] * 200 + one[-2:])
    (album / "a-text.jpg").write_text("no photo")
    (album / "a-eps.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    (album / "a-floating.tif").write_bytes(encoded(Image.new("F", (8, 8)), "TIFF"))
    with (album / "a-endless.jpg").open("wb") as file:
        file.truncate(1 << 36)
    (album / "a-link.jpg").symlink_to("nowhere.jpg")
    (album / "a-device.jpg").symlink_to("/dev/zero")
    os.mkfifo(album / "a-pipe.jpg")
    return album


@pytest.mark.parametrize("program", ["capprune", "capprune_runtime"])
def test_no_bad_photo_ends_a_folder(odd_album: Path, ready: Path, program: str) -> None:
    command = ("caption", odd_album) if program == "capprune" else ("run", ready, odd_album)
    done = run(*command, program=program)
    assert done.out.count("\n") == 3 and all(name in done.out for name in ("b.jpg", "c.jpg", "photo.jpg"))
    assert "3 .jpg that is no plain file" in done.err
    for name in (
        "cut.jpg",
        "empty.png",
        "plain.ppm",
        "scans.jpg",
        "text.jpg",
        "eps.jpg",
        "floating.tif",
        "endless.jpg",
    ):
        assert f"a-{name}" in done.err


@pytest.mark.parametrize("program", ["capprune", "capprune_runtime"])
def test_a_special_file_among_photos_is_refused_and_the_others_are_captioned(
    odd_album: Path, ready: Path, program: str
) -> None:
    bundle = () if program == "capprune" else (ready,)
    names = ("a-pipe.jpg", "a-device.jpg", "b.jpg")
    done = run("caption", *bundle, *(odd_album / name for name in names), program=program)
    assert done.code == 4 and done.out.count("\n") == 1
    assert "a named pipe, not a file" in done.err and "a device, not a file" in done.err
