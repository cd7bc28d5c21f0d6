"""Covariances of estimated coefficients that do not trust the model's variance: what if errors differ, or rows come in clusters?

Everything is computed in the orthonormal basis Q = X R⁻¹ of the factor RᵀR = XᵀWX (W the weights of the fit, counts included), and
handed back as a root C (p, m) with V = C Cᵀ, so that a standard error is the length of a row of J C and never the root of a difference.

    V = R⁻¹ M R⁻ᵀ,      M = Σ s sᵀ  over rows or clusters,      s = e_i q_i,      e_i = row i's score in its linear predictor

For least squares e_i = w_i (y_i − μ_i); for a GLM e_i = w_i (y_i − μ_i)/V(μ_i) · dμ_i/dη_i; the dispersion cancels.
`freq` (n,) are counts: row i stands for freq_i rows, each with score e_i.

Source: White (1980); MacKinnon & White (1985); Cribari-Neto (2004) for HC4; Liang & Zeger (1986); Bell & McCaffrey (2002) and Pustejovsky
& Tipton (2018) for CR2.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from attrs import frozen

from ..types import Array, Floats, Ints
from .groups import Groups
from .linalg import row_blocks, upper

HC_KINDS = ("HC0", "HC1", "HC2", "HC3", "HC4")
CLUSTER_KINDS = ("CR0", "CR1", "CR1S", "CR2")
ZERO_EIGENVALUE = 1e-12  # of I − H_g: below it a direction of the cluster is fitted exactly and carries no residual


def compact_root(root: Array) -> Array:
    """The same covariance C Cᵀ from at most p columns.   (p, m) → (p, min(p, m))"""
    return upper(root.T).T if root.shape[1] > root.shape[0] else root


def symmetric_root(M: Floats) -> Floats:
    """C (p, p) with C Cᵀ = M for a positive semi-definite M."""
    value, vector = np.linalg.eigh(M)
    return vector * np.sqrt(np.maximum(value, 0.0))


def hc_powers(kind: str, h: Floats, n: float, p: int) -> Floats | float:
    """What each squared score is multiplied by.   h (n,) leverage of one row (one copy), n observations, p coefficients."""
    if kind == "HC0":
        return 1.0
    if kind == "HC1":
        return n / (n - p)
    exponent = {"HC2": 1.0, "HC3": 2.0}[kind] if kind != "HC4" else np.minimum(4.0, n * h / p)
    with np.errstate(divide="ignore"):
        return (1.0 - h) ** -exponent


def hc_root(X: Floats, R: Floats, scores: Floats, leverage: Floats, kind: str, freq: Floats | None = None) -> Floats:
    """Root of the heteroskedasticity-consistent covariance.

    X         (n, p)
    R         (p, p)  factor of XᵀWX
    scores    (n,)    e_i of one copy of the row
    leverage  (n,)    of one copy of the row
    kind      "HC0" … "HC4"
    freq      (n,)    counts, None: all 1
    returns   (p, p)
    """
    n, p = X.shape
    square = scores**2 * hc_powers(kind, leverage, n if freq is None else float(freq.sum()), p)
    if freq is not None:
        square = square * freq
    inverse = np.linalg.inv(R)
    meat = np.zeros((p, p))
    for rows in row_blocks(n, p):
        Q = X[rows] @ inverse
        meat += (Q * square[rows, None]).T @ Q
    return inverse @ symmetric_root(meat)


def cluster_root(X: Floats, R: Floats, scores: Floats, codes: Ints, kind: str, freq: Floats | None = None) -> Floats:
    """Root of the cluster-robust covariance: scores summed within clusters.

    scores   (n,)  e_i of one copy of the row;  freq (n,) counts
    codes    (n,)  cluster of each row, 0 … G-1
    kind     "CR0": none;  "CR1": G/(G−1);  "CR1S": G/(G−1) · (N−1)/(N−p)
    returns  (p, min(p, G))
    """
    p, groups = X.shape[1], int(codes.max()) + 1
    n = len(X) if freq is None else float(freq.sum())
    e = scores if freq is None else scores * freq
    sums = np.stack([np.bincount(codes, weights=X[:, j] * e, minlength=groups) for j in range(p)]) if p else np.zeros((0, groups))
    inverse = np.linalg.inv(R)
    return compact_root(inverse @ (inverse.T @ sums)) * np.sqrt(cluster_factor(kind, groups, n, p))


def cluster_factor(kind: str, groups: int, n: float, p: int) -> float:
    """What the covariance of summed scores is multiplied by.   G groups, n observations, p coefficients"""
    return {"CR0": 1.0, "CR1": groups / (groups - 1), "CR1S": groups / (groups - 1) * (n - 1) / (n - p)}[kind]


@frozen(eq=False)
class BellMcCaffrey:
    """CR2: root (p, min(p, G)), and per cluster the (p, p) pieces that Satterthwaite's degrees of freedom are made of.

    With a_g = A_g W_g Q_g c for a contrast c (in the basis Q) and Φ the working covariance of the errors,
    alpha_g = Q_gᵀ a_g,  beta_g = Q_gᵀ W_g Φ_g a_g,  gram_g: a_gᵀ Φ_g a_g,  omega = Qᵀ W Φ W Q.
    """

    root: Array
    inverse: Array
    alpha: Array
    beta: Array
    gram: Array
    omega: Array

    def df(self, rows: Floats) -> Floats:
        """Satterthwaite degrees of freedom of the contrasts `rows` (K, p): 2 E(V̂)²/Var(V̂) under the working model.

        Source: Bell & McCaffrey (2002); Pustejovsky & Tipton (2018) eq. 11.
        """
        groups, p = self.alpha.shape[:2]
        size = max(1, 2_000_000 // max(groups * p, 1))
        contrasts = rows @ self.inverse
        return np.concatenate([self._df(contrasts[i : i + size].T) for i in range(0, len(rows), size)] or [np.empty(0)])

    def _df(self, C: Floats) -> Floats:
        p = len(C)
        a, b = self.alpha @ C, self.beta @ C  # (G, p, K)
        d = np.einsum("pk,gpq,qk->gk", C, self.gram, C, optimize=True)
        own = np.einsum("gpk,pq,gqk->gk", a, self.omega, a, optimize=True) - 2 * np.einsum("gpk,gpk->gk", a, b)
        both = np.concatenate((a, b), axis=1)
        T = np.einsum("gpk,gqk->kpq", both, both, optimize=True)
        eye = np.eye(p)
        K = np.block([[self.omega, -eye], [-eye, np.zeros((p, p))]])
        KT = K @ T
        total = (d + own).sum(axis=0)
        squares = (d**2 + 2 * d * own).sum(axis=0) + np.einsum("kpq,kqp->k", KT, KT)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(total > 0, total**2 / squares, np.nan)


def cr2(X: Floats, R: Floats, residuals: Floats, weights: Floats | None, codes: Ints, phi: Floats | None = None) -> BellMcCaffrey:
    """Bias-reduced cluster-robust covariance: residuals of cluster g are multiplied by A_g, exact under the working model Φ.

    A_g = Φ½ (Φ½ B_g Φ½)^−½ Φ½,      B_g = [(I − H) Φ (I − H)ᵀ]_gg,      Φ diagonal

    X          (n, p)  rows of the mean's derivative (LM: X; GLM: dμ/dη X)
    R          (p, p)  factor of XᵀWX
    residuals  (n,)    y − μ
    weights    (n,)    diagonal of W, None: all 1
    codes      (n,)    cluster of each row, 0 … G-1
    phi        (n,)    diagonal of Φ, None: all 1
    returns    BellMcCaffrey

    Where Φ = 1, A_g is the identity plus a matrix of rank ≤ 2p, and no n_g × n_g array is formed for clusters larger than that.

    Source: Pustejovsky & Tipton (2018) eq. 7–8.
    """
    p, groups = X.shape[1], int(codes.max()) + 1
    inverse = np.linalg.inv(R)
    omega = _omega(X, inverse, weights, phi)
    sums = np.empty((p, groups))
    alpha, beta, gram = (np.empty((groups, p, p)) for _ in range(3))
    for g, (rows, Q, V, AWQ) in enumerate(_adjusted_clusters(X, inverse, weights, codes, phi)):
        sums[:, g] = AWQ.T @ residuals[rows]
        alpha[g], beta[g] = Q.T @ AWQ, V.T @ AWQ
        gram[g] = AWQ.T @ (AWQ if phi is None else AWQ * phi[rows, None])
    return BellMcCaffrey(compact_root(inverse @ sums), inverse, alpha, beta, gram, omega)


def cr2_rows(X: Floats, R: Floats, weights: Floats | None, codes: Ints) -> Floats:
    """Rows of A_g W_g Q_g (n, p): their sums within clusters, each times its residual, are the scores of CR2 in the basis Q (Φ = 1)."""
    out = np.empty(X.shape)
    for rows, _, _, AWQ in _adjusted_clusters(X, np.linalg.inv(R), weights, codes, None):
        out[rows] = AWQ
    return out


def _omega(X: Floats, inverse: Array, weights: Floats | None, phi: Floats | None) -> Floats:
    """QᵀWΦWQ (p, p)"""
    if weights is None or phi is not None:
        return np.eye(X.shape[1])
    omega = np.zeros((X.shape[1], X.shape[1]))
    for block in row_blocks(*X.shape):
        WQ = (X[block] @ inverse) * weights[block, None]
        omega += WQ.T @ WQ
    return omega


def _adjusted_clusters(
    X: Floats, inverse: Array, weights: Floats | None, codes: Ints, phi: Floats | None
) -> Iterator[tuple[Ints, Floats, Floats, Floats]]:
    """Of each cluster its rows, Q, W Φ Q and A W Q."""
    omega = _omega(X, inverse, weights, phi)
    own_weights = weights is not None and phi is None  # otherwise W Φ = 1
    for rows in Groups(codes).rows:
        Q = X[rows] @ inverse
        WQ = Q if weights is None else Q * weights[rows, None]
        V = WQ if own_weights else Q
        yield rows, Q, V, _adjusted(Q, V if own_weights else None, omega, WQ, None if phi is None else phi[rows])


def _adjusted(Q: Floats, V: Floats | None, omega: Floats, WQ: Floats, phi: Floats | None) -> Floats:
    """A_g W Q of one cluster (n_g, p).   V = WΦQ where it differs from Q, else None and B = Φ − QQᵀ."""
    n, p = Q.shape
    F, K = Q, -np.eye(p)
    if V is not None:
        F, K = np.concatenate((Q, V), axis=1), np.block([[omega, -np.eye(p)], [-np.eye(p), np.zeros((p, p))]])
    if phi is None and n > F.shape[1]:
        basis, T = np.linalg.qr(F)
        value, vector = np.linalg.eigh(T @ K @ T.T)
        U = basis @ vector
        return WQ + (U * (_inverse_root(1.0 + value) - 1.0)) @ (U.T @ WQ)
    if phi is None:
        value, vector = np.linalg.eigh(np.eye(n) + F @ K @ F.T)
        return (vector * _inverse_root(value)) @ (vector.T @ WQ)
    half = np.sqrt(phi)[:, None]
    F = half * F
    value, vector = np.linalg.eigh(np.diag(phi**2) + F @ K @ F.T)
    return half * ((vector * _inverse_root(value)) @ (vector.T @ (half * WQ)))


def cluster_residuals(Q: Floats, residuals: Floats, codes: Ints) -> Floats:
    """(I − Q_g Q_gᵀ)^−½ e_g of every cluster g: residuals as large as errors that are independent with one variance (n,).

    Q  (n, p)  orthonormal columns that span the fit;   residuals (n,);   codes (n,)  0 … G-1

    Source: Bell & McCaffrey (2002); MacKinnon, Nielsen & Webb (2023) for their use in the wild bootstrap.
    """
    out = np.array(residuals, dtype=float)
    for rows in Groups(codes).rows:
        U, s, _ = np.linalg.svd(Q[rows], full_matrices=False)
        out[rows] += U @ ((_inverse_root(1.0 - s**2) - 1.0) * (U.T @ out[rows]))
    return out


def _inverse_root(value: Floats) -> Floats:
    """value^−½, 0 where the eigenvalue is."""
    positive = value > ZERO_EIGENVALUE * max(1.0, float(np.max(value, initial=0.0)))
    return np.where(positive, 1.0 / np.sqrt(np.where(positive, value, 1.0)), 0.0)


@frozen(eq=False)
class CellVariances:
    """One variance per cell of a model saturated in its cells: root (p, cells), and df (cells,) of the cells' variances."""

    root: Array
    cell_df: Array

    def df(self, rows: Floats) -> Floats:
        """Welch–Satterthwaite degrees of freedom of the contrasts `rows` (K, p).

        Source: Welch (1947); Satterthwaite (1946) eq. 17.
        """
        part = (rows @ self.root) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            return part.sum(axis=1) ** 2 / (part**2 / self.cell_df).sum(axis=1)


