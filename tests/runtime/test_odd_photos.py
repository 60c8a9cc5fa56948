"""Photos that are no plain files, change while they are read, or are cheap to send and dear to decode."""

from __future__ import annotations

import io
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import pytest
from PIL import Image

from capprune_runtime.errors import DataError, PhotoError
from capprune_runtime.photo import decode_photo, read_photo
from capprune_runtime.photo_file import MAX_PHOTO_BYTES, MAX_SCANS, photo_size, read_photo_file
from capprune_runtime.regions import read_regions

SECONDS = 20.0  # no refusal takes longer, even on a busy machine


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(file, kind, **options)
    return file.getvalue()


def with_scans(scans: int, size: tuple[int, int] = (40, 30)) -> bytes:
    """A progressive JPEG whose last scan stands there again and again, as often as asked for in all."""
    file = io.BytesIO()
    Image.new("L", size, 128).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last = content[content.rfind(b"\xff\xda") : -2]
    return content[:-2] + last * (scans - content.count(b"\xff\xda")) + content[-2:]


def make_special(path: Path, kind: str) -> Path:
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    elif kind == "a folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a folder", "a device"])
def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    path = make_special(Path("photo.jpg"), kind)
    started = time.monotonic()
    with pytest.raises(PhotoError, match=f"photo cannot be read: photo.jpg\n.*{kind}, not a file"):
        read_photo(path, 32)
    with pytest.raises(DataError, match=f"{kind}, not a file"):
        read_regions(path)
    assert time.monotonic() - started < SECONDS


