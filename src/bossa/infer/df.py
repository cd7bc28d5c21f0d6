"""How many degrees of freedom has a contrast of a linear mixed model's coefficients?

    satterthwaite(problem, fit, J) → (K,)                     kenward_roger(problem, fit, J) → (p, p), (K,)
    satterthwaite_test(problem, fit, L) → FTest               kenward_roger_test(problem, fit, L) → FTest
    with_satterthwaite(problem, fit, replicates, draws)       the df of every coefficient in every replicate

J (K, p) are rows asked one by one, L (q, p) rows tested together. Satterthwaite compares the variance jᵀVj with its own variance, by the
curvature of the likelihood in (θ, σ); Kenward and Roger also correct V for having estimated the variances, and scale F. Both need
derivatives of V, which come from the cross-products: nothing n × n.

Source: Fai & Cornelius (1996); Kuznetsova, Brockhoff & Christensen (2017) §2 (lmerTest); Kenward & Roger (1997); Halekoh & Højsgaard
(2014) §3 (pbkrtest).
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
from attrs import evolve, frozen

from ..errors import FitFailed, Refused
from ..estimate import refits
from ..estimate.lmm import Prepared, prepare, rows_and_counts
from ..kernels import blocks, profiled
from ..kernels.information import Information, information
from ..kernels.intervals import f_tail
from ..kernels.linalg import independent_of_earlier
from ..kernels.optimize import differences
from ..kernels.profiled import Point
from ..kernels.replicates import DIFFERENCE, deviance_curvature
from ..state.design import Problem
from ..state.fit import FitState
from ..state.plan import Draws, Replicates
from ..types import Array, Floats

FLAT = 1e-7  # eigenvalue of the Hessian (unit diagonal) below which the likelihood does not see a direction
SAME_DIRECTION = 1e-9  # what must be left of a unit row of L after the earlier ones


@frozen(eq=False)
class FTest:
    """F against F(df1, df2); `scaling` is what Kenward and Roger multiply the Wald statistic W / df1 with."""

    F: float
    df1: int
    df2: float
    p_value: float
    scaling: float = 1.0


@frozen(eq=False)
class VarianceOfVariance:
    """root (p, p): V = σ² root rootᵀ.   slopes (t + 1, p, p): ∂V/∂(θ, σ) = root slope rootᵀ.   vcov (t + 1, t + 1) of (θ, σ)."""

    root: Array
    slopes: Floats
    vcov: Floats
    sigma: float


@frozen(eq=False)
class Adjusted:
    """root (p, p): V = root rootᵀ.   adjusted (p, p) = I + 2U: V_A = root adjusted rootᵀ.

    slope (r, p, p) as in `kernels.information`;   W (r, r)  covariance of the variances
    """

    root: Array
    adjusted: Floats
    slope: Floats
    W: Floats


_SATTERTHWAITE: WeakKeyDictionary[FitState, VarianceOfVariance] = WeakKeyDictionary()  # once per fit, as long as the fit lives
_KENWARD_ROGER: WeakKeyDictionary[FitState, Adjusted] = WeakKeyDictionary()


def satterthwaite(problem: Problem, fit: FitState, J: Floats) -> Floats:
    """ν = 2 (jᵀVj)² / Var(jᵀVj) of each row of J (K, p), (K,).   Source: Kuznetsova et al. (2017) eq. 6–8."""
    parts = variance_of_variance(problem, fit)
    return _degrees(J @ parts.root, parts.slopes, parts.vcov, np.asarray(parts.sigma))


def _degrees(A: Floats, slopes: Floats, vcov: Floats, sigma: Floats) -> Floats:
    """ν (…, K) of rows A (…, K, p) in the columns of the slopes (…, t + 1, p, p);  vcov (…, t + 1, t + 1), sigma (…)"""
    variance = (sigma**2)[..., None] * (A * A).sum(axis=-1)
    gradient = ((A[..., None, :, :] @ slopes) * A[..., None, :, :]).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(2.0 * variance**2 / (gradient * (vcov @ gradient)).sum(axis=-2))


def with_satterthwaite(problem: Problem, fit: FitState, replicates: Replicates, draws: Draws) -> Draws:
    """Draws of new responses with the Satterthwaite df of every coefficient (B, p); one grouping factor: all replicates at once."""
    assert replicates.y is not None
    assert draws.theta is not None
    design, df = problem.design, np.full(draws.coef.shape, np.nan)
    good = np.flatnonzero(draws.code == 0)
    prepared = prepare(problem, scaled=False)
    weights = rows_and_counts(design)[0]
    F, y, theta, sigma = refits.columns(prepared, design), replicates.y[good], draws.theta[good], draws.sigma[good]
    y = y - refits.fixed_part(prepared, design)
    if prepared.layout.rest:
        for i, at, T, s in zip(good, y, theta, sigma):
            parts = _parts(refits.with_response(prepared, F, at, weights), T, s)
            df[i] = _degrees(parts.root, parts.slopes, parts.vcov, np.asarray(s))
    elif len(good):
        found = deviance_curvature(refits.response_block(prepared, F, y, weights), theta, sigma)
        root = np.asarray(np.linalg.solve(prepared.R, found.root), dtype=float)
        slopes = np.concatenate((np.square(sigma).reshape(-1, 1, 1, 1) * found.slopes, _of_sigma(sigma, len(fit.coef))[:, None]), axis=1)
        df[good] = _degrees(root, slopes, 2.0 * _pseudo_inverse(found.hessian), sigma)
    return evolve(draws, df=df)


def _of_sigma(sigma: Floats, p: int) -> Floats:
    """∂V/∂σ (…, p, p) in the columns in which V = σ²I."""
    return 2.0 * sigma[..., None, None] * np.eye(p)


def satterthwaite_test(problem: Problem, fit: FitState, L: Floats, distance: Floats | None = None) -> FTest:
    """F test that `distance` (q,), Lβ̂ where it is not given, is 0; df2 from the q independent t² that F is made of.

    Source: Fai & Cornelius (1996) eq. 6; lmerTest's contestMD.
    """
    L, distance = _independent(L, L @ fit.coef if distance is None else distance)
    q = len(L)
    values, vectors = np.linalg.eigh(L @ fit.vcov @ L.T)
    F = float((((vectors.T @ distance) ** 2) / values).sum() / q)
    nu = satterthwaite(problem, fit, vectors.T @ L)
    if np.ptp(nu) < 1e-8:
        df2 = float(nu.mean())
    elif (nu <= 2).any():
        df2 = 2.0
    else:
        E = float((nu / (nu - 2)).sum())
        df2 = 2 * E / (E - q)
    return FTest(F, q, df2, float(f_tail(np.asarray(F), np.asarray(q), np.asarray(df2))))


def variance_of_variance(problem: Problem, fit: FitState) -> VarianceOfVariance:
    """V, its derivatives with respect to (θ, σ), and the covariance of (θ, σ) from the Hessian of the (restricted) deviance.

    d(θ, σ) = log-determinants(θ) + N_e log(2πσ²) + r²(θ)/σ², so only ∂²d/∂θ² needs differences (of the exact gradient).
    """
    if fit not in _SATTERTHWAITE:
        _SATTERTHWAITE[fit] = _parts(prepare(problem, scaled=False), np.asarray(fit.theta), fit.sigma)
    return _SATTERTHWAITE[fit]


def _parts(prepared: Prepared, theta: Floats, sigma: float) -> VarianceOfVariance:
    """θ in the user's units, as `prepared` holds it."""
    point = _at(prepared, theta)
    sigma2, t = sigma**2, len(point.theta)

    def slope(theta: Floats) -> Floats:
        moved = _at(prepared, theta)
        return moved.logdet_slope + moved.r2_slope / sigma2

    H = np.empty((t + 1, t + 1))
    H[:t, :t] = differences(slope, point.theta, _steps(prepared, theta))
    H[:t, t] = H[t, :t] = -2.0 * point.r2_slope / sigma**3
    H[t, t] = 6.0 * point.r2 / sigma2**2 - 2.0 * point.n_effective / sigma2
    spanning = point if prepared.reml else profiled.evaluate(prepared.P, point.theta, prepared.n, reml=True)
    slopes = np.concatenate((sigma2 * _covariance_slopes(spanning), _of_sigma(np.asarray(sigma), len(point.coef))[None]))  # type: ignore[arg-type]
    root = np.linalg.inv(point.L[:-1, :-1].T @ prepared.R)
    return VarianceOfVariance(root, slopes, 2.0 * _pseudo_inverse(0.5 * (H + H.T)), sigma)