def cell_variances(
    cells: Floats, codes: Ints, residuals: Floats, weights: Floats | None = None, freq: Floats | None = None
) -> CellVariances:
    """Covariance of the coefficients when every cell has its own variance, Var y_i = σ²_cell / w_i.

    cells      (p, p)  the row of X of each cell
    codes      (n,)    cell of each row
    residuals  (n,)    y minus the (weighted) mean of its cell
    returns    CellVariances
    """
    w = np.ones(len(codes)) if weights is None else weights
    f = np.ones(len(codes)) if freq is None else freq
    count, total, squares = (np.bincount(codes, weights=v, minlength=len(cells)) for v in (f, f * w, f * w * residuals**2))
    with np.errstate(divide="ignore", invalid="ignore"):  # a cell of one row: nan, and df 0
        variance = squares / (count - 1) / total
    return CellVariances(np.linalg.inv(cells) * np.sqrt(variance), count - 1.0)


def welch_james(A: Floats, cell_df: Floats) -> tuple[float, float]:
    """Divisor and second degrees of freedom of the heteroscedastic F test: T/divisor ~ F(q, df2).

    A        (q, cells)  L C of full row rank, C the root of `cell_variances`;  T is the Wald statistic
    cell_df  (cells,)

    Source: Johansen (1980) eq. 1.1–1.3; for one factor it is Welch's (1951) F.
    """
    q = len(A)
    basis = np.linalg.qr(A.T)[0]
    share = np.einsum("ij,ij->i", basis, basis)
    a = float((share**2 / cell_df).sum())
    return q + 2 * a - 6 * a / (q + 2), (q * (q + 2) / (3 * a) if a > 0 else np.inf)
