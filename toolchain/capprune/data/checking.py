"""Checks a data folder before training: counts, problems, a verdict and the next command."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from capprune.data.captions import CaptionedPhoto, CaptionSet, load_caption_set, words
from capprune.data.decoding import look_at_all
from capprune.data.duplicates import Duplicates, find_duplicates
from capprune.data.folder import read_folder
from capprune.data.left_out import LeftOut, first_names
from capprune.data.photos import PhotoStore, open_photos

NEEDED: Final = ("train", "val")  # splits that training reads
SHARED: Final = 0.5  # share of photos with the same caption from which it is reported
FEWEST: Final = 8  # photos; with fewer, equal captions may be chance
KIND: Final = "data check"  # marks the documents that --report writes


@dataclass(frozen=True)
class SplitFacts:
    """Counts of one split."""

    split: str
    photos: int
    captions: int
    words: int
    mean_length: float


@dataclass(frozen=True)
class DataCheck:
    """Result of a check.

    Attributes:
        folder: The data folder.
        captions: Captions of its photos.
        splits: Counts of each split.
        missing: Captioned photos that do not exist, with the photo that may be meant.
        broken: Photos that cannot be decoded, with the reason.
        duplicates: Groups of equal or nearly equal photos.
        left_out: Files, photos and captions that were not used, by reason.
        decoded: Number of decoded photos.
        from_cache: Number of photos with a result from an earlier check.
    """

    folder: Path
    captions: CaptionSet
    splits: tuple[SplitFacts, ...]
    missing: tuple[tuple[str, str | None], ...]
    broken: tuple[tuple[str, str], ...]
    duplicates: tuple[Duplicates, ...]
    left_out: tuple[LeftOut, ...]
    decoded: int
    from_cache: int

    @property
    def problems(self) -> tuple[str, ...]:
        """The problems that prevent training, one sentence each."""
        found = []
        if self.missing:
            found.append(f"{_photos(len(self.missing))} missing")
        if self.broken:
            found.append(f"{_photos(len(self.broken))} that cannot be decoded")
        found += [f"no photo in the split {split}" for split in NEEDED if split not in self.captions.splits]
        return tuple(found)

    @property
    def ready(self) -> bool:
        """Whether training can use the folder as it is."""
        return not self.problems

    @property
    def verdict(self) -> str:
        """One line about whether training can run."""
        if not self.ready:
            return f"not ready to train: {', '.join(self.problems)}"
        across = [group for group in self.duplicates if group.across_splits]
        buts = [f"{_photos(len(across))} found in more than one split"] if across else []
        if (shared := self.shared_caption) is not None:
            buts.append(f'{_photos(shared[1])} of {len(self.captions.photos):,} have the caption "{shared[0]}"')
        return f"ready to train{', but ' * bool(buts)}{' and '.join(buts)}"

    @property
    def shared_caption(self) -> tuple[str, int] | None:
        """The caption that at least half of the photos have, and their number; a model would learn little else."""
        photos = self.captions.photos
        times = Counter(caption for photo in photos for caption in dict.fromkeys(photo.captions))
        caption, count = times.most_common(1)[0]
        return (caption, count) if len(photos) >= FEWEST and count >= SHARED * len(photos) else None

    @property
    def next_command(self) -> str:
        """The command to run next."""
        folder, name = shlex.quote(str(self.folder)), shlex.quote(self.folder.resolve().name)
        if self.ready:
            return f"capprune train configs/flickr8k_sparse.yaml data.folder={folder} --out runs/{name}"
        if len(self.captions.photos) < len(NEEDED):
            return f"add photos with captions to {folder}, then capprune data check {folder}"
        if len(self.missing) == len(self.captions.photos):
            return f"put the photos that the captions name into {folder}, then capprune data check {folder}"
        options = " --drop-broken" * bool(self.missing or self.broken)
        splits = self.captions.splits
        if "val" not in splits and splits.get("train", 0) > 1:
            options += " --val 10"
        elif any(split not in splits for split in NEEDED):
            options += " --shares 80,10,10"
        return f"capprune data import {folder} --out {name}-new{options}"

    def as_json(self) -> dict[str, Any]:
        """Return all facts, for `--json` and `--report`."""
        return {
            "kind": KIND,
            "folder": str(self.folder),
            "name": self.captions.name,
            "layout": self.captions.layout,
            "files": list(self.captions.files),
            "splits_made": self.captions.splits_made,
            "splits": [vars(split) for split in self.splits],
            "missing": [{"photo": name, "perhaps": near} for name, near in self.missing],
            "broken": [{"photo": name, "error": error} for name, error in self.broken],
            "duplicates": [group.as_json() for group in self.duplicates],
            "notes": [entry.as_json() for entry in self.left_out],
            "shared_caption": None if self.shared_caption is None else self.shared_caption[0],
            "decoded": self.decoded,
            "from_cache": self.from_cache,
            "ready": self.ready,
            "verdict": self.verdict,
            "next": self.next_command,
        }


def check_data(
    folder: Path, *, layout: str | None = None, cache: Path, progress: Callable[[int, int], None] | None = None
) -> DataCheck:
    """Read the captions, decode every photo and search for duplicates.

    Args:
        folder: Folder of captions and photos.
        layout: Name of the layout to read; None to detect it.
        cache: Folder of all caches; unchanged photos are decoded only once.
        progress: Called with the number of decoded photos and of all photos.

    Raises:
        UsageError: There is no such folder, or its layout is unknown.
        DataError: A captions file or tar file is broken, or there is no photo at all.
    """
    captions = load_caption_set(folder, layout)
    with open_photos(folder) as store:
        absent = set(store.missing(photo.name for photo in captions.photos))
        there = [photo for photo in captions.photos if photo.name not in absent]
        seen = look_at_all(store, [photo.name for photo in there], cache=cache, progress=progress)
        gone = [photo.name for photo in captions.photos if photo.name in absent]
        missing = tuple(zip(gone, store.nearest(gone), strict=True))
        left_out = [*captions.left_out, *store.left_out, *_unused(folder, captions, store), *_clashes(store.names())]
    looks = seen.by_name
    if seen.not_kept is not None:
        left_out.append(LeftOut("cache files that cannot be written (choose another --cache)", (str(seen.not_kept),)))
    broken = tuple((name, look.error) for name, look in looks.items() if look.error is not None)
    duplicates = find_duplicates(looks, {photo.name: photo.split for photo in there})
    splits = tuple(_facts(captions.split(name)) for name in captions.splits)
    return DataCheck(
        folder,
        captions,
        splits,
        missing,
        broken,
        duplicates,
        tuple(left_out),
        len(looks) - seen.from_cache,
        seen.from_cache,
    )


def _facts(photos: tuple[CaptionedPhoto, ...]) -> SplitFacts:
    texts = [words(text) for photo in photos for text in photo.captions]
    return SplitFacts(
        photos[0].split,
        len(photos),
        len(texts),
        len({word for text in texts for word in text}),
        sum(map(len, texts)) / len(texts),
    )


def _unused(folder: Path, captions: CaptionSet, store: PhotoStore) -> tuple[LeftOut, ...]:
    """Return photos that no captions file names, and files that are neither photos nor captions."""
    named = {store.resolved(photo.name) for photo in captions.photos}
    listed = {name for entry in captions.left_out for name in entry.names}
    named |= {store.resolved(name) for name in listed}
    photos = tuple(name for name in store.names() if name not in named)
    contents = read_folder(folder)
    used = {*captions.files, *contents.photos, *contents.tars}
    files = tuple(name for name in contents.files if name not in used)
    entries = (LeftOut("photos that no captions file names", photos), LeftOut("other files, not read", files))
    return tuple(entry for entry in entries if entry.names)


def _clashes(names: Iterable[str]) -> tuple[LeftOut, ...]:
    """Return names that would be the same file on a file system that ignores case."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[name.casefold()].append(name)
    groups = tuple(" and ".join(group) for group in alike.values() if len(group) > 1)
    what = "names that differ in capitals only and would overwrite one another on Windows and macOS"
    return (LeftOut(what, groups),) if groups else ()


def _photos(count: int) -> str:
    return f"{count:,} photo{'s' * (count != 1)}"


def problem_lines(check: DataCheck, shown: int) -> list[str]:
    """Return one line per missing, broken or duplicate photo, at most `shown` of each kind."""
    across = [group for group in check.duplicates if group.across_splits]
    within = [str(group) for group in check.duplicates if not group.across_splits]
    missing = [name if near is None else f"{name} (there is {near})" for name, near in check.missing]
    kinds = (
        ("with captions, but missing", missing),
        ("cannot be decoded", [f"{name}: {error}" for name, error in check.broken]),
        ("in more than one split", [f"{group}{', the same file' * group.same_bytes}" for group in across]),
    )
    lines = []
    for what, entries in kinds:
        lines += [f"{what}: {entry}" for entry in entries[:shown]]
        if len(entries) > shown:
            lines.append(f"{what}: {len(entries) - shown:,} more; --report FILE.json writes all of them")
    if within:
        lines.append(f"twice in one split: {len(within):,} ({first_names(within)})")
    return lines
