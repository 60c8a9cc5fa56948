"""A loaded bundle that captions photos, for programs and notebooks. Needs no torch."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, TypeAlias

from capprune.api.arguments import Place, given_path, optional_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from capprune_runtime.caption.captioner import Caption

    Photo: TypeAlias = Place | bytes | Image | NDArray[Any]  # types accepted as a photo

TILE_STYLE = "display:inline-block;margin:3px;text-align:center;font-size:90%"


@dataclass(frozen=True)
class PhotoCaption:
    """Caption of one photo. A notebook shows it with the photo and, if the model has attention, with the attention.

    Attributes:
        text: The caption.
        words: Its words, or the tokens that the model generated.
        log_probability: Natural logarithm of the caption's probability.
        unsure: Whether the caption is likely to be wrong; None if the bundle has no measured threshold.
        familiar: Whether the photo looks like those that the bundle knows; None if the bundle cannot tell.
        confidence: Confidence of photo and caption, 0 to 1, below 0.5 if the photo is not familiar; None like `familiar`.
        attention: `(T, R)` float32, for each word the weight of each region of the photo; None without attention.
        photo: `(S, S, 3)` uint8 RGB, the encoder's input; None for a model of region features.
        detail: Full result of the runtime, with times.
    """

    text: str
    words: tuple[str, ...]
    log_probability: float
    unsure: bool | None
    attention: NDArray[np.float32] | None
    photo: NDArray[np.uint8] | None
    detail: Caption

    @property
    def familiar(self) -> bool | None:
        """See the attributes."""
        return self.detail.familiar

    @property
    def confidence(self) -> float | None:
        """See the attributes."""
        return self.detail.confidence

    def __str__(self) -> str:
        return self.text

    def as_json(self) -> dict[str, Any]:
        """Return the caption as `capprune caption --json` prints it, without the attention."""
        return {**self.detail.as_json(), "low_confidence": self.unsure}

    def explanation(self) -> Image:
        """Return a picture with the photo, and a copy for each word with the attention highlighted.

        Raises:
            UsageError: The model has no attention, or takes region features.
        """
        from PIL import Image

        from capprune_runtime.caption.explain import explanation, without_attention

        if self.photo is None:
            raise without_attention()
        return explanation(Image.fromarray(self.photo), self.detail)

    def _repr_html_(self) -> str:
        from capprune_runtime.caption.confidence import UNFAMILIAR

        mark = f" ({UNFAMILIAR})" if self.familiar is False else " (not sure)" if self.unsure else ""
        caption = f"<div><b>{escape(self.text)}</b>{mark}</div>"
        return caption + "".join(self._tiles())

    def _tiles(self) -> Iterator[str]:
        if self.photo is None:
            return
        from PIL import Image

        from capprune_runtime.caption.explain import lit

        whole = Image.fromarray(self.photo).resize((112, 112))
        yield _tile(whole, "")
        if self.attention is None or math.isqrt(self.attention.shape[1]) ** 2 != self.attention.shape[1]:
            return
        for word, weights in zip(self.words, self.attention, strict=False):
            yield _tile(lit(whole, weights), word)


class PhotoCaptioner:
    """A verified, loaded bundle; call `caption` for each photo. Use one instance per thread.

    Args:
        bundle: A folder or a `.capz`; the package's own by default.
        runtime: An interpreter, or `auto`.
        threads: Threads of the interpreter.

    Raises:
        UsageError: The bundle does not exist.
        BundleError: The bundle does not pass the verifier.
        MissingExtra: The runtime is not installed.
    """

    def __init__(self, bundle: Place | None = None, *, runtime: str = "auto", threads: int = 1) -> None:
        from capprune.ready import ready_bundle
        from capprune_runtime.bundle.verify import verify_bundle
        from capprune_runtime.caption.captioner import Captioner
        from capprune_runtime.caption.confidence import confidence_of

        verified = verify_bundle(optional_path(bundle) or ready_bundle())
        self.captioner = Captioner(verified, runtime=runtime, threads=threads)
        self.low_below = confidence_of(verified)

    @property
    def runtime(self) -> str:
        """The interpreter that runs the bundle."""
        return self.captioner.runtime

    def caption(self, photo: Photo, *, beam: int | None = None) -> PhotoCaption:
        """Caption a photo.

        Args:
            photo: A path, the bytes of a file, a PIL image, or an array `(H, W, 3)` or `(H, W)` uint8. For a model of region
                features: a path, the bytes of a file, or an array `(N, F)` float32.
            beam: Beam width; the bundle's own by default.

        Raises:
            PhotoError: The photo is missing, broken or too large.
            UsageError: The array has another shape or type, or the beam is out of range.
        """
        from capprune_runtime.bundle.preprocessing import RegionsSection
        from capprune_runtime.caption.confidence import is_unsure

        preprocessing = self.captioner.bundle.manifest.preprocessing
        given = _encoder_photo(photo, preprocessing)
        found = self.captioner.caption(given, beam=beam)
        return PhotoCaption(
            text=found.text,
            words=found.shown or tuple(found.text.split()),
            log_probability=found.log_probability,
            unsure=is_unsure(found, self.low_below),
            attention=found.attention,
            photo=None if isinstance(preprocessing, RegionsSection) else given,
            detail=found,
        )


def load(bundle: Place | None = None, *, runtime: str = "auto", threads: int = 1) -> PhotoCaptioner:
    """Verify and load a bundle; see `PhotoCaptioner`."""
    return PhotoCaptioner(bundle, runtime=runtime, threads=threads)


def _encoder_photo(photo: Photo, preprocessing: Any) -> NDArray[Any]:
    """Convert a photo of any accepted type to the captioner's input."""
    import numpy as np
    from PIL import Image

    from capprune_runtime.bundle.preprocessing import RegionsSection
    from capprune_runtime.caption.inputs import decode_input, read_input
    from capprune_runtime.errors import UsageError
    from capprune_runtime.photo import resize

    if isinstance(photo, str | os.PathLike):
        return read_input(given_path(photo), preprocessing)
    if isinstance(photo, bytes | bytearray | memoryview):
        return decode_input(bytes(photo), "the photo", preprocessing)
    if isinstance(preprocessing, RegionsSection):
        return np.asarray(photo)  # the captioner checks it
    if isinstance(photo, Image.Image):
        return decode_input(_file_of(photo), "the image", preprocessing)
    if isinstance(photo, np.ndarray) and photo.dtype == np.uint8:
        rgb = np.stack([photo] * 3, axis=-1) if photo.ndim == 2 else photo
        if rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.size:
            return resize(np.ascontiguousarray(rgb), preprocessing.size)
    raise UsageError(
        "this is not a photo",
        expected="a path, the bytes of a file, a PIL image, or an array (H, W, 3) or (H, W) uint8",
        found=f"{photo.shape} {photo.dtype}" if isinstance(photo, np.ndarray) else type(photo).__name__,
    )


def _file_of(image: Image) -> bytes:
    """Return the image as the bytes of a file, so that it is rotated, laid on white and checked like every photo."""
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        upright = upright.convert("RGB")
    data = io.BytesIO()
    upright.save(data, "PNG", compress_level=0)
    return data.getvalue()


def _tile(image: Image, word: str) -> str:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=85)
    source = base64.b64encode(data.getvalue()).decode()
    return f'<div style="{TILE_STYLE}"><img src="data:image/jpeg;base64,{source}"><br>{escape(word)}&nbsp;</div>'
