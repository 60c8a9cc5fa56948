"""One self-contained page from a run, a bundle and what was measured of it."""

from importlib.util import find_spec

from capprune_runtime.errors import MissingExtra

NEEDS = {"jinja2": "Jinja2", "matplotlib": "matplotlib"}


def require_extra() -> None:
    """Refuse before any work what could not be drawn after it.

    Raises:
        MissingExtra: Jinja2 or matplotlib is not installed.
    """
    missing = [name for module, name in NEEDS.items() if find_spec(module) is None]
    if missing:
        raise MissingExtra(
            "the report's parts are not installed",
            found=f"no {' and no '.join(missing)}",
            hint="pip install 'capprune[report]'",
        )
