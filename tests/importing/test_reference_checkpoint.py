"""Weights, tokenizer and config of a checkpoint are found in three forms and checked against each other."""

from __future__ import annotations

import io
import os
import stat
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import checkpoints
import pytest
import torch
from checkpoints import SPECIAL, WORD, Parts, config_bytes, saved, state, word_model

from capprune.importing.reference import read_reference, up_down_shapes
from capprune.importing.reference_config import read_config
from capprune_runtime.errors import BadModelFile, BadVocabulary, BundleError, CapPruneError, MissingFile, UsageError

WEIGHTS = "model_best_pruned_sparse.pth"


def refused(path: Path, kind: type[CapPruneError] = BundleError) -> CapPruneError:
    with pytest.raises(CapPruneError) as caught:
        read_reference(path)
    assert isinstance(caught.value, kind), repr(caught.value)
    assert path.name in str(caught.value.where) or path.parent.name in str(caught.value.where)
    return caught.value


def changed(tmp_path: Path, **files: bytes | None) -> Path:
    """A folder with some files changed: `config`, `words`, `weights`; None leaves one out."""
    names = {"config": "config.json", "words": "tokenizer/word.model", "weights": WEIGHTS}
    parts = Parts()
    for short, content in files.items():
        if content is None:
            del parts.files[names[short]]
        else:
            parts.files[names[short]] = content
    return parts.folder(tmp_path / "checkpoint")


@pytest.mark.parametrize("form", ["folder", "file", "archive", "archive with a folder"])
def test_every_form_of_a_checkpoint_gives_the_same(tmp_path: Path, form: str) -> None:
    folder = Parts().folder(tmp_path / "checkpoint")
    path = {
        "folder": lambda: folder,
        "file": lambda: folder / WEIGHTS,
        "archive": lambda: Parts().archive(tmp_path / "checkpoint.zip"),
        "archive with a folder": lambda: Parts().archive(tmp_path / "checkpoint.zip", "TINY/"),
    }[form]()
    found = read_reference(path)
    assert found.tokens == ("<pad>", "<unk>", "<bos>", "<eos>", *(word[1:] for word in checkpoints.WORDS))
    assert (found.config.vocabulary, found.config.embedding, found.config.hidden) == (12, 3, 4)
    assert (found.config.attention, found.config.features, found.config.max_tokens) == (5, 6, 16)
    for name, tensor in state().items():
        dense = tensor.to_dense() if tensor.is_sparse else tensor
        assert torch.equal(found.tensors[name], dense)
        assert name not in found.kept or torch.equal(found.kept[name], dense != 0)
    assert found.kept_weights == sum(int((t.to_dense() != 0).sum()) for t in state().values() if t.is_sparse)


@pytest.mark.parametrize("older", [False, True])
def test_dense_checkpoints_and_the_older_format_are_read(tmp_path: Path, older: bool) -> None:
    dense = {name: tensor.to_dense() for name, tensor in state().items()}
    found = read_reference(changed(tmp_path, weights=saved(dense, older=older)))
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in dense.items())


def test_of_several_weights_one_must_be_named(tmp_path: Path) -> None:
    parts = Parts()
    parts.files |= {"model_best.pth": b"", "model_010.pth": b""}
    assert read_reference(parts.folder(tmp_path / "a")).weights_file.endswith(WEIGHTS)
    del parts.files[WEIGHTS]
    assert "model_010.pth, model_best.pth" in str(refused(parts.folder(tmp_path / "b"), UsageError).found)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.pth", UsageError)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", MissingFile)


@pytest.mark.parametrize("part", ["config", "words"])
@pytest.mark.parametrize("archived", [False, True])
def test_a_missing_config_or_tokenizer_is_named(tmp_path: Path, part: str, archived: bool) -> None:
    name = {"config": "config.json", "words": "tokenizer/word.model"}[part]
    parts = Parts()
    del parts.files[name]
    path = parts.archive(tmp_path / "c.zip") if archived else parts.folder(tmp_path / "c") / WEIGHTS
    error = refused(path, MissingFile)
    assert name.split("/")[-1] in str(error)


@pytest.mark.parametrize("words", [0, -1, 5])
def test_a_tokenizer_with_another_number_of_pieces_is_refused(tmp_path: Path, words: int) -> None:
    pieces = [*SPECIAL, *((f"▁w{n}", WORD) for n in range(len(checkpoints.WORDS) + (words or 1)))]
    error = refused(changed(tmp_path, words=word_model(pieces)), BadVocabulary)
    assert "12" in str(error.expected) and error.found == str(len(pieces))


