"""Grids of sweeps: products of keys and values, and their runs, parents first.

A grid is a list of products. A product has a list of values for every key, and stands for all combinations of one value per key:

    - pruning.method: [none, supermask]      a key of the config
      training.seed: [8888, 1, 2]
      weights: [float32, int8]               export formats, all for every run
    - pruning.method: [lottery]
      start: [dense, gradual]                the run of this sweep with that method and the same keys, or a folder
      start.training.epochs: [20]            a key of the run to start from

A run that another one starts from is a row of the sweep, and is trained once.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from capprune.config.methods import METHODS, NONE, StartsFrom
from capprune.config.reading import CONFIG_BYTES, parse_config
from capprune.config.run import RunConfig
from capprune.plain_yaml import plain_yaml
from capprune_exporters.weight_forms import Weights
from capprune_runtime.errors import ConfigError, UsageError

RUNS = "runs"  # the folder in a sweep that holds its runs
MOST_RUNS = 1000  # larger grids are probably a mistake
LONGEST_NAME = 200  # characters of a run folder's name
DIGITS = 8  # of the digest at the end of a truncated name

DENSE = "dense"  # name of the dense run as a start
METHOD, SEED, TEACHER = "pruning.method", "training.seed", "training.distillation.teacher"
START, OF_START, FORMATS = "start", "start.", "weights"
OF_ITSELF = ("training.objective", "training.distillation.", "training.reward.")  # keys that a start does not share

Product = Mapping[str, Sequence[Any]]
Keys = dict[str, Any]


@dataclass(frozen=True)
class Combination:
    """One run of a sweep.

    Attributes:
        name: Name of its folder, made from its keys, so that it does not change when the grid grows.
        keys: Its values of the grid's keys, including `pruning.method`.
        config: The config of its training.
        start: The run of this sweep that it starts from.
        needs: The runs of this sweep that it depends on: its start and its teacher.
        weights: Export formats to measure.
    """

    name: str
    keys: Mapping[str, Any]
    config: RunConfig
    start: str | None
    needs: tuple[str, ...]
    weights: tuple[str, ...]

    @property
    def method(self) -> str:
        """The pruning method; `dense` for a dense run."""
        found: str = self.config.pruning.method
        return DENSE if found == NONE else found

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.config.training.seed


def read_grid(asked: Sequence[str]) -> list[Product]:
    """Return the products of the `--grid` options.

    Args:
        asked: `key=v1,v2` or YAML files. The keys are added to every product of the files.

    Raises:
        UsageError: If a file does not exist.
        ConfigError: If an option or a file is not a grid.
    """
    given: dict[str, Sequence[Any]] = {}
    products: list[Product] = []
    for one in asked:
        key, equals, values = one.partition("=")
        if equals:
            given[key] = _list(key, plain_yaml(f"[{values}]", one), one)
        else:
            products += _read_file(Path(one))
    return [{**product, **given} for product in products or [{}]]


def expand(base: RunConfig, grid: Sequence[Product], folder: Path) -> list[Combination]:
    """Return every run of a sweep, each after the runs that it depends on.

    Args:
        base: The config that the grid varies.
        grid: Products.
        folder: The sweep's folder.

    Raises:
        ConfigError: If a key is unknown or a value is invalid.
        UsageError: If a start or a format is unknown, or there are too many runs.
    """
    runs = _Runs(base, folder)
    asked = sum(math.prod(len(values) for key, values in product.items() if key != FORMATS) for product in grid)
    if asked > MOST_RUNS:
        raise UsageError("this grid has too many runs", expected=f"at most {MOST_RUNS:,}", found=f"{asked:,}")
    for product in grid:
        weights = tuple(product.get(FORMATS, ("float32",)))
        if unknown := [form for form in weights if form not in tuple(Weights)]:
            raise UsageError("there is no such form", where=FORMATS, expected=", ".join(Weights), found=unknown[0])
        names = [key for key in product if key != FORMATS]
        for values in itertools.product(*(product[key] for key in names)):
            runs.add(dict(_flat(dict(zip(names, values, strict=True)))), weights)
    return list(runs.found.values())


class _Runs:
    """Runs by name, in the order in which they can be trained."""

    def __init__(self, base: RunConfig, folder: Path) -> None:
        self.found: dict[str, Combination] = {}
        self._names: dict[str, str] = {}  # by config
        self._base, self._tree, self._folder = base, base.as_tree(), folder

    def add(self, asked: Keys, weights: tuple[str, ...]) -> Combination:
        """Add a run and the runs that it depends on. An existing run gets the additional formats."""
        method = str(asked.get(METHOD, self._base.pruning.method))
        keys = {METHOD: method, **asked}
        self._parsed(keys, {})  # also checks keys without an effect on a dense run
        if method == NONE:  # dense runs with the same seed are one run
            keys = {key: value for key, value in keys.items() if key == METHOD or not key.startswith("pruning.")}
        name = name_of(keys)
        needs = {
            key: self._needed(keys, key, wanted, weights)
            for key, wanted in ((START, keys.get(START, _usual_start(method))), (TEACHER, keys.get(TEACHER)))
        }
        config = self._parsed({**keys, "name": name}, {key: place for key, (place, _) in needs.items()})
        if config.start is None and METHODS.load(method, METHOD).starts_from is StartsFrom.MASKED:
            raise ConfigError(
                "a run that keeps masks needs a run with masks to start from", where=START, expected=_starts()
            )
        if needs[START][1] is None and any(key.startswith(OF_START) for key in keys):
            raise UsageError("these keys need a run of this sweep to start from", where=f"{OF_START}*")
        own = tuple(parent for _, parent in needs.values() if parent is not None)
        made = Combination(name, keys, config, needs[START][1], own, weights)
        if (before := self._like(made)) is not None:
            made = replace(before, weights=tuple(dict.fromkeys((*before.weights, *weights))))
        self.found[made.name] = made
        return made

    def _parsed(self, keys: Keys, places: Mapping[str, Path | None]) -> RunConfig:
        """Return the config of a run, with the folders of the runs that it depends on."""
        overrides = {key: value for key, value in keys.items() if key not in (START, TEACHER)}
        overrides |= {key: str(place) for key, place in places.items() if place is not None}
        return parse_config(
            self._tree,
            [
                f"{key}={json.dumps(value, default=str)}"
                for key, value in overrides.items()
                if not key.startswith(OF_START)
            ],
            where="grid",
        )

    def _like(self, made: Combination) -> Combination | None:
        """Return the existing run with the same config, under any name."""
        config = made.config.model_copy(update={"name": ""}).model_dump_json()
        if (name := self._names.get(config)) is not None:
            return self.found[name]
        if made.name in self.found:
            raise UsageError("two runs of this grid would get the same name", where=made.name)
        self._names[config] = made.name
        return None

    def _needed(self, keys: Keys, key: str, wanted: Any, weights: tuple[str, ...]) -> tuple[Path | None, str | None]:
        """Return the folder of a start or a teacher, and its name if it is a run of this sweep."""
        if wanted is None:
            return None, None
        if wanted not in (DENSE, *METHODS.names()) or wanted == NONE:
            if not Path(str(wanted)).is_dir():
                near = difflib.get_close_matches(str(wanted), (DENSE, *METHODS.names()), n=1)
                hint = f"did you mean {near[0]}?" if near else None
                raise UsageError("there is no such run", where=key, expected=_starts(), found=wanted, hint=hint)
            return Path(str(wanted)), None
        shared = {
            name: value for name, value in keys.items() if name != START and not name.startswith((OF_START, *OF_ITSELF))
        }
        own = {name.removeprefix(OF_START): value for name, value in keys.items() if name.startswith(OF_START)}
        method = NONE if wanted == DENSE else str(wanted)
        parent = self.add({**shared, **own, METHOD: method}, weights)
        return self._folder / RUNS / parent.name, parent.name


def _usual_start(method: str) -> str | None:
    """Return the default start of a method in a sweep: the dense run, if it prunes a trained run."""
    known = METHODS.load(method, METHOD)
    return DENSE if known.needs_start and known.chooses_masks else None


def _starts() -> str:
    names = (DENSE, *(name for name in METHODS.names() if name != NONE))
    return f"a method of this sweep ({', '.join(names)}), or the folder of a run"


def name_of(keys: Mapping[str, Any]) -> str:
    """Return a unique folder name for a run: the method, its start, then the other keys.

    A name that is too long for file systems is truncated, and ends with a digest of the whole name.
    """
    method = DENSE if keys[METHOD] == NONE else str(keys[METHOD])
    usual = None if method == DENSE else _usual_start(method)
    start = keys.get(START, usual)
    parts = [method if start == usual else f"{method}-from-{start}"]
    others = sorted(key for key in keys if key not in (METHOD, START))
    short = [OF_START * key.startswith(OF_START) + key.rpartition(".")[2] for key in others]
    for key, last in zip(others, short, strict=True):
        label = last if short.count(last) == 1 else key
        value = keys[key]
        parts.append(f"{label}-{value}" if isinstance(value, str) else f"{label}{json.dumps(value, default=str)}")
    name = "-".join(re.sub(r"[^A-Za-z0-9._]+", "-", part).strip("-") for part in parts)
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:DIGITS]
    return f"{name[: LONGEST_NAME - 1 - DIGITS]}-{digest}"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten trees of keys to dotted keys."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _read_file(path: Path) -> list[Product]:
    try:
        if path.stat().st_size > CONFIG_BYTES:
            raise ConfigError("this grid is too large", where=path, expected=f"at most {CONFIG_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError("there is no such grid", where=path, expected="key=v1,v2 or a YAML file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("this grid cannot be read", where=path, found=error) from error
    products = plain_yaml(text, path)
    if not isinstance(products, list) or not all(isinstance(product, dict) for product in products):
        raise ConfigError("a grid must be a list of products, each a tree of keys with lists of values", where=path)
    return [{str(key): _list(str(key), values, path) for key, values in product.items()} for product in products]


def _list(key: str, values: Any, where: object) -> Sequence[Any]:
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{key} needs a list of values in a grid", where=where, expected="[v1, v2]", found=values)
    return values
