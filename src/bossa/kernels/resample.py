"""From replicates of K numbers to intervals and p-values: values (B, K), observed (K,) → interval (2, K), p_value (K,).

Rows with a failed refit are left out by the caller. `side` "less" gives an upper bound alone, "greater" a lower bound alone, at the full
level. A p-value is the smallest tail area whose interval of the same type would leave the null value out, and never 0.

Source: Davison & Hinkley (1997) ch. 5; Efron & Tibshirani (1993) ch. 13–14; Phipson & Smyth (2010) for (b+1)/(m+1).
"""

from __future__ import annotations

import numpy as np

from ..types import Floats


def _special():
    from scipy import special

    return special


def tails(level: float, side: str) -> tuple[float, float]:
    """Lower and upper tail areas of an interval; 0 or 1 on the open side."""
    outside = 1 - level
    if side == "less":
        return 0.0, level
    if side == "greater":
        return outside, 1.0
    return outside / 2, 1 - outside / 2


def order_quantile(draws: Floats, probability: Floats) -> Floats:
    """Quantile of each column at its own probability, between order statistics (B + 1)p apart.

    draws        (B, K)
    probability  (K,)  0 and 1 give ∓inf
    returns      (K,)

    Source: Davison & Hinkley (1997) eq. 5.8, interpolated on the probability scale.
    """
    ordered = np.sort(draws, axis=0)
    B, K = ordered.shape
    place = np.clip((B + 1) * np.asarray(probability) - 1, 0, B - 1)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, B - 1)
    columns = np.arange(K)
    value = ordered[low, columns] + (place - low) * (ordered[high, columns] - ordered[low, columns])
    return np.where(probability <= 0, -np.inf, np.where(probability >= 1, np.inf, value))


def percentile_interval(draws: Floats, level: float, side: str = "two-sided") -> Floats:
    """Quantiles of the draws.   draws (B, K) → (2, K)"""
    K = draws.shape[1]
    return np.array([order_quantile(draws, np.full(K, t)) for t in tails(level, side)])


def basic_interval(observed: Floats, draws: Floats, level: float, side: str = "two-sided") -> Floats:
    """2·observed − quantiles of the draws, swapped.   → (2, K)"""
    low, high = tails(level, side)
    K = draws.shape[1]
    return np.array([2 * observed - order_quantile(draws, np.full(K, 1 - t)) for t in (low, high)])


def bias_correction(observed: Floats, draws: Floats) -> Floats:
    """z₀ = Φ⁻¹(share of draws below the observed value, ties counted half)  (K,)"""
    B = len(draws)
    below = (draws < observed).sum(axis=0) + 0.5 * (draws == observed).sum(axis=0)
    return _special().ndtri(np.clip(below, 0.5, B - 0.5) / B)


def bca_interval(observed: Floats, draws: Floats, acceleration: Floats, level: float, side: str = "two-sided") -> Floats:
    """Bias-corrected and accelerated limits.

    acceleration  (K,)  from `acceleration` of the leave-one-out values
    returns       (2, K)

    Source: Efron (1987); Efron & Tibshirani (1993) eq. 14.9–14.10.
    """
    special = _special()
    z0 = bias_correction(observed, draws)
    rows = []
    for tail in tails(level, side):
        if tail in (0.0, 1.0):
            rows.append(np.full(len(z0), -np.inf if tail == 0.0 else np.inf))
            continue
        z = z0 + special.ndtri(tail)
        shifted = special.ndtr(z0 + z / (1 - acceleration * z))
        rows.append(order_quantile(draws, np.clip(shifted, 1e-12, 1 - 1e-12)))
    return np.array(rows)


def acceleration(left_out: Floats, count: Floats | None = None) -> Floats:
    """Σd³ / (6 (Σd²)^{3/2}) with d = mean − value, of leave-one-out values.

    left_out  (n, K)  rows that are not finite (what is left does not determine the model) are left out
    count     (n,)    how many units each value stands for; None: one
    returns   (K,)    0 for a column that does not vary

    Source: Efron & Tibshirani (1993) eq. 14.15.
    """
    some = np.isfinite(left_out).any(axis=1)
    w = np.ones(int(some.sum())) if count is None else count[some]
    d = left_out[some]
    d = (w @ d) / w.sum() - d
    scale = np.abs(d).max(axis=0, initial=0.0)
    d = d / np.where(scale > 0, scale, 1.0)
    squares = w @ d**2
    return np.where(squares > 0, (w @ d**3) / (6 * np.where(squares > 0, squares, 1.0) ** 1.5), 0.0)


