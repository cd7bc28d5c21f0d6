"""The generalized linear model: coefficients by Fisher scoring, and R's conventions for everything that follows from them.

    g(E y_i) = o_i + x_iᵀβ,    Var y_i = φ V(μ_i)/w_i,    V̂(β̂) = φ̂ (XᵀΩX)⁻¹,  Ω = diag(f w μ′²/V)

w prior weights (binomial: trials), f counts, o offset. φ = 1 (binomial, Poisson, negative binomial) or X²/(N − r); the log-likelihood
takes R's φ = D/N. θ of the negative binomial and the scale (and df) of t alternate with β, to which they are orthogonal; the covariance
is conditional on them, as in MASS::glm.nb.

Nearly collinear columns are replaced by an orthonormal basis for the search. A likelihood with its maximum at infinity is recognised
(`kernels.separation`) and named.

Source: McCullagh & Nelder (1989); R's glm, logLik.glm; Venables & Ripley (2002) §7.4.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from attrs import evolve, frozen

from ..errors import BoundaryWarning, ConvergenceWarning, FitFailed, OptionError, Refused, SeparationWarning, warn
from ..kernels.family import GAUSSIAN, POISSON, Family, loglik
from ..kernels.gram import FINE, NOT_CONVERGED, OUT_OF_RANGE
from ..kernels.irls import DIVERGES, Control, Rows, Scoring, irls, rounding
from ..kernels.linalg import cholesky_factor, independent_columns, triangular, weighted_gram, well_conditioned_factor
from ..kernels.separation import free_ends, separation
from ..kernels.shapes import DF_RANGE, THETA_RANGE, negbinomial_theta, t_scale, t_scale_and_df
from ..state.design import Design, Problem
from ..state.fit import FitState, Outcome
from ..types import Bools, Floats, is_whole
from .batched import glm_many
from .lm import dropped_note
from .registry import estimator
from .separated import explanation

MAX_ITER, TOL = 100, 1e-9
SUBSAMPLE = 19  # every 19th row, when there are more than ROWS_PER_COLUMN per column
ROWS_PER_COLUMN = 1_000


def accepts(problem: Problem) -> bool:
    return problem.design.random is None and problem.prior is None


@frozen(eq=False)
class Maximum:
    """Where the search for β and the shape parameters ended, in the coordinates of the search.

    direction  along which the likelihood rises for ever, or None
    aux        shape parameters by name, with standard errors where there are
    """

    rows: Rows
    scoring: Scoring
    direction: Floats | None
    aux: dict[str, float]

    @property
    def rounding(self) -> float:
        """D/n of a fit that is perfect to eight digits."""
        return rounding(self.rows, self.scoring.point.mu)


@estimator("glm", accepts=accepts, many=glm_many, takes=("max_iter", "tol", "start"))
def fit_glm(problem: Problem) -> FitState:
    """Maximum likelihood (or quasi-likelihood) on the problem's design."""
    design, link = problem.design, problem.link
    _check(problem)
    kept, basis = _coordinates(design.X)
    X = design.X if kept.all() else design.X[:, kept]
    assert design.y is not None
    rows = Rows(X if basis is None else X @ basis, design.y, problem.family, link, design.total_weights, design.offset)
    start = _start(problem, kept, basis)
    search = {"theta": _with_theta, "scale": _with_scale}.get(next(iter(problem.family.free), ""), _plain)
    found = search(rows, start, _control(problem))
    if math.isnan(found.scoring.point.deviance):
        raise _no_start(problem)
    return _state(problem, found, kept, basis)


# ---------------------------------------------------------------- the door
def _check(problem: Problem) -> None:
    design, family = problem.design, problem.family
    family.check_link(problem.link)
    family.check(design.y, design.weights, design.rows, str(problem.spec.response))
    if family.name == "t" and design.weights is not None:
        raise Refused(
            "prior weights are not defined for family 't'.", where="fit()", do="Use freq_weights= for counts, or family='gaussian'."
        )


