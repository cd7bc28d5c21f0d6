"""The generalized linear mixed model: maximum likelihood by Laplace or adaptive Gauss–Hermite, or the fast form of lme4's nAGQ = 0.

    g(E[y | b]) = Xβ + o + Zb,    b_g = σ T u_g,    u ~ N(0, I),    σ = √φ (1 where the family has no scale of its own)

`nagq` 1 (default) is Laplace's approximation, maximised over β and θ jointly; 0 takes β from penalised least squares at each θ; m > 1
integrates one scalar random effect per group by m nodes. φ (gaussian, gamma, inverse gaussian) and θ of the negative binomial are
maximum likelihood estimates, as in glmmTMB. The covariance of β̂ has the uncertainty of all other parameters in it,
V = 2 (∂²D)⁻¹, D = −2 log-likelihood, as lme4's default; for nagq = 0 it is the one at known θ.

Counts are read as in the linear mixed model: see `lmm.rows_and_counts`.

Source: Bates, Mächler, Bolker & Walker (2015) §5 and lme4's glmer; Brooks et al. (2017) for glmmTMB.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from attrs import evolve

from ..errors import BoundaryWarning, ConvergenceWarning, FitFailed, NotYet, OptionError, Refused, SeparationWarning, warn
from ..kernels import blocks
from ..kernels.family import POISSON
from ..kernels.gram import OUT_OF_RANGE
from ..kernels.irls import Control, Rows
from ..kernels.linalg import inverse_spd
from ..kernels.response import FREE_SCALE, KNOWN_FAMILIES, THIRD, make_response
from ..kernels.shapes import THETA_RANGE
from ..state.design import Problem
from ..state.fit import FitState, Outcome
from ..types import Floats, is_whole
from . import random
from .glm import _maximise
from .lm import dropped_note
from .lockstep import glmm_many
from .marginal import POISSON_LIKE, TOL, Maximum, Search, determined, first_shape, first_theta, maximum, pseudo_inverse
from .mixed import MixedEngine, Prepared, prepare
from .registry import estimator
from .separated import explanation

MAX_ITER = 200
HUGE_SD = 20.0  # of a binomial random effect, on the linear predictor: nearly all its groups have one outcome


def accepts(problem: Problem) -> bool:
    linear = problem.family.name == "gaussian" and problem.link.name == "identity"
    return problem.design.random is not None and problem.prior is None and not linear


@estimator("glmm", accepts=accepts, many=glmm_many, takes=("nagq", "max_iter", "tol", "start"))
def fit_glmm(problem: Problem) -> FitState:
    """Maximum likelihood on the problem's design."""
    nagq, max_iter, tol = _check(problem)
    prepared = prepare(problem)
    search = Search(prepared.model, nagq)
    with np.errstate(all="ignore"):
        x, direction = _start(problem, prepared, search)
        end = maximum(search, x, tol, max_iter)
        if end is not None and problem.family.free:
            search, end = _unless_poisson(search, end, tol, max_iter)
        if end is None:
            raise _no_start(problem)
        return _state(problem, prepared, search, end, direction)


def _unless_poisson(search: Search, end: Maximum, tol: float, max_iter: int) -> tuple[Search, Maximum]:
    """The search without θ and its end, where θ runs to infinity: it is large beside the means, and without it nothing is lost."""
    mode = end.point.marginal.mode
    if end.point.x[-1] < math.log(1e3 * max(1.0, float(mode.at.mu.mean()))):
        return search, end
    r = search.model.response
    response = make_response(POISSON, r.link, r.y, r.prior, r.count)
    made = Search(evolve(search.model, response=response), search.nagq)
    made.beta, made.u = mode.beta, mode.u
    poisson = maximum(made, end.point.x[:-1], tol, max_iter)
    return (search, end) if poisson is None or poisson.point.criterion > end.point.criterion + 1e-6 else (made, poisson)


