"""Many weighted least-squares problems on one X at once: the arithmetic of every resampling of LM and GLM.

Shared convention: X (n, p); one row of W or Y (b, n) per replicate; a result has one row per replicate and a code,

    0 fine    1 rank deficient in this replicate    2 not converged    3 left the family's range

b Gram matrices come from one matrix product of the weights with the columns x_j x_k (j ≤ k), formed block of rows by block of rows.

Source: weights as a vector of counts, Davison & Hinkley (1997) §2.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ..types import Floats, Ints
from .family import FAMILIES
from .link import LINKS
from .seam import kernel

FINE, RANK, NOT_CONVERGED, OUT_OF_RANGE = 0, 1, 2, 3
CONDITION = 1e7  # of the unit-scaled Gram matrix' factor: beyond it a replicate counts as rank deficient
CELLS = 131_072  # numbers in one block of weights, or of outer products (1 MB)
IN_CACHE = 16_384  # replicates × rows that are scored together, and numbers in one block of matrices


def row_blocks(n: int, columns: int) -> list[slice]:
    size = max(64, CELLS // max(columns, 1))
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def grams(X: Floats, W: Floats, y: Floats | None = None, weights: Floats | None = None) -> tuple[Floats, Floats, Floats]:
    """XᵀW_bX, XᵀW_by and yᵀW_by for every replicate, W_b the product of its row of W and the weights all have in common.

    X        (n, p)
    W        (b, n)  numbers of any type
    y        (n,)    None: 0
    weights  (n,)    None: 1
    returns  (b, p, p), (b, p), (b,)
    """
    p = X.shape[1]
    if y is None:
        return _products(X, W, weights)[0], np.zeros((len(W), p)), np.zeros(len(W))
    G, _ = _products(np.column_stack((X, y)), W, weights)
    return np.ascontiguousarray(G[:, :p, :p]), G[:, :p, p], G[:, p, p]


def _products(X: Floats, W: Floats, weights: Floats | None, score: Floats | None = None) -> tuple[Floats, Floats]:
    """XᵀW_bX (b, p, p) and XᵀW_b `score` (b, p), by one matrix product with the columns x_jx_k and x_j score."""
    n, p = X.shape
    pairs = p * (p + 1) // 2
    packed = np.zeros((len(W), pairs + (0 if score is None else p)))
    for rows in row_blocks(n, max(packed.shape)):
        x = X[rows]
        columns = _outer(x, None if weights is None else weights[rows])
        if score is not None:
            columns = np.concatenate((columns, x.T * score[rows]))
        packed += np.asarray(W[:, rows], dtype=float) @ columns.T
    return _unpacked(packed[:, :pairs], p), packed[:, pairs:]


def totals(W: Floats, weights: Floats) -> Floats:
    """W `weights`: the sum of every replicate's weights.   (b, n), (n,) → (b,)"""
    out = np.zeros(len(W))
    for rows in row_blocks(len(weights), len(W)):
        out += np.asarray(W[:, rows], dtype=float) @ weights[rows]
    return out


@lru_cache(maxsize=16)
def _pairs(p: int) -> tuple[Ints, Ints]:
    """All j ≤ k < p."""
    j, k = np.triu_indices(p)
    return j, k


def _outer(x: Floats, weights: Floats | None = None) -> Floats:
    """Products x_jx_k, j ≤ k, times the weights.   x (m, p) → (p(p + 1)/2, m)"""
    j, k = _pairs(x.shape[1])
    xT = np.ascontiguousarray(x.T)
    return xT[j] * (xT if weights is None else xT * weights)[k]


def _unpacked(packed: Floats, p: int) -> Floats:
    """Symmetric matrices from their upper triangles.   (b, p(p + 1)/2) → (b, p, p)"""
    j, k = _pairs(p)
    G = np.empty((len(packed), p, p))
    G[:, j, k] = G[:, k, j] = packed
    return G


