"""The likelihood of a mixed model with one number held: −2 log-likelihood minimised over everything else.

    LinearSurface(problem, fit)       of a linear mixed model, by full maximum likelihood, x = (σT entries, log σ), β profiled out
    LaplaceSurface(problem, fit)      of a generalized one, x = (β, σT entries, log dispersion)

Both give `evaluate(x)` with the exact gradient. A `Slice` holds one number and leaves the others free: a coordinate (a standard deviation
that stands first in its term), a linear combination (ℓᵀβ), or a correlation. σT of a term is lower triangular, its first row one entry:
the term's columns are put in the order that brings what is held to the front.

Source: Bates et al. (2015) §3.4, §5.1; Venzon & Moolgavkar (1988).
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from ..errors import BossaWarning
from ..estimate import glmm, lmm
from ..estimate.marginal import Search
from ..kernels import blocks, profiled
from ..kernels.optimize import differences, minimize
from ..state.design import Problem
from ..state.fit import FitState
from ..types import Floats, Ints


@frozen(eq=False)
class Point:
    """−2 log-likelihood and its gradient at x."""

    criterion: float
    gradient: Floats


class LinearSurface:
    """D(σT, σ) = log|M| + r²(θ)/σ² + n log 2πσ²,  θ = σT/σ,  of the products of a problem."""

    def __init__(self, prepared: lmm.Prepared, theta: Floats, sigma: float):
        self.P, self.n = prepared.P, prepared.n
        self.x = np.append(sigma * theta, math.log(sigma))

    def evaluate(self, x: Floats) -> Point | None:
        if not abs(x[-1]) < 300:
            return None
        s2, sigma = math.exp(2 * x[-1]), math.exp(x[-1])
        point = profiled.evaluate(self.P, x[:-1] / sigma, self.n, False)
        if point is None:
            return None
        logdet = point.criterion - self.n * (1 + math.log(2 * math.pi * point.r2 / self.n))
        slope = point.logdet_slope + point.r2_slope / s2
        of_log_sigma = 2 * self.n - 2 * point.r2 / s2 - slope @ x[:-1] / sigma
        return Point(logdet + point.r2 / s2 + self.n * math.log(2 * math.pi * s2), np.append(slope / sigma, of_log_sigma))

    def start(self) -> None:
        """Nothing to forget between evaluations."""


class LaplaceSurface:
    """The marginal likelihood that `estimate.glmm` maximises."""

    def __init__(self, problem: Problem, fit: FitState, nagq: int):
        prepared = glmm.prepare(problem)
        self.search = Search(prepared.model, nagq)
        self.basis = prepared.basis
        beta = fit.coef if prepared.basis is None else np.linalg.solve(prepared.basis, fit.coef)
        self.search.beta = beta
        tail = fit.engine.x[len(fit.engine.x) - self.search.shaped :] if self.search.shaped else np.empty(0)  # type: ignore[attr-defined]
        self.x = np.concatenate((beta, fit.sigma * np.asarray(fit.theta), tail))

    def evaluate(self, x: Floats) -> Point | None:
        with np.errstate(all="ignore"):
            point = self.search(x)
        return None if point is None else Point(point.criterion, point.gradient)

    def start(self) -> None:
        self.search.u = self.search.model.system.zero()


@frozen(eq=False)
class Linear:
    """a·x = ψ: the coordinate where a is largest follows from the others."""

    a: Floats
    pivot: int = field(init=False)
    others: Ints = field(init=False)
    share: Floats = field(init=False)

    @pivot.default
    def _pivot(self) -> int:
        return int(np.argmax(np.abs(self.a)))

    @others.default
    def _others(self) -> Ints:
        return np.flatnonzero(np.arange(len(self.a)) != self.pivot)

    @share.default
    def _share(self) -> Floats:
        return self.a[self.others] / self.a[self.pivot]

    def free(self, x: Floats) -> Floats:
        return x[self.others]

    def place(self, u: Floats, psi: float) -> Floats:
        x = np.empty(len(self.a))
        x[self.others] = u
        x[self.pivot] = psi / self.a[self.pivot] - self.share @ u
        return x

    def slope(self, gradient: Floats, u: Floats, psi: float) -> Floats:
        return gradient[self.others] - gradient[self.pivot] * self.share


@frozen(eq=False)
class Correlation:
    """Rows 1 and 2 of a triangle, at i − 1 and i, j of x: r² and s² (ρ, √(1 − ρ²)); r and s are free, in the places of i − 1 and i.

    By squares: with signs of their own the two deviations would turn ρ into −ρ.
    """

    i: int
    j: int

    def free(self, x: Floats) -> Floats:
        u = np.delete(x, self.j)
        u[self.i - 1] = math.sqrt(abs(x[self.i - 1]))
        u[self.i] = math.sqrt(math.hypot(x[self.i], x[self.j]))
        return u

    def place(self, u: Floats, psi: float) -> Floats:
        size = u[self.i] ** 2
        x = np.insert(u, self.j, size * math.sqrt(max(1 - psi * psi, 0.0)))
        x[self.i - 1] **= 2
        x[self.i] = size * psi
        return x

    def slope(self, gradient: Floats, u: Floats, psi: float) -> Floats:
        out = np.delete(gradient, self.j)
        out[self.i - 1] *= 2 * u[self.i - 1]
        out[self.i] = 2 * u[self.i] * (gradient[self.i] * psi + gradient[self.j] * math.sqrt(max(1 - psi * psi, 0.0)))
        return out


@frozen(eq=False)
class Path:
    """Minima found so far along ψ: where to look for the next."""

    found: dict[float, Any]

    def add(self, psi: float, minimum: Any) -> None:
        self.found[psi] = minimum

    def beside(self, psi: float) -> tuple[Floats, Floats | None]:
        """Start and Hessian for ψ: what a cubic through minima nearby says, unless it leaps."""
        near: list[float] = []
        for known in sorted(self.found, key=lambda known: abs(known - psi)):
            if all(abs(known - other) > 0.25 * abs(known - psi) for other in near):
                near.append(known)
        near = near[:4]
        x = self.found[near[0]].x
        weights = [math.prod((psi - other) / (one - other) for other in near if other != one) for one in near]
        guess = sum(w * self.found[one].x for w, one in zip(weights, near))
        apart = max((np.abs(self.found[one].x - x).max(initial=0.0) for one in near[1:]), default=0.0)
        return guess if np.abs(guess - x).max(initial=0.0) <= 2 * apart else x, self.found[near[0]].hessian


@frozen(eq=False)
class Slice:
    """The surface with one number held at ψ, minimised over the rest; every search begins beside those before it.

    hessian  (m, m)  of the surface at its minimum
    """

    surface: Any
    held: Any
    hessian: Floats
    path: Path

    def minimum(self, psi: float) -> float:
        """D(ψ); nan where it cannot be computed."""
        first = self.held.free(self.surface.x)
        found = self._search(*self.path.beside(psi), psi)
        if found is None or not found.converged or (np.abs(found.x) < 1e-4 * (np.abs(first) + 1e-8)).any():
            self.surface.start()
            other = self._search(first, None, psi)
            found = min((f for f in (found, other) if f is not None), key=_criterion, default=None)
        if found is None:
            return math.nan
        self.path.add(psi, found)
        return float(found.point.criterion)

    def _search(self, u: Floats, hessian: Floats | None, psi: float) -> Any:
        if len(u) == 0:
            point = self.surface.evaluate(self.held.place(u, psi))
            return None if point is None else Found(u, point)
        J = self._jacobian(u, psi)
        B = J.T @ self.hessian @ J if hessian is None else hessian

        def evaluate(u: Floats) -> Point | None:
            point = self.surface.evaluate(self.held.place(u, psi))
            return None if point is None else Point(point.criterion, self.held.slope(point.gradient, u, psi))

        return minimize(evaluate, lambda point: B, u, 1e-11)

    def _jacobian(self, u: Floats, psi: float) -> Floats:
        """∂x/∂u (m, m − 1)."""
        eye = np.eye(len(u) + 1)
        return np.array([self.held.slope(row, u, psi) for row in eye])


@frozen(eq=False)
class Found:
    """A minimum that took no search."""

    x: Floats
    point: Any
    converged: bool = True
    hessian: Floats | None = None


def _criterion(found: Any) -> float:
    return found.point.criterion


def curvature(surface: Any) -> Floats:
    """Hessian (m, m) of the surface at its minimum by differences of the gradient, made positive definite."""
    x = surface.x

    def gradient(at: Floats) -> Floats:
        point = surface.evaluate(at)
        return np.full_like(x, np.nan) if point is None else point.gradient

    H = differences(gradient, x, 1e-4 * np.maximum(np.abs(x), 1e-2))
    return positive_definite(0.5 * (H + H.T))


def positive_definite(H: Floats) -> Floats:
    """H by its eigenvalues' absolute values at unit diagonal, none of them nearly 0; the identity where H is not finite."""
    if not np.isfinite(H).all():
        return np.eye(len(H))
    scale = np.sqrt(np.maximum(np.abs(np.diag(H)), 1e-8))
    values, vectors = np.linalg.eigh(H / np.outer(scale, scale))
    return (vectors * np.maximum(np.abs(values), 1e-4)) @ vectors.T * np.outer(scale, scale)