# ---------------------------------------------------------------- the door
def _check(problem: Problem) -> tuple[int, int, float]:
    """nagq, max_iter, tol."""
    design, family, link = problem.design, problem.family, problem.link
    where = f"family {family.name!r} with random effects"
    if family.logpdf is None:
        name = family.name.removeprefix("quasi")
        do = f"Use family={name!r}, with an effect per observation, (1 | row), for variation beyond it" + " or 'negbinomial'" * (
            name == "poisson"
        )
        raise Refused("a quasi-likelihood is no likelihood, so there is nothing to integrate.", where=where, do=f"{do}.")
    if family.name not in KNOWN_FAMILIES:
        raise NotYet(
            "this is not built: no other program gives numbers to hold it to.", where=where, do="Leave the bars out, or use another family."
        )
    if link.name not in THIRD:
        raise NotYet(f"link {link.name!r} is not built with random effects.", where=where, do=f"Use one of {', '.join(family.links)}.")
    family.check_link(link)
    family.check(design.y, design.weights, design.rows, str(problem.spec.response))
    random.check_terms(design, family.name in FREE_SCALE or bool(family.free), f"model({problem.spec.formula!r})")
    options = problem.options
    nagq = _whole("nagq", 1 if options.nagq is None else options.nagq, 0, 100)
    _check_nagq(problem, nagq)
    max_iter = _whole("max_iter", MAX_ITER if options.max_iter is None else options.max_iter, 1, 10**9)
    tol = options.tol
    if tol is None:
        return nagq, max_iter, TOL
    if isinstance(tol, bool) or not isinstance(tol, (int, float, np.floating)) or not 0 < tol < 1:
        raise OptionError(f"tol={tol!r} is not between 0 and 1.", where="fit()", do="It is the distance to the maximum in standard errors.")
    return nagq, max_iter, float(tol) ** 2


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if not is_whole(value) or not low <= value <= high:
        limits = f"from {low} to {high}" if high < 10**9 else f"of at least {low}"
        raise OptionError(f"{name}={value!r} is not a whole number {limits}.", where="fit()", do="Leave it out for the usual one.")
    return int(value)


def _check_nagq(problem: Problem, nagq: int) -> None:
    terms = problem.design.random.terms  # type: ignore[union-attr]
    if nagq > 1 and (len(terms) > 1 or len(terms[0].names) > 1):
        said = " + ".join(random.term_label(t) for t in terms)
        what = f"nagq={nagq} integrates one random effect per group, and this model has {said}."
        raise Refused(what, where="fit()", do="Use nagq=1 (Laplace).")


# ---------------------------------------------------------------- where to begin
def _start(problem: Problem, prepared: Prepared, search: Search) -> tuple[Floats, Floats | None]:
    """x from a fit, from the user, or from the model without random effects; and the direction in which that has no maximum, or None.

    Where the likelihood without random effects rises for ever, it does so at every value of them.
    """
    start, model, basis = problem.options.start, prepared.model, prepared.basis
    if isinstance(start, FitState):
        made = _from_fit(start, prepared, search)
        if made is not None:
            return made, None
    elif start is not None:
        return _given(start, prepared, search), None
    response = model.response
    family = POISSON if response.family.free else response.family
    weights = response.a if search.model.system.count is None else model.system.each(response.a)
    rows = Rows(np.ascontiguousarray(model.XT.T), response.y, family, response.link, weights, model.offset)
    scoring, direction = _maximise(rows, None, Control(max_iter=25, tol=0.1, diverging=0.3))
    if scoring.code == OUT_OF_RANGE or not np.isfinite(scoring.point.coef).all():
        raise _no_start(problem)
    search.beta = scoring.point.coef
    shape = first_shape(model, scoring.point.mu) if search.shaped else None
    direction = direction if direction is None or basis is None else basis @ direction
    return search.place(first_theta(model, search.beta, shape), shape), direction


def _from_fit(start: FitState, prepared: Prepared, search: Search) -> Floats | None:
    engine = start.engine
    if not isinstance(engine, MixedEngine) or len(start.coef) != len(prepared.model.XT):
        return None
    search.beta = start.coef if prepared.basis is None else np.linalg.solve(prepared.basis, start.coef)
    tail = engine.x[len(engine.x) - search.t - search.shaped :]
    return search.place(tail[: search.t], float(tail[-1]) if search.shaped else None)


def _given(start: Any, prepared: Prepared, search: Search) -> Floats:
    """x from {"theta": (t,), "coef": (p,), "dispersion": …}, or from θ alone."""
    parts, p = start if isinstance(start, dict) else {"theta": start}, len(prepared.model.XT)
    if "theta" not in parts or set(parts) - {"coef", "theta", "dispersion"}:
        do = "Give start={'theta': …, 'coef': …, 'dispersion': …}, or θ alone, as numbers."
        raise OptionError(f"start={start!r} is not understood.", where="fit()", do=do)
    try:
        theta = np.asarray(parts["theta"], dtype=float).ravel()
        coef = np.asarray(parts.get("coef", np.zeros(p)), dtype=float).ravel()
        dispersion = float(parts.get("dispersion", 1.0))
    except (TypeError, ValueError):
        theta, coef, dispersion = np.empty(0), np.zeros(p), 1.0
    if theta.shape != (search.t,) or coef.shape != (p,) or not np.isfinite([*theta, *coef]).all() or not 0 < dispersion < math.inf:
        raise OptionError(f"start={start!r} does not fit the model: it has {search.t} θ and {p} coefficients.", where="fit()")
    search.beta = coef if prepared.basis is None else np.linalg.solve(prepared.basis, coef)
    return search.place(theta, math.log(dispersion) if search.shaped else None)


