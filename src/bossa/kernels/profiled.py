"""The profiled likelihood of a linear mixed model: its value, exact gradient and average information, from cross-products alone.

With V = I + ZΛΛᵀZᵀ in the metric of the weights, and β, σ² profiled out, the criterion of θ is

    REML   log|M| + log|XᵀV⁻¹X| + (N − p)(1 + log(2π r² / (N − p)))
    ML     log|M| + N (1 + log(2π r² / N)),                              r² = min_β (y − Xβ)ᵀV⁻¹(y − Xβ)

Its slope with respect to Σ_j = T_jT_jᵀ is Q_j = Σ_g [Z_gᵀPZ_g − (N_e / r²) Z_gᵀPy yᵀPZ_g] (N_e = N or N − p; V⁻¹ for P in the first
part by ML), so with respect to T_j it is 2 Q_jT_j: smooth for every θ, whatever the signs of its diagonal, at the boundary too.
`Products.layout` says which random effect stands where; F = [X y].

Source: Bates et al. (2015) §3.4 for the criterion; Gilmour, Thompson & Cullis (1995) for average information.
"""

from __future__ import annotations

import math

import numpy as np
from attrs import frozen

from ..types import Array, Floats
from . import blocks
from .blocks import Cholesky, Half, Inverse, Modes, Products


@frozen(kw_only=True, eq=False)
class Point:
    """The criterion at one θ and what it was computed from.

    gradient   (t,)  = logdet_slope + (N_e / r²) r2_slope, each (t,)
    L          (p + 1, p + 1)  Cholesky factor of [X y]ᵀV⁻¹[X y];   β = `coef` (p,)
    D          (p + 1, 1 + p)  first column the residual y − Xβ, then (REML) columns of X that V⁻¹ makes orthonormal
    modes      solutions for the columns D
    slopes     ∂criterion/∂T of each grouping, (k, k)
    """

    theta: Floats
    criterion: float
    gradient: Floats
    logdet_slope: Floats
    r2_slope: Floats
    r2: float
    n_effective: float
    coef: Floats
    L: Floats
    D: Floats
    factor: Cholesky
    inverse: Inverse
    half: Half
    modes: Modes
    slopes: tuple[Floats, ...]

    @property
    def sigma(self) -> float:
        return math.sqrt(self.r2 / self.n_effective)


def criterion(P: Products, theta: Floats, n: float, reml: bool) -> float:
    """The criterion alone; inf where it cannot be computed."""
    with np.errstate(all="ignore"):
        made = _factored(P, theta)
    return math.inf if made is None else _value(made[0], made[2], n, reml)


def _factored(P: Products, theta: Floats) -> tuple[Cholesky, Half, Array] | None:
    c = blocks.cholesky(P, blocks.factors(P.layout, theta))
    if not math.isfinite(c.logdet):
        return None
    half = blocks.halve(c, P.B, P.Br)
    try:
        L = np.linalg.cholesky(P.C - half.gram(half, P.count))
    except np.linalg.LinAlgError:
        return None
    return (c, half, L) if L[-1, -1] > 0 else None


def _value(c: Cholesky, L: Floats, n: float, reml: bool) -> float:
    p = len(L) - 1
    free = n - p if reml else n
    value = c.logdet + free * (1.0 + math.log(2.0 * math.pi * L[p, p] ** 2 / free))
    return value + 2.0 * float(np.log(np.diag(L)[:p]).sum()) if reml else value


def evaluate(P: Products, theta: Floats, n: float, reml: bool) -> Point | None:
    """Criterion and gradient at θ (t,); None where they cannot be computed (θ overflows).

    n     observations, counts included
    reml  restricted likelihood
    """
    with np.errstate(all="ignore"):
        made = _factored(P, theta)
        if made is None:
            return None
        c, half, L = made
        inv = blocks.inverse(c)
    p = len(L) - 1
    D = np.zeros((p + 1, 1 + p if reml else 1))
    D[p, 0] = 1.0
    whitening = np.linalg.inv(L[:p, :p]).T
    coef = whitening @ L[p, :p]
    D[:p, 0] = -coef
    if reml:
        D[:p, 1:] = whitening
    m = blocks.modes(c, np.matmul(D.T, P.B), half.combine(D))
    r2, free = L[p, p] ** 2, n - p if reml else n
    of_logdet, of_r2 = list(inv.slopes), []
    for j, (e, u) in enumerate(by_grouping(P, m)):
        of_r2.append(-2.0 * e[:, 0] @ u[:, 0].T)
        if reml:
            k = len(e)
            of_logdet[j] = of_logdet[j] - 2.0 * e[:, 1:].reshape(k, -1) @ u[:, 1:].reshape(k, -1).T
    slopes = tuple(a + free / r2 * b for a, b in zip(of_logdet, of_r2))
    gradient = blocks.theta_of(P.layout, slopes)
    if not np.isfinite(gradient).all():
        return None
    return Point(
        theta=theta,
        criterion=_value(c, L, n, reml),
        gradient=gradient,
        logdet_slope=blocks.theta_of(P.layout, of_logdet),
        r2_slope=blocks.theta_of(P.layout, of_r2),
        r2=r2,
        n_effective=free,
        coef=coef,
        L=L,
        D=D,
        factor=c,
        inverse=inv,
        half=half,
        modes=m,
        slopes=slopes,
    )


