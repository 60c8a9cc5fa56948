"""Random damage with hashes that fit again: refused with an error of ours, or expands to the very same bundle.

Every case comes from its number alone, which a failure prints.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from capz_edit import Member, Section, container, header_of, members_of, sealed
from packed_bundle import Packed

from capprune_runtime.bundle.capz import open_capz
from capprune_runtime.bundle.verify import verify_members
from capprune_runtime.errors import BundleError

CASES = 1000
SLOW_CASES = 10 * int(os.environ.get("CAPPRUNE_FUZZ_CASES", "10000"))
LEAST_REFUSED_IN_DEPTH = 0.3  # share of cases that get past the container's own hash

Random = np.random.Generator


def flipped(draw: Random, data: bytes) -> bytes:
    """One to eight bytes other than they were."""
    out = bytearray(data)
    for _ in range(draw.integers(1, 9) if out else 0):
        out[draw.integers(len(out))] = draw.integers(256)
    return bytes(out)


def resized(draw: Random, data: bytes) -> bytes:
    """A part left out, twice there, or moved to the end."""
    first, behind = sorted(draw.integers(0, len(data) + 1, 2).tolist())
    part = data[first:behind]
    return [data[:first] + data[behind:], data[:behind] + part + data[behind:], data[:first] + data[behind:] + part][
        draw.integers(3)
    ]


def damaged(draw: Random, data: bytes) -> bytes:
    return flipped(draw, data) if draw.random() < 0.7 else resized(draw, data)


def as_it_is(draw: Random, data: bytes) -> bytes:
    return damaged(draw, data)


def with_fitting_hash(draw: Random, data: bytes) -> bytes:
    return sealed(damaged(draw, data[:-32]))


def other_header(draw: Random, data: bytes) -> bytes:
    members = members_of(data)
    return container(members, header=damaged(draw, header_of(members)))


def other_section(draw: Random, data: bytes) -> bytes:
    members = members_of(data)
    number = draw.integers(len(members))
    members[number] = replace(members[number], section=damaged(draw, members[number].section))
    return container(members)


def other_parts(draw: Random, data: bytes) -> bytes:
    """Plan, literals, low bits, states or words of a model file, with sizes that fit."""
    members = members_of(data)
    models = [number for number, member in enumerate(members) if member.coding == 2]
    number = models[draw.integers(len(models))]
    members[number] = replace(members[number], section=_other_part(draw, members[number]))
    return container(members)


def _other_part(draw: Random, member: Member) -> bytes:
    section = Section.of(member.section)
    part = draw.choice(["plan", "plan", "plan", "literals", "low_bits", "states", "words"])
    if part == "states":
        return replace(section, states=_other_numbers(draw, section.states, 1 << 32)).packed()
    if part == "words":
        return replace(section, words=_other_numbers(draw, section.words, 1 << 16)).packed()
    return replace(section, **{part: damaged(draw, getattr(section, part))}).packed()


def _other_numbers(draw: Random, numbers: tuple[int, ...], high: int) -> tuple[int, ...]:
    out = list(numbers)
    if out and draw.random() < 0.7:
        out[draw.integers(len(out))] = int(draw.integers(high))
    elif out and draw.random() < 0.5:
        out.pop(draw.integers(len(out)))
    else:
        out.append(int(draw.integers(high)))
    return tuple(out)


def other_text(draw: Random, data: bytes) -> bytes:
    """The bytes of a file that zlib holds, packed again."""
    members = members_of(data)
    plain = [number for number, member in enumerate(members) if member.coding == 1]
    number = plain[draw.integers(len(plain))]
    content = damaged(draw, zlib.decompress(members[number].section))
    members[number] = replace(members[number], section=zlib.compress(content), size=len(content))
    return container(members)


KINDS: tuple[Callable[[Random, bytes], bytes], ...] = (
    as_it_is,
    with_fitting_hash,
    other_header,
    other_section,
    other_parts,
    other_parts,
    other_parts,
    other_text,
)


def check(packed: Packed, place: Path, cases: range) -> Counter[str]:
    data = packed.data
    found: Counter[str] = Counter()
    for number in cases:
        draw = np.random.default_rng(number)
        try:
            place.write_bytes(KINDS[draw.integers(len(KINDS))](draw, data))
        except (OverflowError, ValueError) as error:
            raise AssertionError(f"case {number} could not be made") from error
        try:
            files = verify_members(open_capz(place)).files
        except BundleError as error:
            assert error.exit_code == 5
            found[type(error).__name__] += 1
            found["in depth"] += "not the one that was written" not in str(error)
        except BaseException as error:
            raise AssertionError(f"case {number} ended in {type(error).__name__}: {error}") from error
        else:
            assert files == packed.bundle.files, f"case {number} was accepted with other bytes"
            found["accepted"] += 1
    return found


def test_damaged_packed_bundles_are_refused_or_the_same(packed: Packed, tmp_path: Path) -> None:
    found = check(packed, tmp_path / "damaged.capz", range(CASES))
    assert found["in depth"] > LEAST_REFUSED_IN_DEPTH * CASES
    assert found["BundleError"] and found["HashMismatch"]
    assert found["accepted"] < 0.2 * CASES


@pytest.mark.slow
def test_many_damaged_packed_bundles_are_refused_or_the_same(packed: Packed, tmp_path: Path) -> None:
    check(packed, tmp_path / "damaged.capz", range(CASES, CASES + SLOW_CASES))
