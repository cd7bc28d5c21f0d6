"""Do estimates of the same thing differ by more than their standard errors say? The variance between them.

    y_i ~ N(μ, v_i + τ²)        each method takes y (T,), v (T,) and returns τ² ≥ 0

Source: DerSimonian & Laird (1986); Paule & Mandel (1982); Viechtbauer (2005) for the likelihoods; Birge (1932) for the ratio.
"""

from __future__ import annotations

import math

import numpy as np

from ..types import Floats


def _excess(y: Floats, v: Floats, tau2: float) -> float:
    """Σ w (y − μ̂)² with w = 1/(v + τ²)."""
    w = 1 / (v + tau2)
    return float(w @ (y - (w @ y) / w.sum()) ** 2)


def dersimonian_laird(y: Floats, v: Floats) -> float:
    """(Q − (T − 1))/(Σw − Σw²/Σw), at least 0."""
    w = 1 / v
    return max(0.0, (_excess(y, v, 0.0) - (len(y) - 1)) / float(w.sum() - (w @ w) / w.sum()))


def paule_mandel(y: Floats, v: Floats) -> float:
    """The τ² at which Σ w (y − μ̂)² = T − 1, 0 where there is none."""
    from scipy.optimize import brentq

    def gap(tau2: float) -> float:
        return _excess(y, v, tau2) - (len(y) - 1)

    if gap(0.0) <= 0:
        return 0.0
    high = float(np.var(y)) + float(v.max())
    while gap(high) > 0:
        high *= 2
    return float(brentq(gap, 0.0, high, xtol=1e-15, rtol=1e-14))


def likeliest(y: Floats, v: Floats, restricted: bool) -> float:
    """τ² of maximum (restricted) likelihood."""
    from scipy.optimize import minimize_scalar

    def loss(tau2: float) -> float:
        w = 1 / (v + tau2)
        total = -float(np.log(w).sum()) + _excess(y, v, tau2)
        return total + (math.log(float(w.sum())) if restricted else 0.0)

    spread = float(np.var(y)) + float(v.min())
    grid = np.geomspace(1e-6, 1e2, 33) * spread
    at = int(np.argmin([loss(x) for x in grid]))
    found = minimize_scalar(
        loss, bounds=(0.0 if at == 0 else grid[at - 1], grid[min(at + 1, 32)]), method="bounded", options={"xatol": 1e-12 * spread}
    )
    return float(found.x) if found.fun < loss(0.0) else 0.0


def birge_ratio(y: Floats, v: Floats) -> float:
    """√(Q/(T − 1)): the factor by which all standard errors would have to be larger."""
    return math.sqrt(_excess(y, v, 0.0) / (len(y) - 1))


METHODS = {"dl": dersimonian_laird, "pm": paule_mandel}


def between_variance(y: Floats, v: Floats, method: str) -> float:
    """τ² by "dl" | "pm" | "ml" | "reml"; 0 for a single estimate."""
    if len(y) < 2:
        return 0.0
    return METHODS[method](y, v) if method in METHODS else likeliest(y, v, method == "reml")