def _at(prepared: Prepared, theta: Floats) -> Point:
    point = prepared.evaluate(theta)
    if point is None:
        raise FitFailed("the likelihood cannot be computed beside the estimate.", where="df='satterthwaite'", do="Use df='inf'.")
    return point


def _steps(prepared: Prepared, theta: Floats) -> Floats:
    """Of the differences (t,): a small part of T's row, or of what one group can tell of it where that is more."""
    h = np.empty(len(theta))
    for g, T in zip(prepared.layout.groupings, blocks.factors(prepared.layout, theta)):
        size = np.maximum(np.sqrt((T**2).sum(axis=1)), np.sqrt(g.G / np.square(g.Z).sum(axis=1)))
        h[g.index] = DIFFERENCE * size[g.rows]
    return h


def _covariance_slopes(point: Point) -> Floats:
    """∂V/∂θ_i in the columns D of the point, per σ²: Σ_g e_aᵀu_b + u_bᵀe_a, (t, p, p)."""
    P, p = point.factor.P, len(point.coef)
    made = np.empty((P.layout.t, p, p))
    for g, (e, u) in zip(P.layout.groupings, profiled.by_grouping(P, point.modes)):
        for a, b, i in zip(g.rows, g.cols, g.index):
            half = e[a, 1:] @ u[b, 1:].T
            made[i] = half + half.T
    return made


