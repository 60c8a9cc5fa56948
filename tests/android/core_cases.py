"""Inputs and what Python's runtime gives for them, as files that the JUnit tests of the app's core read."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from search_tables import write_searches

from capprune_runtime import strict_json
from capprune_runtime.bundle.tokens import WORDS, TokensSection, radix
from capprune_runtime.bundle.vocabulary import SPECIAL_TOKENS, Vocabulary
from capprune_runtime.errors import BundleError
from capprune_runtime.photo import decode_photo, normalise, resize

_SQUASHES = (
    (1, 1, 8),
    (8, 8, 8),
    (7, 5, 16),
    (300, 200, 224),
    (500, 375, 224),
    (3000, 9, 32),
    (5, 4000, 16),
    (224, 224, 224),
)
_JSON = (
    "{}", "[]", "0", "-0", "1.5e3", '"a"', "true", "null", ' [1, 2]\n\t\r', '{"a": {"b": [1, null, false]}}', '"\\u00e9\\n\\/"',
    '"\\ud800"', "1E400", "-1e999", "1e-999", "NaN", "Infinity", "-Infinity", "[1,]", "{,}", '{"a":1,}', '{"a" 1}', "{1: 2}",
    "01", "-", "1.", ".5", "+1", "0x1", "1e", "1e+", "tru", "nul", "'a'", '"a', '"\t"', '"\\x"', '"\\u12g4"', '"\\u+123"', "[",
    "]", "[1] 2", '{"a": 1, "a": 2}', '{"x": {"a": 1, "a": 1}}', "\ufeff{}", "\u00a0[]", "[\u20281]", "9" * 4300, "9" * 4301,
    "-" + "9" * 30, "1" * 5000 + ".0", "[" * 200 + "]" * 200, "[" * 201 + "]" * 201, "[" * 202 + "]" * 202,
    "[" * 200 + "1" + "]" * 200,
    "[" * 201 + "1" + "]" * 201, "[" * 500 + "]" * 500, "[" * 5000, "", " ", "/* */ 1", "[1 2]", '{"a": }', '"\x00"', "-01",
    "1.0E+2", '"\u2028"', "truefalse",
)  # fmt: skip


_NORMALISATIONS = (
    ((127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
    ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    ((0.0, -0.0, 255.0), (255.0, 0.5, 1024.0)),
    ((103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    ((0.1, 1 / 3, 254.9999), (0.7, 3.3333333333, 1023.9)),
    ((122.7709383, 116.7460125, 104.09373615), (68.5005327, 66.6321579, 70.32316305)),
)


def write_cases(out: Path) -> None:
    """Write every folder of cases but the attacks, each with an index.json."""
    random = np.random.default_rng(11)
    _write_squashes(out / "squash", random)
    _write_normalised(out / "normalise")
    _write_upright(out / "upright", random)
    _write_pngs(out / "png", random)
    write_searches(out / "search", random)
    _write_json(out / "json")
    _write_tokens(out / "tokens", random)


def write_index(folder: Path, index: list[dict[str, Any]]) -> None:
    (folder / "index.json").write_text(json.dumps(index, indent=1))


def _write_squashes(folder: Path, random: np.random.Generator) -> None:
    folder.mkdir()
    index = []
    for number, (width, height, size) in enumerate(_SQUASHES):
        for kind, rgb in (
            ("noise", random.integers(0, 256, (height, width, 3), np.uint8)),
            ("ends", (255 * random.integers(0, 2, (height, width, 3))).astype(np.uint8)),
        ):
            name = f"{number}-{kind}"
            (folder / name).write_bytes(rgb.tobytes())
            (folder / f"{name}.squared").write_bytes(resize(rgb, size).tobytes())
            index.append({"file": name, "squared": f"{name}.squared", "width": width, "height": height, "size": size})
    write_index(folder, index)


def _write_normalised(folder: Path) -> None:
    """Every byte in every channel, by common and by odd means and scales."""
    folder.mkdir()
    square = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    (folder / "square").write_bytes(square.tobytes())
    index = []
    for number, (mean, scale) in enumerate(_NORMALISATIONS):
        (folder / str(number)).write_bytes(normalise(square, mean, scale).tobytes())
        index.append({"file": str(number), "mean": list(mean), "scale": list(scale)})
    write_index(folder, index)


def _write_upright(folder: Path, random: np.random.Generator) -> None:
    """A photo as a camera stores it, and as `decode_photo` turns it."""
    folder.mkdir()
    rgb = random.integers(0, 256, (5, 7, 3), np.uint8)
    (folder / "stored").write_bytes(rgb.tobytes())
    index = []
    for orientation in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = io.BytesIO()
        Image.fromarray(rgb).save(file, "PNG", exif=exif)
        turned = decode_photo(file.getvalue(), "case")
        (folder / str(orientation)).write_bytes(turned.tobytes())
        index.append({"file": str(orientation), "orientation": orientation, "width": 7, "height": 5})
    write_index(folder, index)


def _write_pngs(folder: Path, random: np.random.Generator) -> None:
    folder.mkdir()
    size = 16
    rgba = random.integers(0, 256, (size, size, 4), np.uint8)
    colour = Image.fromarray(rgba)
    smooth = Image.linear_gradient("L").resize((size, size))
    grey16 = Image.fromarray(random.integers(0, 65536, (size, size), np.uint16))
    palette = colour.convert("RGB").quantize(16)
    pictures: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "rgb": (colour.convert("RGB"), {}),
        "rgba": (colour, {}),
        "grey": (smooth, {}),
        "grey-alpha": (colour.convert("LA"), {}),
        "grey-16": (grey16, {}),
        "one-bit": (smooth.convert("1"), {}),
        "palette": (palette, {}),
        "palette-4-bits": (palette, {"bits": 4}),
        "palette-transparent": (palette, {"transparency": bytes(range(0, 256, 16))}),
        "rgb-transparent": (colour.convert("RGB"), {"transparency": tuple(rgba[3, 4, :3].tolist())}),
        "smooth": (Image.merge("RGB", (smooth, smooth.rotate(90), smooth.rotate(180))), {}),
        "stored": (colour, {"compress_level": 0}),
    }
    index = []
    for name, (picture, options) in pictures.items():
        picture.save(folder / f"{name}.png", "PNG", **options)
        content = (folder / f"{name}.png").read_bytes()
        (folder / f"{name}.rgb").write_bytes(decode_photo(content, name).tobytes())
        index.append({"file": f"{name}.png", "rgb": f"{name}.rgb", "size": size})
    write_index(folder, index)


def _write_tokens(folder: Path, random: np.random.Generator) -> None:
    """Token ids of every kind, the caption that they are, and what stands beside each."""
    folder.mkdir()
    lines = ("a", "größer", "मैं", "किताबें", "قِطَّة", "一", "只", "𠀀", "ワン", "ต้น", "می\u200cرود", "dog", "\u0301")
    pieces = (*lines, "▁", "▁a", "▁läuft", "▁▁", "ing▁", "\u200d", "\u200cها")
    index = []
    for number, coding in enumerate(
        (WORDS, TokensSection("characters"), TokensSection("subwords"), radix(4), radix(768), radix(65_536))
    ):
        vocabulary = Vocabulary((*SPECIAL_TOKENS, *(pieces if coding.base == 0 else lines)), coding)
        (folder / f"{number}.txt").write_bytes(vocabulary.as_text().encode())
        most = min(vocabulary.decoder_size, 40)
        for _ in range(60):
            ids = random.integers(0, most, int(random.integers(0, 14))).tolist()
            spoken = [one for one in ids if one not in (0, 1, 2)]  # as a search gives them
            index.append(
                {
                    "vocabulary": f"{number}.txt",
                    "kind": coding.kind,
                    "base": coding.base,
                    "per_word": coding.per_word,
                    "size": vocabulary.decoder_size,
                    "ids": ids,
                    "caption": vocabulary.caption(ids),
                    "spoken": spoken,
                    "shown": list(vocabulary.shown(spoken)),
                }
            )
    write_index(folder, index)


def _write_json(folder: Path) -> None:
    folder.mkdir()
    texts = [text.encode("utf-8", "surrogatepass") for text in _JSON] + [
        b'"\xff"',
        b'"\xc0\x80"',
        b'"\xed\xa0\x80"',
        b"\xff",
    ]
    index = []
    for number, text in enumerate(texts):
        (folder / str(number)).write_bytes(text)
        try:
            strict_json.parse(text)
            accepted = True
        except BundleError:
            accepted = False
        index.append({"file": str(number), "accepted": accepted, "text": ascii(text[:60])})
    write_index(folder, index)
