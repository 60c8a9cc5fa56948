"""Packed bundles and ONNX models that break a rule: the tables of tests/capz and tests/onnx, as whole files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("capz", "onnx"))

import capz_edit
import onnx_edit
import test_capz
import test_capz_pieces
import test_onnx_check
from attacks import PACKED, PACKED_NAME, Attack, HostileFiles
from bundle_mutations import sealed
from world import World

from capprune_runtime.errors import BadModelFile, BundleError

# Rows of the damages of a packed bundle, by what their names say; the others are of its layout.
_ROWS_OF_WORDS = (
    (12, ("hash", "flipped", "later", "missing", "does not list", "no manifest", "version")),
    (3, ("name", "a member twice", "members out of order")),
    (1, ("code",)),
    (4, ("bomb", "too many", "above its own cap", "size that overflows")),
)


def packed_row(name: str) -> int:
    return next((row for row, words in _ROWS_OF_WORDS if any(word in name for word in words)), 6)


def packed(damage: Callable[[bytes], bytes]) -> Callable[[World], HostileFiles]:
    return lambda world: {PACKED_NAME: damage(world.packed)}


def with_section(section: bytes) -> Callable[[bytes], bytes]:
    """The packed bundle with a coded section for its decoder."""
    return lambda data: capz_edit.changed(data, "decoder.tflite", coding=2, size=test_capz_pieces.SIZE, section=section)


def with_onnx(member: str, form: str, edit: Any) -> Callable[[World], HostileFiles]:
    def make(world: World) -> HostileFiles:
        files = dict(world.onnx)
        return sealed({**files, member: onnx_edit.edited(world.onnx_models[f"{member}, {form}"], edit)})

    return make


def onnx_row(name: str) -> int:
    if name in ("NaN", "infinity"):
        return 11
    return 10 if "scale" in name or "-128" in name or "zero point" in name or "8 bits" in name else 14


CAPZ_ATTACKS = (
    *(
        Attack(packed_row(name), name, packed(damage), error, says, PACKED)
        for name, (damage, error, says) in test_capz.DAMAGES.items()
    ),
    *(
        Attack(9, name, packed(with_section(section)), BundleError, says, PACKED)
        for name, (section, says) in test_capz_pieces.BROKEN.items()
    ),
)
ONNX_ATTACKS = tuple(
    Attack(onnx_row(name), f"{member}, {name}", with_onnx(member, form, edit), BadModelFile, says)
    for member, table in (
        ("decoder.onnx", {name: ("dense", *entry) for name, entry in test_onnx_check.DENSE.items()}),
        ("decoder.onnx", test_onnx_check.FORMS),
        ("encoder.onnx", test_onnx_check.ENCODERS),
    )
    for name, (form, edit, says) in table.items()
)
ATTACKS = (*CAPZ_ATTACKS, *ONNX_ATTACKS)
