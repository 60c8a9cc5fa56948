"""The files of the page: HTML rendered from a template, and the included scripts and style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from capprune import __version__
from capprune.serving.engine import Engine
from capprune.serving.models import ServedModel

TEMPLATE = "page.html.j2"
POLICY = (  # of a static page, whose server may set no headers
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
_COMMON = ("page.js", "page.css")
WORKER = "worker.js"


@dataclass(frozen=True)
class Asset:
    """One file of the page.

    Attributes:
        name: Its path below the page's address.
        content: Its bytes.
    """

    name: str
    content: bytes

    @property
    def media_type(self) -> str:
        """Media type of the file."""
        return _TYPES[self.name.rpartition(".")[2]]


def page_assets(
    models: Sequence[ServedModel], *, in_browser: bool, engines: Sequence[Engine] = ()
) -> tuple[Asset, ...]:
    """Return the files of the page.

    Args:
        models: The models of the page.
        in_browser: Whether the models run inside the browser.
        engines: The engines that run them there; the page names them.
    """
    names = (*_COMMON, WORKER) if in_browser else _COMMON
    return (Asset("index.html", render(models, in_browser=in_browser, engines=engines).encode()), *map(built, names))


def built(name: str) -> Asset:
    """Return a file that is included in the package."""
    return Asset(name, (files("capprune.serving") / "built" / name).read_bytes())


def render(models: Sequence[ServedModel], *, in_browser: bool, engines: Sequence[Engine] = ()) -> str:
    """Return the page as HTML; see `page_assets`."""
    environment = Environment(
        loader=PackageLoader("capprune.serving", "."),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    licences = dict.fromkeys(model.bundle.manifest.data.licence for model in models)
    return environment.get_template(TEMPLATE).render(
        models=models,
        in_browser=in_browser,
        engines=engines,
        licences=licences,
        policy=POLICY,
        made_by=f"capprune {__version__}",
    )