def _control(problem: Problem) -> Control:
    options = problem.options
    max_iter = MAX_ITER if options.max_iter is None else options.max_iter
    tol = TOL if options.tol is None else options.tol
    if not is_whole(max_iter) or max_iter < 1:
        raise OptionError(f"max_iter={max_iter!r} is not a whole number of at least 1.", where="fit()")
    if isinstance(tol, bool) or not isinstance(tol, (int, float, np.floating)) or not 0 < tol < 1:
        raise OptionError(f"tol={tol!r} is not between 0 and 1.", where="fit()", do="It is the distance to the maximum in standard errors.")
    return Control(max_iter=int(max_iter), tol=float(tol), diverging=1e-2)


def _start(problem: Problem, kept: Bools, basis: Floats | None) -> Floats | None:
    """Where the user (or a refit) wants the search to begin, in the coordinates of the search."""
    start: Any = problem.options.start
    if start is None:
        return None
    if isinstance(start, FitState):
        start = start.coef
    try:
        coef = np.asarray(start, dtype=float)
    except (TypeError, ValueError):
        coef = np.full(1, np.nan)
    if coef.shape == kept.shape:
        coef = coef[kept]
    if coef.shape != (int(kept.sum()),) or not np.isfinite(coef).all():
        names = ", ".join(problem.design.names[:6])
        raise OptionError(f"start={start!r} is not {len(kept)} finite numbers.", where="fit()", do=f"Give one per coefficient: {names} ….")
    return coef if basis is None else np.linalg.solve(basis, coef)


def _no_start(problem: Problem) -> FitFailed | OptionError:
    low, high = problem.family.low, problem.family.high
    if problem.options.start is not None:
        what = f"start= gives means outside ({low:g}, {high:g}), the range of family {problem.family.name!r}."
        return OptionError(what, where="fit()", do="Leave it out, or start nearer.")
    what = f"no coefficients were found for which every mean lies inside ({low:g}, {high:g})."
    inside = "'log'" if math.isinf(problem.family.high) else repr(problem.family.canonical)
    do = f"Use a link that cannot leave that range, {inside}, or give start=."
    return FitFailed(what, where=f"family {problem.family.name!r} with link {problem.link.name!r}", do=do)


def _coordinates(X: Floats) -> tuple[Bools, Floats | None]:
    """Columns that rank allows (p,), and T with orthonormal XT where the columns are far from orthogonal, else None."""
    if X.shape[1] == 0 or well_conditioned_factor(weighted_gram(X)[0]) is not None:
        return np.ones(X.shape[1], dtype=bool), None
    kept = independent_columns(X)
    return kept, np.asarray(np.linalg.inv(triangular(X[:, kept])), dtype=float)


# ---------------------------------------------------------------- the search
def _maximise(rows: Rows, start: Floats | None, control: Control) -> tuple[Scoring, Floats | None]:
    """Scoring; where it runs away or stops early at the edge, the direction of separation, if there is one."""
    thin = start is None and len(rows.y) > ROWS_PER_COLUMN * max(rows.X.shape[1], 20)
    found = irls(rows, _subsample_start(rows) if thin else start, control)
    if thin and found.code == OUT_OF_RANGE:
        found = irls(rows, None, control)
    if found.code in (FINE, OUT_OF_RANGE):
        return found, None
    ends = free_ends(rows.y, rows.family, rows.link)
    if not (np.abs(found.point.mu - rows.y) < 1e-2)[ends != 0].any():
        return found, None
    direction = separation(rows.X, ends, found.step, rows.X @ found.step)
    if found.code != DIVERGES or (direction is not None and found.distance < 1e-4):
        return found, direction
    on = irls(rows, found.point.coef, evolve(control, diverging=0.0 if direction is None else 1e-4))
    return evolve(on, iterations=on.iterations + found.iterations), direction


