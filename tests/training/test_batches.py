from __future__ import annotations

import numpy as np
import pytest

from capprune.training.batches import IGNORED, Batch, Batches, with_captions
from capprune_runtime.bundle.vocabulary import END, START

PHOTOS = 47


def captions(count: int = 3, photos: int = PHOTOS) -> list[list[tuple[int, ...]]]:
    """Captions of 2 to 13 words that begin with 100 plus the photo's number and 200 plus the caption's."""
    random = np.random.default_rng(0)
    return [
        [(100 + photo, 200 + number, *range(4, 4 + random.integers(0, 12))) for number in range(count)]
        for photo in range(photos)
    ]


def read(batch: Batch) -> list[tuple[int, ...]]:
    """The captions of a batch, from what is to be predicted."""
    return [tuple(row[row != IGNORED][:-1].tolist()) for row in batch.targets]


def equal(first: Batch, second: Batch) -> bool:
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("photos", "inputs", "targets"))


def test_every_photo_comes_once_an_epoch_with_all_its_captions() -> None:
    own = captions()
    batches = Batches(own, photos_per_batch=5, seed=1)
    for epoch in range(3):
        found = list(batches.epoch(epoch))
        assert len(found) == len(batches) == 10
        assert sorted(int(photo) for batch in found for photo in batch.photos) == list(range(PHOTOS))
        assert sorted(len(batch.photos) for batch in found) == [2] + [5] * 9
        for batch in found:
            assert read(batch) == [caption for photo in batch.photos for caption in own[photo]]


def test_inputs_are_the_targets_one_word_later_behind_start() -> None:
    for batch in Batches(captions(), photos_per_batch=5, seed=1).epoch(0):
        assert bool((batch.inputs[:, 0] == START).all())
        for row, caption in zip(range(len(batch.inputs)), read(batch), strict=True):
            length = len(caption)
            assert batch.inputs[row, 1 : length + 1].tolist() == list(caption)
            assert batch.targets[row, length] == END
            assert bool((batch.targets[row, length + 1 :] == IGNORED).all())
        assert batch.inputs.shape == batch.targets.shape
        assert batch.inputs.shape[1] == max(map(len, read(batch))) + 1
        assert batch.inputs.min() >= 0  # padding too must be an id that has an embedding


def test_same_seed_gives_the_same_epochs_and_another_seed_or_epoch_does_not() -> None:
    def first(seed: int, epoch: int) -> Batch:
        return next(Batches(captions(), photos_per_batch=5, seed=seed).epoch(epoch))

    again = zip(
        Batches(captions(), photos_per_batch=5, seed=1).epoch(2),
        Batches(captions(), photos_per_batch=5, seed=1).epoch(2),
        strict=True,
    )
    assert all(equal(*pair) for pair in again)
    assert not equal(first(1, 0), first(2, 0))
    assert not equal(first(1, 0), first(1, 1))


@pytest.mark.parametrize("unequal", [False, True])
def test_epoch_resumes_from_any_batch_as_if_it_had_not_stopped(unequal: bool) -> None:
    own = captions()
    if unequal:
        own = [photo[: 1 + number % 3] for number, photo in enumerate(own)]
    batches = Batches(own, photos_per_batch=5, seed=1)
    whole = list(batches.epoch(1))
    for start in (0, 1, 7, 9, 10):
        rest = list(batches.epoch(1, start))
        assert len(rest) == len(whole) - start
        assert all(equal(*pair) for pair in zip(rest, whole[start:], strict=True))


def test_unequal_numbers_of_captions_become_the_commonest_number() -> None:
    own = captions(3)
    own[0], own[1] = own[0][:1], [*own[1], (101, 50), (101, 51), (101, 52)]
    batches = Batches(own, photos_per_batch=5, seed=1)
    assert batches.captions_per_photo == 3
    seen: dict[int, set[tuple[int, ...]]] = {0: set(), 1: set()}
    for epoch in range(20):
        for batch in batches.epoch(epoch):
            said = read(batch)
            assert len(said) == 3 * len(batch.photos)
            for place, photo in enumerate(batch.photos):
                of_photo = said[3 * place : 3 * place + 3]
                assert set(of_photo) <= set(own[photo])
                if photo in seen:
                    seen[int(photo)] |= set(of_photo)
                if photo != 0:
                    assert len(set(of_photo)) == 3  # none twice where there are enough
    assert seen == {0: set(own[0]), 1: set(own[1])}  # every caption gets its turn


def test_photos_of_like_length_share_a_batch_and_meet_new_neighbours() -> None:
    own = [[tuple(range(4, 4 + length))] for length in range(1, 41) for _ in range(5)]
    batches = Batches(own, photos_per_batch=5, seed=1)
    for epoch in range(2):
        for batch in batches.epoch(epoch):
            lengths = [len(caption) for caption in read(batch)]
            assert max(lengths) - min(lengths) <= 3
    neighbours = [{frozenset(batch.photos.tolist()) for batch in batches.epoch(epoch)} for epoch in range(2)]
    assert neighbours[0] != neighbours[1]


def test_long_and_short_batches_come_in_mixed_order() -> None:
    own = [[tuple(range(4, 4 + length))] for length in range(1, 61)]
    lengths = [batch.inputs.shape[1] for batch in Batches(own, photos_per_batch=5, seed=1).epoch(0)]
    assert lengths != sorted(lengths)
    assert lengths != sorted(lengths, reverse=True)


def test_fewer_photos_than_a_batch_make_one_batch() -> None:
    batches = Batches(captions(2, 3), photos_per_batch=10, seed=0)
    (batch,) = batches.epoch(0)
    assert len(batches) == 1
    assert len(batch.photos) == 3


def test_one_more_caption_stands_behind_the_others_of_its_photo() -> None:
    own = captions()
    batch = next(Batches(own, photos_per_batch=4, seed=1).epoch(0))
    more = [(7,) * (14 + place) for place in range(len(batch.photos))]  # longer than any
    found = with_captions(batch, more)
    expected = [one for photo, extra in zip(batch.photos, more, strict=True) for one in (*own[photo], extra)]
    assert read(found) == expected
    assert (found.inputs[:, 0] == START).all() and (found.photos == batch.photos).all()
    assert found.inputs.shape == found.targets.shape == (4 * len(more), 14 + len(more))


def test_weights_say_how_often_a_photo_is_used_in_an_epoch() -> None:
    weights = [0.25, 1.0, 2.5, *[1.0] * (PHOTOS - 3)]
    batches = Batches(captions(), photos_per_batch=5, seed=1, weights=weights)
    uses = np.zeros((40, PHOTOS))
    for epoch in range(40):
        found = list(batches.epoch(epoch))
        assert len(found) == len(batches) == 10 and sum(len(batch.photos) for batch in found) == 48  # of 47.75
        for batch in found:
            np.add.at(uses[epoch], batch.photos, 1)
    assert set(uses[:, 0]) == {0, 1} and set(uses[:, 1]) <= {1, 2} and set(uses[:, 2]) == {2, 3}
    np.testing.assert_allclose(uses.mean(0)[:3], [0.25, 1.0, 2.5], atol=0.2)
    assert equal(next(batches.epoch(3)), next(batches.epoch(3)))
    assert [batch.photos.tolist() for batch in batches.epoch(2, 4)] == [
        batch.photos.tolist() for batch in list(batches.epoch(2))[4:]
    ]
