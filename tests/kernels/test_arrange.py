"""Arrangements: every one once, all equally likely, no more than there are."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.kernels import arrange
from bossa.kernels.resample import monte_carlo_se, permutation_p


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=3), st.randoms())
def test_words_by_number_are_all_words_once(contents, random):
    """Labels of up to three blocks whose places are mixed: as many words as the formula says, each with the labels of its block."""
    labels, blocks = [], []
    for b, letters in enumerate(contents):
        labels += [4 * b + letter for letter in letters]
        blocks += [b] * len(letters)
    places = list(range(len(labels)))
    random.shuffle(places)
    labels, blocks = np.unique(np.array(labels)[places], return_inverse=True)[1], np.array(blocks)[places]
    n = arrange.arrangements(labels, blocks)
    assert math.log(n) == pytest.approx(arrange.log_arrangements(labels, blocks), abs=1e-9)
    words = arrange.nth_words(np.arange(n), labels, blocks)
    assert len(np.unique(words, axis=0)) == n
    for b in np.unique(blocks):
        assert (np.sort(words[:, blocks == b], axis=1) == np.sort(labels[blocks == b])).all()


def test_counts_of_many():
    assert arrange.arrangements(np.repeat([0, 1], 10)) == 184_756
    assert arrange.arrangements(np.arange(10)) == math.factorial(10)
    assert arrange.log_arrangements(np.arange(170)) == pytest.approx(math.log(math.factorial(170)))
    assert arrange.every_sign(np.arange(8), 3).tolist()[5] == [-1, 1, -1]
    assert len(np.unique(arrange.every_sign(np.arange(64), 6), axis=0)) == 64


@pytest.mark.parametrize("blocks", [None, [0, 1, 0, 1, 0]], ids=["free", "blocks"])
def test_random_orders_are_equally_likely(blocks):
    """χ² of 60,000 orders over the 120 (or 12) possible ones: within 5 standard deviations of its expectation."""
    blocks = None if blocks is None else np.array(blocks)
    orders = arrange.random_orders(np.random.default_rng(0), 60_000, 5, blocks)
    counts = Counter(map(tuple, orders.tolist()))
    possible = 120 if blocks is None else 12
    assert len(counts) == possible
    if blocks is not None:
        assert (blocks[orders] == blocks).all()
    expected = 60_000 / possible
    chi2 = sum((k - expected) ** 2 / expected for k in counts.values())
    assert abs(chi2 - (possible - 1)) < 5 * math.sqrt(2 * (possible - 1))


@pytest.mark.parametrize("n", [1, 2, 1000, arrange.SORTED, arrange.SORTED + 1])
def test_random_orders_are_orders_of_any_size(n):
    for blocks in (None, np.arange(n) // 2, np.arange(n) % 3):
        orders = arrange.random_orders(np.random.default_rng(1), 3, n, blocks)
        assert (np.sort(orders, axis=1) == np.arange(n)).all()
        assert blocks is None or (blocks[orders] == blocks).all()
        assert n < 1000 or len(np.unique(orders[:, :50], axis=0)) > 1


def test_signs_are_fair():
    signs = arrange.random_signs(np.random.default_rng(2), 4000, 13)
    assert np.isin(signs, [-1, 1]).all()
    assert (np.abs(signs.mean(axis=0)) < 5 / math.sqrt(4000)).all()
    assert np.abs(np.corrcoef(signs.T) - np.eye(13)).max() < 5 / math.sqrt(4000)


def test_p_of_all_arrangements_is_a_share_and_of_some_is_never_certain():
    t = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    observed = np.array([2.0])
    assert permutation_p(observed, t, every=True) == 0.5
    assert permutation_p(observed, t, "greater", every=True) == 0.25
    assert permutation_p(observed, t, "less", every=True) == 1.0
    assert permutation_p(np.array([9.0]), t) == 0.2
    assert monte_carlo_se(np.array([0.2]), 400) == pytest.approx(0.02)
    assert monte_carlo_se(np.array([1.0]), 99) == pytest.approx(math.sqrt(0.01 / 99))