def _pseudo_inverse(H: Floats) -> Floats:
    """H⁻¹ (…, m, m) over the directions in which the deviance is curved upward, judged at unit diagonal."""
    scale = np.sqrt(np.maximum(np.abs(np.einsum("...ii->...i", H)), 1e-300))
    values, vectors = np.linalg.eigh(H / (scale[..., :, None] * scale[..., None, :]))
    half = vectors * np.where(values > FLAT, 1.0 / np.sqrt(np.where(values > FLAT, values, 1.0)), 0.0)[..., None, :] / scale[..., None]
    return np.asarray(half @ half.swapaxes(-1, -2))


def kenward_roger(problem: Problem, fit: FitState, J: Floats) -> tuple[Floats, Floats]:
    """Covariance corrected for the estimated variances (p, p), and degrees of freedom of each row of J (K, p), (K,).

    Source: Kenward & Roger (1997) eq. 3 and §3; for one row df = 2 / A₂ and F is not scaled.
    """
    parts = adjusted(problem, fit)
    A = J @ parts.root
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = A / np.sqrt(np.einsum("ki,ki->k", A, A))[:, None]
        x = np.stack([np.einsum("ki,ij,kj->k", unit, slope, unit, optimize=True) for slope in parts.slope], axis=1)
        df = 2.0 / np.einsum("ki,ij,kj->k", x, parts.W, x)
    return parts.root @ parts.adjusted @ parts.root.T, df


def kenward_roger_test(problem: Problem, fit: FitState, L: Floats, distance: Floats | None = None) -> FTest:
    """Scaled F test that `distance` (q,), Lβ̂ where it is not given, is 0.   Source: Kenward & Roger (1997) §3; pbkrtest's KRmodcomp."""
    L, distance = _independent(L, L @ fit.coef if distance is None else distance)
    parts, q = adjusted(problem, fit), len(L)
    A = L @ parts.root
    basis = np.linalg.qr(A.T)[0]
    inside = np.einsum("ai,rab,bj->rij", basis, parts.slope, basis, optimize=True)
    A1 = float(np.einsum("rii,rs,sjj->", inside, parts.W, inside))
    A2 = float(np.einsum("rij,rs,sji->", inside, parts.W, inside))
    scaling, df2 = scaled_f(A1, A2, q)
    F = float(distance @ np.linalg.solve(A @ parts.adjusted @ A.T, distance)) / q * scaling
    return FTest(F, q, df2, float(f_tail(np.asarray(F), np.asarray(q), np.asarray(df2))), scaling)


def scaled_f(A1: float, A2: float, q: int) -> tuple[float, float]:
    """Scaling λ and denominator df of Kenward and Roger's F from their A₁, A₂.   Source: Kenward & Roger (1997) p. 988."""
    B = (A1 + 6.0 * A2) / (2.0 * q)
    g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
    below = 3.0 * q + 2.0 * (1.0 - g)
    c1, c2, c3 = g / below, (q - g) / below, (q + 2 - g) / below
    top, V1, V2 = 1.0 + c1 * B, 1.0 - c2 * B, 1.0 - c3 * B
    top = 0.0 if abs(top) < 1e-10 else top
    mean = 1.0 - A2 / q
    ratio = 1.0 if abs(mean) < 1e-14 and abs(V1) < 1e-14 else mean / V1
    rho = ratio**2 * top / (q * V2)
    df2 = 4.0 + (q + 2) / (q * rho - 1.0)
    return (1.0 if abs(df2 - 2) < 0.01 else df2 * mean / (df2 - 2)), df2


def adjusted(problem: Problem, fit: FitState) -> Adjusted:
    """What Kenward and Roger need of a REML fit, once per fit."""
    if problem.method == "ml":
        raise Refused("it is defined for REML fits.", where="df='kenward-roger'", do="Fit with method='reml', or use df='satterthwaite'.")
    if fit not in _KENWARD_ROGER:
        _KENWARD_ROGER[fit] = _adjusted(problem, fit)
    return _KENWARD_ROGER[fit]


def _adjusted(problem: Problem, fit: FitState) -> Adjusted:
    prepared = prepare(problem)
    point = _at(prepared, prepared.inward(fit.theta))  # type: ignore[arg-type]
    pieces: Information = information(point)
    W = 2.0 * _inverse(pieces.trace)
    U = np.einsum("rs,rsij->ij", W, pieces.cross)
    root = fit.sigma * np.linalg.inv(point.L[:-1, :-1].T @ prepared.R)
    return Adjusted(root, np.eye(len(U)) + U + U.T, pieces.slope, W)


def _inverse(M: Floats) -> Floats:
    """M⁻¹ at unit diagonal, the pseudo-inverse where two variances cannot be told apart."""
    scale = np.sqrt(np.diag(M))
    unit = M / np.outer(scale, scale)
    return np.linalg.pinv(unit, rcond=1e-12, hermitian=True) / np.outer(scale, scale)


def _independent(L: Floats, distance: Floats) -> tuple[Floats, Floats]:
    """The rows of L (q, p) that earlier ones do not imply."""
    L = np.atleast_2d(L)
    free = independent_of_earlier(L.T, SAME_DIRECTION)
    return L[free], np.atleast_1d(distance)[free]
