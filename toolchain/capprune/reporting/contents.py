"""The content of the page as plain values; the template computes nothing."""

from __future__ import annotations

from dataclasses import dataclass

GOOD, BAD, PLAIN = "good", "bad", "plain"  # tones of a tile


@dataclass(frozen=True)
class Tile:
    """One figure of the headline: its name, its value, and a note."""

    title: str
    value: str
    note: str
    tone: str = PLAIN


@dataclass(frozen=True)
class Grid:
    """A table; every column except the first is aligned to the right, unless `prose` is set."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    prose: bool = False  # whether all columns are text


@dataclass(frozen=True)
class Word:
    """A word of a caption, and whether it is the first that differs from the previous caption."""

    text: str
    marked: bool = False


@dataclass(frozen=True)
class Said:
    """One model's caption of a photo."""

    model: str
    words: tuple[Word, ...]
    differs: bool  # from the previous model


@dataclass(frozen=True)
class PhotoRow:
    """A photo with its captions.

    Attributes:
        name: Name of the photo.
        image: The photo, small, as a data URI.
        said: Each model's caption.
        people: A human caption, if there is one.
    """

    name: str
    image: str
    said: tuple[Said, ...]
    people: str | None


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        key: Its name in links.
        title: Its heading.
        text: Its introduction.
        charts: Inline SVG elements.
        grids: Tables below them.
        photos: Photos with captions.
        commands: Lines to copy.
    """

    key: str
    title: str
    text: str = ""
    charts: tuple[str, ...] = ()
    grids: tuple[Grid, ...] = ()
    photos: tuple[PhotoRow, ...] = ()
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """The complete page.

    Attributes:
        title: Its heading.
        lead: One sentence about the model.
        tiles: The headline.
        warnings: Warnings about the figures.
        sections: Sections in the order of the page.
        missing: Missing sections, and the sources that they need.
        made_by: Name and version of the program.
    """

    title: str
    lead: str
    tiles: tuple[Tile, ...]
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]
    missing: tuple[str, ...]
    made_by: str
