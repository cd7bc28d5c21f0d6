"""How do groups scatter around the fixed part? Draws of random effects, b_g ~ N(0, Σ) independently for every level g of every factor.

Σ is given by a root L, Σ = L Lᵀ: of a fit L = σT, of an assumed covariance `lower_root(Σ)`. A term lends Z (n, k), group (n,) and levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..types import Bools, Floats

LARGEST_COUNT = 1e15  # a mean beyond which counts are no longer whole numbers in double precision


def impossible(family: Any, mu: Floats) -> Bools:
    """Rows (n,) whose mean the family cannot have, or draw from."""
    edge = mu < family.low if family.dispersion == "one" else mu <= family.low  # a positive response has a positive mean
    top = LARGEST_COUNT if family.discrete and family.high == np.inf else np.inf
    return ~np.isfinite(mu) | edge | (mu > min(family.high, top))


def lower_root(S: Floats) -> Floats:
    """Lower triangular L (k, k) with diagonal ≥ 0 and L Lᵀ = S, S (k, k) positive semi-definite of any rank."""
    values, vectors = np.linalg.eigh(S)
    L = np.linalg.qr((vectors * np.sqrt(np.maximum(values, 0.0))).T)[1].T
    return np.tril(L) * np.where(np.diag(L) < 0, -1.0, 1.0)


def scattered(rng: np.random.Generator, terms: Sequence[Any], roots: Sequence[Floats]) -> Floats:
    """Z b (n,) for one draw of all random effects: term by term, level by level.

    terms  with Z (n, k), group (n,) and levels (G);  roots  L (k, k) of each
    """
    total = np.zeros(len(terms[0].group))
    for term, L in zip(terms, roots):
        b = rng.standard_normal((len(term.levels), len(L))) @ L.T
        total += np.einsum("nk,nk->n", term.Z, b[term.group])
    return total
