"""Which values would the data not speak against? Likelihood intervals: the model is fitted anew with one number held, along a curve.

    ζ(ψ) = sign(ψ − ψ̂) √((D(ψ) − D̂)/φ̂),     interval: |ζ| < z     (LM: exactly t, so the usual interval)

GLM: deviance, with the dispersion at its estimate, as MASS's confint. Mixed models: −2 log-likelihood by full maximum likelihood, since
restricted likelihoods of different fixed effects do not compare: a REML fit is profiled by its ML refit, said. For these the standard
deviations and correlations of the random effects and σ get intervals too (`varying_spread`); one that starts at 0 includes 0.

Source: Venables & Ripley (2002) §8.4; Bates et al. (2015) §5.1; Venzon & Moolgavkar (1988).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from ..errors import BossaError, BossaWarning, OptionError, Refused
from ..estimate import registry
from ..estimate.random import term_factors
from ..kernels.intervals import t_quantile
from ..kernels.optimize import minimize
from ..state.design import FitOptions, Problem
from ..state.fields import conf_level, integer
from ..state.fit import FitState
from ..state.inference import InferenceState, ProfileState, SpreadState
from ..state.target import Target
from ..types import Floats
from . import backend
from .constrained import held, pivot
from .curve import Curve, profile_curve
from .shown import linear_rows

WHERE = "infer(how='profile')"


PERFECT = 1e-14  # standard error of a coefficient of 1 that is rounding error


def _positive(instance: Any, attribute: Any, value: Any) -> None:
    if value is not None and not (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 10):
        raise OptionError(f"threshold={value!r} is not a number of standard errors between 0 and 10.", where=WHERE, do="Use e.g. 2.6.")


@frozen(kw_only=True)
class Profile:
    """Options of how="profile".

    conf_level  0.95, 95 or "95%"
    n_steps     points of each curve that is kept
    threshold   |ζ| out to about which the curves go; None: a little beyond the interval
    """

    conf_level: float = field(default=0.95, converter=conf_level)
    n_steps: int = integer(20, minimum=0)
    threshold: float | None = field(default=None, validator=_positive)


@backend("profile", Profile)
def profile(problem: Problem, fit: FitState, target: Target, options: Profile) -> InferenceState:
    """Likelihood interval of each row of the question, the curves, and intervals of the random effects' spread."""
    L, value = _rows(target, fit)
    cut = float(t_quantile((1 + options.conf_level) / 2, fit.df_resid if fit.estimator == "lm" else np.inf))
    if not math.isfinite(cut) or math.isnan(fit.dispersion):
        raise Refused("no degree of freedom is left to tell deviance from noise.", where=WHERE, do="Use fewer terms or more rows.")
    reach = 1.15 * cut if options.threshold is None else max(options.threshold, cut)
    work: Any = {"lmm": _Linear, "glmm": _Laplace}.get(fit.estimator, _Plain)(problem, fit)
    curves: list[Curve | None] = []
    for row, v in zip(L, value):
        if not np.isfinite(v):
            curves.append(None)
            continue
        estimate, se, zeta = work.coefficient(row)
        if se <= PERFECT * abs(estimate):
            what = "the fit is perfect up to rounding, and its profile would be rounding error."
            raise Refused(what, where=WHERE, do="Check that the response is not computed from the predictors.")
        curve = profile_curve(zeta, estimate, se, cut, options.n_steps, reach, (-math.inf, math.inf))
        shift = v - row @ fit.coef
        curves.append(evolve(curve, psi=curve.psi + shift, lower=curve.lower + shift, upper=curve.upper + shift))
    interval = np.array([[math.nan, math.nan] if c is None else [c.lower, c.upper] for c in curves]).T.reshape(2, len(curves))
    spread: SpreadState | None = None
    spread_curves: dict[str, tuple[Floats, Floats]] = {}
    if problem.design.random is not None and target.kind == "params":
        spread, spread_curves = _spread(work, cut, reach, options.n_steps)
    kept = {_label(target, k): (c.psi, c.zeta) for k, c in enumerate(curves) if c is not None} | spread_curves
    return InferenceState(
        how="profile",
        level=options.conf_level,
        interval=interval,
        notes=tuple(work.notes),
        options={"n_steps": options.n_steps, "threshold": options.threshold},
        extra=ProfileState(curves=kept, spread=spread),
    )


def _label(target: Target, k: int) -> str:
    return ", ".join(str(v) for v in target.labels.row(k))


