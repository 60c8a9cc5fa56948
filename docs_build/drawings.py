"""The drawings of the concept pages, as SVG files in docs/concepts; the same code gives the same bytes.

python docs_build/drawings.py
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

PLACE = Path(__file__).parents[1] / "docs" / "concepts"
INK, PALE, KEPT, BLOCK, BACK = "#1f2933", "#d5dde5", "#00796b", "#ef6c00", "#ffffff"
CELL = 12
SEED = 5


def svg(width: int, height: int, title: str, parts: list[str]) -> str:
    """Return a drawing on a white ground, with a title that screen readers find."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="sans-serif" font-size="13" fill="{INK}">'
    )
    return "\n".join(
        [
            head,
            f"<title>{title}</title>",
            f'<rect width="{width}" height="{height}" fill="{BACK}"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def text(x: float, y: float, words: str, *, anchor: str = "middle", size: int = 13) -> str:
    """Return a line of text."""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}">{words}</text>'


def grid(x: float, y: float, rows: list[list[str]]) -> Iterator[str]:
    """Yield a matrix of coloured cells."""
    for i, row in enumerate(rows):
        for j, colour in enumerate(row):
            yield (
                f'<rect x="{x + j * CELL:g}" y="{y + i * CELL:g}" width="{CELL - 1}" height="{CELL - 1}" fill="{colour}"/>'
            )


def arrow(x: float, y: float, length: float) -> str:
    """Return an arrow to the right."""
    end = x + length
    return f'<path d="M{x:g} {y:g}H{end:g}m-6 -4l6 4l-6 4" fill="none" stroke="{INK}" stroke-width="1.5"/>'


def supermask() -> str:
    """Draw the weights, gates, mask and product of one matrix."""
    drawn = random.Random(SEED)
    gates = [[drawn.gauss(0, 1) for _ in range(10)] for _ in range(8)]
    weights = [[drawn.random() for _ in range(10)] for _ in range(8)]
    open_ = [[value > 1.0 for value in row] for row in gates]
    shades = [[f"hsl(174,60%,{92 - 55 * value:.0f}%)" for value in row] for row in weights]
    heights = [[f"hsl(27,85%,{min(94, 72 - 14 * (value - 1)):.0f}%)" for value in row] for row in gates]
    mask = [[INK if value else PALE for value in row] for row in open_]
    product = [[s if o else BACK for s, o in zip(*rows, strict=True)] for rows in zip(shades, open_, strict=True)]
    parts: list[str] = []
    titles = ("weights W", "gates G", "mask: G above 0", "W times mask")
    for number, (title, cells) in enumerate(zip(titles, (shades, heights, mask, product), strict=True)):
        x = 20 + number * 165
        parts += [text(x + 60, 24, title), *grid(x, 36, cells)]
    parts += [text(162, 88, "and"), arrow(312, 84, 30), arrow(478, 84, 30)]
    parts += [text(330, 158, "In training the mask is drawn: each gate is open with probability sigmoid(G).", size=12)]
    return svg(680, 172, "A gate for every weight decides whether the weight is kept", parts)


def scattered() -> str:
    """Draw the same row with zeros, stored densely and as values with their columns."""
    drawn = random.Random(SEED)
    columns = sorted(drawn.sample(range(40), 4))
    row = [KEPT if column in columns else PALE for column in range(40)]
    parts = [text(20, 24, "dense: 40 values are stored, and 40 are multiplied", anchor="start"), *grid(20, 34, [row])]
    parts += [text(20, 84, "sparse: 4 values and 4 column numbers are stored", anchor="start")]
    for number, column in enumerate(columns):
        x = 20 + number * 70
        parts += [
            f'<rect x="{x}" y="94" width="26" height="20" fill="{KEPT}"/>',
            f'<rect x="{x + 26}" y="94" width="26" height="20" fill="{PALE}"/>',
            text(x + 13, 109, "w", size=12).replace("<text", f'<text fill="{BACK}"'),
            text(x + 39, 109, str(column), size=12),
        ]
    parts += [text(20, 144, "the input is read at places that only the column numbers know:", anchor="start")]
    parts += list(grid(20, 154, [[BLOCK if column in columns else PALE for column in range(40)]]))
    parts += [
        text(
            20,
            196,
            "A processor loads 8 to 32 neighbours in one instruction. Here it uses one of them.",
            anchor="start",
            size=12,
        )
    ]
    return svg(520, 210, "Scattered zeros make a file small, but not the product fast", parts)


def blocks() -> str:
    """Draw the same number of kept weights, single and in blocks of 1x16."""
    drawn = random.Random(SEED)
    single = [[PALE] * 48 for _ in range(6)]
    for place in drawn.sample(range(48 * 6), 32):
        single[place // 48][place % 48] = KEPT
    block = [[PALE] * 48 for _ in range(6)]
    for row, first in ((1, 0), (4, 2)):
        for column in range(16):
            block[row][first * 16 + column] = BLOCK
    parts = [text(20, 24, "32 single weights: 32 values and 32 column numbers", anchor="start"), *grid(20, 34, single)]
    parts += [text(20, 136, "2 blocks of 1x16: 32 values and 2 block numbers", anchor="start"), *grid(20, 146, block)]
    parts += [
        text(
            20,
            240,
            "One instruction loads the 16 inputs of a block and multiplies them together.",
            anchor="start",
            size=12,
        )
    ]
    return svg(620, 252, "One gate for 16 neighbouring weights", parts)


def entropy() -> str:
    """Draw the bits for the position of a kept weight, by sparsity, for three formats and the floor."""
    shares = [0.5 + 0.49 * step / 98 for step in range(99)]
    curves: tuple[tuple[str, str, Callable[[float], float]], ...] = (
        ("16-bit column number", BLOCK, lambda _: 16.0),
        ("one bit per weight", "#7b5ea7", lambda p: 1 / (1 - p)),
        ("entropy floor", KEPT, lambda p: _entropy(1 - p) / (1 - p)),
    )
    left, top, width, height, most = 60, 20, 470, 210, 24.0

    def at(share: float, bits: float) -> tuple[float, float]:
        return left + (share - 0.5) / 0.5 * width, top + height - min(bits, most) / most * height

    parts = [f'<path d="M{left} {top}V{top + height}H{left + width}" fill="none" stroke="{INK}"/>']
    for bits in (0, 8, 16, 24):
        parts.append(text(left - 8, at(0.5, bits)[1] + 4, str(bits), anchor="end", size=11))
    for share in (0.5, 0.6, 0.7, 0.8, 0.9, 0.975):
        parts.append(text(at(share, 0)[0], top + height + 16, f"{share:.1%}".replace(".0%", "%"), size=11))
    for number, (name, colour, bits_of) in enumerate(curves):
        line = " ".join(
            "{:.1f},{:.1f}".format(*at(share, bits_of(share))) for share in shares if bits_of(share) <= most
        )
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<rect x="550" y="{40 + number * 24}" width="14" height="4" fill="{colour}"/>')
        parts.append(text(572, 46 + number * 24, name, anchor="start", size=12))
    x, y = at(0.975, _entropy(0.025) / 0.025)
    parts += [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{KEPT}"/>',
        text(x - 8, y - 8, "6.75 bits", anchor="end", size=11),
    ]
    parts += [text(left, 14, "bits for the place of one kept weight", anchor="start", size=11)]
    parts += [text(left + width / 2, top + height + 34, "sparsity", size=12)]
    return svg(720, 272, "Bits that the place of a kept weight costs, by sparsity", parts)


def parity() -> str:
    """Draw the parity check: the trained model and the bundle caption the same photo, and tokens are compared."""
    words = ("a", "brown", "dog", "runs", "on", "the", "beach")
    parts = [
        text(20, 46, "trained model (torch)", anchor="start"),
        text(20, 96, "bundle on the device", anchor="start"),
    ]
    for number, word in enumerate(words):
        other = "sand" if number == len(words) - 1 else word
        for y, name in ((30, word), (80, other)):
            colour = BLOCK if word != other else PALE
            parts.append(f'<rect x="{170 + number * 66}" y="{y}" width="60" height="24" rx="4" fill="{colour}"/>')
            parts.append(text(200 + number * 66, y + 17, name))
        parts.append(text(200 + number * 66, 72, "=" if word == other else "≠"))
    parts += [
        text(596, 128, "first difference", size=12),
        text(
            20,
            156,
            "Excused only if the trained model itself scores both words within 1e-4, in at most 2 of 1,000 photos.",
            anchor="start",
            size=12,
        ),
    ]
    return svg(660, 170, "Captions are compared token by token", parts)


def _entropy(p: float) -> float:
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)


DRAWINGS: dict[str, Callable[[], str]] = {
    "supermask.svg": supermask,
    "scattered.svg": scattered,
    "blocks.svg": blocks,
    "entropy.svg": entropy,
    "parity.svg": parity,
}

if __name__ == "__main__":
    PLACE.mkdir(exist_ok=True)
    for name, draw in DRAWINGS.items():
        (PLACE / name).write_text(draw(), encoding="utf-8")
        print(PLACE / name)
