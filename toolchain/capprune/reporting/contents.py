"""What the page shows, as plain values: everything is measured and worded before the template sees it."""

from __future__ import annotations

from dataclasses import dataclass

GOOD, BAD, PLAIN = "good", "bad", "plain"  # tones of a tile


@dataclass(frozen=True)
class Tile:
    """One figure of the headline: what it is, the figure, what it must be read with."""

    title: str
    value: str
    note: str
    tone: str = PLAIN


@dataclass(frozen=True)
class Grid:
    """A table; every column but the first is aligned to the right unless it says otherwise."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    prose: bool = False  # whether all columns are text


@dataclass(frozen=True)
class Word:
    """A word of a caption, and whether it is the first that differs from the caption before."""

    text: str
    marked: bool = False


@dataclass(frozen=True)
class Said:
    """One model's caption of a photo."""

    model: str
    words: tuple[Word, ...]
    differs: bool  # from the model before


@dataclass(frozen=True)
class PhotoRow:
    """A photo with its captions.

    Attributes:
        name: Name of the photo.
        image: The photo, small, as a data URI.
        said: Each model's caption.
        people: A caption that a person wrote, where there is one.
    """

    name: str
    image: str
    said: tuple[Said, ...]
    people: str | None


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        key: Its name in links.
        title: Its heading.
        text: What to know before reading it.
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
    """The whole page.

    Attributes:
        title: Its heading.
        lead: One sentence: what it is about.
        tiles: The headline.
        warnings: What a reader must know before believing a figure.
        sections: In the order of the page.
        missing: What is not here, and what would bring it.
        made_by: Name and version of the program.
    """

    title: str
    lead: str
    tiles: tuple[Tile, ...]
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]
    missing: tuple[str, ...]
    made_by: str