def _no_start(problem: Problem) -> FitFailed | OptionError:
    low, high = problem.family.low, problem.family.high
    if problem.options.start is not None and not isinstance(problem.options.start, FitState):
        return OptionError("the likelihood cannot be computed at start=.", where="fit()", do="Leave it out, or start nearer.")
    what = f"no values were found for which every mean lies inside ({low:g}, {high:g}) and the groups' effects can be found."
    do = f"Use a link that cannot leave that range ({problem.family.canonical!r} or 'log'), rescale the predictors, or give start=."
    return FitFailed(what, where=f"family {problem.family.name!r} with link {problem.link.name!r} and random effects", do=do)


# ---------------------------------------------------------------- what follows from the estimates
def _state(problem: Problem, prepared: Prepared, search: Search, end: Maximum, direction: Floats | None) -> FitState:
    design, s, mode, x = problem.design, search.model.system, end.point.marginal.mode, end.point.x
    basis = np.eye(len(search.model.XT)) if prepared.basis is None else prepared.basis
    family, phi, aux = _shape(problem, search, x)
    sigma, coef = math.sqrt(phi), basis @ (mode.beta if search.joint else x[: search.p])
    vcov_rx = basis @ _inverse(mode.factor.reduced(search.model.XT)) @ basis.T
    vcov, trusted = vcov_rx, True
    if not search.joint:
        whole = 2.0 * pseudo_inverse(end.hessian, end.scale)[: search.p, : search.p]
        trusted = determined(end, search.p) and bool((np.diag(whole) > 0).all())
        vcov = basis @ whole @ basis.T if trusted else vcov_rx
    eta, mu, working = (np.empty(design.n) for _ in range(3))
    eta[s.order], mu[s.order], working[s.order] = mode.eta, mode.at.mu, s.each(mode.at.expected * phi)
    each, total = family.deviance(design.y, mu), design.total_weights
    npar = len(coef) + search.t + (search.shaped or bool(problem.family.free))
    outcome = _outcome(problem, prepared, end, trusted, direction, aux)
    return FitState(
        estimator="glmm",
        coef=coef,
        vcov=vcov,
        kept=prepared.kept,
        sigma=sigma,
        dispersion=phi,
        dispersion_estimated=family.name in FREE_SCALE,
        eta=eta,
        mu=mu,
        working=working,
        loglik=-0.5 * end.point.criterion,
        deviance=float(each.sum() if total is None else total @ each),
        npar=npar,
        df_resid=design.n_obs - npar,
        theta=np.where(np.abs(x[search.theta]) < 1e-12, 0.0, x[search.theta]) / sigma,
        b=s.modes(mode.b),
        aux=aux,
        outcome=outcome,
        notes=(*dropped_note(design, prepared.kept), *_notes(search, problem), *prepared.notes),
        engine=MixedEngine(
            x if npar - len(coef) - search.t == search.shaped else np.append(x, POISSON_LIKE),
            end.hessian,
            vcov_rx,
            _conditional_sd(s, mode.factor.covariances()),
            search.nagq,
        ),
    )


def _shape(problem: Problem, search: Search, x: Floats) -> tuple[Any, float, dict[str, float]]:
    """The family at its estimated shape, φ, and what was estimated by name."""
    family = problem.family
    if not search.shaped and not family.free:
        return family, 1.0, dict(family.aux)
    value = math.exp(float(x[-1])) if search.shaped else THETA_RANGE[1]
    if family.free:
        return family.fitted({"theta": value}), 1.0, {"theta": value}
    return family, value, {}


def _inverse(A: Floats) -> Floats:
    try:
        return inverse_spd(A)
    except np.linalg.LinAlgError:
        return np.full_like(A, np.nan)


def _conditional_sd(s: Any, covariances: tuple[Floats, ...]) -> Floats:
    first, *rest = (np.sqrt(np.maximum(np.diagonal(c), 0.0)) for c in covariances)  # (G, k)
    return blocks.flatten(s.lay, first.T, np.concatenate([np.empty(0), *(v.ravel() for v in rest)]))


