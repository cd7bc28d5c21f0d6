"""Where a generalized linear mixed model's marginal likelihood is highest: D of `kernels.pirls` as a function of x = (β, θ, γ).

    search(x)                  D with its constant, and its gradient, from the modes of the evaluation before
    search.information(point)  an expected Hessian, for the quasi-Newton steps of `kernels.optimize`
    maximum(search, x)         the end: variances of 0 on the boundary, the exact Hessian, a last Newton step

θ is free of sign: D is even in every column of T, so the boundary is a point like any other, and a saddle where it is no minimum.

Source: Bates, Mächler, Bolker & Walker (2015) §5; Nocedal & Wright (2006) ch. 6.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from attrs import evolve, frozen

from ..kernels import blocks
from ..kernels.optimize import Minimum, minimize
from ..kernels.pirls import Marginal, Mixed, at_x, hermite, laplace, mode_slopes, quadrature
from ..kernels.response import at_shape, bend, constants
from ..kernels.systems import Blocked
from ..types import Floats
from .lmm import lower_factor
from .random import SINGULAR

TOL = 1e-10  # gᵀH⁻¹g where the search ends: 1e-5 standard errors; the Newton step that follows leaves none of it
DIFFERENCE = 3e-4  # step of the Hessian's differences, in standard errors
ONE_STEP = 1e-3  # `Mixed.nearly` for those of nagq = 0: what one step leaves is even in the difference
BATCH_CELLS = 20_000  # rows × parameter sets evaluated together
POISSON_LIKE = math.log(1e6)  # log θ of the negative binomial at which the search ends: it is Poisson
FLAT = 1e-7  # curvature, relative to its expected size, below which D does not depend on a direction of x
SADDLE = 1e-4  # negative curvature, on the same scale, from which the search goes on


@frozen(eq=False)
class Point:
    """D with its constant (`criterion`) and its gradient at x, and what they were computed from."""

    x: Floats
    criterion: float
    gradient: Floats
    marginal: Marginal


@frozen(eq=False)
class Maximum:
    """Where the search ended.

    theta      (t,)
    hessian    (m, m) of D in x by differences of the gradient; nan where that failed
    scale      (m,)   square roots of the expected Hessian's diagonal: 1/scale is about a standard error / √2
    gain       gᵀH⁻¹g before the last Newton step
    """

    point: Point
    theta: Floats
    hessian: Floats
    scale: Floats
    gain: float
    converged: bool
    evaluations: int


class Search:
    """D as a function of x, every evaluation starting from the modes (and for nagq = 0 the β) of the one before."""

    def __init__(self, model: Mixed, nagq: int):
        self.model, self.nagq = model, nagq
        self.joint, self.shaped = nagq == 0, model.response.shaped
        self.p, self.t = (0 if self.joint else len(model.XT)), model.system.lay.t
        self.beta = np.zeros(len(model.XT))
        self.u = model.system.zero()
        self.nodes = hermite(nagq) if nagq > 1 else None
        self.constant = 0.0 if self.shaped else float(model.system.total(constants(model.response)))
        self.evaluations, self.limit = 0, math.inf

    @property
    def theta(self) -> slice:
        return slice(self.p, self.p + self.t)

    def place(self, theta: Floats, shape: float | None) -> Floats:
        """x at the β at hand."""
        return np.concatenate(([] if self.joint else self.beta, theta, [] if shape is None else [shape]))

    def __call__(self, x: Floats) -> Point | None:
        """The point at x; from the modes at hand, or from 0 where these do not lead there.

        None where D cannot be computed, or the evaluations allowed are used up.
        """
        if self.evaluations >= self.limit:
            return None
        self.evaluations += 1
        beyond = bool(self.model.response.family.free) and x[-1] > POISSON_LIKE
        if beyond:
            x = np.append(x[:-1], POISSON_LIKE)
        for u in (self.u, self.model.system.zero()):
            made = self.marginal(x, u)
            if bool(made.mode.arrived.all()) and np.isfinite(made.deviance) and bool(np.isfinite(made.gradient).all()):
                self.u, self.beta = made.mode.u, made.mode.beta
                if beyond:
                    made.gradient[-1] = 0.0
                return Point(x, float(made.deviance) - 2.0 * self.constant_at(x), made.gradient, made)
        return None

    def marginal(self, x: Floats, u: Floats) -> Any:
        beta, theta, shape = self.beta if self.joint else x[: self.p], x[self.theta], float(x[-1]) if self.shaped else None
        if self.nodes is not None:
            return quadrature(self.model, beta, theta, u, self.nodes, shape)
        return laplace(self.model, beta, theta, u, shape, self.joint)

    def constant_at(self, x: Floats) -> float:
        if not self.shaped:
            return self.constant
        return float(self.model.system.total(constants(*at_shape(self.model.response, float(x[-1])))))

    def information(self, point: Point) -> Floats:
        """Expected Hessian of D: β's with the modes eliminated, θ's of the working linear model, γ's of n rows."""
        model, mode = self.model, point.marginal.mode
        B = np.zeros((len(point.x), len(point.x)))
        if not self.joint:
            B[: self.p, : self.p] = 2.0 * mode.mover.reduced(model.XT)
        B[self.theta, self.theta] = theta_information(model, mode.mover.w, point.x[self.theta])
        if self.shaped:
            B[-1, -1] = float(model.system.total(model.response.count * self.spread_share(point)))
        return B

    def spread_share(self, point: Point) -> Any:
        """(μ/(μ + θ))² of the negative binomial: the part of the variance that θ makes; 1 for the others."""
        if not self.model.response.family.free:
            return 1.0
        mu = point.marginal.mode.at.mu
        return np.square(mu / (mu + math.exp(min(float(point.x[-1]), POISSON_LIKE))))

    def slopes_around(self, point: Point, h: Floats) -> Floats:
        """Gradients at x + h_j and x − h_j, coordinate by coordinate: (2m, m); several at once where rows are few; nan where one fails.

        The modes there are taken from their slopes at x; for nagq = 0 they are found by a Newton step.
        """
        mode, exact = point.marginal.mode, self.model
        places = np.concatenate((point.x + np.diag(h), point.x - np.diag(h)))
        if self.joint:
            moved = [mode.u] * len(places)
            self.model = evolve(exact, nearly=ONE_STEP)
        else:
            model, phi = at_x(exact, float(point.x[-1]) if self.shaped else None)
            steps = [f * du for f, du in zip(h, mode_slopes(model, mode, phi, self.shaped))]
            moved = [mode.u + du for du in steps] + [mode.u - du for du in steps]
            self.model = evolve(exact, still=True)
        size = BATCH_CELLS // exact.XT.shape[1]
        if isinstance(exact.system, Blocked) or self.shaped or self.nodes is not None or size < 2:
            gradients = [self._one_slope(x, u, mode.beta) for x, u in zip(places, moved)]
        else:
            gradients = []
            for start in range(0, len(places), size):
                x, u = places[start : start + size], np.stack(moved[start : start + size], axis=1)
                betas = np.repeat(mode.beta[None], len(x), axis=0) if self.joint else x[:, : self.p]
                gradients.extend(laplace(self.model, betas, x[:, self.theta], u, None, self.joint).gradient)
        self.evaluations += len(places)
        self.u, self.beta, self.model = mode.u, mode.beta, exact
        return np.array(gradients)

    def _one_slope(self, x: Floats, u: Floats, beta: Floats) -> Floats:
        self.beta = beta
        return self.marginal(x, u).gradient