def _rows(target: Target, fit: FitState) -> tuple[Floats, Floats]:
    """ℓ (K, p) and value (K,) of every row; refused where the question is not linear, or a prediction."""
    if target.kind == "predictions":
        raise Refused("predictions have no profile.", where=WHERE, do="Use how='asymp' or 'boot'.")
    L = linear_rows(target, fit.coef)
    if L is None:
        raise Refused("the question is not linear in the coefficients.", where=WHERE, do="Ask it on the link scale, or use how='boot'.")
    if target.back is not None:
        raise Refused("profiles are on the link scale.", where=WHERE, do="Use scale='link', compare='difference', or how='boot'.")
    value = target.value(fit.coef)
    return L, value if target.estimable is None else np.where(target.estimable, value, np.nan)


def spread_limits(problem: Problem, fit: FitState, level: float) -> SpreadState | None:
    """Likelihood limits of each row of `varying_spread`, for other hows; None where there are none."""
    if problem.design.random is None or problem.options.nagq == 0:
        return None
    cut = float(t_quantile((1 + level) / 2, np.inf))
    return _spread(_Linear(problem, fit) if fit.estimator == "lmm" else _Laplace(problem, fit), cut, cut, 0)[0]


def _spread(work: Any, cut: float, reach: float, steps: int) -> tuple[SpreadState, dict[str, tuple[Floats, Floats]]]:
    """Limits of each row of `varying_spread`, and the curves."""
    lower, upper, curves = [], [], {}
    for label, estimate, se, zeta, within in work.spread():
        if math.isnan(estimate):  # a correlation with what does not vary: all are the same model
            lower.append(within[0])
            upper.append(within[1])
            continue
        curve = profile_curve(zeta, estimate, se, cut, steps, reach, within)
        lower.append(curve.lower)
        upper.append(curve.upper)
        curves[label] = (curve.psi, curve.zeta)
    return SpreadState(lower=np.array(lower), upper=np.array(upper), method="profile"), curves


Zeta = Callable[[float], float]


def _signed(psi: float, estimate: float, gain: float) -> float:
    return math.copysign(math.sqrt(max(gain, 0.0)), psi - estimate) if math.isfinite(gain) else math.nan


class _Plain:
    """LM and GLM: constrained refits by the model's own estimator."""

    def __init__(self, problem: Problem, fit: FitState):
        self.problem, self.fit = problem, fit
        self.estimator = registry.named(fit.estimator)
        exact = fit.estimator == "lm"
        self.notes = ["profile: t, exact for a linear model" if exact else "profile: likelihood ratio against the normal quantile"]

    def coefficient(self, row: Floats) -> tuple[float, float, Zeta]:
        fit, estimate = self.fit, float(row @ self.fit.coef)
        se = math.sqrt(row @ fit.vcov @ row)
        if fit.estimator == "lm":
            return estimate, se, lambda psi: (psi - estimate) / se
        last = [np.delete(fit.coef, pivot(row))]

        def zeta(psi: float) -> float:
            state = self._fit(held(self.problem, row, psi), last[0])
            if state is None:
                return math.nan
            last[0] = state.coef
            full = 2 * (fit.loglik - state.loglik) if fit.aux else (state.deviance - fit.deviance) / fit.dispersion
            return _signed(psi, estimate, full)

        return estimate, se, zeta

    def _fit(self, problem: Problem, start: Floats) -> FitState | None:
        near = self.fit.outcome.status == "ok"  # beside a maximum at infinity no start is near
        for first in (start, None) if near else (None,):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", BossaWarning)
                try:
                    state = self.estimator.fit(evolve(problem, options=evolve(problem.options, start=first)))
                except BossaError:
                    continue
            if state.outcome.status in ("ok", "boundary") or state.outcome.gradient < 1e-3:  # separated, and near its limit
                return state
        return None