def by_grouping(P: Products, m: Modes) -> list[tuple[Floats, Floats]]:
    """(e, u) of each grouping as (k, s, G), e times the counts."""
    lay = P.layout
    made = [(m.e0 if P.count is None else m.e0 * P.count, m.u0)]
    for start, g in zip(lay.starts, lay.rest):
        part = slice(start, start + g.G * g.k)
        made.append(tuple(v[part].reshape(g.G, g.k, -1).transpose(1, 2, 0) for v in (m.er, m.ur)))  # type: ignore[arg-type]
    return made


def average_information(point: Point) -> Floats:
    """Approximate Hessian of the criterion in θ, (t, t): average information plus the exact curvature of θ ↦ Σ.

    AI_ij = (N_e / r²) yᵀPV_iPV_jPy − (N_e / r⁴)(yᵀPV_iPy)(yᵀPV_jPy),     V_i = ∂V/∂θ_i
    the rest is 2 Q_j between entries of one column of T_j, its positive part.

    Source: Gilmour et al. (1995) eq. 7.
    """
    P, T = point.factor.P, point.factor.T
    lay = P.layout
    w0, wr = np.zeros((lay.first.k, lay.t, lay.first.G)), np.zeros((lay.D, lay.t))
    for j, (g, (e, u), start) in enumerate(zip(lay.groupings, by_grouping(P, point.modes), (0, *lay.starts))):
        e, u = e[:, 0], u[:, 0]
        if j == 0 and P.count is not None:
            e = point.modes.e0[:, 0]
        for a, b, i in zip(g.rows, g.cols, g.index):
            w = T[j][:, b, None] * e[a]
            w[a] += u[b]
            if j == 0:
                w0[:, i] = w
            else:
                wr[start : start + g.G * g.k, i] = w.T.ravel()
    K = projected(point, w0, wr)
    ratio = point.n_effective / point.r2
    information = ratio * (K - np.outer(point.r2_slope, point.r2_slope) / point.r2)
    for g, t, slope in zip(lay.groupings, T, point.slopes):
        Q = upward(slope, t)
        information[np.ix_(g.index, g.index)] += np.where(g.cols[:, None] == g.cols, 2.0 * Q[np.ix_(g.rows, g.rows)], 0.0)
    return information


def upward(slope: Floats, T: Floats) -> Floats:
    """The positive part of Q, from 2QT = slope as far as T determines it: where Q is negative the criterion falls anyway.   (k, k)"""
    if len(T) == 1:
        return np.maximum(0.5 * slope / T, 0.0) if T[0, 0] else np.zeros((1, 1))
    Q = 0.5 * slope @ np.linalg.pinv(T, rcond=1e-13)
    values, vectors = np.linalg.eigh(0.5 * (Q + Q.T))
    return (vectors * np.maximum(values, 0.0)) @ vectors.T


def projected(point: Point, w0: Floats, wr: Floats) -> Floats:
    """wᵀZᵀPZw (s, s) for q-vectors w0 (k, s, G), wr (D, s)."""
    c, P = point.factor, point.factor.P
    B = P.A[0, 0] * w0 if len(w0) == 1 else np.einsum("abg,bsg->asg", P.A, w0)
    Br = wr
    if P.cross is not None:
        B = B + P.cross.up(wr)
        Br = P.cross.down(w0) + P.cross.squared(wr)
    half = blocks.halve(c, B, Br)
    counted = w0 if P.count is None else w0 * P.count
    p = len(point.coef)
    square = np.matmul(counted, B.transpose(0, 2, 1)).sum(axis=0) + wr.T @ Br - half.gram(half, P.count)
    X = np.matmul(P.B[:, :p], counted.transpose(0, 2, 1)).sum(axis=0) + P.Br[:, :p].T @ wr
    X = X - Half(point.half.W0[:, :p], point.half.Wr[:, :p], point.half.left[:, :p]).gram(half, P.count)
    left = np.linalg.solve(point.L[:p, :p], X)
    return square - left.T @ left


def curvature(point: Point) -> tuple[Floats, ...]:
    """Q_j = ∂criterion/∂Σ_j of each grouping, (k, k), exact where T_j is singular: ≥ 0 there means that no variance wants to be larger."""
    c, P, lay = point.factor, point.factor.P, point.factor.P.layout
    H = np.matmul(c.T[0], c.X)
    F = -np.einsum("abg,bcg->acg", P.A, H)
    for a in range(lay.first.k):
        F[a, a] += 1.0
    Q = np.einsum("abg,bcg->acg", F, P.A)
    if P.cross is not None:
        Q -= np.einsum("abg,bcg,dcg->adg", F, point.inverse.U, F)
    made = [(Q if P.count is None else Q * P.count).sum(axis=2)]
    if P.cross is not None:
        S = P.cross.schur(c.J)
        half = blocks.solve_upper(c.upper, c.SL.T, transposed=True)
        for start, g in zip(lay.starts, lay.rest):
            at = start + np.arange(g.G)[:, None] * g.k + np.arange(g.k)
            taken = half[:, at.ravel()].reshape(lay.D, g.G, g.k)
            made.append(S[at[:, :, None], at[:, None, :]].sum(axis=0) - np.einsum("dga,dgb->ab", taken, taken))
    weights = np.ones(point.D.shape[1])
    weights[0] = point.n_effective / point.r2
    sides = by_grouping(P, point.modes)
    plain = [point.modes.e0, *(e for e, _ in sides[1:])]
    return tuple(Q - np.einsum("asg,bsg,s->ab", e, f, weights) for Q, (e, _), f in zip(made, sides, plain))