def theta_information(model: Mixed, w: Floats, theta: Floats) -> Floats:
    """Expected Hessian (t, t) of D in θ for the working linear model, each grouping as if alone.

    With C = Z_gᵀV_g⁻¹Z_g and entries T_ab, T_cd:  2 Σ_g [C_ac (TᵀCT)_bd + (CT)_ad (CT)_cb]. A column of T that is nearly 0, where this
    vanishes, counts as half a standard error of a group's effect.
    """
    lay = model.system.lay
    count = model.system.count
    out = np.zeros((lay.t, lay.t))
    for g, T in zip(lay.groupings, blocks.factors(lay, theta)):
        A = squares(model, g, w)
        if g.k == 1:
            A, t = A[0, 0], max(abs(float(T[0, 0])), 0.5 / math.sqrt(max(float(A.mean()), 1e-12)))
            each = np.square(A / (1.0 + t * t * A))
            out[g.index[0], g.index[0]] = 4.0 * t * t * float(each.sum() if count is None else count @ each)
            continue
        least = 0.5 / np.sqrt(np.maximum(np.diagonal(A.mean(axis=2)), 1e-12))
        A = A.transpose(2, 0, 1)
        T = T + np.diag(np.where(np.abs(np.diagonal(T)) < least, least - np.diagonal(T), 0.0))
        C = A - A @ T @ np.linalg.solve(T.T @ A @ T + np.eye(g.k), T.T @ A)
        CT = C @ T
        TCT = T.T @ CT
        a, b = g.rows, g.cols
        each = C[:, a[:, None], a] * TCT[:, b[:, None], b] + CT[:, a[:, None], b] * CT[:, a, b[:, None]]
        out[g.index[:, None], g.index] = 2.0 * (each if count is None else each * count[:, None, None]).sum(axis=0)
    return out


