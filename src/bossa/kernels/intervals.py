"""Tail probabilities, quantiles and limits: what a statistic or a standard error says, given its reference distribution.

t becomes z where df is infinite, F becomes χ²/df1 where df2 is. Tails are computed as tails, never as 1 − F(x), so p-values keep their
relative accuracy down to the smallest doubles and are never clipped. `side` is the alternative: "two-sided", "less", "greater".
scipy.special is loaded by the first call: a fit does not wait for it.
"""

from __future__ import annotations

import numpy as np

from ..types import Array, Floats

SIDES = ("two-sided", "less", "greater")


def t_cdf(t: Array | float, df: Array | float) -> Floats:
    """P(T ≤ t) for Student's t; z where df is inf, nan where df is not positive.   t, df broadcast."""
    from scipy.special import ndtr, stdtr

    t, df = np.broadcast_arrays(np.asarray(t, float), np.asarray(df, float))
    finite = np.isfinite(df)
    return np.where(finite, stdtr(np.where(finite, df, 1.0), t), np.where(np.isnan(df), np.nan, ndtr(t)))


def t_quantile(probability: float, df: Array | float) -> Floats:
    """The t with P(T ≤ t) = probability.   df (K,) → (K,)."""
    from scipy.special import ndtri, stdtrit

    df = np.asarray(df, float)
    finite = np.isfinite(df)
    z = np.where(np.isnan(df), np.nan, ndtri(probability))
    if not finite.any():
        return np.asarray(z)
    return np.where(finite, stdtrit(np.where(finite, df, 1.0), probability), z)


def t_tail(statistic: Array | float, df: Array | float, side: str = "two-sided") -> Floats:
    """p-value of a t or z statistic against the alternative `side`.   statistic (K,), df (K,) → (K,)."""
    if side == "two-sided":
        return np.minimum(2 * t_cdf(-np.abs(statistic), df), 1.0)
    return t_cdf(statistic if side == "less" else -np.asarray(statistic, float), df)


def f_tail(statistic: Array | float, df1: Array | float, df2: Array | float) -> Floats:
    """P(F ≥ statistic); χ² with df1 degrees of freedom of df1 · statistic where df2 is inf."""
    from scipy.special import chdtrc, fdtrc

    x, df1, df2 = np.broadcast_arrays(*(np.asarray(a, float) for a in (statistic, df1, df2)))
    finite = np.isfinite(df2)
    if np.isinf(df2).all():
        return np.asarray(chdtrc(df1, df1 * x))
    f = fdtrc(df1, np.where(finite, df2, 1.0), x)
    return np.where(finite, f, np.where(np.isnan(df2), np.nan, chdtrc(df1, df1 * x)))


def t_limits(estimate: Floats, se: Floats, df: Array, level: float, side: str = "two-sided") -> Floats:
    """Confidence limits estimate ± t se; one-sided alternatives leave one side open, as in R.

    estimate, se, df  (K,)
    level             coverage in (0, 1)
    returns           (2, K)  lower row, upper row
    """
    tail = (1 - level) / 2 if side == "two-sided" else 1 - level
    width = -t_quantile(tail, df) * se
    lower = np.full_like(estimate, -np.inf) if side == "less" else estimate - width
    upper = np.full_like(estimate, np.inf) if side == "greater" else estimate + width
    limits = np.stack((lower, upper))
    limits[:, np.isnan(width)] = np.nan
    return limits
