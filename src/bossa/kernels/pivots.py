"""t of many linear models whose responses are one vector of residuals, rearranged: what a permutation test computes.

Where e are the residuals under ℓᵀβ = c, and e* is e in another order or with other signs, the response fitted + e* gives

    ℓᵀβ* − c = aᵀe*,    r* = e* − QQᵀe*,    t* = aᵀe*/se*,    a = X(XᵀX)⁻¹ℓ = Q R⁻ᵀℓ,    X = QR

    se*² = ‖a‖² ‖r*‖²/(n − p),   or robust   Σ_g (Σ_{i∈g} d_i r*_i)²   over rows or clusters g, d being a times the leverage's factor

so that the fitted values need not be added, and a refit is no more than a product with Q.

Source: Freedman & Lane (1983); DiCiccio & Romano (2017) for robust se*; MacKinnon & White (1985) and Bell & McCaffrey (2002) for d.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from attrs import converters, field, frozen

from ..types import Array, Floats, Ints
from .groups import Groups

CANCELLED = 1e-6  # ‖r‖²/‖e‖² below which the difference ‖e‖² − ‖Qᵀe‖² is formed from the residuals themselves
IN_CACHE = 65_536  # numbers that are rearranged and multiplied at a time (half a MB)


@frozen(eq=False)
class Pivots:
    """K questions about one linear model of n rows and p coefficients, each with residuals under a null of its own.

    residual  (K, n)
    Q         (n, p)  orthonormal columns of the design
    effect    (K, p)  R⁻ᵀℓ
    df        n − p
    spread    (K, n)  d, for robust standard errors; None: the classical one
    clusters  (n,)    codes 0 … G−1 of the rows that are summed before squaring; None: every row its own
    """

    residual: Array
    Q: Array
    effect: Array
    df: float
    spread: Array | None = None
    clusters: Groups | None = field(default=None, converter=converters.optional(Groups))

    def of_orders(self, order: Ints) -> Floats:
        """t* with the residuals in each order.   order (m, n) → (m, K)"""
        return self._by_parts(order, np.take)

    def of_signs(self, sign: Floats) -> Floats:
        """t* with the residuals' signs multiplied by ±1.   sign (m, n) → (m, K)"""
        return self._by_parts(sign, np.multiply)

    def _by_parts(self, arranged: Array, move: Callable[..., Any]) -> Floats:
        size = max(1, IN_CACHE // len(self.Q))
        parts = [slice(i, i + size) for i in range(0, len(arranged), size)]
        return np.concatenate([np.column_stack([self._t(k, move(e, arranged[s])) for k, e in enumerate(self.residual)]) for s in parts])

    def _t(self, k: int, E: Floats) -> Floats:
        """t* of question k for the rearranged residuals E (m, n); ±inf where nothing is left, nan where there was nothing."""
        P = E @ self.Q
        if self.spread is None:
            variance = (self.effect[k] @ self.effect[k]) / self.df * self._left(k, E, P)
        else:
            pulls = P @ self.Q.T
            np.subtract(E, pulls, out=pulls)
            pulls *= self.spread[k]
            if self.clusters is not None:
                pulls = self.clusters.sums(pulls)
            variance = np.einsum("bi,bi->b", pulls, pulls)
        with np.errstate(divide="ignore", invalid="ignore"):
            return (P @ self.effect[k]) / np.sqrt(variance)

    def _left(self, k: int, E: Floats, P: Floats) -> Floats:
        """‖r*‖² (m,)"""
        total = self.residual[k] @ self.residual[k]
        left = total - np.einsum("bi,bi->b", P, P)
        few = left < CANCELLED * total
        if few.any():
            left[few] = ((E[few] - P[few] @ self.Q.T) ** 2).sum(axis=1)
        return left
