"""The most probable parameters of any model given as residuals and their Jacobian, and the posterior about them.

    J(b) = ½ ‖b − b₀‖²_{B⁻¹} + ½ ‖r(b)‖²,     r (n,) the residuals in units of their own standard deviation, A = ∂r/∂b (n, k)

Incremental Gauss–Newton: each outer step linearises r and solves the quadratic problem for the increment, in control variables
χ, b = b₀ + Lχ with B = LLᵀ, where there is a prior: (I + LᵀAᵀAL) δχ = −(χ + LᵀAᵀr); halved while J would grow. Missing rows are nan in r,
and leave A with it. The covariances are those of how="posterior":

    gauss_newton  (B⁻¹ + AᵀA)⁻¹           laplace  (B⁻¹ + AᵀA + Σ r_i ∂²r_i)⁻¹

Source: Courtier, Thépaut & Hollingsworth (1994); Nocedal & Wright (2006) §10.3; Golub & Van Loan (2013) §11.3 for conjugate gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from attrs import frozen

from ..errors import FitFailed, UnknownOption
from ..types import Floats
from .covop import CovOp, PrecisionChol, from_precision
from .linalg import triangular

Residual = Callable[[Floats], Floats]


@frozen(eq=False)
class Analysis:
    """Where the search ended: b (k,), J after each outer step, inner steps in all, R (k, k) with RᵀR = B⁻¹ + AᵀA, gradient's length.

    J_star, n_iter, converged  for the record of where it came from
    """

    mean: Floats
    trace: tuple[float, ...]
    n_inner: int
    R: Floats
    gradient: float
    converged: bool

    @property
    def J_star(self) -> float:
        return self.trace[-1]

    @property
    def n_iter(self) -> int:
        return len(self.trace) - 1

    @property
    def gauss_newton(self) -> PrecisionChol:
        """The covariance by the expected curvature: the factor of the last step, at no cost."""
        return PrecisionChol(self.R)


@frozen(eq=False)
class Problem:
    """residual b ↦ (n,), nan where nothing was seen; jacobian b ↦ (n, k); prior mean (k,) and covariance, None: flat."""

    residual: Residual
    jacobian: Residual
    mean: Any = None
    cov: CovOp | None = None

    def cost(self, b: Floats) -> float:
        r = self.residual(b)
        away = self.away(b)
        return 0.5 * float(np.nansum(r * r) + away @ away)

    def away(self, b: Floats) -> Floats:
        return np.zeros(0) if self.cov is None else self.cov.whiten(b - self.mean)

    def linearised(self, b: Floats) -> tuple[Floats, Floats]:
        """Residuals and Jacobian of the rows that were seen."""
        r, A = self.residual(b), self.jacobian(b)
        seen = ~np.isnan(r)
        return (r, A) if seen.all() else (r[seen], A[seen])

    def gradient(self, b: Floats) -> Floats:
        r, A = self.linearised(b)
        g = A.T @ r
        return g if self.cov is None else g + self.cov.solve(b - self.mean)


def analyse(problem: Problem, start: Floats, *, outer: int = 25, inner: str = "chol", tol: float = 1e-10) -> Analysis:
    """Incremental Gauss–Newton from `start` (k,).

    outer  most linearisations;  inner  "chol" | "cg";  tol  of the step, in posterior standard deviations
    """
    if inner not in ("chol", "cg"):
        raise UnknownOption(inner, ("chol", "cg"), where="analyse()", kind="inner")
    b, trace, n_inner, converged = np.asarray(start, dtype=float), [problem.cost(start)], 0, False
    while len(trace) <= outer and not converged:
        r, A = problem.linearised(b)
        step, taken = _direct(problem, b, r, A) if inner == "chol" else _conjugate(problem, b, r, A)
        n_inner += taken
        for halvings in range(40):
            moved = b + 0.5**halvings * step
            cost = problem.cost(moved)
            if cost <= trace[-1] + 1e-14 * abs(trace[-1]):
                break
        else:
            break
        size = float(np.sqrt(np.sum((A @ step) ** 2) + (0.0 if problem.cov is None else np.sum(problem.cov.whiten(step) ** 2))))
        b, converged = moved, size <= tol
        trace.append(cost)
    R = _factor(problem, problem.linearised(b)[1])
    return Analysis(b, tuple(trace), n_inner, R, float(np.linalg.norm(problem.gradient(b))), converged)


def _stacked(problem: Problem, A: Floats) -> Floats:
    return A if problem.cov is None else np.vstack((A, problem.cov.whiten(np.eye(A.shape[1]))))


def _factor(problem: Problem, A: Floats) -> Floats:
    stacked = _stacked(problem, A)
    R = triangular(stacked)
    if len(R) < A.shape[1] or (np.abs(np.diag(R)) <= 1e-13 * np.abs(R).max(axis=0)).any():
        raise FitFailed("some combination of parameters is not determined.", where="analyse()", do="Give a prior, or drop a parameter.")
    return R


def _direct(problem: Problem, b: Floats, r: Floats, A: Floats) -> tuple[Floats, int]:
    away = problem.away(b)
    step = np.linalg.lstsq(_stacked(problem, A), -np.concatenate((r, away)), rcond=None)[0]
    return np.asarray(step, dtype=float), 1


def _conjugate(problem: Problem, b: Floats, r: Floats, A: Floats) -> tuple[Floats, int]:
    """Conjugate gradients in the control variables, where the prior is the identity; without a prior, in b itself."""
    cov, k = problem.cov, len(b)
    to, back = (_same, _same) if cov is None else (cov.sqrt_mv, cov.sqrt_t)
    ridge = 0.0 if cov is None else 1.0
    g = -back(problem.gradient(b))
    x, residual, direction = np.zeros(k if cov is None else cov.width), g.copy(), g.copy()
    square = float(residual @ residual)
    limit, taken = 1e-28 * square, 0
    while square > limit and square > 0 and taken < 10 * k:
        taken += 1
        moved = ridge * direction + back(A.T @ (A @ to(direction)))
        alpha = square / float(direction @ moved)
        x, residual = x + alpha * direction, residual - alpha * moved
        new = float(residual @ residual)
        direction, square = residual + new / square * direction, new
    return to(x), taken


def _same(v: Floats) -> Floats:
    return v


def laplace(problem: Problem, analysis: Analysis) -> PrecisionChol:
    """The covariance by the observed curvature: central differences of the exact gradient, in posterior standard deviations."""
    op = analysis.gauss_newton
    h = 1e-4 * np.sqrt(op.diag())
    steps = np.diag(h)
    H = np.array([(problem.gradient(analysis.mean + e) - problem.gradient(analysis.mean - e)) / (2 * s) for e, s in zip(steps, h)])
    try:
        return from_precision((H + H.T) / 2)
    except np.linalg.LinAlgError:
        raise FitFailed("the curvature is not positive: this is no minimum.", where="laplace()", do="Start elsewhere.") from None