def _subsample_start(rows: Rows) -> Floats | None:
    """The fit to every 19th row, None where that fails."""
    few = slice(None, None, SUBSAMPLE)
    weights, offset = (None if a is None else a[few] for a in (rows.weights, rows.offset))
    found = irls(evolve(rows, X=rows.X[few], y=rows.y[few], weights=weights, offset=offset), None, Control(25, 0.1, 1e-2))
    return found.point.coef if found.code == FINE else None


def _plain(rows: Rows, start: Floats | None, control: Control) -> Maximum:
    scoring, direction = _maximise(rows, start, control)
    return Maximum(rows, scoring, direction, {})


def _with_theta(rows: Rows, start: Floats | None, control: Control) -> Maximum:
    """β given θ and θ given β in turn, from the Poisson fit, until θ moves by less than `tol` of its standard error."""
    theta, steps = rows.family.aux["theta"], 0
    if math.isnan(theta):
        scoring, direction = _maximise(evolve(rows, family=POISSON), start, control)
        if scoring.code == OUT_OF_RANGE:
            return Maximum(rows, scoring, direction, {})
        mu, w = scoring.point.mu, 1.0 if rows.weights is None else rows.weights
        excess = float(np.sum(w * (np.square(rows.y - mu) - mu)))
        theta = min(max(float(np.sum(w * mu * mu)) / excess, 1e-3), 1e6) if excess > 0 else THETA_RANGE[1]
        start, steps = scoring.point.coef, scoring.iterations
    for _ in range(control.max_iter):
        rows = evolve(rows, family=rows.family.fitted({"theta": theta}))
        scoring, direction = _maximise(rows, start, control)
        if scoring.code == OUT_OF_RANGE:
            break
        start, before, steps = scoring.point.coef, theta, steps + scoring.iterations
        theta, se = negbinomial_theta(rows.y, scoring.point.mu, rows.weights, theta)
        if abs(theta - before) <= control.tol * (theta if math.isnan(se) else se):
            break
    else:
        scoring = evolve(scoring, code=NOT_CONVERGED)
    if scoring.code == OUT_OF_RANGE:
        return Maximum(rows, scoring, direction, {})
    return Maximum(rows, evolve(scoring, iterations=steps), direction, {"theta": theta, "theta_se": se})


def _with_scale(rows: Rows, start: Floats | None, control: Control) -> Maximum:
    """β given the scale (and df) of t, and these given β, in turn, from least squares."""
    fixed_df = math.nan if "df" in rows.family.free else rows.family.aux["df"]
    scoring, direction = _maximise(evolve(rows, family=GAUSSIAN), start, control)
    scale, df, steps = 0.0, 0.0, scoring.iterations
    for k in range(control.max_iter):
        if scoring.code == OUT_OF_RANGE:
            break
        before = (scale, df)
        scale, df = _scale_and_df(rows, scoring, fixed_df)
        change = max(abs(scale - before[0]) / scale, abs(df - before[1]) / df)
        if change <= control.tol or (k > 20 and change < 1e-6):
            break
        rows = evolve(rows, family=rows.family.fitted({"scale": scale, "df": df}))
        scoring, direction = _maximise(rows, scoring.point.coef, control)
        steps += scoring.iterations
    else:
        scoring = evolve(scoring, code=NOT_CONVERGED)
    return Maximum(rows, evolve(scoring, iterations=steps), direction, {"df": df, "scale": scale})


def _scale_and_df(rows: Rows, scoring: Scoring, df: float) -> tuple[float, float]:
    residual = rows.y - scoring.point.mu
    scale, df = t_scale_and_df(residual, rows.weights) if math.isnan(df) else (t_scale(residual, df, rows.weights), df)
    if scale == 0.0:
        what = "so many rows are fitted exactly that the likelihood has no maximum: the scale runs to 0."
        raise FitFailed(what, where="family 't'", do="Use a larger df, or family='gaussian'.")
    return scale, df