class _Mixed:
    """What linear and generalized mixed models share: the spread of their random effects."""

    problem: Problem
    theta: Floats
    sigma: float

    def spread(self) -> Iterator[tuple[str, float, float, Zeta, tuple[float, float]]]:
        """label, estimate, se, ζ and range of every row of `varying_spread`, in its order."""
        from . import surfaces

        random = self.problem.design.random
        assert random is not None
        factors = term_factors(random, self.theta)
        start = 0
        for number, (term, T) in enumerate(zip(random.terms, factors)):
            sd = self.sigma * np.sqrt((T**2).sum(axis=1))
            for i, name in enumerate(term.names):
                surface, H = self.surface(number, (i,), factors)
                at = self.offset + start
                a = np.zeros(len(surface.x))
                a[at] = 1.0
                yield self._slice(f"sd {name} | {term.factor}", surface, H, surfaces.Linear(a), float(sd[i]), (0.0, math.inf))
            connected = term.mask | term.mask.T
            for j in range(len(T)):
                for i in range(j + 1, len(T)):
                    if connected[i, j]:
                        surface, H = self.surface(number, (j, i), factors)
                        first = self.offset + start
                        second = first + int(np.tril(connected).sum(axis=0)[0]) if len(T) == 2 else self._second(number, (j, i), first)
                        r = float(T[i] @ T[j] / np.sqrt((T[i] @ T[i]) * (T[j] @ T[j]))) if sd[i] * sd[j] > 0 else math.nan
                        held = surfaces.Correlation(first + 1, second)
                        yield self._slice(f"corr {term.names[j]}, {term.names[i]} | {term.factor}", surface, H, held, r, (-1.0, 1.0))
            start += int(term.mask.sum())
        yield from self.residual()

    def _second(self, number: int, front: tuple[int, int], first: int) -> int:
        """Place of the triangle's entry (2, 2): after its first column."""
        from . import surfaces

        moved = surfaces.reordered(self.problem, number, front).design.random.terms[number]  # type: ignore[union-attr]
        return first + int(moved.mask[:, 0].sum())

    def _slice(self, label: str, surface: Any, H: Floats, held: Any, estimate: float, within: tuple[float, float]) -> tuple:
        from . import surfaces

        best, path = surface.evaluate(surface.x), surfaces.Path({})
        cut = surfaces.Slice(surface, held, H, path)
        least = best.criterion

        def zeta(psi: float) -> float:
            return _signed(psi, estimate, cut.minimum(psi) - least)

        if not math.isfinite(estimate):
            return label, math.nan, math.nan, _nowhere, within
        u = held.free(surface.x)
        h = 1e-3 * (abs(estimate) + 1e-3)
        direction = (held.place(u, min(estimate + h, within[1])) - held.place(u, max(estimate - h, within[0]))) / (2 * h)
        J = cut._jacobian(u, estimate)
        inner = direction @ H @ direction
        across = J.T @ H @ direction
        information = inner - across @ np.linalg.lstsq(J.T @ H @ J, across, rcond=None)[0] if len(u) else inner
        se = math.sqrt(2 / information) if information > 0 else max(abs(estimate), 0.1)
        path.add(estimate, surfaces.Found(u, best, hessian=J.T @ H @ J))
        return label, estimate, max(se, 1e-3 * abs(estimate), 1e-6), zeta, within

    def residual(self) -> Iterator[tuple[str, float, float, Zeta, tuple[float, float]]]:
        yield from ()

    def _sigma(self, surface: Any, H: Floats, power: float) -> tuple[str, float, float, Zeta, tuple[float, float]]:
        """σ, of which the last coordinate is power · log σ."""
        from . import surfaces

        a = np.zeros(len(surface.x))
        a[-1] = 1.0
        label, _, se, zeta, _ = self._slice("sigma", surface, H, surfaces.Linear(a), power * math.log(self.sigma), (-math.inf, math.inf))
        scaled = (0.0, math.inf)
        return label, self.sigma, se * self.sigma / power, lambda psi: zeta(power * math.log(psi)) if psi > 0 else -math.inf, scaled

    offset = 0

    def surface(self, number: int, front: tuple[int, ...], factors: list[Floats]) -> tuple[Any, Floats]:
        raise NotImplementedError


def _nowhere(psi: float) -> float:
    return math.nan