def test_a_tokenizer_with_other_special_tokens_is_refused(tmp_path: Path) -> None:
    refused(changed(tmp_path, config=config_bytes(bos_token_id=3, eos_token_id=2)), BadVocabulary)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rnn_size", "4"),
        ("rnn_size", 4.0),
        ("rnn_size", True),
        ("rnn_size", 0),
        ("rnn_size", -4),
        ("rnn_size", 10**30),
        ("vocab_size", 4),
        ("att_hid_size", [5]),
        ("max_seq_length", 1),
        ("max_seq_length", 10**6),
        ("drop_prob_lm", 1),
        ("drop_prob_lm", "half"),
        ("bos_token_id", 12),
        ("beam_size_test", 0),
        ("caption_model", 7),
        ("caption_model", "relation_transformer_prune"),
        ("tokenizer", "radix"),
        ("tokenizer", "unigram"),
        ("logit_layers", 2),
        ("use_bn", 1),
        ("fc_feat_size", 7),
    ],
)
def test_an_impossible_value_is_refused_by_its_key(tmp_path: Path, key: str, value: Any) -> None:
    error = refused(changed(tmp_path, config=config_bytes(**{key: value})))
    assert str(error.where).endswith(f"config.json, {key}") and error.found is not None


@pytest.mark.parametrize(
    "key", [key for key in checkpoints.CONFIG if key not in ("id", "beam_size_test", "logit_layers")]
)
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    error = refused(changed(tmp_path, config=config_bytes(**{key: None})))
    assert error.what == "the config lacks a key" and error.expected == key


@pytest.mark.parametrize("config", [b"", b"[]", b"{", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"\xff", b"[" * 100_000])
def test_a_config_that_is_no_json_object_is_refused(tmp_path: Path, config: bytes) -> None:
    assert "config.json" in str(refused(changed(tmp_path, config=config)).where)


def test_missing_and_surplus_tensors_are_named(tmp_path: Path) -> None:
    tensors = state(logit__bias=None, core__other__weight=torch.ones(2))
    error = refused(changed(tmp_path, weights=saved(tensors)), BadModelFile)
    assert "logit.bias" in str(error.expected) and "core.other.weight" in str(error.found)


@pytest.mark.parametrize("name", list(state()))
def test_a_tensor_of_another_shape_is_named(tmp_path: Path, name: str) -> None:
    for shape in ((2, 2), (*state()[name].shape, 1), tuple(size + 1 for size in state()[name].shape)):
        tensors = state(**{name.replace(".", "__"): torch.ones(shape)})
        error = refused(changed(tmp_path, weights=saved(tensors)), BadModelFile)
        assert str(error.where).endswith(name) and error.found == "x".join(map(str, shape))


def test_turned_matrices_are_refused(tmp_path: Path) -> None:
    turned = state()["core.att_lstm.weight_ih"].to_dense().T
    refused(changed(tmp_path, weights=saved(state(core__att_lstm__weight_ih=turned))), BadModelFile)


def test_checkpoints_with_gates_are_refused_with_the_file_to_take(tmp_path: Path) -> None:
    tensors = state() | {"logit.weight_pruning_mask": torch.ones(12, 4)}
    assert WEIGHTS in str(refused(changed(tmp_path, weights=saved(tensors))).hint)


def test_numbers_that_are_not_finite_are_refused_by_their_tensor(tmp_path: Path) -> None:
    bias = torch.zeros(12)
    bias[5] = float("nan")
    error = refused(changed(tmp_path, weights=saved(state(logit__bias=bias))), BadModelFile)
    assert str(error.where).endswith("logit.bias") and "nan" in str(error.found)


def test_a_model_of_absurd_size_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    """Sparse matrices without a value say any shape; the config agrees with them."""
    config = config_bytes(input_encoding_size=16_384, att_feat_size=16_384, fc_feat_size=16_384, rnn_size=2048)
    shapes = up_down_shapes(read_config(config, "config.json"))
    none = torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0)
    tensors = {
        name: torch.sparse_coo_tensor(*none, shape, check_invariants=True) if len(shape) == 2 else torch.zeros(shape)
        for name, shape in shapes.items()
    }
    folder = changed(tmp_path, config=config, weights=saved(tensors))
    tracemalloc.start()
    try:
        assert "too large" in refused(folder, BadModelFile).what
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "name", ["../config.json", "/etc/config.json", "a/../../b", "..", ".", "a\\..\\b", "C:/x", "tokenizer/../../x"]
)
def test_an_archive_with_a_name_that_leads_out_of_it_is_refused(tmp_path: Path, name: str) -> None:
    parts = Parts()
    parts.files[name] = b"{}"
    assert "leads out" in refused(parts.archive(tmp_path / "c.zip")).what
    assert [path.name for path in tmp_path.iterdir()] == ["c.zip"]