# ---------------------------------------------------------------- what follows from the estimates
def _state(problem: Problem, found: Maximum, kept: Bools, basis: Floats | None) -> FitState:
    design, family, point = problem.design, found.rows.family, found.scoring.point
    rank, free = len(point.coef), family.dispersion != "one"
    df_resid = design.n_obs - rank
    dispersion = _dispersion(found, df_resid)
    R = _factor(point.information)
    half = np.full((rank, rank), np.nan) if R is None else np.linalg.inv(R)
    if basis is not None:
        half, R = basis @ half, None if R is None else R @ np.linalg.inv(basis)
    coef = point.coef if basis is None else basis @ point.coef
    direction = found.direction if basis is None or found.direction is None else basis @ found.direction
    outcome = _outcome(problem, found, design.keep(kept), direction, dispersion)
    return FitState(
        estimator="glm",
        coef=coef,
        vcov=dispersion * (half @ half.T),
        kept=kept,
        sigma=math.sqrt(dispersion),
        dispersion=dispersion,
        dispersion_estimated=free,
        eta=point.eta,
        mu=point.mu,
        working=point.working,
        loglik=loglik(family, found.rows.y, point.deviance, design.weights, design.freq),
        deviance=point.deviance,
        null_deviance=_null_deviance(problem, found.rows),
        npar=rank + len(family.free) + (family.dispersion == "pearson" and family.logpdf is not None),
        df_resid=df_resid,
        aux=found.aux,
        outcome=outcome,
        notes=dropped_note(design, kept) + _shape_note(found.aux),
        engine=R,
    )


def _shape_note(aux: dict[str, float]) -> tuple[str, ...]:
    """What was estimated beside the coefficients, and what it means for their standard errors."""
    if not aux:
        return ()
    if "theta" in aux:
        estimated = f"theta = {aux['theta']:.4g}" + (f" (se {aux['theta_se']:.3g})" if math.isfinite(aux["theta_se"]) else "")
    else:
        estimated = f"scale = {aux['scale']:.4g} with df = {aux['df']:.4g}"
    return (f"{estimated} by maximum likelihood; the other standard errors take it as known",)


def _factor(information: Floats) -> Floats | None:
    try:
        R = cholesky_factor(information) if (np.diag(information) > 0).all() else None
    except np.linalg.LinAlgError:
        return None
    return R if R is None or np.isfinite(R).all() else None


def _dispersion(found: Maximum, df_resid: float) -> float:
    """1, the scale² of t, or Pearson's X²/df; nan without a degree of freedom."""
    family, rows, mu = found.rows.family, found.rows, found.scoring.point.mu
    if family.dispersion != "pearson":
        return float(family.aux.get("scale", 1.0)) ** 2
    if df_resid <= 0:
        return math.nan
    each = np.square(rows.y - mu) / family.variance(mu)
    return float(each.sum() if rows.weights is None else rows.weights @ each) / df_resid


def _null_deviance(problem: Problem, rows: Rows) -> float | None:
    """Deviance of the intercept alone (with the offset), or of the offset alone where the model has no intercept; None where undefined.

    Source: R's glm.fit and glm.
    """
    y, family, link, w = rows.y, rows.family, rows.link, rows.weights
    if not problem.spec.intercept:
        with np.errstate(all="ignore"):
            mu = link.inverse(np.zeros(len(y)) if rows.offset is None else rows.offset)
    elif rows.offset is None and family.own_score is None:
        mu = np.full(len(y), np.average(y, weights=w))
    else:
        mu = irls(evolve(rows, X=np.ones((len(y), 1)))).point.mu
    with np.errstate(all="ignore"):
        each = family.deviance(y, mu)
        deviance = float(each.sum() if w is None else w @ each)
    return deviance if math.isfinite(deviance) else None


