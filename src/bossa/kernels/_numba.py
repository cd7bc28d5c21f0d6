"""Twins in Numba of the recursions over time: the same signatures and numbers, compiled on their first call and kept on disk.

Source: kalman.py for every formula.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from ..types import Floats, Ints


@njit(cache=True)
def _scalar_walk(y: Floats, v: Floats, q: Floats, m: float, P: float, mean: Floats, var: Floats, gain: Floats) -> None:
    for t in range(len(y)):
        P += q[t]
        if y[t] != y[t]:
            K = 0.0
        elif math.isinf(P):
            K, m, P = 1.0, y[t], v[t]
        else:
            K = P / (P + v[t])
            m, P = m + K * (y[t] - m), K * v[t]
        mean[t], var[t], gain[t] = m, P, K


def scalar_walk(y: Floats, v: Floats, q: Floats, m0: float, P0: float) -> tuple[Floats, Floats, Floats]:
    """kalman.scalar_walk."""
    mean, var, gain = (np.empty(len(y)) for _ in range(3))
    _scalar_walk(y, v, q, float(m0), float(P0), mean, var, gain)
    return mean, var, gain


@njit(cache=True)
def _scalar_back(mean: Floats, var: Floats, mean_f: Floats, var_f: Floats, G: Floats) -> None:
    for t in range(len(mean) - 2, -1, -1):
        mean[t] += G[t] * (mean[t + 1] - mean_f[t + 1])
        var[t] += G[t] * G[t] * (var[t + 1] - var_f[t + 1])


def scalar_back(mean: Floats, var: Floats, mean_f: Floats, var_f: Floats, G: Floats) -> tuple[Floats, Floats]:
    """kalman.scalar_back."""
    mean, var = mean.copy(), var.copy()
    _scalar_back(mean, var, mean_f, var_f, G)
    return mean, var


@njit(cache=True)
def _running_median(ordered: Floats, rank: Ints, out: Floats) -> None:
    n = len(rank)
    after, before = np.arange(1, n + 2), np.arange(-1, n + 1)
    middle, even = (n - 1) // 2, n % 2 == 0
    for t in range(n - 1, -1, -1):
        r = rank[t]
        out[t + 1] = (ordered[middle] + ordered[after[middle]]) / 2 if even else ordered[middle]
        if even:
            if r <= middle:
                middle = after[middle]
        elif r >= middle:
            middle = before[middle]
        after[before[r]], before[after[r]] = after[r], before[r]
        even = not even


def running_median(x: Floats) -> Floats:
    """kalman.running_median."""
    seen = ~np.isnan(x)
    values = x[seen]
    order = np.argsort(values, kind="stable")
    rank = np.empty(len(values), dtype=np.int64)
    rank[order] = np.arange(len(values))
    out = np.full(len(values) + 1, np.nan)
    _running_median(values[order], rank, out)
    return out[np.cumsum(seen)]


@njit(cache=True)
def _running_kish(gain: Floats, out: Floats, left: Floats) -> None:
    first, second, prior = 0.0, 0.0, 1.0
    for t in range(len(gain)):
        K, kept = gain[t], 1 - gain[t]
        first, second, prior = kept * first + K, kept * kept * second + K * K, kept * prior
        out[t], left[t] = first * first / second if second > 0 else math.nan, prior


def running_kish(gain: Floats) -> tuple[Floats, Floats]:
    """kalman.running_kish."""
    out, left = np.empty(len(gain)), np.empty(len(gain))
    _running_kish(gain, out, left)
    return out, left
