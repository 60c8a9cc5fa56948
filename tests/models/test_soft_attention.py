from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from capprune.models.family import Decoder
from capprune.models.soft_attention import SoftAttention, SoftAttentionConfig, SoftAttentionDropout
from capprune_runtime.bundle.vocabulary import END, START

Cell = Literal["lstm", "gru"]
CELLS: tuple[Cell, ...] = ("lstm", "gru")
PHOTOS, CAPTIONS, REGIONS, FEATURES, VOCABULARY = 3, 2, 5, 10, 13
both_cells = pytest.mark.parametrize("cell", CELLS)


def small(cell: Cell, *, dropout: SoftAttentionDropout | None = None) -> SoftAttention:
    torch.manual_seed(1)
    rates = dropout or SoftAttentionDropout()
    shape = SoftAttentionConfig(cell=cell, embedding=4, hidden=6, attention=7, context=8, dropout=rates)
    decoder = SoftAttention(shape, features=FEATURES, vocabulary=VOCABULARY, regions=REGIONS)
    for name, parameter in decoder.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)  # zeros would hide a bias that is left out
    return decoder.eval()


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Features, inputs and targets of captions of unequal lengths."""
    torch.manual_seed(2)
    features = torch.rand(PHOTOS, REGIONS, FEATURES)
    words = torch.randint(4, VOCABULARY, (PHOTOS * CAPTIONS, 6))
    inputs = torch.cat([torch.full((len(words), 1), START), words], 1)
    targets = torch.cat([words, torch.full((len(words), 1), END)], 1)
    for row, length in enumerate((7, 2, 5, 5, 1, 6)):
        targets[row, length:] = -1
    return features, inputs, targets


def test_attention_of_one_caption_a_photo_is_that_of_many() -> None:
    decoder, (features, _, _) = small("lstm"), batch()
    held, _ = decoder.encode(features)
    h = torch.randn(PHOTOS, 6)
    singly, together = (
        decoder.attend_singly(h, held["keys"], held["values"]),
        decoder.attend(h, held["keys"], held["values"]),
    )
    for one, many in zip(singly, together, strict=True):
        assert one.shape == many.shape and torch.allclose(one, many, atol=1e-6)


@both_cells
def test_scores_of_whole_captions_are_those_of_one_step_after_the_other(cell: Cell) -> None:
    decoder, (features, inputs, targets) = small(cell), batch()
    expected = Decoder.scores(decoder, features, inputs, targets)
    torch.testing.assert_close(decoder.scores(features, inputs, targets), expected)
    loss = F.cross_entropy(expected, targets[targets >= 0])
    torch.testing.assert_close(decoder(features, inputs, targets), loss)


@both_cells
def test_padding_does_not_change_the_loss(cell: Cell) -> None:
    decoder, (features, inputs, targets) = small(cell), batch()
    longer_inputs = torch.cat([inputs, torch.full((len(inputs), 3), 9)], 1)
    longer_targets = torch.cat([targets, torch.full((len(targets), 3), -1)], 1)
    other_ids = torch.where(longer_targets < 0, torch.full_like(longer_inputs, 7), longer_inputs)
    loss = decoder(features, inputs, targets)
    torch.testing.assert_close(decoder(features, longer_inputs, longer_targets), loss)
    torch.testing.assert_close(decoder(features, other_ids, longer_targets), loss)


@both_cells
def test_each_caption_sees_its_own_photo_only(cell: Cell) -> None:
    decoder, (features, inputs, targets) = small(cell), batch()
    spoken = (targets >= 0).sum(1).view(PHOTOS, CAPTIONS).sum(1)
    alone = [
        decoder(features[photo : photo + 1], *(ids.view(PHOTOS, CAPTIONS, -1)[photo] for ids in (inputs, targets)))
        for photo in range(PHOTOS)
    ]
    together = decoder(features, inputs, targets)
    torch.testing.assert_close(together, (torch.stack(alone) * spoken).sum() / spoken.sum())
    assert not torch.allclose(together, decoder(features.flip(0), inputs, targets))


@both_cells
def test_attention_is_one_share_a_region_and_sums_to_one(cell: Cell) -> None:
    decoder, (features, _, _) = small(cell), batch()
    held, first = decoder.encode(features)
    attention = decoder.step(torch.tensor([4, 5, 6]), decoder.begin(first, PHOTOS), held).attention
    assert attention is not None
    assert attention.shape == (PHOTOS, REGIONS)
    assert bool((attention > 0).all())
    torch.testing.assert_close(attention.sum(1), torch.ones(PHOTOS))
    assert float(attention.detach().std(1).min()) > 1e-4  # it looks somewhere


def test_attention_is_additive_over_keys_and_averages_values() -> None:
    decoder = small("lstm")
    h, keys, values = torch.randn(1, 6), torch.randn(1, REGIONS, 7), torch.randn(1, REGIONS, 8)
    context, attention = decoder.attend(h, keys, values)
    v, query = decoder.score.weight[0], decoder.query.weight @ h[0]
    scores = torch.stack([(v * torch.tanh(key + query)).sum() for key in keys[0]])
    torch.testing.assert_close(attention[0], torch.softmax(scores, 0))
    torch.testing.assert_close(context[0], (torch.softmax(scores, 0)[:, None] * values[0]).sum(0))


def test_lstm_is_the_one_of_torch() -> None:
    decoder = small("lstm")
    x, h, c = torch.randn(4, 12), torch.randn(4, 6), torch.randn(4, 6)
    cell = nn.LSTMCell(12, 6)
    with torch.no_grad():
        cell.weight_ih.copy_(decoder.rnn.weight[:, :12])
        cell.weight_hh.copy_(decoder.rnn.weight[:, 12:])
        cell.bias_ih.copy_(decoder.rnn.bias)
        cell.bias_hh.zero_()
    found = decoder._recur(x, {"h": h, "c": c})
    torch.testing.assert_close((found["h"], found["c"]), cell(x, (h, c)))


def test_gru_resets_before_the_candidate_and_updates_towards_the_old_state() -> None:
    decoder = small("gru")
    x, h = torch.randn(12), torch.randn(6)
    reset, update = torch.sigmoid(decoder.rnn.weight @ torch.cat([x, h]) + decoder.rnn.bias).chunk(2)
    new = torch.tanh(decoder.candidate.weight @ torch.cat([x, reset * h]) + decoder.candidate.bias)
    found = decoder._recur(x[None], {"h": h[None]})
    torch.testing.assert_close(found["h"][0], update * h + (1 - update) * new)


@both_cells
def test_first_state_is_projected_from_the_pooled_features_and_a_cell_starts_at_zero(cell: Cell) -> None:
    decoder, (features, _, _) = small(cell), batch()
    _, state = decoder.encode(features)
    torch.testing.assert_close(state["h"], features.mean(1) @ decoder.initial.weight.T)
    assert list(state) == ["h", "c"][: 2 if cell == "lstm" else 1]
    assert cell == "gru" or bool((state["c"] == 0).all())


@both_cells
def test_dropout_acts_in_training_only(cell: Cell) -> None:
    decoder, arguments = small(cell, dropout=SoftAttentionDropout(rnn=0.5, attention=0.5)), batch()
    torch.testing.assert_close(decoder(*arguments), small(cell)(*arguments))
    decoder.train()
    assert float(decoder(*arguments).detach()) != float(decoder(*arguments).detach())


def test_dropout_falls_on_word_vectors_attention_and_what_the_output_sees() -> None:
    decoder, (features, inputs, targets) = small("lstm", dropout=SoftAttentionDropout(rnn=0.5, attention=0.5)), batch()
    dropped: list[tuple[int, ...]] = []
    for layer in (decoder.rnn_dropout, decoder.attention_dropout):
        layer.register_forward_hook(lambda module, inputs, output: dropped.append(tuple(output.shape)))
    decoder.train()
    decoder(features, inputs, targets)
    captions, length = inputs.shape
    assert dropped == [
        (length, captions, 4),
        (length, PHOTOS, CAPTIONS, REGIONS),
        (int((targets >= 0).sum()), 6),
    ]


def test_dropped_attention_reaches_the_loss_as_it_reaches_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, (features, inputs, targets) = small("lstm", dropout=SoftAttentionDropout(rnn=0.0, attention=0.5)), batch()
    closed = torch.rand(inputs.shape[1], PHOTOS, CAPTIONS, REGIONS).round() * 2
    decoder.train()
    monkeypatch.setattr(decoder.attention_dropout, "forward", lambda x: x * closed)
    found = decoder(features, inputs, targets)
    held, first = decoder.encode(features)
    state, losses = decoder.begin(first, len(inputs)), []
    for t, one in enumerate(closed):
        monkeypatch.setattr(decoder.attention_dropout, "forward", lambda x, one=one: x * one)
        step = decoder.step(inputs[:, t], state, held)
        state = decoder.advance(state, step, t)
        losses.append(F.cross_entropy(step.scores, targets[:, t].clamp(min=0), reduction="none"))
    spoken = targets >= 0
    torch.testing.assert_close(found, (torch.stack(losses, 1) * spoken).sum() / spoken.sum())


def test_weights_start_as_xavier_and_forget_gates_open() -> None:
    shape = SoftAttentionConfig(embedding=64, hidden=128, attention=96, context=80)
    lstm = SoftAttention(shape, features=100, vocabulary=50)
    bound = (6 / (64 + 80 + 128 + 4 * 128)) ** 0.5
    assert 0.95 * bound < float(lstm.rnn.weight.detach().abs().max()) <= bound
    assert lstm.rnn.bias.tolist() == [0.0] * 128 + [1.0] * 128 + [0.0] * 256
    assert lstm.output.bias.tolist() == [0.0] * 50
    gru = SoftAttention(shape.model_copy(update={"cell": "gru"}), features=100, vocabulary=50)
    assert gru.rnn.bias.tolist() == [1.0] * 256
    assert gru.candidate.bias.tolist() == [0.0] * 128


# The published decoder: 9,962 words, regions of 832 features, sizes 256 and 512. Its first state is projected from a
# pooled vector of another width, 1024, where ours is the mean of the regions: 512 * (1024 - 832) weights fewer.
PUBLISHED = {
    "embedding": 2_550_272,
    "query": 262_144,
    "key": 425_984,
    "value": 425_984,
    "score": 512,
    "output": 5_100_544,
}
PUBLISHED_RNN: dict[Cell, dict[str, int]] = {
    "lstm": {"rnn": 2_621_440},
    "gru": {"rnn": 1_310_720, "candidate": 655_360},
}
PUBLISHED_TOTAL = {"lstm": 11_911_168, "gru": 11_255_808}
PUBLISHED_INITIAL = 524_288


@both_cells
def test_parameters_are_those_of_the_published_decoder_to_the_last_digit(cell: Cell) -> None:
    with torch.device("meta"):
        decoder = SoftAttention(SoftAttentionConfig(cell=cell), features=832, vocabulary=9962)
    matrices = {
        name.removesuffix(".weight"): parameter.numel()
        for name, parameter in decoder.named_parameters()
        if name.endswith("weight")
    }
    assert matrices.pop("initial") == PUBLISHED_INITIAL * 832 // 1024
    assert matrices == PUBLISHED | PUBLISHED_RNN[cell]
    assert sum(matrices.values()) + PUBLISHED_INITIAL == PUBLISHED_TOTAL[cell]
    biases = {name: p.numel() for name, p in decoder.named_parameters() if name.endswith("bias")}
    assert biases == {"output.bias": 9962} | (
        {"rnn.bias": 2048} if cell == "lstm" else {"rnn.bias": 1024, "candidate.bias": 512}
    )