def reordered(problem: Problem, number: int, front: tuple[int, ...]) -> Problem:
    """The problem with columns `front` of random-effects term `number` put first."""
    random = problem.design.random
    assert random is not None
    term = random.terms[number]
    order = [*front, *(i for i in range(len(term.names)) if i not in front)]
    connected = (term.mask | term.mask.T)[np.ix_(order, order)]
    moved = evolve(term, names=tuple(term.names[i] for i in order), Z=term.Z[:, order], mask=np.tril(connected))
    terms = tuple(moved if i == number else t for i, t in enumerate(random.terms))
    return evolve(problem, design=evolve(problem.design, random=evolve(random, terms=terms)))


def reordered_theta(problem: Problem, number: int, front: tuple[int, ...], theta: Floats, factors: list[Floats]) -> Floats:
    """θ of the reordered problem."""
    term = problem.design.random.terms[number]  # type: ignore[union-attr]
    order = [*front, *(i for i in range(len(term.names)) if i not in front)]
    T = lmm.lower_factor(factors[number][order])
    connected = np.tril((term.mask | term.mask.T)[np.ix_(order, order)])
    cols, rows = np.nonzero(connected.T)
    start = int(sum(t.mask.sum() for t in problem.design.random.terms[:number]))  # type: ignore[union-attr]
    out = theta.copy()
    out[start : start + len(rows)] = T[rows, cols]
    return out


def quiet_fit(problem: Problem, estimator: Any) -> FitState:
    """A fit whose warnings have been given already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BossaWarning)
        return estimator(problem)


def held_products(prepared: lmm.Prepared, row: Floats, psi: float) -> blocks.Products:
    """Cross-products of the linear mixed model with ℓᵀβ = ψ: one column less, its part taken from the response.

    F = [X̃ ỹ] with X = X̃R and ỹ = y − Xβ₀;   Xβ = X(β_ψ + Nγ),  β_ψ = (ψ/ℓ_j) e_j
    """
    P, p = prepared.P, len(row)
    j = int(np.argmax(np.abs(row)))
    N = np.delete(np.eye(p), j, axis=1)
    N[j] = -np.delete(row, j) / row[j]
    base = np.zeros(p)
    base[j] = psi / row[j]
    W = np.zeros((p + 1, p))
    W[:p, : p - 1] = prepared.R @ N
    W[:p, -1] = prepared.R @ (prepared.start - base)
    W[p, -1] = 1.0
    return evolve(P, B=np.einsum("kmg,ms->ksg", P.B, W), Br=P.Br @ W, C=W.T @ P.C @ W)
