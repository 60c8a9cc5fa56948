"""One self-contained page from a run, a bundle and its measurements."""

from importlib.util import find_spec

from capprune_runtime.errors import MissingExtra

NEEDS = {"jinja2": "Jinja2", "matplotlib": "matplotlib"}


def require_extra() -> None:
    """Check before any work that the page can be drawn.

    Raises:
        MissingExtra: Jinja2 or matplotlib is not installed.
    """
    missing = [name for module, name in NEEDS.items() if find_spec(module) is None]
    if missing:
        raise MissingExtra(
            "packages for reports are not installed",
            found=f"no {' and no '.join(missing)}",
            hint="pip install 'capprune[report]'",
        )