def _notes(search: Search, problem: Problem) -> tuple[str, ...]:
    said = {
        0: "fast form (nagq=0): coefficients at the joint mode of coefficients and random effects; standard errors at known variances",
        1: "Laplace approximation of the likelihood",
    }.get(search.nagq, f"likelihood by adaptive Gauss–Hermite quadrature with {search.nagq} nodes per group")
    if not search.model.response.natural:
        kind = "observed information, as glmmTMB" if search.model.observed else "expected information, as lme4"
        said += f" ({kind})"
    if search.shaped or problem.family.free:
        said += "; the dispersion is a maximum likelihood estimate"
    return (said,)


# ---------------------------------------------------------------- how it ended, in words
def _outcome(problem: Problem, prepared: Prepared, end: Maximum, trusted: bool, direction: Floats | None, aux: dict[str, float]) -> Outcome:
    """One sentence, what to do, and at most one warning."""
    names = _boundary_names(problem, end, prepared)
    status, message, advice, warning = _verdict(problem, prepared, end, trusted, direction, aux, names)
    if warning is not None:
        warn(f"{message} {advice}", warning)
    method = {0: "nagq=0", 1: "Laplace"}.get(problem.options.nagq if problem.options.nagq is not None else 1, "adaptive Gauss–Hermite")
    gradient = math.sqrt(max(end.gain, 0.0)) if math.isfinite(end.gain) else math.inf
    return Outcome(
        status=status, message=message, advice=advice, method=method, iterations=end.evaluations, gradient=gradient, boundary=names
    )


def _verdict(
    problem: Problem,
    prepared: Prepared,
    end: Maximum,
    trusted: bool,
    direction: Floats | None,
    aux: dict[str, float],
    names: tuple[str, ...],
) -> tuple[str, str, str, type[Warning] | None]:
    if direction is not None:
        why, blamed = explanation(problem, problem.design.keep(prepared.kept), direction)
        advice = f"Estimates, standard errors and tests of {blamed} mean nothing: merge or leave out what separates."
        return "suspect", f"The likelihood has its maximum at infinity: {why}.", advice, SeparationWarning
    if not end.converged:
        message = "The search stopped before it reached the maximum of the likelihood."
        advice = "Rescale or centre predictors, drop random slopes that the data hardly support, or raise max_iter."
        return "suspect", message, advice, ConvergenceWarning
    if not trusted:
        message = "The likelihood is not curved downwards at its end, so standard errors are those at known variances."
        return (
            "suspect",
            message,
            "Simplify the random effects; intervals by how='boot' or 'profile' do not need the curvature.",
            ConvergenceWarning,
        )
    if problem.family.free and aux["theta"] == THETA_RANGE[1]:
        message = "Given the random effects the counts are no more dispersed than Poisson: θ runs to infinity."
        more, do = random.boundary_words(names) if names else ("", "")
        return "boundary", f"{message} {more}".strip(), f"Use family='poisson': it is this fit without θ. {do}".strip(), BoundaryWarning
    if problem.family.name == "binomial" and _largest_sd(end, prepared) > HUGE_SD:
        message = "Nearly every group has one outcome only, so the random effects' variance runs to infinity."
        advice = "Coefficients and standard errors depend on how far the search went: treat the groups as fixed."
        return "suspect", message, advice, ConvergenceWarning
    if names:
        return "boundary", *random.boundary_words(names), BoundaryWarning
    return "ok", f"The likelihood has been maximised, in {end.evaluations} evaluations.", "", None


def _factors(end: Maximum, prepared: Prepared) -> Any:
    """(grouping, T, root mean square of each column of Z) of each grouping."""
    lay = prepared.model.system.lay
    for g, T in zip(lay.groupings, blocks.factors(lay, end.theta)):
        yield g, T, np.sqrt(np.square(g.Z).mean(axis=1))


def _largest_sd(end: Maximum, prepared: Prepared) -> float:
    return max(float((np.sqrt(np.square(T).sum(axis=1)) * size).max()) for _, T, size in _factors(end, prepared))


def _boundary_names(problem: Problem, end: Maximum, prepared: Prepared) -> tuple[str, ...]:
    found: list[str] = []
    for g, T, size in _factors(end, prepared):
        for number, columns in g.members:
            term = problem.design.random.terms[number]  # type: ignore[union-attr]
            found += random.boundary_names(term, T[columns, columns], size[columns])
    return tuple(found)
