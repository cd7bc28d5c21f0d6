"""Shape parameters by maximum likelihood, the means being given: θ of the negative binomial, scale and df of Student's t.

Each is the zero of its score on the log scale, by Newton steps kept inside a shrinking bracket. Weights (n,) count rows (None: all 1).

Source: Venables & Ripley (2002) §7.4; Lange, Little & Taylor (1989) §3 and appendix.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..types import Floats

THETA_RANGE = (1e-8, 1e10)
DF_RANGE = (0.1, 1e6)


def _zero(slope_of: Callable[[float], tuple[float, float]], x: float, low: float, high: float) -> float:
    """The zero of a decreasing function given as x → (value, derivative); an end of [low, high] where it has none there."""
    x = min(max(x, low), high)
    for _ in range(200):
        value, derivative = slope_of(x)
        if value > 0:
            low = x
        else:
            high = x
        new = x - value / derivative if derivative < 0 else math.inf
        if not low < new < high:
            new = 0.5 * (low + high)
        if abs(new - x) <= 1e-14 * max(1.0, abs(x)) or value == 0.0:
            return x if value == 0.0 else new
        x = new
    return x


def negbinomial_theta(y: Floats, mu: Floats, weights: Floats | None, start: float) -> tuple[float, float]:
    """θ maximising the negative binomial likelihood of y around mu, and its standard error from the observed information.

    y, mu    (n,)
    returns  θ, se; the upper end of THETA_RANGE and nan where the counts are no more dispersed than Poisson
    """
    from scipy.special import polygamma, psi

    w = np.ones(len(y)) if weights is None else weights
    if w @ (np.square(y - mu) - y) <= 0:
        return THETA_RANGE[1], math.nan
    values, where = np.unique(y, return_inverse=True)
    counts = np.bincount(where, weights=w)

    def derivatives(theta: float) -> tuple[float, float]:
        total, away = mu + theta, mu - y
        first = counts @ (psi(values + theta) - psi(theta)) + w @ (away / total - np.log1p(mu / theta))
        second = counts @ (polygamma(1, values + theta) - polygamma(1, theta)) + w @ (mu / (theta * total) - away / np.square(total))
        return float(first), float(second)

    def on_log_scale(x: float) -> tuple[float, float]:
        theta = math.exp(x)
        first, second = derivatives(theta)
        return theta * first, theta * (first + theta * second)

    theta = math.exp(_zero(on_log_scale, math.log(start), math.log(THETA_RANGE[0]), math.log(THETA_RANGE[1])))
    information = -derivatives(theta)[1]
    return theta, 1.0 / math.sqrt(information) if information > 0 else math.nan


def t_scale(residual: Floats, df: float, weights: Floats | None) -> float:
    """Scale maximising the likelihood of Student's t with `df`; 0 where too many residuals are 0 for one to exist.

    residual  (n,)
    """
    w = np.ones(len(residual)) if weights is None else weights
    squares = np.square(residual)
    total = float(w.sum())
    if (df + 1.0) * float(w[squares > 0].sum()) <= total:
        return 0.0

    def score(x: float) -> tuple[float, float]:
        spread = df * math.exp(x)
        share = squares / (spread + squares)
        return (df + 1.0) * float(w @ share) - total, -(df + 1.0) * float(w @ (share * (1.0 - share)))

    centre = math.log(float(w @ squares) / total)
    return math.exp(0.5 * _zero(score, centre, centre - 80.0, centre + 80.0))


def t_scale_and_df(residual: Floats, weights: Floats | None) -> tuple[float, float]:
    """Scale and df maximising Student's likelihood together; df at an end of DF_RANGE where the likelihood still rises there.

    residual  (n,)
    """
    from scipy.optimize import brentq
    from scipy.special import psi

    w = np.ones(len(residual)) if weights is None else weights
    total, squares = float(w.sum()), np.square(residual)

    def slope(x: float) -> float:
        df = math.exp(x)
        scale = t_scale(residual, df, weights)
        if scale == 0.0:
            return 1.0  # a likelihood without bound: move to a heavier scale
        ratio = squares / (df * scale**2)
        inner = psi(0.5 * (df + 1.0)) - psi(0.5 * df) - 1.0 / df
        return total * float(inner) + float(w @ ((df + 1.0) / df * ratio / (1.0 + ratio) - np.log1p(ratio)))

    low, high = math.log(DF_RANGE[0]), math.log(DF_RANGE[1])
    if slope(high) >= 0:
        df = DF_RANGE[1]
    elif slope(low) <= 0:
        df = DF_RANGE[0]
    else:
        df = math.exp(float(brentq(slope, low, high, xtol=1e-13, rtol=8.9e-16)))
    return t_scale(residual, df, weights), df
