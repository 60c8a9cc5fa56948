"""A checkpoint's tokens move to where a run's vocabulary has them, and their rows with them."""

from __future__ import annotations

from pathlib import Path

import checkpoints
import numpy as np
import pytest
import torch
from checkpoints import CONTROL, UNKNOWN, WORD, Parts, config_bytes, saved, state, word_model
from hypothesis import given
from hypothesis import strategies as st
from numpy_up_down import NumpyUpDown

from capprune.importing.reference import read_reference
from capprune.importing.run import Source, as_parameters, in_run_order, run_vocabulary, token_order, write_run
from capprune.importing.sentencepiece_words import SpecialIds
from capprune_runtime.bundle.vocabulary import SPECIAL_TOKENS
from capprune_runtime.errors import BadVocabulary, UsageError

ALONE = {name: Source((name,)) for name in state()}
JOINED = {
    **{name: source for name, source in ALONE.items() if "_lstm" not in name},
    **{
        f"{cell}.weight": Source((f"core.{cell}.weight_ih", f"core.{cell}.weight_hh"))
        for cell in ("att_lstm", "lang_lstm")
    },
    **{
        f"{cell}.bias": Source((f"core.{cell}.bias_ih", f"core.{cell}.bias_hh"), "sum")
        for cell in ("att_lstm", "lang_lstm")
    },
}


@st.composite
def orders(draw: st.DrawFn) -> tuple[SpecialIds, int]:
    tokens = draw(st.integers(5, 60))
    pad, unk, bos, eos = draw(st.permutations(range(tokens)))[:4]
    return SpecialIds(pad=pad, unk=unk, bos=bos, eos=eos), tokens


@given(orders())
def test_the_order_is_a_permutation_that_puts_special_tokens_first_and_leaves_words_in_order(
    case: tuple[SpecialIds, int],
) -> None:
    special, tokens = case
    order = token_order(special, tokens)
    assert sorted(order) == list(range(tokens))
    assert order[:4] == (special.pad, special.bos, special.eos, special.unk)
    assert list(order[4:]) == sorted(order[4:])


@given(orders())
def test_every_word_keeps_its_rows(case: tuple[SpecialIds, int]) -> None:
    special, tokens = case
    names = [f"w{number}" for number in range(tokens)]
    vocabulary = run_vocabulary(names, special)
    rows = torch.arange(tokens)[torch.tensor(token_order(special, tokens))]
    assert vocabulary.tokens[:4] == SPECIAL_TOKENS
    assert [names[row] for row in rows.tolist()][4:] == list(vocabulary.tokens[4:])


def test_the_order_of_the_reference_code() -> None:
    assert token_order(SpecialIds(pad=0, unk=1, bos=2, eos=3), 7) == (0, 2, 3, 1, 4, 5, 6)


@pytest.mark.parametrize("pieces", [None, [("▁a", WORD), ("<eos>", CONTROL), ("<unk>", UNKNOWN), ("▁b", WORD)]])
def test_a_model_in_the_runs_order_computes_the_same(tmp_path: Path, pieces: list[tuple[str, int]] | None) -> None:
    """Scores of each token are the same numbers, in another place; with special tokens in any order."""
    parts = Parts()
    if pieces is not None:
        rest = [("<pad>", CONTROL), ("▁c", WORD), ("<bos>", CONTROL), *((f"▁w{n}", WORD) for n in range(5))]
        parts.files["tokenizer/word.model"] = word_model([*pieces, *rest], ids={40: 2, 41: 6, 42: 1, 43: 4})
        parts.files["config.json"] = config_bytes(unk_token_id=2, bos_token_id=6, eos_token_id=1, pad_token_id=4)
    checkpoint = read_reference(parts.folder(tmp_path / "checkpoint"))
    ordered = in_run_order(checkpoint)
    before = NumpyUpDown({name: tensor.numpy() for name, tensor in checkpoint.tensors.items()})
    after = NumpyUpDown({name: tensor.numpy() for name, tensor in ordered.tensors.items()})
    photo = before.encode(np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32))
    order = token_order(checkpoint.special, len(checkpoint.tokens))
    for new, old in enumerate(order):
        expected, _, _ = before.step(old, before.first_state(), photo)
        found, _, _ = after.step(new, after.first_state(), photo)
        assert np.array_equal(found, expected[list(order)])
        assert new < 4 or ordered.vocabulary.tokens[new] == checkpoint.tokens[old]
    assert all(torch.equal(mask, ordered.tensors[name] != 0) for name, mask in ordered.kept.items())


@pytest.mark.parametrize("word", ["<start>", "<end>", "<pad>", "a\u200bb", "x" * 101])
def test_words_that_a_run_cannot_hold_are_refused(word: str) -> None:
    with pytest.raises(BadVocabulary):
        run_vocabulary(["<pad>", "<unk>", "<bos>", "<eos>", "a", word], SpecialIds(pad=0, unk=1, bos=2, eos=3))


def test_parameters_have_masks_beside_pruned_weights(tmp_path: Path) -> None:
    ordered = in_run_order(read_reference(Parts().folder(tmp_path / "checkpoint")))
    found = as_parameters(ordered, ALONE)
    assert {name for name in found if name.endswith(".mask")} == {f"{name}.mask" for name in ordered.kept}
    for name, mask in ordered.kept.items():
        assert found[f"{name}.mask"].dtype == torch.bool and torch.equal(found[f"{name}.mask"], mask)


def test_parameters_may_join_the_matrices_and_the_biases_of_a_cell(tmp_path: Path) -> None:
    ordered = in_run_order(read_reference(Parts().folder(tmp_path / "checkpoint")))
    found = as_parameters(ordered, JOINED)
    tensors = ordered.tensors
    assert found["att_lstm.weight"].shape == (16, 11 + 4)
    assert torch.equal(found["att_lstm.weight"][:, 11:], tensors["core.att_lstm.weight_hh"])
    assert torch.equal(found["lang_lstm.weight.mask"][:, :8], ordered.kept["core.lang_lstm.weight_ih"])
    assert torch.equal(found["lang_lstm.bias"], tensors["core.lang_lstm.bias_ih"] + tensors["core.lang_lstm.bias_hh"])
    assert sum(int(mask.sum()) for name, mask in found.items() if name.endswith(".mask")) == sum(
        int(mask.sum()) for mask in ordered.kept.values()
    )


def test_a_dense_checkpoint_has_no_masks(tmp_path: Path) -> None:
    parts = Parts()
    dense = {name: torch.ones(tensor.shape) for name, tensor in state().items()}
    parts.files["model_best_pruned_sparse.pth"] = saved(dense)
    ordered = in_run_order(read_reference(parts.folder(tmp_path / "checkpoint")))
    assert set(as_parameters(ordered, ALONE)) == set(dense)


def test_a_table_that_forgets_or_repeats_a_tensor_is_refused(tmp_path: Path) -> None:
    ordered = in_run_order(read_reference(Parts().folder(tmp_path / "checkpoint")))
    for table in ({**ALONE, "again": ALONE["logit.bias"]}, {k: v for k, v in ALONE.items() if k != "logit.bias"}):
        with pytest.raises(ValueError, match="each tensor once"):
            as_parameters(ordered, table)


def test_writing_says_that_it_cannot_yet_and_writes_nothing(tmp_path: Path) -> None:
    checkpoint = read_reference(Parts().folder(tmp_path / "checkpoint"))
    with pytest.raises(UsageError, match="cannot write"):
        write_run(checkpoint, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert checkpoints.CONFIG["id"] == checkpoint.config.name
