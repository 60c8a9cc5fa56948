"""The page as files, behind the plain HTTP server of Python, with photos beside it."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axe import NODE_MODULES
from browser import Tab

from capprune.serving.models import read_models
from capprune.serving.static import write_static

PACKAGES = {"tflite": NODE_MODULES / "@litertjs" / "core", "onnx": NODE_MODULES / "onnxruntime-web"}
CAPTION = """(async () => {
    const said = [];
    for (const photo of PHOTOS) {
        const file = await (await fetch('photos/' + photo)).blob();
        const texts = [];
        const {attention, ...caption} = await capprune.caption(MODEL, file, BEAM, text => texts.push(text));
        said.push({...caption, texts, side: attention && attention.side, looked: attention && attention.weights.length});
    }
    return said;
})()"""


@dataclass(frozen=True)
class StaticSite:
    """A folder with the page, and where it is served."""

    folder: Path
    address: str

    def add_photos(self, photos: Sequence[Path]) -> list[str]:
        """Copy photos beside the page; their names there."""
        (self.folder / "photos").mkdir(exist_ok=True)
        for photo in photos:
            shutil.copyfile(photo, self.folder / "photos" / photo.name)
        return [photo.name for photo in photos]


@contextmanager
def static_site(bundles: Sequence[Path], folder: Path) -> Iterator[StaticSite]:
    """Write the page into a new folder and serve it."""
    write_static(read_models(bundles), folder, PACKAGES, lambda line: None)
    with file_server(folder) as address:
        yield StaticSite(folder, address)


@contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """Serve a folder; gives its address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


def captions(tab: Tab, model: str, photos: Sequence[str], beam: int | None) -> list[dict[str, Any]]:
    """What the page says of photos that lie beside it."""
    given = {"PHOTOS": list(photos), "MODEL": model, "BEAM": beam}
    expression = CAPTION
    for name, value in given.items():
        expression = expression.replace(name, json.dumps(value))
    found: list[dict[str, Any]] = tab.evaluate(expression)
    return found