def test_a_pipe_of_the_shell_is_read(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(encoded("PNG"))
    code = "import sys; from capprune_runtime.photo import read_photo; print(read_photo(sys.argv[1], 8).shape)"
    command = ["bash", "-c", 'exec "$0" -c "$1" <(sleep 0.2; cat photo.png)', sys.executable, code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "(8, 8, 3)\n", done.stderr


def test_a_photo_that_vanishes_is_a_photo_error(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(PhotoError, match="cannot be read"):
        read_photo(path, 32)


def test_a_photo_that_changes_while_it_is_read_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    whole = encoded("PNG", size=(200, 200))
    path.write_bytes(whole)
    end = threading.Event()

    def change() -> None:
        while not end.is_set():
            for content in (whole[: len(whole) // 2], whole + bytes(100_000), b"", whole):
                path.write_bytes(content)
            path.unlink()
            path.write_bytes(whole)

    writer = threading.Thread(target=change)
    writer.start()
    found = []
    try:
        for _ in range(300):
            try:
                found.append(read_photo(path, 32).shape)
            except PhotoError:
                found.append(())
    finally:
        end.set()
        writer.join()
    assert len(found) == 300 and set(found) <= {(), (32, 32, 3)}
    assert read_photo(path, 32).shape == (32, 32, 3)


def test_a_file_that_never_ends_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "photo.jpg").open("wb") as file:
        file.truncate(1 << 40)  # takes no space on the disk
    started = time.monotonic()
    with pytest.raises(PhotoError, match=f"too large.*\n.*{MAX_PHOTO_BYTES}"):
        read_photo_file(tmp_path / "photo.jpg")
    assert time.monotonic() - started < SECONDS


@pytest.mark.parametrize(
    ("content", "decoder"),
    [
        (b"P2 2 2 255\n1 2 3 4\n", "ppm_plain"),
        (b"P1 2 2\n0110", "ppm_plain"),
        (b"P6 2 2 100\n" + bytes(12), "ppm"),
        (b"P6 2 2 65535\n" + bytes(24), "ppm"),
    ],
)
def test_what_pillow_decodes_in_python_is_refused_with_a_way_out(content: bytes, decoder: str) -> None:
    with pytest.raises(PhotoError, match=f"slow to decode: odd\n(.*\n)*.*{decoder}(.*\n)*.*PNG"):
        decode_photo(content, "odd")


def test_a_bmp_of_run_lengths_is_refused() -> None:
    header = b"BM" + (1078 + 8).to_bytes(4, "little") + bytes(4) + (1078).to_bytes(4, "little")
    fields = [(40, 4), (4, 4), (1, 4), (1, 2), (8, 2), (1, 4), (8, 4), (0, 4), (0, 4), (256, 4), (0, 4)]
    content = header + b"".join(value.to_bytes(size, "little") for value, size in fields)
    content += bytes(1024) + b"\4\1\0\0\0\1\0\0"
    assert photo_size(content, "rle.bmp") == (4, 1)
    with pytest.raises(PhotoError, match="bmp_rle"):
        decode_photo(content, "rle.bmp")


@pytest.mark.parametrize(
    "content",
    [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", b"\xd7\xcd\xc6\x9a" + bytes(40), b"BUFR" + bytes(40)],
)
def test_what_other_programs_decode_is_no_photo(content: bytes) -> None:
    with pytest.raises(PhotoError, match="not a photo"):
        decode_photo(content, "drawing.eps")


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded() -> None:
    few = decode_photo(with_scans(MAX_SCANS), "few.jpg")
    assert few.shape == (30, 40, 3)
    content = with_scans(20_000, (8_000, 8_000))  # 2 MB that would take about 20 minutes
    started = time.monotonic()
    with pytest.raises(PhotoError, match="too many scans"):
        decode_photo(content, "many.jpg")
    assert time.monotonic() - started < SECONDS


def tiff(tile: int) -> bytes:
    """A deflated TIFF of 64 pixels square in one tile."""
    data = zlib.compress(bytes(3 * tile * tile if tile < 1000 else 1000))
    fields = [(256, 4, 64), (257, 4, 64), (258, 3, 8), (259, 3, 8), (262, 3, 2), (277, 3, 3)]
    fields += [(322, 4, tile), (323, 4, tile), (324, 4, 400), (325, 4, len(data))]
    content = b"II*\0\x08\0\0\0" + struct.pack("<H", len(fields))
    for tag, kind, value in fields:
        if tag == 258:  # three values behind the table
            content += struct.pack("<HHII", tag, kind, 3, 300)
        else:
            content += struct.pack("<HHII", tag, kind, 1, value)
    return content.ljust(300, b"\0") + struct.pack("<3H", 8, 8, 8) + bytes(94) + data


def test_a_tiff_takes_no_memory_for_tiles_that_its_photo_does_not_fill() -> None:
    assert decode_photo(tiff(64), "small.tif").shape == decode_photo(tiff(256), "padded.tif").shape == (64, 64, 3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PhotoError, match="tiles that are too large"):
        decode_photo(tiff(20_000), "large.tif")  # 417 bytes for which libtiff takes 1.2 GB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10  # KiB


def test_bytes_behind_a_jpeg_and_in_its_metadata_are_no_scans() -> None:
    content = encoded("JPEG")
    behind = content + b"\xff\xda\0\2" * 2 * MAX_SCANS  # as a video that phones append may look
    assert decode_photo(behind, "behind.jpg").shape == (30, 40, 3)
    inside = b"\xff\xe5" + (2 + 8 * MAX_SCANS).to_bytes(2, "big") + b"\xff\xda\0\2" * 2 * MAX_SCANS
    assert decode_photo(content[:2] + inside + content[2:], "inside.jpg").shape == (30, 40, 3)


def test_a_webp_of_few_bytes_takes_no_gigabytes() -> None:
    def webp(width: int, height: int) -> bytes:
        """A sound one, whose header asks for more: the first bits of its lossless data are its size."""
        content = encoded("WEBP", size=(64, 64), lossless=True)
        flags = int.from_bytes(content[21:25], "little") >> 28
        return content[:21] + (flags << 28 | height - 1 << 14 | width - 1).to_bytes(4, "little") + content[25:]

    assert decode_photo(webp(64, 64), "small.webp").shape == (64, 64, 3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PhotoError, match=r"too many pixels.*\n.*50 in a WebP"):
        decode_photo(webp(9_999, 9_999), "large.webp")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10  # KiB