def solve_many(G: Floats, right: Floats) -> tuple[Floats, Floats, Ints]:
    """G_b⁻¹ right_b and G_b⁻¹ for symmetric positive definite G_b, with a code instead of an error.

    G        (b, p, p)
    returns  (b, p), (b, p, p), (b,)

    Deficient: the eigenvalues of G_b, scaled to a diagonal of ones, have reciprocals that sum to CONDITION^1.5 or more.
    """
    b, p = right.shape
    inverse, fine = np.empty((b, p, p)), np.empty(b, dtype=bool)
    size = max(8, IN_CACHE // (p * p))
    for i in range(0, b, size):
        inverse[i : i + size], fine[i : i + size] = _inverses(G[i : i + size])
    coef = np.einsum("bij,bj->bi", inverse, right)
    return np.where(fine[:, None], coef, np.nan), inverse, np.where(fine, FINE, RANK)


def _inverses(G: Floats) -> tuple[Floats, Any]:
    """Inverses (b, p, p), and which of them there are (b,); the others have the inverse of the diagonal, or the unit matrix.

    Source: Goodnight (1979), the sweep operator, over all pivots of unit-scaled matrices side by side.
    """
    diagonal = np.einsum("bii->ib", G)
    fine = (diagonal > 0).all(axis=0) & np.isfinite(G).all(axis=(1, 2))
    unit = 1.0 / np.sqrt(np.where(fine, diagonal, 1.0))
    A = G.transpose(1, 2, 0).copy()
    A[:, :, ~fine] = np.eye(len(unit))[:, :, None]
    A *= unit[:, None] * unit
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for i in range(len(A)):
            column = A[i].copy()
            row = column / column[i]
            A -= column[:, None] * row
            A[i] = A[:, i] = row
            A[i, i] = -1.0 / column[i]
    inflation = -np.einsum("iib->ib", A)
    fine &= (inflation > 0).all(axis=0) & (inflation.sum(axis=0) < CONDITION**1.5)
    A[:, :, ~fine] = -np.eye(len(unit))[:, :, None]
    A *= -unit[:, None] * unit
    return A.transpose(2, 0, 1), fine


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
def ols_many(X: Floats, W: Floats, y: Floats, weights: Floats | None = None) -> tuple[Floats, Floats, Floats, Ints]:
    """Weighted least squares of every replicate; accurate where y (n,) holds the residuals of a fit to all rows.

    W        (b, n)  counts or weights of any type, 0 leaves a row out
    weights  (n,)    times these; None: 1
    returns  coef (b, p), (XᵀWX)⁻¹ (b, p, p), weighted residual sum of squares (b,), code (b,)
    """
    G, right, total = grams(X, W, y, weights)
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
    X: Floats,
    W: Floats | None,
    Y: Floats,
    offset: Floats | None,
    rule: tuple[Any, Any],
    start: Floats,
    weights: Floats | None = None,
    steps: int = 25,
) -> tuple[Floats, Floats, Ints]:
    """Fisher scoring of every replicate, all started at the full data's coefficients.

    W        (b, n)  counts or weights of any type; None: 1, where Y has the replicates
    Y        (n,) or (b, n)
    offset   (n,) or None
    rule     (family, link): variance(mu), inverse(eta), slope(eta)
    start    (p,)
    weights  (n,)    times these; None: 1
    returns  coef (b, p), (XᵀWX)⁻¹ where it was last evaluated (b, p, p), code (b,)

    Sizes of steps are in units of the replicate's own standard errors. A replicate stops when its step is below 1e-9, or below 1e-6 and
    the next would be below 1e-9 if it shrank by as much; steps that do not shrink are halved. Replicates that have stopped leave the
    work. Information that becomes singular on the way is no lack of rank: code 3.
    """
    b, p = len(Y if W is None else W), X.shape[1]
    coef, step = np.tile(start, (b, 1)), np.zeros((b, p))
    inverse, before = np.full((b, p, p), np.nan), np.full(b, np.inf)
    code, active = np.full(b, NOT_CONVERGED), np.arange(b)
    for iteration in range(steps):
        if iteration == 0 and Y.ndim == 1 and W is not None:
            G, g = _at_start(X, W, Y, offset, rule, start, weights)
        else:
            G, g = _equations((X, W, Y, offset, weights), rule, coef[active], active)
        wild = ~(np.isfinite(G).all(axis=(1, 2)) & np.isfinite(g).all(axis=1))
        G[wild], g[wild] = np.eye(p), 0.0
        change, inv, bad = solve_many(G, g)
        size = np.sqrt(np.abs(np.einsum("bi,bi->b", change, g)))
        lost = (bad != FINE) | wild
        code[active[lost]] = np.where((bad[lost] != FINE) & (iteration == 0), RANK, OUT_OF_RANGE)
        worse = ~lost & (size > 2 * before[active]) & (size > 1e-6)
        move = ~lost & ~worse
        done = move & ((size < 1e-9) | ((size < 1e-6) & (size * size < 1e-9 * before[active]) & (iteration > 0)))
        inverse[active[done]] = inv[done]
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