def squares(model: Mixed, g: blocks.Grouping, w: Floats) -> Floats:
    """Z_gᵀWZ_g (k, k, G) of one grouping."""
    code, Z = g.group[model.system.order], g.Z[:, model.system.order]
    A = np.empty((g.k, g.k, g.G))
    for a in range(g.k):
        for b in range(a + 1):
            A[a, b] = A[b, a] = np.bincount(code, w * Z[a] * Z[b], g.G)
    return A


# ---------------------------------------------------------------- where to begin
def first_theta(model: Mixed, beta: Floats, shape: float | None) -> Floats:
    """Standard deviations at which the groups' scores would vary as they do, θ² ≈ Σ(S_g² − A_g)/ΣA_g², shared among the groupings.

    Kept near 1/√A_g; correlations 0.
    """
    response, phi = (model.response, 1.0) if shape is None else at_shape(model.response, shape)
    at = bend(response, model.offset + beta @ model.XT, phi)
    made, J = [], len(model.system.lay.groupings)
    for g in model.system.lay.groupings:
        A = np.diagonal(squares(model, g, at.expected)).T
        S = np.array([np.bincount(g.group[model.system.order], z * at.score, g.G) for z in g.Z[:, model.system.order]])
        moment = (np.square(S) - A).sum(axis=1) / np.maximum(np.square(A).sum(axis=1), 1e-300)
        unit = 1.0 / np.sqrt(np.maximum(A.mean(axis=1), 1e-12))
        made.append(np.diag(np.clip(np.sqrt(np.maximum(moment, 0.0) / J), 0.5 * unit, 10.0 * unit)))
    return blocks.theta_of(model.system.lay, made)


def first_shape(model: Mixed, mu: Floats) -> float:
    """Log dispersion from Pearson residuals of a fit without random effects, of which the groups take half."""
    response = model.response
    if response.family.free:
        excess = float((response.a * (np.square(response.y - mu) - mu)).sum())
        return math.log(float(np.clip(2.0 * float((response.a * mu * mu).sum()) / excess, 0.1, 1e3))) if excess > 0 else math.log(1e2)
    pearson = response.a * np.square(response.y - mu) / response.family.variance(mu)
    return math.log(max(0.5 * float(pearson.mean()), 1e-8))


# ---------------------------------------------------------------- the end
def maximum(search: Search, x: Floats, tol: float = TOL, max_iter: int = 200) -> Maximum | None:
    """The maximum of the likelihood from x by at most `max_iter` evaluations a search; None where it cannot be computed at x.

    A second start where the search does not converge or ends at a variance of 0, the lower of the two; from a saddle the search goes on.
    The Hessian is by differences, so saddles in β are seen too (groups of one outcome each can make them).
    """
    found = _minimize(search, x, tol, max_iter)
    if found is None or not found.converged or singular(search, found.x):
        second = x.copy()
        second[search.theta] = blocks.theta_of(search.model.system.lay, _large(search, x))
        search.u = search.model.system.zero()
        other = _minimize(search, second, tol, max_iter)
        found = min((m for m in (found, other) if m is not None), key=_height, default=None)
    for _ in range(3):
        if found is None:
            return None
        end = _settle(search, found)
        away = _off_saddle(search, end)
        if away is None:
            return end
        again = _minimize(search, away, tol, max_iter)
        if again is None or again.point.criterion >= end.point.criterion:
            return end
        found = again
    return end


def _minimize(search: Search, x: Floats, tol: float, max_evaluations: int) -> Minimum | None:
    search.limit = search.evaluations + max_evaluations
    found = minimize(search, search.information, x, tol, max_evaluations)
    search.limit = math.inf
    return found


def _height(m: Minimum) -> tuple[bool, float]:
    return not m.converged, m.point.criterion


def _large(search: Search, x: Floats) -> list[Floats]:
    """Diagonal T of twice the start's standard deviations, one at least on the linear predictor's scale."""
    lay = search.model.system.lay
    size = [np.sqrt(np.maximum(np.square(g.Z).mean(axis=1), 1e-12)) for g in lay.groupings]
    return [np.diag(np.maximum(2.0 * np.abs(np.diagonal(t)), 1.0 / s)) for t, s in zip(blocks.factors(lay, x[search.theta]), size)]


def connected(g: blocks.Grouping) -> list[np.ndarray]:
    """Columns of a grouping in parts that no free entry of T joins."""
    label = np.arange(g.k)
    if g.k == 1:
        return [label]
    for a, b in zip(g.rows, g.cols):
        label[label == label[a]] = label[b]
    return [np.flatnonzero(label == name) for name in np.unique(label)]


