"""Least squares, rank and symmetric solves: given columns and weights, which coefficients, and how well determined?

All functions take X (n, p), optional weights w (n,) (None: all 1) and pass over the rows in blocks: no n × n array, no second copy
of X. The factor handed on is one upper triangular R (p, p) in X's own column order and units,

    RᵀR = Xᵀ W X,        (XᵀWX)⁻¹ = R⁻¹R⁻ᵀ,        leverage of row i = w_i ‖x_i R⁻¹‖²

Unpivoted Householder QR and Cholesky are invariant to the scale of the columns, so columns are scaled to unit length only where a
tolerance is applied to them.

Source: Golub & Van Loan (2013) §5.2–5.3; Demmel, Grigori, Hoemmen & Langou (2012) for QR by row blocks; Björck (1987) for the
corrected semi-normal equations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from attrs import frozen

from ..types import Array, Bools, Floats

RANK_TOL = 1e-11  # what must be left of a unit column after the earlier ones (NIST's Filip has 2e-10)
GRAM_ROWS = 5_000  # from here on the Gram matrix is tried first
GRAM_CONDITION = 1e3  # its inverse then carries at least ten digits: eps × condition²
CLEAR = 0.01  # determinant of a unit-scaled Gram matrix above which Cholesky is as good as QR
EXTENDED_SIZE = 100_000  # up to this many elements of X, residuals are formed in extended precision


@frozen(eq=False)
class LeastSquares:
    """coef (r,) and R (r, r) of the r columns kept; kept (p,) bool; residual y − Xβ (n,), unweighted."""

    coef: Floats
    R: Floats
    kept: Bools
    residual: Floats


def row_blocks(n: int, p: int) -> Iterator[slice]:
    """Slices over n rows whose (rows, p) block stays in cache (about half a MB)."""
    size = max(512, 65_536 // max(p, 1))
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def weighted_gram(X: Floats, weights: Floats | None = None, y: Floats | None = None) -> tuple[Floats, Floats | None]:
    """Cross-products XᵀWX and XᵀWy.

    X        (n, p)
    weights  (n,)  non-negative, None: all 1
    y        (n,)  None: only the Gram matrix is wanted
    returns  (p, p), (p,) or None
    """
    if weights is None:
        return X.T @ X, None if y is None else X.T @ y
    n, p = X.shape
    root = np.sqrt(weights)
    G = np.zeros((p, p))
    for rows in row_blocks(n, p):
        block = X[rows] * root[rows, None]
        G += block.T @ block
    return G, None if y is None else X.T @ (weights * y)


def upper(A: Array) -> Floats:
    """R (min(n, p), p) of A = QR, by Householder reflections without pivoting."""
    return np.asarray(np.linalg.qr(A, mode="r"), dtype=float)


def triangular(X: Floats, weights: Floats | None = None, y: Floats | None = None) -> Floats:
    """Upper triangular factor of √W [X y], by Householder QR of row blocks whose factors are stacked and factored again.

    X        (n, p)
    returns  (min(n, p + 1), p + 1), or (min(n, p), p) without y

    Source: Demmel et al. (2012) §2 (sequential TSQR).
    """
    n, p = X.shape
    root = None if weights is None else np.sqrt(weights)
    R = np.empty((0, p + (y is not None)))
    for rows in row_blocks(n, p):
        block = X[rows] if y is None else np.column_stack((X[rows], y[rows]))
        if root is not None:
            block = block * root[rows, None]
        R = upper(np.concatenate((R, block)) if R.size else block)
    return R


def triangulars(blocks: Sequence[Floats]) -> list[Floats]:
    """Upper triangular factor of each block (n_i, p): by Cholesky of Gram matrices, many at once, where they are clearly well conditioned.

    The Gram matrix of unit columns has λ_min ≥ det/e. Where det is above `CLEAR`, Cholesky keeps thirteen digits; else Householder QR.
    """
    if not blocks:
        return []
    G = np.array([block.T @ block for block in blocks])
    diagonal = np.einsum("bii->bi", G)
    tall = np.array([len(block) > len(G[0]) for block in blocks])
    usable = tall & (diagonal > 0).all(axis=1) & np.isfinite(G).all(axis=(1, 2))
    scale = np.sqrt(np.where(usable[:, None], diagonal, 1.0))
    G /= scale[:, :, None] * scale[:, None]
    G[~usable] = np.eye(G.shape[1])
    try:
        L = np.linalg.cholesky(G)
    except np.linalg.LinAlgError:
        return [triangular(blocks[0])] if len(blocks) == 1 else [triangulars([block])[0] for block in blocks]
    usable &= np.einsum("bii->bi", L).prod(axis=1) ** 2 > CLEAR
    R = L.transpose(0, 2, 1) * scale[:, None]
    return [one if yes else triangular(block) for one, yes, block in zip(R, usable.tolist(), blocks)]


def lengths(columns: Floats) -> Floats:
    """Euclidean length of each column, 1 for a column of zeros."""
    size = np.sqrt(np.einsum("ij,ij->j", columns, columns))
    return np.where(size > 0, size, 1.0)


def independent_of_earlier(columns: Floats, tol: float = RANK_TOL) -> Bools:
    """Which columns keep more than `tol` of their length after projection off the earlier kept ones.

    columns  (m, p)
    returns  (p,)  R's pivot rule: of a dependent set the later columns are dropped

    Source: Gram–Schmidt with one re-orthogonalisation (Giraud, Langou & Rozložník 2005).
    """
    m, p = columns.shape
    unit = columns / lengths(columns)
    basis = np.zeros((m, min(m, p)), order="F")
    kept = np.zeros(p, dtype=bool)
    k = 0
    for j in range(p):
        left = unit[:, j]
        for _ in range(2):
            left = left - basis[:, :k] @ (basis[:, :k].T @ left)
        size = np.sqrt(left @ left)
        if k < m and size > tol:
            basis[:, k] = left / size
            kept[j] = True
            k += 1
    return kept


def well_conditioned_factor(G: Floats) -> Floats | None:
    """R with RᵀR = G by Cholesky, or None where the unit-scaled G is not clearly well conditioned.

    The condition number is bounded by √p ‖R⁻¹‖_F of the scaled factor.
    """
    diagonal = np.diag(G)
    if not (diagonal > 0).all():
        return None
    scale = np.sqrt(diagonal)
    try:
        R = np.linalg.cholesky(G / np.outer(scale, scale)).T
    except np.linalg.LinAlgError:
        return None
    if np.sqrt(len(G)) * np.linalg.norm(np.linalg.inv(R)) > GRAM_CONDITION:
        return None
    return R * scale


def independent_columns(X: Floats, weights: Floats | None = None) -> Bools:
    """Which columns of √W X are not (nearly) combinations of earlier ones: R's rule, on columns of unit length.

    X        (n, p)
    returns  (p,)  bool
    """
    n, p = X.shape
    if n >= GRAM_ROWS and well_conditioned_factor(weighted_gram(X, weights)[0]) is not None:
        return np.ones(p, dtype=bool)
    R = triangular(X, weights)
    if len(R) == p and (np.abs(np.diag(R)) > RANK_TOL * lengths(R)).all():
        return np.ones(p, dtype=bool)
    return independent_of_earlier(R, RANK_TOL)


def lstsq(X: Floats, y: Floats, weights: Floats | None = None) -> LeastSquares:
    """argmin Σ w_i (y_i − x_iᵀβ)² over the columns that rank allows.

    Many rows and a clearly well-conditioned X: Cholesky of the Gram matrix. Else Householder QR. Both end with steps of the corrected
    semi-normal equations (`refined`).

    X        (n, p)
    y        (n,)
    weights  (n,)  positive, None: all 1
    returns  LeastSquares: coef (r,), R (r, r), kept (p,), residual (n,)

    Source: Björck (1987) §3.
    """
    n, p = X.shape
    kept = np.ones(p, dtype=bool)
    R = None
    if n >= GRAM_ROWS:
        G, c = weighted_gram(X, weights, y)
        R = well_conditioned_factor(G)
    if R is not None:
        assert c is not None
        coef = solve_factored(R, c)
    else:
        full = triangular(X, weights, y)
        R, Qy = full[:p, :p], full[:p, p]
        if len(R) < p or (np.abs(np.diag(R)) <= RANK_TOL * lengths(R)).any():
            kept = independent_of_earlier(full[:, :p], RANK_TOL)
            rank = int(kept.sum())
            small = upper(np.column_stack((full[:, :p][:, kept], full[:, p])))
            R, Qy, X = small[:rank, :rank], small[:rank, rank], X[:, kept]
        coef = np.asarray(np.linalg.solve(R, Qy), dtype=float)
    coef, residual = refined(coef, R, X, y, weights)
    return LeastSquares(coef, R, kept, residual)


def refined(coef: Floats, R: Floats, X: Floats, y: Floats, weights: Floats | None) -> tuple[Floats, Floats]:
    """coef after corrections δ with RᵀR δ = XᵀW(y − X coef), and its residuals; extended precision (where there is any) when X is small.

    Source: Björck (1987) eq. 3.3; with exact residuals each step gains about −log₁₀(eps × condition) digits (Higham 2002, ch. 20).
    """
    if X.size > EXTENDED_SIZE:
        return _corrected(coef, R, X, y, weights)
    columns = X.astype(np.longdouble)
    for _ in range(2):
        residual = y - columns @ coef
        gradient = columns.T @ (residual if weights is None else weights * residual)
        coef = coef + solve_factored(R, gradient.astype(float))
    return coef, (y - columns @ coef).astype(float)


def _corrected(coef: Floats, R: Floats, X: Floats, y: Floats, weights: Floats | None) -> tuple[Floats, Floats]:
    """One correction in one pass over X; the residuals follow it unless it moves them by less than their rounding:

    ‖Xδ‖ = ‖Rδ‖ ≤ p eps ‖y‖
    """
    residual, gradient = np.empty(len(y)), np.zeros(X.shape[1])
    for rows in row_blocks(*X.shape):
        block = X[rows]
        left = np.subtract(y[rows], block @ coef, out=residual[rows])
        gradient += block.T @ (left if weights is None else weights[rows] * left)
    change = solve_factored(R, gradient)
    moved = R @ change
    if weights is not None or moved @ moved > (len(coef) * np.finfo(float).eps) ** 2 * (y @ y):
        for rows in row_blocks(*X.shape):
            residual[rows] -= X[rows] @ change
    return coef + change, residual


def solve_factored(R: Floats, b: Floats) -> Floats:
    """Solution of RᵀR x = b.   R (p, p) upper triangular, b (p,) or (p, m).

    By R⁻¹: LU with pivoting leaves an upper triangle alone, but would reorder the rows of Rᵀ and mix their units.
    """
    inverse = np.linalg.inv(R)
    return inverse @ (inverse.T @ b)


def inverse_factored(R: Floats) -> Floats:
    """(RᵀR)⁻¹ (p, p), symmetric to the last bit."""
    inverse = np.linalg.inv(R)
    return inverse @ inverse.T


def cholesky_factor(A: Floats) -> Floats:
    """R upper triangular with RᵀR = A, through the unit-diagonal scaling of A; LinAlgError where A is not positive definite."""
    scale = np.sqrt(np.diag(A))
    return np.linalg.cholesky(A / np.outer(scale, scale)).T * scale


def solve_spd(A: Floats, b: Floats) -> Floats:
    """A⁻¹b for symmetric positive definite A (p, p), b (p,) or (p, m); LinAlgError where A is not."""
    return solve_factored(cholesky_factor(A), b)


def inverse_spd(A: Floats) -> Floats:
    """A⁻¹ for symmetric positive definite A (p, p); LinAlgError where A is not."""
    return inverse_factored(cholesky_factor(A))


def leverage(X: Floats, R: Floats, weights: Floats | None = None) -> Floats:
    """Diagonal of W^½X(XᵀWX)⁻¹XᵀW^½ without forming it.

    X        (n, p)
    R        (p, p)  factor of XᵀWX
    weights  (n,)    the weights in R, None: all 1
    returns  (n,)    in [0, 1], sums to p
    """
    inverse = np.linalg.inv(R)
    h = np.empty(len(X))
    for rows in row_blocks(*X.shape):
        block = inverse.T @ X[rows].T
        h[rows] = np.einsum("ij,ij->j", block, block)
    if weights is not None:
        h *= weights
    return np.minimum(h, 1.0)
