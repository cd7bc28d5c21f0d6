"""In how many ways can n things be put into n places: some of them at random, or each of them by its number.

An order (n,) says which thing comes to each place. Places that no statistic tells apart (equal rows of a design) make many orders one
arrangement. Those with `labels` (n,) of the places, inside blocks, are as many as the words that can be written with the labels of a block,

    ∏_blocks n_b! / ∏_labels n_l!,

and each stands for equally many orders: to take every word once is to take every order.

Source: Fisher & Yates (1938) for the equal chance of every order, which sorting random keys gives too; Knuth (2011) §7.2.1.2 for words.
"""

from __future__ import annotations

import math

import numpy as np

from ..types import Floats, Ints

SORTED = 2**14  # up to this many things an order comes from sorting keys with at least 36 random bits


def random_orders(rng: np.random.Generator, m: int, n: int, blocks: Ints | None = None) -> Ints:
    """m orders of n things, all equally likely; inside blocks (n,) of codes 0 … B−1 where given.   → (m, n)

    A key holds the block, random bits and the thing itself; in keys of 64 bits sorting is faster than exchanging.
    """
    if n > SORTED:
        if blocks is None:
            return np.stack([rng.permutation(n) for _ in range(m)])
        sorted_things = np.argsort(blocks + rng.random((m, n)), axis=1)
    else:
        low, high = (n - 1).bit_length(), 0 if blocks is None else int(blocks.max()).bit_length()
        keys = rng.integers(0, 1 << (64 - low - high), size=(m, n), dtype=np.uint64)
        keys <<= np.uint64(low)
        keys |= np.arange(n, dtype=np.uint64)
        if blocks is not None and high:
            keys |= blocks.astype(np.uint64) << np.uint64(64 - high)
        keys.sort(axis=1)
        keys &= np.uint64((1 << low) - 1)
        sorted_things = keys.view(np.int64).astype(np.intp, copy=False)
    if blocks is None:
        return sorted_things
    out = np.empty((m, n), dtype=np.intp)
    out[:, np.argsort(blocks, kind="stable")] = sorted_things
    return out


def random_signs(rng: np.random.Generator, m: int, n: int) -> Floats:
    """m times n signs ±1.   → (m, n)"""
    signs = np.unpackbits(rng.integers(0, 256, size=(m, -(-n // 8)), dtype=np.uint8), axis=1, count=n).astype(float)
    signs *= -2.0
    signs += 1.0
    return signs


def every_sign(number: Ints, n: int) -> Floats:
    """The signs whose bits are `number` (b,), 0 … 2ⁿ−1.   → (b, n)"""
    return np.where((number[:, None] >> np.arange(n)) & 1, -1.0, 1.0)


def log_arrangements(labels: Ints, blocks: Ints | None = None) -> float:
    """Natural logarithm of the number of arrangements.   labels (n,) of the places, those of different blocks different; blocks (n,)"""
    return _log_orders(np.array([len(labels)]) if blocks is None else np.bincount(blocks)) - _log_orders(np.bincount(labels))


def _log_orders(counts: Ints) -> float:
    """log ∏ count!"""
    size, times = np.unique(counts, return_counts=True)
    return math.fsum(k * math.lgamma(n + 1.0) for n, k in zip(size.tolist(), times.tolist()))


def arrangements(labels: Ints, blocks: Ints | None = None) -> int:
    """Number of arrangements, exactly; for numbers that can be counted through."""
    return math.prod(_count(counts) for _, counts in _words(labels, blocks))


def _words(labels: Ints, blocks: Ints | None) -> list[tuple[Ints, Ints]]:
    """Of each block its places, and how often each of its labels stands there."""
    codes = np.zeros(len(labels), dtype=np.intp) if blocks is None else blocks
    places = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    return [(own, np.unique(labels[own], return_counts=True)[1]) for own in places]


def _count(counts: Ints) -> int:
    left, total = int(counts.sum()), 1
    for size in counts.tolist():
        total *= math.comb(left, size)
        left -= size
    return total


def nth_words(number: Ints, labels: Ints, blocks: Ints | None = None) -> Ints:
    """The words of `number` (b,), 0 … arrangements − 1: the labels in each place of arrangement `number`.   → (b, n)"""
    out = np.tile(labels, (len(number), 1))
    left = number
    for places, counts in _words(labels, blocks):
        if len(counts) > 1:
            left, own = np.divmod(left, _count(counts))
            out[:, places] = np.unique(labels[places])[_spelled(own, counts)]
    return out


def _spelled(number: Ints, counts: Ints) -> Ints:
    """The words (b, n) with `counts` (C,) of the letters 0 … C−1, by their place in the dictionary."""
    n, rows = int(counts.sum()), np.arange(len(number))
    left, words = np.tile(counts, (len(number), 1)), np.full(len(number), _count(counts))
    out = np.empty((len(number), n), dtype=np.intp)
    for i in range(n):
        begin = words[:, None] * left // (n - i)  # words that go on with each letter
        end = np.cumsum(begin, axis=1)
        letter = (number[:, None] >= end).sum(axis=1)
        words = begin[rows, letter]
        number = number - end[rows, letter] + words
        left[rows, letter] -= 1
        out[:, i] = letter
    return out
