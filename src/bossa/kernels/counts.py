"""How often each row is drawn when rows are drawn with replacement, many replicates at once, one byte a count.

Counts of n draws from n rows are multinomial. Independent Poisson counts are so too, given their sum: so most of them come from a table
that two random bytes enter, and what is missing from n is drawn row by row; a replicate whose Poisson counts exceed n is drawn row by
row altogether. Both ways have the same distribution, whatever the sum, so the choice between them leaves it as it is.

Source: Devroye (1986) §XI.1.4 for the multinomial through Poisson counts.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from ..types import Floats, Ints

CHUNK = 32_768  # rows that are counted at a time; the draws that fall on each chunk are multinomial too
CELLS = 262_144  # replicates × rows that are counted at a time
FEW = 64  # rows; fewer are drawn one by one
MARGIN = 2.5  # standard deviations of the sum that the Poisson counts stay below n on average
CELL_BITS = 65_536  # values of two bytes


def row_counts(rng: np.random.Generator, n: int, b: int) -> np.ndarray:
    """Counts of n draws with replacement from n rows, b times.   (b, n) uint8"""
    out = np.empty((b, n), dtype=np.uint8)
    starts = range(0, n, CHUNK)
    sizes = np.array([min(CHUNK, n - s) for s in starts])
    totals = rng.multinomial(n, sizes / n, size=b) if len(sizes) > 1 else np.full((b, 1), n)
    for c, (start, m) in enumerate(zip(starts, sizes.tolist())):
        many = max(1, CELLS // m)
        for i in range(0, b, many):
            out[i : i + many, start : start + m] = _counts(rng, m, totals[i : i + many, c])
    return out


def _counts(rng: np.random.Generator, m: int, totals: Ints) -> np.ndarray:
    """Counts of totals_i draws from m rows.   (g, m) uint8"""
    g = len(totals)
    counts = np.zeros((g, m), dtype=np.uint8) if m < FEW else _poisson(rng, m, g * m).reshape(g, m)
    missing = totals - counts.sum(axis=1, dtype=np.uint16)
    over = missing < 0
    counts[over], missing[over] = 0, totals[over]
    drawn = rng.integers(0, m, size=int(missing.sum()), dtype=np.uint16)
    np.add.at(counts.reshape(-1), np.repeat(np.arange(0, g * m, m), missing) + drawn, np.uint8(1))
    return counts


def _poisson(rng: np.random.Generator, m: int, size: int) -> np.ndarray:
    """Poisson counts a little below 1 on average.   (size,) uint8"""
    edges, rest = _table(m)
    bits = rng.integers(0, 2**64, size=2 * -(-size // 8), dtype=np.uint64).astype("<u8", copy=False).view("<u2")
    above = np.empty(len(bits), dtype=bool)
    counts = np.zeros(len(bits), dtype=np.uint8)
    for edge in edges[:4]:
        np.greater_equal(bits, np.uint16(edge), out=above)
        counts += above.view(np.uint8)
    np.greater_equal(bits, np.uint16(edges[4]), out=above)
    some = np.flatnonzero(above.view(np.uint64))  # eight at a time
    which, place = np.nonzero(above.reshape(-1, 8)[some])
    rare = 8 * some[which] + place
    values = bits[rare]
    large = np.searchsorted(edges, values, side="right")
    undecided = values >= edges[-1]
    large[undecided] = np.searchsorted(rest, rng.random(int(undecided.sum())), side="right")
    counts[rare] = large
    return counts[:size]


@lru_cache(maxsize=64)
def _table(m: int) -> tuple[Ints, Floats]:
    """Where two random bytes begin to mean a count above 0, 1, …; values past the last edge mean a draw from what rounding left, rest."""
    mean = 1 - MARGIN / math.sqrt(m)
    p = [math.exp(-mean)]
    while p[-1] > 1e-20:
        p.append(p[-1] * mean / len(p))
    share = np.array(p) / sum(p) * CELL_BITS
    whole = np.floor(share).astype(np.int64)
    left = np.cumsum(share - whole)
    return np.cumsum(whole), left / left[-1]
