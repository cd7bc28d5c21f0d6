"""A model that is no formula: residuals and their Jacobian, or any solver of one's own. What is then known of its parameters?

    least_squares(residual, jacobian, start, prior=…)  →  Posterior

J(b) = ½ ‖b − b₀‖²_{B⁻¹} + ½ ‖r(b)‖², minimised by incremental Gauss–Newton (kernels/variational.py) or by a solver that is given;
the covariance by the expected ("gauss_newton") or the observed ("laplace") curvature where the search ended.

Source: Courtier, Thépaut & Hollingsworth (1994) for the increments; Lorenc (1986) for the cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from attrs import frozen

from ..errors import ConvergenceWarning, DataError, OptionError, UnknownOption, warn
from ..estimate.prior import precision_rows, resolve_prior
from ..kernels import covop
from ..kernels.variational import Analysis, Problem, analyse, laplace
from ..state.posterior import Posterior, describe
from ..state.provenance import Provenance, digest
from ..types import Floats, is_whole

WHERE = "least_squares()"
ADAPTERS = ("laplace", "gauss_newton")


@frozen(eq=False)
class Reduced:
    """A function of b in the coefficients of a basis, b = b₀ + Φc; of a Jacobian: its columns along Φ."""

    function: Callable[[Floats], Floats]
    centre: Floats
    basis: Floats
    slope: bool = False

    def __call__(self, c: Floats) -> Floats:
        made = np.asarray(self.function(self.centre + self.basis @ c), dtype=float)
        return made @ self.basis if self.slope else made


def least_squares(
    residual: Callable[[Floats], Any],
    jacobian: Callable[[Floats], Any],
    start: Any,
    *,
    prior: Any = None,
    names: Sequence[str] | None = None,
    adapter: str = "laplace",
    outer: int = 25,
    inner: str = "chol",
    tol: float = 1e-10,
    solver: Callable[[Callable[[Floats], float], Floats, Any], Any] | None = None,
    data: Any = None,
    basis: Any = None,
) -> Posterior:
    """The posterior of the parameters of any model with normal errors.

    residual   b (k,) ↦ (n,), observed less modelled or the reverse, in units of its own standard deviation; nan: not seen
    jacobian   b ↦ (n, k), the residuals' derivatives
    start      (k,) where the search begins
    prior      bossa.normal(…), {"b0": bossa.normal(…)} or a Posterior about `names`; None: flat
    adapter    "laplace": observed curvature, by differences of the exact gradient | "gauss_newton": expected curvature
    outer      most linearisations;  inner  "chol" | "cg" (control variables, where there is a prior);  tol  of the last step, in sd
    solver     one's own: (cost, start, data) ↦ b; its answer is taken, and its curvature found
    data       handed to it
    basis      Φ (k, r): only b₀ + Φc is searched, b₀ the prior's mean (or start); the prior is then of the coefficients c, "c[0]" …

    >>> import numpy as np
    >>> from bossa.assimilate import least_squares
    >>> x = np.array([0.0, 1.0, 2.0]); y = np.array([2.0, 0.9, 0.4])
    >>> model = lambda b: (b[0] * np.exp(-b[1] * x) - y) / 0.1
    >>> slope = lambda b: np.column_stack((np.exp(-b[1] * x), -b[0] * x * np.exp(-b[1] * x))) / 0.1
    >>> least_squares(model, slope, [1.0, 1.0], names=["height", "rate"]).mean.round(3).tolist()
    [2.001, 0.801]
    """
    if adapter not in ADAPTERS:
        raise UnknownOption(adapter, ADAPTERS, where=WHERE, kind="adapter")
    if inner not in ("chol", "cg"):
        raise UnknownOption(inner, ("chol", "cg"), where=WHERE, kind="inner")
    if not is_whole(outer) or outer < 1:
        raise OptionError(f"outer={outer!r} is not a whole number of at least 1.", where=WHERE)
    b, letter = np.atleast_1d(np.asarray(start, dtype=float)), "b"
    if b.ndim != 1 or not np.isfinite(b).all():
        raise DataError("start is not a row of finite numbers.", where=WHERE, do="Give one for each parameter.")
    if basis is not None:
        Phi = np.asarray(basis, dtype=float)
        if Phi.ndim != 2 or len(Phi) != len(b):
            raise DataError(f"basis has shape {Phi.shape}, there are {len(b)} parameters.", where=WHERE, do="Give (parameters, columns).")
        residual, jacobian = Reduced(residual, b, Phi), Reduced(jacobian, b, Phi, slope=True)
        b, letter = np.zeros(Phi.shape[1]), "c"
    names = tuple(f"{letter}[{i}]" for i in range(len(b))) if names is None else tuple(names)
    if len(names) != len(b):
        raise OptionError(f"{len(names)} names for {len(b)} parameters.", where=WHERE)
    before = None if prior is None else resolve_prior(prior, names)
    if before is not None and (before.df is not None or before.sigma is not None):
        raise OptionError(
            "the residuals are in units of their sd: nothing is to be told of σ.", where=WHERE, do="Use .gaussian(), without 'sigma'."
        )
    problem = _problem(residual, jacobian, b, before)
    found = _searched(problem, b, outer, inner, tol, solver, data)
    if not found.converged:
        what = f"the search was not finished after {found.n_iter} linearisations; the gradient's length is {found.gradient:.3g}."
        warn(f"{what} Raise outer=, or start elsewhere.", ConvergenceWarning)
    cov = found.gauss_newton if adapter == "gauss_newton" else laplace(problem, found)
    off = _disagreement(problem, found.mean, found.gauss_newton.sqrt_mv(np.ones(len(b))))
    if off > 0.01:
        what = f"jacobian= is not the derivative of residual= where the search ended: they are {100 * off:.3g}% apart along one direction."
        warn(f"{what} The covariance rests on it: correct it.", ConvergenceWarning)
    seen = int(np.isfinite(problem.residual(found.mean)).sum())
    by = "a solver that was given" if solver is not None else f"{found.n_iter} linearisations"
    return Posterior(
        names=names,
        mean=found.mean,
        cov=cov,
        prior=before,
        provenance=_origin(problem, found, adapter, names, before, by),
        notes=(f"posterior: {adapter.replace('_', '–')}, {seen} residuals, {by}", "prior: flat" if before is None else "prior: normal"),
    )


def _problem(residual: Any, jacobian: Any, b: Floats, before: Posterior | None) -> Problem:
    """Checked once, where the search begins."""
    r, A = np.asarray(residual(b), dtype=float), np.asarray(jacobian(b), dtype=float)
    if r.ndim != 1 or A.shape != (len(r), len(b)):
        do = f"residual(b) gives (n,), jacobian(b) gives (n, {len(b)})."
        raise DataError(f"residuals have shape {r.shape} and their Jacobian {A.shape}.", where=WHERE, do=do)
    if np.isinf(r).any() or not np.isfinite(A[~np.isnan(r)]).all():
        raise DataError("residuals or Jacobian are not finite where the search begins.", where=WHERE, do="Start elsewhere.")
    if before is None:
        return Problem(residual, jacobian)
    flat = np.isinf(before.cov.diag()).any()
    return Problem(residual, jacobian, before.mean, covop.Flat(precision_rows(before.cov)) if flat else before.cov)


def _disagreement(problem: Problem, b: Floats, direction: Floats) -> float:
    """|Δr − J d| / |J d| for a central difference of the residuals along d, a posterior standard deviation long, at a step of 1e-4."""
    h = 1e-4
    ends = [np.asarray(problem.residual(b + sign * h * direction), dtype=float) for sign in (1.0, -1.0)]
    told = np.asarray(problem.jacobian(b), dtype=float) @ direction
    seen = np.isfinite(ends[0]) & np.isfinite(ends[1]) & np.isfinite(told)
    length = float(np.linalg.norm(told[seen]))
    return float(np.linalg.norm(((ends[0] - ends[1]) / (2 * h) - told)[seen])) / length if length else 0.0


def _searched(problem: Problem, b: Floats, outer: int, inner: str, tol: float, solver: Any, data: Any) -> Analysis:
    if solver is None:
        if inner == "cg" and isinstance(problem.cov, covop.Flat):
            raise OptionError("inner='cg' works in the units of a proper prior.", where=WHERE, do="Name every parameter, or use 'chol'.")
        return analyse(problem, b, outer=outer, inner=inner, tol=tol)
    at = np.atleast_1d(np.asarray(solver(problem.cost, b, data), dtype=float))
    if at.shape != b.shape or not np.isfinite(at).all():
        raise DataError(f"the solver returned shape {at.shape}, or numbers that are not finite.", where=WHERE, do=f"Return ({len(b)},).")
    # how far off, in posterior sd: one Gauss–Newton step from there
    step = analyse(problem, at, outer=1)
    size = float(np.linalg.norm(step.R @ (step.mean - at)))
    if size > 1e-3:
        what = f"the solver stopped {size:.3g} posterior standard deviations from the minimum."
        warn(f"{what} Ask it for more, or start elsewhere.", ConvergenceWarning)
    ended = analyse(problem, at, outer=0)
    return Analysis(ended.mean, (problem.cost(b), problem.cost(at)), 0, ended.R, ended.gradient, True)


def _origin(problem: Problem, found: Analysis, adapter: str, names: tuple[str, ...], before: Posterior | None, by: str) -> Provenance:
    return Provenance(
        forward_model_id="bossa.assimilate/least_squares",
        forward_model_hash=digest([list(names), problem.residual(found.mean), problem.jacobian(found.mean)]),
        n_iter=found.n_iter,
        J_star=found.J_star,
        converged=found.converged,
        cov_op_hash=digest(None if before is None else [before.mean, describe(before.cov)]),
        adapter=f"{adapter} ({by})",
        parent_hash=None,
    )