def _per_row(eta: Floats, y: Floats, rule: tuple[Any, Any]) -> tuple[Floats, Floats]:
    """Information and score of single rows about η, without their weights."""
    family, link = rule
    mu = link.inverse(eta)
    if family.natural == link.name:
        return np.array(family.variance(mu)), y - mu
    slope = link.slope(eta)
    score = slope / family.variance(mu)
    return score * slope, score * (y - mu)


def _at_start(
    X: Floats, W: Floats, y: Floats, offset: Floats | None, rule: tuple[Any, Any], start: Floats, weights: Floats | None
) -> tuple[Floats, Floats]:
    """`_equations` where all replicates have the same coefficients and responses: one matrix product."""
    eta = X @ start
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        working, score = _per_row(eta if offset is None else eta + offset, y, rule)
        if weights is not None:
            working, score = working * weights, score * weights
        return _products(X, W, working, score)


def _equations(rows_of: tuple[Any, ...], rule: tuple[Any, Any], coef: Floats, index: Ints) -> tuple[Floats, Floats]:
    """Information (b, p, p) and score (b, p) of the replicates `index` at their coefficients, by blocks that stay in the cache."""
    X, W, Y, offset, weights = rows_of
    (n, p), b = X.shape, len(coef)
    packed, g = np.zeros((b, p * (p + 1) // 2)), np.zeros((b, p))
    many = min(b, 32)
    for start in range(0, n, IN_CACHE // many):
        rows = slice(start, start + IN_CACHE // many)
        x = X[rows]
        columns = _outer(x, None if weights is None else weights[rows]).T
        weighted = x if weights is None else x * weights[rows, None]
        for i in range(0, b, many):
            some = slice(i, i + many)
            eta = coef[some] @ x.T
            if offset is not None:
                eta += offset[rows]
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                working, score = _per_row(eta, Y[rows] if Y.ndim == 1 else Y[index[some], rows], rule)
                if W is not None:
                    w = W[index[some], rows].astype(float)
                    working *= w
                    score *= w
                packed[some] += working @ columns
                g[some] += score @ weighted
    return _unpacked(packed, p), g


def pearson(
    X: Floats, W: Floats | None, Y: Floats, offset: Floats | None, rule: tuple[Any, Any], coef: Floats, weights: Floats | None
) -> Floats:
    """Σ w (y − μ)²/V(μ) of every replicate at its coefficients (b, p); arguments of `glm_many`.   → (b,)"""
    family, link = rule
    out = np.zeros(len(coef))
    for rows in row_blocks(len(X), len(coef)):
        eta = coef @ X[rows].T
        mu = link.inverse(eta if offset is None else eta + offset[rows])
        with np.errstate(divide="ignore", invalid="ignore"):
            squares = (Y[..., rows] - mu) ** 2 / family.variance(mu)
            squares = squares if weights is None else squares * weights[rows]
            out += (squares if W is None else squares * W[:, rows]).sum(axis=1)
    return out
