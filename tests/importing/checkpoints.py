"""Small checkpoints in the form of the reference code, with every part open to a change."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from capprune.importing.reference import up_down_shapes
from capprune.importing.reference_config import read_config

WORD, CONTROL, UNKNOWN = 1, 3, 2
SPECIAL = (("<pad>", CONTROL), ("<unk>", UNKNOWN), ("<bos>", CONTROL), ("<eos>", CONTROL))
WORDS = ("▁a", "▁man", "▁dog", "▁on", "▁the", "▁beach", "▁red", "▁t-shirt")
CONFIG = {
    "att_feat_size": 6,
    "att_hid_size": 5,
    "beam_size_test": 2,
    "bos_token_id": 2,
    "caption_model": "up_down_lstm_prune",
    "drop_prob_lm": 0.1,
    "eos_token_id": 3,
    "fc_feat_size": 6,
    "id": "small",
    "input_encoding_size": 3,
    "logit_layers": 1,
    "max_seq_length": 16,
    "pad_token_id": 0,
    "rnn_size": 4,
    "tokenizer": "word",
    "unk_token_id": 1,
    "vocab_size": len(SPECIAL) + len(WORDS),
}


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def integer_field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def piece(text: str, kind: int = WORD) -> bytes:
    """A sentencepiece of a word has no kind: it is the default."""
    content = bytes_field(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", -1.5)
    return content + (integer_field(3, kind) if kind != WORD else b"")


def word_model(
    pieces: Sequence[tuple[str, int]] = (*SPECIAL, *((word, WORD) for word in WORDS)),
    kind: int | None = 3,
    ids: Mapping[int, int] = {40: 1, 41: 2, 42: 3, 43: 0},
) -> bytes:
    """A sentencepiece model: its pieces, and settings of a kind (3 is WORD) with the ids of unk, bos, eos, pad."""
    settings = bytes_field(1, b"train_captions.txt") + bytes_field(2, b"word")
    settings += b"" if kind is None else integer_field(3, kind)
    settings += b"".join(integer_field(number, value) for number, value in ids.items())
    settings += bytes_field(44, b"<unk>")
    messages = b"".join(bytes_field(1, piece(*one)) for one in pieces)
    return messages + bytes_field(2, settings) + bytes_field(3, bytes_field(1, b"nmt_nfkc"))


def config_bytes(**changes: Any) -> bytes:
    """The config with some keys changed; a key of None is left out."""
    return json.dumps({key: value for key, value in (CONFIG | changes).items() if value is not None}).encode()


def state(**changes: Tensor | None) -> dict[str, Tensor]:
    """Half-pruned tensors of the right shapes, sparse where the reference code stores them so; `__` stands for a dot."""
    made = torch.Generator().manual_seed(3)
    tensors: dict[str, Tensor] = {}
    for name, shape in up_down_shapes(read_config(config_bytes(), "config.json")).items():
        values = torch.randn(shape, generator=made)
        tensors[name] = (values * (torch.rand(shape, generator=made) < 0.5)).to_sparse() if len(shape) == 2 else values
    for key, tensor in changes.items():
        name = key.replace("__", ".")
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    return tensors


def saved(tree: object, *, older: bool = False) -> bytes:
    """What torch.save writes, in the zip format or in the older one."""
    buffer = io.BytesIO()
    torch.save(tree, buffer, _use_new_zipfile_serialization=not older)
    return buffer.getvalue()


@dataclass
class Parts:
    """The files of a checkpoint by name, ready to be changed and written."""

    files: dict[str, bytes] = field(
        default_factory=lambda: {
            "config.json": config_bytes(),
            "model_best_pruned_sparse.pth": saved(state()),
            "tokenizer/word.model": word_model(),
            "tokenizer/word.vocab": b"",
            "sparsities.csv": b"",
        }
    )

    def folder(self, folder: Path) -> Path:
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder

    def archive(self, path: Path, top: str = "") -> Path:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in self.files.items():
                archive.writestr(top + name, content)
        return path
