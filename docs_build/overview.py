"""docs/assets/overview.svg, the picture of the README: a photo, its caption with attention, size and time beside dense.

python docs_build/overview.py
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from capprune.ready import ready_bundle
from capprune_runtime.bundle.verify import verify_bundle
from capprune_runtime.caption.captioner import Caption, Captioner
from capprune_runtime.caption.confidence import confidence_of, mean_log_probability
from capprune_runtime.caption.explain import lit
from capprune_runtime.photo import read_photo
from drawings import BLOCK, INK, KEPT, svg, text

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "docs" / "gallery" / "camera.jpg"
PLACE = ROOT / "docs" / "assets" / "overview.svg"
RESULTS = ROOT / "benchmarks" / "results"
TILE, PER_ROW, LEFT, TOP = 78, 6, 240, 34


def overview() -> str:
    """Return the picture."""
    bundle = verify_bundle(ready_bundle())
    captioner = Captioner(bundle)
    caption = captioner.caption(read_photo(PHOTO, bundle.manifest.photo_size))
    limit = confidence_of(bundle)
    unsure = limit is not None and mean_log_probability(caption) < limit
    parts = [
        text(110, 20, "photo"),
        text(LEFT + 3 * (TILE + 4), 20, "caption, and where the model looked for each word"),
    ]
    with Image.open(PHOTO) as photo:
        square = photo.convert("RGB").resize((200, 200), Image.Resampling.BILINEAR)
    parts += [image(square, 10, TOP, 200), *_words(square, caption)]
    if caption.familiar is False or unsure:
        mark = "this does not look like a photo that I know" if caption.familiar is False else "(not sure)"
        parts.append(text(110, TOP + 220, mark, size=12))
    return svg(960, 300, f"Captioning a photo: {caption.text}", [*parts, *bars()])


def _words(square: Image.Image, caption: Caption) -> list[str]:
    assert caption.attention is not None, "the packaged model has attention"
    parts = []
    for number, (word, attention) in enumerate(zip(caption.text.split(), caption.attention, strict=False)):
        row, column = divmod(number, PER_ROW)
        x, y = LEFT + column * (TILE + 4), TOP + row * (TILE + 24)
        parts.append(image(lit(square.resize((224, 224)), attention), x, y, TILE))
        parts.append(text(x + TILE / 2, y + TILE + 14, word, size=12))
    return parts


def bars() -> list[str]:
    """Draw size and time of the packaged model and of its dense float32 export, and the score of its dense run."""
    timed = {row["name"]: row for row in _read("first_caption.json")["rows"]}
    pruned, dense = timed["the package's bundle"], timed["dense float32"]
    rows = [
        ("download, MB", pruned["download_bytes"] / 1e6, dense["download_bytes"] / 1e6),
        ("caption, ms", pruned["warm_caption_ms"]["estimate"], dense["warm_caption_ms"]["estimate"]),
        ("peak memory, MB", pruned["peak_mb"], dense["peak_mb"]),
    ]
    packaged = _read("kept_bundles.json")["rows"][0]
    rows.append(("CIDEr-D", packaged["scores"]["cider_d"], packaged["dense"]["scores"]["cider_d"]))
    parts = [text(756, 20, "pruned (green), dense (orange)", anchor="start")]
    for number, (name, ours, theirs) in enumerate(rows):
        y = TOP + 6 + number * 60
        parts.append(text(756, y + 4, name, anchor="start", size=12))
        for place, (value, colour) in enumerate(((ours, KEPT), (theirs, BLOCK))):
            width = 130 * value / max(ours, theirs)
            parts.append(
                f'<rect x="756" y="{y + 10 + place * 18}" width="{width:.1f}" height="14" fill="{colour}"/>'
                + text(760 + width, y + 22 + place * 18, f"{value:.3g}", anchor="start", size=12)
            )
    parts.append(f'<path d="M742 10V290" stroke="{INK}" stroke-opacity="0.2"/>')
    return parts


def image(picture: Image.Image, x: float, y: float, side: int) -> str:
    """Return a picture inside the drawing."""
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=80)
    coded = base64.b64encode(data.getvalue()).decode()
    return f'<image x="{x:g}" y="{y:g}" width="{side}" height="{side}" href="data:image/jpeg;base64,{coded}"/>'


def _read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return document


if __name__ == "__main__":
    PLACE.write_text(overview(), encoding="utf-8")
    print(PLACE)
