from __future__ import annotations

import numpy as np
import pytest

from capprune.training.reward import CaptionReward, ngrams, repeated_pairs
from capprune_runtime.bundle.vocabulary import END


def random_captions(count: int, seed: int, words: int = 12) -> list[tuple[int, ...]]:
    random = np.random.default_rng(seed)
    return [tuple(random.integers(4, 4 + words, random.integers(1, 9)).tolist()) for _ in range(count)]


REFERENCES = [random_captions(3, seed) for seed in range(12)]
SAMPLES = random_captions(12, 99)


def as_text(ids: tuple[int, ...]) -> str:
    return " ".join(map(str, (*ids, END)))


def test_cider_is_that_of_pycocoevalcap_with_the_end_as_a_word() -> None:
    from pycocoevalcap.cider.cider import Cider

    truth = {i: [as_text(ids) for ids in own] for i, own in enumerate(REFERENCES)}
    said = {i: [as_text(ids)] for i, ids in enumerate(SAMPLES)}
    _, expected = Cider().compute_score(truth, said)
    reward = CaptionReward(REFERENCES, cider=1.0, bleu4=0.0)
    found = reward(np.arange(12), [(ids, True) for ids in SAMPLES])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert found.max() > 0.5


def test_bleu_is_that_of_pycocoevalcap() -> None:
    from pycocoevalcap.bleu.bleu import Bleu

    samples = [own[0][:5] + own[1][:3] for own in REFERENCES]
    truth = {i: [as_text(ids) for ids in own] for i, own in enumerate(REFERENCES)}
    said = {i: [as_text(ids)] for i, ids in enumerate(samples)}
    _, scores = Bleu(4).compute_score(truth, said, verbose=0)
    found = CaptionReward(REFERENCES, cider=0.0, bleu4=1.0)(np.arange(12), [(ids, True) for ids in samples])
    np.testing.assert_allclose(found, scores[3], rtol=1e-6, atol=1e-9)


def test_a_caption_that_never_ends_is_worth_less_than_the_same_that_does() -> None:
    reward = CaptionReward(REFERENCES, cider=1.0, bleu4=1.0)
    ids = REFERENCES[0][0]
    ended, cut = reward(np.array([0, 0]), [(ids, True), (ids, False)])
    assert ended > cut


def test_ngrams_are_counted_up_to_four() -> None:
    assert ngrams((1, 2, 1)) == {(1,): 2, (2,): 1, (1, 2): 1, (2, 1): 1, (1, 2, 1): 1}
    assert not ngrams(())


def test_the_weights_of_the_reward_add_up() -> None:
    photos, captions = np.arange(12), [(ids, True) for ids in SAMPLES]
    both = CaptionReward(REFERENCES, cider=2.0, bleu4=3.0)(photos, captions)
    cider = CaptionReward(REFERENCES, cider=1.0, bleu4=0.0)(photos, captions)
    bleu = CaptionReward(REFERENCES, cider=0.0, bleu4=1.0)(photos, captions)
    assert both == pytest.approx(2 * cider + 3 * bleu)


def test_repeated_pairs_of_words_cost_their_share_of_the_weight() -> None:
    twice, once = (5, 6, 5, 6, 5), (5, 6, 7, 8, 9)  # 5 6, 6 5, 5 6, 6 5: half of the pairs repeat
    assert repeated_pairs(ngrams(twice)) == 0.5 and repeated_pairs(ngrams(once)) == repeated_pairs(ngrams((5,))) == 0
    captions = [(twice, False), (once, False)]
    plain = CaptionReward(REFERENCES, cider=1.0, bleu4=1.0)(np.array([0, 0]), captions)
    found = CaptionReward(REFERENCES, cider=1.0, bleu4=1.0, repetition=4.0)(np.array([0, 0]), captions)
    assert found == pytest.approx(plain - [2.0, 0.0])