# ---------------------------------------------------------------- how it ended, in words
def _outcome(problem: Problem, found: Maximum, design: Design, direction: Floats | None, dispersion: float) -> Outcome:
    """One sentence, what to do, and at most one warning."""
    status, message, advice, warning = _verdict(problem, found, design, direction, dispersion)
    if warning is not None:
        warn(f"{message} {advice}", warning)
    return Outcome(
        status=status,
        message=message,
        advice=advice,
        method="Fisher scoring",
        iterations=found.scoring.iterations,
        gradient=found.scoring.distance,
        boundary=found.rows.family.free[-1:] if status == "boundary" else (),
    )


def _verdict(
    problem: Problem, found: Maximum, design: Design, direction: Floats | None, dispersion: float
) -> tuple[str, str, str, type[Warning] | None]:
    scoring, family = found.scoring, found.rows.family
    if direction is not None:
        why, names = explanation(problem, design, direction)
        advice = (
            f"Estimates, standard errors and Wald tests of {names} mean nothing: merge or leave out what separates, "
            "or use likelihood-ratio tests, jointtest(test='lr')."
        )
        return "suspect", f"The likelihood has its maximum at infinity: {why}.", advice, SeparationWarning
    if scoring.code != FINE:
        return _unfinished(problem, scoring, family)
    if found.aux.get("theta") == THETA_RANGE[1] or ("df" in family.free and found.aux["df"] in DF_RANGE):
        return "boundary", *_at_the_end(found.aux), BoundaryWarning
    if math.isnan(dispersion):
        message = "There are as many coefficients as observations, so nothing is left to estimate the dispersion from."
        return "suspect", message, "Use fewer terms or more rows: estimates have no standard errors.", None
    if family.dispersion == "pearson" and scoring.point.deviance <= 1e-10 * found.rounding * len(found.rows.y):
        message = "The fit is perfect up to rounding, so the dispersion and all tests are rounding error."
        return "suspect", message, "Check that the response is not computed from the predictors.", None
    return "ok", f"Converged in {scoring.iterations} scoring step{'s' * (scoring.iterations != 1)}.", "", None


def _unfinished(problem: Problem, scoring: Scoring, family: Family) -> tuple[str, str, str, type[Warning]]:
    status, mu = "suspect" if scoring.distance < 1e-3 else "failed", scoring.point.mu
    ended = int(np.sum((mu < family.low + 1e-4 * np.abs(mu).mean()) | (mu > family.high - 1e-4)))
    if ended and (problem.link.low < family.low or problem.link.high > family.high):
        message = f"The fitted mean of {ended} of {len(mu)} rows runs to the end of the range: the maximum lies there or beyond."
        return "suspect", message, f"Standard errors do not hold: use link {family.canonical!r}, or a simpler model.", ConvergenceWarning
    if scoring.iterations >= (problem.options.max_iter or MAX_ITER):
        message = f"The search was not finished after {scoring.iterations} steps, {scoring.distance:.2g} standard errors from its end."
        return status, message, "Raise max_iter=, give start=, or simplify the model.", ConvergenceWarning
    if scoring.code == NOT_CONVERGED:
        message = "The search stopped where no shorter step is better, before it had converged."
        return status, message, f"Give start=, use another link than {problem.link.name!r}, or a simpler model.", ConvergenceWarning
    message = "The information matrix became singular: some combination of coefficients is not determined."
    return "failed", message, "Simplify the model, or rescale predictors of very different size.", ConvergenceWarning


def _at_the_end(aux: dict[str, float]) -> tuple[str, str]:
    if "theta" in aux:
        return "The counts are no more dispersed than Poisson: θ runs to infinity.", "Use family='poisson': it is this fit without θ."
    if aux["df"] == DF_RANGE[1]:
        return "The residuals have no heavier tails than normal: df runs to infinity.", "Use family='gaussian': it is this fit without df."
    return "The likelihood rises for ever as df runs to 0.", "Fix it: family=t(df=4)."