def _parts(search: Search, x: Floats) -> Any:
    """(grouping, T, [(index, SVD of the part in units where Z has mean square 1, those units)])."""
    lay = search.model.system.lay
    for g, T in zip(lay.groupings, blocks.factors(lay, x[search.theta])):
        size = np.sqrt(np.maximum(np.square(g.Z).mean(axis=1), 1e-300))
        yield g, T, [(part, _svd(size[part, None] * T[np.ix_(part, part)]), size[part]) for part in connected(g)]


def _svd(A: Floats) -> Any:
    return np.linalg.svd(A) if len(A) > 1 else (np.ones((1, 1)), np.abs(A[0]), np.where(A < 0, -1.0, 1.0))


def singular(search: Search, x: Floats) -> bool:
    """Has some part of T a singular value of nearly 0?"""
    return any((s < 10 * SINGULAR).any() for _, _, parts in _parts(search, x) for _, (_, s, _), _ in parts)


def _settle(search: Search, found: Minimum) -> Maximum:
    """Diagonals of T turned positive, null directions exactly 0 where that is no worse, the Hessian, and one Newton step by it."""
    point = _canonical(search, found.point)
    scale = np.sqrt(np.maximum(np.diag(search.information(point)), 1e-300))
    hessian = second_derivatives(search, point, scale)
    inverse = pseudo_inverse(hessian, scale)
    gain = float(point.gradient @ inverse @ point.gradient) if np.isfinite(inverse).all() else math.nan
    if gain < 1e-2:
        moved = search(point.x - inverse @ point.gradient)
        if moved is not None and moved.criterion <= point.criterion + 1e-10 * (1.0 + abs(point.criterion)):
            point = moved
    return Maximum(point, point.x[search.theta], hessian, scale, gain, found.converged, search.evaluations)


def _canonical(search: Search, point: Point) -> Point:
    lay, null, exact, plain = search.model.system.lay, False, [], []
    for _, T, parts in _parts(search, point.x):
        exact.append(T.copy())
        plain.append(T.copy())
        for part, (U, s, Vt), size in parts:
            at = np.ix_(part, part)
            plain[-1][at] = lower_factor(T[at])
            if (s < 10 * SINGULAR).any():
                null = True
                exact[-1][at] = lower_factor(U * np.where(s < 10 * SINGULAR, 0.0, s) @ Vt / size[:, None])
            else:
                exact[-1][at] = plain[-1][at]
    for allowed, T in ((1e-7, exact),) * null + ((1e-7, plain),):
        x = point.x.copy()
        x[search.theta] = blocks.theta_of(lay, T)
        if np.array_equal(x, point.x):
            return point
        search.u = search.model.system.zero()
        moved = search(x)
        if moved is not None and moved.criterion <= point.criterion + allowed * (1.0 + abs(point.criterion)):
            return moved
    return point


def second_derivatives(search: Search, point: Point, scale: Floats) -> Floats:
    """Hessian (m, m) of D by central differences of the gradient over DIFFERENCE/scale."""
    m, h = len(point.x), DIFFERENCE * math.sqrt(2.0) / scale
    slopes = search.slopes_around(point, h)
    H = (slopes[:m] - slopes[m:]) / (2.0 * h[:, None])
    return 0.5 * (H + H.T)


def pseudo_inverse(hessian: Floats, scale: Floats) -> Floats:
    """Inverse of the Hessian over the directions in which D is curved upwards."""
    if not np.isfinite(hessian).all():
        return np.full_like(hessian, np.nan)
    values, vectors = np.linalg.eigh(hessian / np.outer(scale, scale))
    up = values > FLAT
    half = vectors[:, up] / scale[:, None]
    return (half / values[up]) @ half.T


def _off_saddle(search: Search, end: Maximum) -> Floats | None:
    """x a little along a direction in which D falls on both sides, the better side; None where there is none."""
    if not np.isfinite(end.hessian).all():
        return None
    values, vectors = np.linalg.eigh(end.hessian / np.outer(end.scale, end.scale))
    if len(values) == 0 or values[0] > -SADDLE:
        return None
    step = vectors[:, 0] / end.scale
    sides = [p for p in (search(end.point.x + step), search(end.point.x - step)) if p is not None]
    return min(sides, key=_criterion).x if sides else None


def _criterion(point: Point) -> float:
    return point.criterion


def determined(end: Maximum, p: int) -> bool:
    """Is D curved upwards in every direction that moves β, the first p of x?"""
    if not np.isfinite(end.hessian).all():
        return False
    values, vectors = np.linalg.eigh(end.hessian / np.outer(end.scale, end.scale))
    return not bool((np.abs(vectors[:p, values <= FLAT]) > 1e-3).any())