def jackknife_se(left_out: Floats, count: Floats | None = None) -> Floats:
    """√((N − 1)/N Σ(value − mean)²) of leave-one-out values (n, K); `count` as in `acceleration`, N = Σ count  (K,)

    Source: Efron & Tibshirani (1993) eq. 11.5.
    """
    some = np.isfinite(left_out).any(axis=1)
    w = np.ones(int(some.sum())) if count is None else count[some]
    d = left_out[some] - (w @ left_out[some]) / w.sum()
    return np.sqrt((w.sum() - 1) / w.sum() * (w @ d**2))


def studentized_interval(observed: Floats, se: Floats, pivots: Floats, level: float, side: str = "two-sided") -> Floats:
    """observed − se × quantiles of the pivots t* = (value* − observed)/se*.   pivots (B, K) → (2, K)

    Source: Davison & Hinkley (1997) eq. 5.6.
    """
    low, high = tails(level, side)
    K = pivots.shape[1]
    return np.array([observed - se * order_quantile(pivots, np.full(K, 1 - t)) for t in (low, high)])


def tail_p(share_low: Floats, share_high: Floats, side: str) -> Floats:
    """p from the shares below ("greater" counts against these) and above the null; two-sided doubles the smaller, at most 1."""
    if side == "greater":
        return share_low
    if side == "less":
        return share_high
    return np.minimum(1.0, 2 * np.minimum(share_low, share_high))


def percentile_p(draws: Floats, null: Floats, side: str = "two-sided") -> Floats:
    """p of the percentile interval: (1 + draws at or beyond the null) / (1 + B)  (K,)"""
    B = len(draws)
    return tail_p((1 + (draws <= null).sum(axis=0)) / (B + 1), (1 + (draws >= null).sum(axis=0)) / (B + 1), side)


def bca_p(observed: Floats, draws: Floats, acceleration: Floats, null: Floats, side: str = "two-sided") -> Floats:
    """p of the BCa interval: its map of tail areas, inverted at the null's place among the draws  (K,)"""
    special = _special()
    B = len(draws)
    z0 = bias_correction(observed, draws)
    shares: list[Floats] = []
    for count in ((draws <= null).sum(axis=0), (draws >= null).sum(axis=0)):
        inside = np.minimum((1 + count) / (B + 1), 1 - 0.5 / (B + 1))
        sign = 1 if not shares else -1
        t = sign * special.ndtri(inside) - z0
        z = t / (1 + acceleration * t) - z0
        shares.append(np.where(count == 0, 1 / (B + 1), special.ndtr(sign * z)))  # beyond all draws: as little as B draws can tell
    return np.maximum(tail_p(shares[0], shares[1], side), 1 / (B + 1))


def permutation_p(statistic: Floats, draws: Floats, side: str = "two-sided", *, every: bool = False) -> Floats:
    """(b + 1)/(m + 1), b the permuted statistics at least as extreme as the observed one; ties up to rounding count.

    statistic  (K,)
    draws      (m, K)
    every      the draws are all there are, the observed one among them: p = b/m, without Monte Carlo error
    """
    slack = 1e-10 * np.maximum(1.0, np.abs(statistic))
    if side == "greater":
        b = (draws >= statistic - slack).sum(axis=0)
    elif side == "less":
        b = (draws <= statistic + slack).sum(axis=0)
    else:
        b = (np.abs(draws) >= np.abs(statistic) - slack).sum(axis=0)
    return np.maximum(b, 1) / len(draws) if every else (b + 1) / (len(draws) + 1)


def monte_carlo_se(p: Floats, m: int) -> Floats:
    """Standard error of a p-value estimated from m replicates: √(p(1 − p)/m), with p at most m/(m + 1): none of m is no certainty."""
    return np.sqrt(p * np.maximum(1 - p, 1 / (m + 1)) / m)