class _Linear(_Mixed):
    """The linear mixed model in products of its rows: nothing here grows with n."""

    def __init__(self, problem: Problem, fit: FitState):
        from ..estimate import lmm
        from . import surfaces

        self.notes = ["profile: full maximum likelihood, −2 log-likelihood against the normal quantile"]
        if problem.method != "ml":
            self.notes.append("the fit by REML was refitted by ML: restricted likelihoods of different fixed effects do not compare")
            problem = evolve(problem, method="ml", options=FitOptions(start=fit.theta))
            fit = surfaces.quiet_fit(problem, registry.named("lmm").fit)
        self.problem, self.fit = problem, fit
        self.theta, self.sigma = np.asarray(fit.theta), fit.sigma
        self.prepared = lmm.prepare(problem)

    def coefficient(self, row: Floats) -> tuple[float, float, Zeta]:
        from ..estimate import lmm
        from ..kernels import profiled
        from . import surfaces

        prepared, fit = self.prepared, self.fit
        estimate, se = float(row @ fit.coef), math.sqrt(row @ fit.vcov @ row)
        best = profiled.evaluate(prepared.P, prepared.inward(self.theta), prepared.n, False)
        assert best is not None
        path = surfaces.Path({estimate: surfaces.Found(best.theta, best)})

        def zeta(psi: float) -> float:
            P = surfaces.held_products(prepared, row, psi)

            def evaluate(theta: Floats) -> Any:
                return profiled.evaluate(P, theta, prepared.n, False)

            found = minimize(evaluate, profiled.average_information, path.beside(psi)[0], 1e-11)
            away = None
            if found is None or not found.converged:
                away = np.where(np.abs(best.theta) < 1e-2, 0.3, best.theta)
            elif (np.abs(found.x) < 1e-4).any():
                away = lmm.off_saddle(found.point)
            if away is not None:
                again = minimize(evaluate, profiled.average_information, away, 1e-11)
                found = min((f for f in (found, again) if f is not None), key=surfaces._criterion, default=None)
            if found is None:
                return math.nan
            path.add(psi, found)
            return _signed(psi, estimate, found.point.criterion - best.criterion)

        return estimate, se, zeta

    def surface(self, number: int, front: tuple[int, ...], factors: list[Floats]) -> tuple[Any, Floats]:
        from ..estimate import lmm
        from . import surfaces

        moved = surfaces.reordered(self.problem, number, front)
        theta = surfaces.reordered_theta(self.problem, number, front, self.theta, factors)
        made = surfaces.LinearSurface(lmm.prepare(moved, scaled=False), theta, self.sigma)
        return made, surfaces.curvature(made)

    def residual(self) -> Iterator[tuple[str, float, float, Zeta, tuple[float, float]]]:
        from ..estimate import lmm
        from . import surfaces

        surface = surfaces.LinearSurface(lmm.prepare(self.problem, scaled=False), self.theta, self.sigma)
        yield self._sigma(surface, surfaces.curvature(surface), 1.0)


class _Laplace(_Mixed):
    """The generalized mixed model by its Laplace (or quadrature) likelihood."""

    def __init__(self, problem: Problem, fit: FitState):
        self.problem, self.fit = problem, fit
        self.nagq = 1 if problem.options.nagq is None else problem.options.nagq
        if self.nagq == 0:
            raise Refused("the fast form (nagq=0) has no likelihood in the coefficients.", where=WHERE, do="Fit with nagq=1.")
        self.theta, self.sigma = np.asarray(fit.theta), fit.sigma
        self.offset = len(fit.coef)
        self.notes = ["profile: the likelihood that was maximised, −2 log-likelihood against the normal quantile"]

    def coefficient(self, row: Floats) -> tuple[float, float, Zeta]:
        from . import surfaces

        surface, H = self.whole
        a = np.zeros(len(surface.x))
        a[: len(row)] = row if surface.basis is None else surface.basis.T @ row
        _, estimate, _, zeta, _ = self._slice("", surface, H, surfaces.Linear(a), float(row @ self.fit.coef), (-math.inf, math.inf))
        return estimate, math.sqrt(row @ self.fit.vcov @ row), zeta

    @cached_property
    def whole(self) -> tuple[Any, Floats]:
        """The surface in the fit's own order, and its Hessian made positive definite."""
        from . import surfaces

        made = surfaces.LaplaceSurface(self.problem, self.fit, self.nagq)
        return made, surfaces.positive_definite(np.asarray(self.fit.engine.hessian))  # type: ignore[attr-defined]

    def residual(self) -> Iterator[tuple[str, float, float, Zeta, tuple[float, float]]]:
        if self.fit.dispersion_estimated:
            yield self._sigma(*self.whole, 2.0)

    def surface(self, number: int, front: tuple[int, ...], factors: list[Floats]) -> tuple[Any, Floats]:
        from . import surfaces

        moved = surfaces.reordered(self.problem, number, front)
        theta = surfaces.reordered_theta(self.problem, number, front, self.theta, factors)
        made = surfaces.LaplaceSurface(moved, evolve(self.fit, theta=theta), self.nagq)
        return made, surfaces.curvature(made)
