"""Many weighted least-squares problems on one X at once: the arithmetic of every resampling of LM and GLM.

Shared convention: X (n, p); one row of W or Y (b, n) per replicate; a result has one row per replicate and a code,

    0 fine    1 rank deficient in this replicate    2 not converged    3 left the family's range

b Gram matrices come from one matrix product of the weights with the columns x_j x_k (j ≤ k), formed block of rows by block of rows.

Source: weights as a vector of counts, Davison & Hinkley (1997) §2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..types import Floats, Ints
from .family import FAMILIES
from .link import LINKS
from .seam import kernel

FINE, RANK, NOT_CONVERGED, OUT_OF_RANGE = 0, 1, 2, 3
CONDITION = 1e7  # of the unit-scaled Gram matrix' factor: beyond it a replicate counts as rank deficient
CELLS = 262_144  # numbers in one block of outer products (2 MB)
IN_CACHE = 131_072  # replicates × rows that are scored together


def row_blocks(n: int, columns: int) -> list[slice]:
    size = max(64, CELLS // max(columns, 1))
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def grams(X: Floats, W: Floats, y: Floats | None = None) -> tuple[Floats, Floats, Floats]:
    """XᵀW_bX, XᵀW_by and yᵀW_by for every replicate, by one matrix product with the columns x_jx_k, x_jy and y².

    X        (n, p)
    W        (b, n)
    y        (n,)   None: 0
    returns  (b, p, p), (b, p), (b,)
    """
    n, p = X.shape
    j, k = np.triu_indices(p)
    packed = np.zeros((len(W), len(j) + (0 if y is None else p + 1)))
    for rows in row_blocks(n, packed.shape[1]):
        x = X[rows]
        columns = x[:, j] * x[:, k]
        if y is not None:
            columns = np.column_stack((columns, x * y[rows, None], y[rows] ** 2))
        packed += W[:, rows] @ columns
    G = np.empty((len(W), p, p))
    G[:, j, k] = packed[:, : len(j)]
    G[:, k, j] = packed[:, : len(j)]
    if y is None:
        return G, np.zeros((len(W), p)), np.zeros(len(W))
    return G, packed[:, len(j) : -1], packed[:, -1]


def solve_many(G: Floats, right: Floats) -> tuple[Floats, Floats, Ints]:
    """G_b⁻¹ right_b and G_b⁻¹ for symmetric positive definite G_b, with a code instead of an error.

    G        (b, p, p)
    returns  (b, p), (b, p, p), (b,)
    """
    diagonal = np.einsum("bii->bi", G)
    fine = (diagonal > 0).all(axis=1) & np.isfinite(G).all(axis=(1, 2))
    scale = np.sqrt(np.where(fine[:, None], diagonal, 1.0))
    G = np.where(fine[:, None, None], G, np.eye(G.shape[1]))
    unit = G / (scale[:, :, None] * scale[:, None, :])
    smallest = np.linalg.eigvalsh(unit)[:, 0]
    fine &= smallest > 1 / CONDITION**1.5
    unit[~fine] = np.eye(G.shape[1])
    inverse = np.linalg.inv(unit) / (scale[:, :, None] * scale[:, None, :])
    coef = np.einsum("bij,bj->bi", inverse, right)
    return np.where(fine[:, None], coef, np.nan), inverse, np.where(fine, FINE, RANK)


def _counted_rows(rng: np.random.Generator) -> tuple[Any, ...]:
    """X, counts W and y; in the last replicate one column is without rows."""
    X = np.column_stack((np.ones(90), rng.normal(size=(90, 2)), np.arange(90) < 5))
    W = rng.integers(0, 3, size=(6, 90)).astype(float)
    W[:, 0], W[-1, :5] = 1.0, 0.0
    return X, W, rng.normal(size=90)


def _weighted_responses(rng: np.random.Generator) -> tuple[Any, ...]:
    X, W, _ = _counted_rows(rng)
    w = W[0] + 0.5
    return X, np.linalg.cholesky(X.T * w @ X).T, w, rng.normal(size=W.shape)


def _counted_answers(rng: np.random.Generator) -> tuple[Any, ...]:
    """Proportions by cloglog or counts by log, with an offset; every replicate starts a standard error or so away."""
    X, W, _ = _counted_rows(rng)
    start, offset = np.array([0.5, 0.2, -0.1, 0.1]), rng.uniform(0.0, 0.1, len(X))
    family, link = (("binomial", "cloglog"), ("poisson", "log"))[rng.integers(2)]
    mu = LINKS[link].inverse(X @ start + offset)
    return X, W, rng.binomial(20, np.minimum(mu, 1.0)) / 20, offset, (FAMILIES[family], LINKS[link]), start


@kernel(example=_counted_rows, jax="bossa.kernels._jax:ols_many")
def ols_many(X: Floats, W: Floats, y: Floats) -> tuple[Floats, Floats, Floats, Ints]:
    """Weighted least squares of every replicate; accurate where y (n,) holds the residuals of a fit to all rows.

    W        (b, n)  weights, 0 leaves a row out
    returns  coef (b, p), (XᵀWX)⁻¹ (b, p, p), weighted residual sum of squares (b,), code (b,)
    """
    G, right, total = grams(X, W, y)
    coef, inverse, code = solve_many(G, right)
    return coef, inverse, total - np.einsum("bi,bi->b", coef, right), code


@kernel(example=_weighted_responses, jax="bossa.kernels._jax:ols_responses")
def ols_responses(X: Floats, R: Floats, weights: Floats | None, Y: Floats) -> tuple[Floats, Floats]:
    """Least squares of many responses on one weighted X with RᵀR = XᵀWX: two matrix products.

    Y        (b, n)
    returns  coef (b, p), weighted residual sum of squares (b,)
    """
    inverse = np.linalg.inv(R)
    weighted = Y if weights is None else Y * weights
    projected = weighted @ X @ inverse
    coef = projected @ inverse.T
    return coef, np.einsum("bi,bi->b", weighted, Y) - np.einsum("bi,bi->b", projected, projected)


@kernel(example=_counted_answers, jax="bossa.kernels._jax:glm_many")
def glm_many(
    X: Floats, W: Floats, Y: Floats, offset: Floats | None, rule: tuple[Any, Any], start: Floats, steps: int = 25
) -> tuple[Floats, Floats, Ints]:
    """Fisher scoring of every replicate, all started at the full data's coefficients.

    W        (b, n)  prior weights × counts
    Y        (n,) or (b, n)
    offset   (n,) or None
    rule     (family, link): variance(mu), inverse(eta), slope(eta)
    start    (p,)
    returns  coef (b, p), (XᵀWX)⁻¹ at the end (b, p, p), code (b,)

    A replicate stops when the score it still has, in units of its own standard errors, is below 1e-9; steps that do not shrink it are
    halved. Replicates that have stopped leave the work. Information that becomes singular on the way is no lack of rank: code 3.
    """
    size = max(1, IN_CACHE // len(X))
    some = [slice(i, i + size) for i in range(0, len(W), size)]
    parts = [_scored(X, W[s], Y if Y.ndim == 1 else Y[s], offset, rule, start, steps) for s in some]
    coef, inverse, code = (np.concatenate(part) for part in zip(*parts))
    return coef, inverse, code


def _scored(
    X: Floats, W: Floats, Y: Floats, offset: Floats | None, rule: tuple[Any, Any], start: Floats, steps: int
) -> tuple[Floats, Floats, Ints]:
    """glm_many of replicates few enough for their working weights to stay in the cache."""
    family, link = rule
    b, p = len(W), X.shape[1]
    coef = np.tile(start, (b, 1))
    inverse = np.full((b, p, p), np.nan)
    code = np.full(b, NOT_CONVERGED)
    active = np.arange(b)
    before = np.full(b, np.inf)
    step = np.zeros((b, p))
    for iteration in range(steps):
        eta = coef[active] @ X.T
        if offset is not None:
            eta += offset
        mu, w = link.inverse(eta), W[active]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if family.natural == link.name:
                working, score = w * family.variance(mu), w * ((Y if Y.ndim == 1 else Y[active]) - mu)
            else:
                score = w * link.slope(eta) / family.variance(mu)
                working = score * link.slope(eta)
                score *= (Y if Y.ndim == 1 else Y[active]) - mu
        wild = ~(np.isfinite(working).all(axis=1) & np.isfinite(score).all(axis=1))
        working[wild], score[wild] = 1.0, 0.0
        G, _, _ = grams(X, working)
        g = score @ X
        change, inv, bad = solve_many(G, g)
        size = np.sqrt(np.abs(np.einsum("bi,bi->b", change, g)))
        lost = (bad != FINE) | wild
        code[active[lost]] = np.where((bad[lost] != FINE) & (iteration == 0), RANK, OUT_OF_RANGE)
        worse = ~lost & (size > 2 * before[active]) & (size > 1e-6)
        done = ~lost & ~worse & (size < 1e-9)
        inverse[active[done]] = inv[done]
        move = ~lost & ~worse
        coef[active[move]] += change[move]
        step[active[move]], before[active[move]] = change[move], size[move]
        step[active[worse]] /= 2
        coef[active[worse]] -= step[active[worse]]
        code[active[done]] = FINE
        active = active[~lost & ~done]
        if not len(active):
            break
    coef[code != FINE] = np.nan
    return coef, inverse, code