def test_an_archive_with_a_link_is_refused(tmp_path: Path) -> None:
    path = Parts().archive(tmp_path / "c.zip")
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("model_best.pth")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert "link" in refused(path).what


def test_a_zip_bomb_is_refused_without_memory(tmp_path: Path) -> None:
    parts = Parts()
    parts.files[WEIGHTS] = bytes(300 << 20)
    path = parts.archive(tmp_path / "c.zip")
    assert path.stat().st_size < 1 << 20
    del parts
    tracemalloc.start()
    try:
        assert "expands to" in refused(path).what
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_an_archive_that_understates_a_size_is_refused(tmp_path: Path) -> None:
    """The list of members says 1,000 bytes; the data expands to 300,000."""
    path = Parts().archive(tmp_path / "c.zip")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zzz.pth", bytes(300_000))
        place = archive.infolist()[-1]
    data = bytearray(path.read_bytes())
    end = data.rfind(b"PK\x01\x02")
    assert struct.unpack_from("<I", data, end + 24) == (place.file_size,)
    struct.pack_into("<I", data, end + 24, 1000)
    at = data.find(WEIGHTS.encode(), data.find(b"PK\x01\x02"))
    data[at : at + len(WEIGHTS)] = b"x" * len(WEIGHTS)  # so that the other one is the only .pth
    (tmp_path / "d.zip").write_bytes(data)
    refused(tmp_path / "d.zip")


def test_archives_with_too_many_files_or_twice_the_same_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(5000):
            archive.writestr(f"{number}", b"")
    assert "too many files" in refused(tmp_path / "many.zip").what
    with zipfile.ZipFile(tmp_path / "long.zip", "w") as archive:
        for number in range(6000):
            archive.writestr(f"{number:0200}", b"")
    assert "list of files is too long" in refused(tmp_path / "long.zip").what
    path = Parts().archive(tmp_path / "twice.zip")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("config.json", b"{}")
    assert "stands twice" in refused(path).what


@pytest.mark.parametrize("offset", [0xFFFFFFFE, 1 << 30])
def test_a_file_that_lies_outside_its_archive_is_refused(tmp_path: Path, offset: int) -> None:
    data = bytearray(Parts().archive(tmp_path / "c.zip").read_bytes())
    struct.pack_into("<I", data, data.rfind(b"PK\x01\x02") + 42, offset)
    (tmp_path / "d.zip").write_bytes(data)
    assert "outside" in refused(tmp_path / "d.zip").what


def test_truncated_archives_are_refused(tmp_path: Path) -> None:
    whole = Parts().archive(tmp_path / "c.zip").read_bytes()
    for length in range(0, len(whole), 101):
        (tmp_path / "cut.zip").write_bytes(whole[:length])
        refused(tmp_path / "cut.zip")


@pytest.mark.parametrize("byte", range(0, 12_000, 61))
def test_archives_with_a_changed_byte_are_read_or_refused(tmp_path: Path, byte: int) -> None:
    data = bytearray(Parts().archive(tmp_path / "c.zip").read_bytes())
    data[byte % len(data)] ^= 0x55
    (tmp_path / "d.zip").write_bytes(data)
    try:
        assert read_reference(tmp_path / "d.zip").tokens
    except CapPruneError as error:
        assert error.where is not None


def test_archives_without_one_checkpoint_are_refused(tmp_path: Path) -> None:
    for name, top in (("none", None), ("two", "second/")):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("notes.txt", b"")
            for folder in () if top is None else ("first/", top):
                archive.writestr(f"{folder}config.json", b"{}")
        (tmp_path / f"{name}.zip").write_bytes(buffer.getvalue())
        refused(tmp_path / f"{name}.zip", MissingFile)
    (tmp_path / "torch.zip").write_bytes(saved(state()))
    assert ".pth file itself" in str(refused(tmp_path / "torch.zip", MissingFile).hint)


def test_pipes_and_folders_in_the_place_of_files_are_refused(tmp_path: Path) -> None:
    folder = changed(tmp_path, config=None)
    os.mkfifo(folder / "config.json")
    assert "plain files only" in refused(folder).what
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    refused(folder)


def test_files_that_are_links_to_plain_files_are_read(tmp_path: Path) -> None:
    """Stores of checkpoints are folders of links."""
    store = Parts().folder(tmp_path / "store")
    linked = tmp_path / "linked"
    (linked / "tokenizer").mkdir(parents=True)
    for path in (path for path in store.rglob("*") if path.is_file()):
        (linked / path.relative_to(store)).symlink_to(path)
    assert read_reference(linked).tokens == read_reference(store).tokens
