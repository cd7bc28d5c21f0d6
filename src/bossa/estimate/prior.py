"""Linear and generalized linear models with a normal prior of their coefficients: the most probable ones, and the posterior about them.

    LM    β | σ² ~ N(m₀, σ² V₀), σ² ~ IG(ν₀/2, ν₀s₀²/2)   ⇒   RᵀR = XᵀWX + V₀⁻¹,  RᵀR m = XᵀWy + V₀⁻¹m₀,  ν = ν₀ + n − (flat ones),
          ν s² = ν₀ s₀² + ‖√W(y − Xm)‖² + (m − m₀)ᵀV₀⁻¹(m − m₀),      β | y ~ t_ν(m, s² (RᵀR)⁻¹)
    GLM   m = argmax ℓ(β)/φ − ½ (β − m₀)ᵀB⁻¹(β − m₀), by scoring;  covariance (−ℓ″ + B⁻¹)⁻¹ at m, the observed information

What is told of σ decides the linear case: a number is known σ (the posterior is normal); the posterior of another linear model brings its
own ν₀ and s₀, so that fitting in two batches is fitting at once; otherwise V₀ = sd²/σ̂², σ̂ from least squares on the same rows, and
ν₀ = −rank V₀, s₀ = 0, which leaves n − p degrees of freedom, so that a vague prior gives the fit without one. φ of a GLM is its
maximum-likelihood fit's.

Source: Bernardo & Smith (1994) §5.2, A.2; Gelman et al. (2013) §14.8, §16.2; Tierney & Kadane (1986) for the evidence of a GLM.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import evolve, frozen

from ..errors import ConvergenceWarning, FitFailed, NotYet, OptionError, Refused, UnknownOption, warn
from ..kernels import covop
from ..kernels.covop import CovOp
from ..kernels.family import loglik
from ..kernels.irls import Point, Rows, evaluate, first_point
from ..kernels.linalg import cholesky_factor, inverse_factored, inverse_spd, lstsq, triangular
from ..kernels.response import bend, make_response
from ..state.design import Problem
from ..state.distributions import Normal
from ..state.fit import FitState, Outcome
from ..state.posterior import Posterior, positions
from ..types import Bools, Floats
from .glm import _control, fit_glm
from .lm import dropped_note, fit_lm, gaussian_loglik, sum_of_squares
from .registry import estimator

HOW = "Use bossa.normal(0, 2.5) for all, {'x': bossa.normal(0, 1)} for some, or the .posterior of another fit."


def accepts(problem: Problem) -> bool:
    return problem.design.random is None and problem.prior is not None


# ---------------------------------------------------------------- what was told
def resolve_prior(prior: Any, names: tuple[str, ...]) -> Posterior:
    """The prior about these coefficients (k,), as a Posterior; those it does not name have variance inf.

    prior  Normal | {name: Normal, "sigma": number or (guess, worth in rows)} | Posterior
    """
    if isinstance(prior, Posterior):
        return _spread_out(prior, names)
    if isinstance(prior, Normal):
        prior = dict.fromkeys(names, prior)
    if not isinstance(prior, Mapping):
        raise OptionError(f"prior={prior!r} is not a prior.", where="model()", do=HOW)
    told = dict(prior)
    sigma, df = _told_of_sigma(told.pop("sigma") if not isinstance(told.get("sigma"), Normal) and "sigma" in told else None)
    index = positions(told, names, "prior=")
    mean, variance = np.zeros(len(names)), np.full(len(names), np.inf)
    for i, (name, one) in zip(index, told.items()):
        if not isinstance(one, Normal) or one.per is not None:
            raise OptionError(f"the prior of {name!r} is {one!r}.", where="prior=", do="Use bossa.normal(mean, sd).")
        mean[i], variance[i] = one.mean, one.sd**2
    return Posterior(names=names, mean=mean, cov=covop.Diag(variance), kind="gaussian" if df is None else "student_t", df=df, sigma=sigma)


def about(prior: Any, names: tuple[str, ...]) -> Any:
    """What a prior says of those of `names` that it names (a posterior: its marginal), for a refit without some terms."""
    if isinstance(prior, Mapping):
        return {name: one for name, one in prior.items() if name in names or name == "sigma"}
    if isinstance(prior, Posterior):
        left = [name for name in prior.names if name in names]
        return prior.marginal(left) if left else {}
    return prior


def _told_of_sigma(told: Any) -> tuple[float | None, float | None]:
    if told is None:
        return None, None
    numbers = told if isinstance(told, tuple) else (told,)
    fine = [isinstance(x, (int, float, np.number)) and not isinstance(x, bool) and 0 < x < math.inf for x in numbers]
    if not all(fine) or len(numbers) not in (1, 2):
        raise OptionError(
            f"'sigma': {told!r} is not a positive number.", where="prior=", do="Give the residual sd, or (a guess, the rows it is worth)."
        )
    return float(numbers[0]), float(numbers[1]) if len(numbers) == 2 else None


def _spread_out(prior: Posterior, names: tuple[str, ...]) -> Posterior:
    """A posterior as a prior about `names`, in their order; flat about those it does not have."""
    if prior.back is not None:
        raise Refused(f"it is shown through {prior.back.name}.", where="prior=", do="Use the posterior of the coefficients.")
    unknown = [n for n in prior.names if n not in names]
    if unknown:
        do = "take post.marginal([...]) of the coefficients that both have"
        raise UnknownOption(unknown[0], names, where=f"prior= ({do})", kind="coefficient")
    prior = prior.as_prior()
    if prior.names == names:
        return prior
    if set(prior.names) == set(names):
        return prior.marginal(names)
    index = positions(prior.names, names, "prior=")
    mean, root = np.zeros(len(names)), np.zeros((len(names), len(names)))
    mean[index] = prior.mean
    W = prior.cov.whiten(np.eye(len(index)))
    root[: len(W), index] = W
    return evolve(prior, names=names, mean=mean, cov=covop.Flat(root[: len(W)]))


def precision_rows(op: CovOp) -> Floats:
    """W (r, k) with WᵀW the prior precision; rows of zeros left out."""
    if isinstance(op, covop.Diag) and (op.d == 0).any():
        raise OptionError("a prior variance is 0.", where="prior=", do="Leave the coefficient out, or put it into offset=.")
    if not isinstance(op, (covop.Diag, covop.Flat)) and op.rank < op.size:
        raise Refused("the prior's covariance is singular.", where="prior=", do="Inflate it, or take post.marginal([...]).")
    W = op.whiten(np.eye(op.size))
    return W[(W != 0).any(axis=1)]


# ---------------------------------------------------------------- the fit
@estimator("prior", accepts=accepts, takes=("max_iter", "tol", "start"))
def fit_with_prior(problem: Problem) -> FitState:
    """The most probable coefficients given prior and data, and their posterior covariance."""
    prior = resolve_prior(problem.prior, problem.design.names)
    if problem.family.name == "gaussian" and problem.link.name == "identity":
        for option in ("max_iter", "tol", "start"):
            if getattr(problem.options, option) is not None:
                raise OptionError(f"{option}= has no use for a linear model.", where="fit()", do="Leave it out: the fit has a closed form.")
        return _linear(problem, prior)
    return _generalized(problem, prior)


@frozen(eq=False)
class Sigma:
    """What is known of σ before the data: s worth `df` rows (inf: known); unit: σ in whose units the prior's covariance is told."""

    s: float
    df: float
    unit: float
    note: str


def _sigma(problem: Problem, prior: Posterior, rank: int) -> Sigma:
    if prior.sigma is not None and prior.df is None:
        return Sigma(prior.sigma, math.inf, prior.sigma, f"σ = {prior.sigma:.6g} is taken as known")
    if prior.sigma is not None and prior.df is not None:
        return Sigma(
            prior.sigma, prior.df, prior.sigma, f"σ is unknown, about {prior.sigma:.6g} before the data, worth {prior.df:.6g} rows"
        )
    s = fit_lm(evolve(problem, prior=None)).sigma
    if not s > 0:
        what = "least squares leaves no residual to take σ from, and the prior's sd is told in units of it."
        raise Refused(what, where="prior=", do="Say what is known of σ: prior={'x': bossa.normal(0, 1), 'sigma': 2.0}.")
    return Sigma(0.0, -float(rank), s, f"σ is unknown; the prior's sd is told in units of the rows' least-squares σ = {s:.6g}")


def _linear(problem: Problem, prior: Posterior) -> FitState:
    design = problem.design
    rows = precision_rows(prior.cov)
    sigma = _sigma(problem, prior, len(rows))
    W0 = sigma.unit * rows
    y = np.asarray(design.y) if design.offset is None else design.y - design.offset
    W = design.total_weights
    stacked = None if W is None else np.concatenate((W, np.ones(len(W0))))
    found = lstsq(np.concatenate((design.X, W0)), np.concatenate((y, W0 @ prior.mean)), stacked)
    residual = found.residual[: design.n]
    rss, penalty = sum_of_squares(residual, W), float(np.sum(found.residual[design.n :] ** 2))
    p = len(found.coef)
    known = math.isinf(sigma.df)
    df = math.inf if known else sigma.df + design.n_obs - (p - len(rows))
    if not df > 0:
        raise Refused(f"{df:g} degrees of freedom are left for σ.", where="fit()", do="Say what is known of it: prior={…, 'sigma': 2.0}.")
    variance = sigma.s**2 if known else (sigma.df * sigma.s**2 + rss + penalty) / df
    eta = y - residual if design.offset is None else y - residual + design.offset
    evidence = _linear_evidence(problem, found.R, rows, sigma, variance, df, rss + penalty) if len(rows) == p else None
    null = sum_of_squares(y - np.average(y, weights=W) if problem.spec.intercept else y, W)
    return FitState(
        estimator="prior",
        coef=found.coef,
        vcov=variance * inverse_factored(found.R),
        kept=found.kept,
        sigma=math.sqrt(variance),
        dispersion=variance,
        dispersion_estimated=not known,
        eta=eta,
        mu=eta,
        working=W,
        loglik=_loglik_at(problem, rss, variance) if known else gaussian_loglik(design, rss),
        deviance=rss,
        null_deviance=null,
        npar=p + (not known),
        df_resid=design.n_obs - p if known else df,
        notes=(*dropped_note(design, found.kept), _said(prior), sigma.note),
        engine=found.R,
        prior=_kept(evolve(prior, sigma=sigma.unit if prior.sigma is None else prior.sigma), found.kept),
        log_evidence=evidence,
    )


def _log_weights(problem: Problem) -> float:
    design = problem.design
    if design.weights is None:
        return 0.0
    return float(np.log(design.weights).sum() if design.freq is None else design.freq @ np.log(design.weights))


def _loglik_at(problem: Problem, rss: float, variance: float) -> float:
    return 0.5 * _log_weights(problem) - 0.5 * problem.design.n_obs * math.log(2 * math.pi * variance) - 0.5 * rss / variance


def _linear_evidence(problem: Problem, R: Floats, rows: Floats, sigma: Sigma, variance: float, df: float, total: float) -> float | None:
    """log p(y): normal for known σ, multivariate t otherwise; None where the prior of σ is improper."""
    n = problem.design.n_obs
    volume = _log_volume(sigma.unit * rows) - _log_volume(R) + 0.5 * _log_weights(problem)
    if math.isinf(sigma.df):
        return volume - 0.5 * n * math.log(2 * math.pi * variance) - 0.5 * total / variance
    if not sigma.df > 0:
        return None
    before, after = 0.5 * sigma.df, 0.5 * df
    shape = math.lgamma(after) - math.lgamma(before)
    return volume + shape + before * math.log(sigma.df * sigma.s**2) - after * math.log(df * variance) - 0.5 * n * math.log(math.pi)


def _log_volume(A: Floats) -> float:
    """½ log det AᵀA."""
    return float(np.log(np.abs(np.diag(np.linalg.qr(A, mode="r")))).sum())


def _kept(prior: Posterior, kept: Bools) -> Posterior:
    return prior if kept.all() else prior.marginal([n for n, k in zip(prior.names, kept) if k])


def _said(prior: Posterior) -> str:
    flat = int(np.isinf(prior.cov.diag()).sum())
    about = f"{len(prior.names) - flat} of {len(prior.names)} coefficients" if flat else "every coefficient"
    return f"prior: normal, of {about}; estimates are the most probable values, standard errors are the posterior's"


# ---------------------------------------------------------------- generalized linear models
def _generalized(problem: Problem, prior: Posterior) -> FitState:
    design, family, link = problem.design, problem.family, problem.link
    family.check_link(link)
    family.check(design.y, design.weights, design.rows, str(problem.spec.response))
    if family.free or family.name == "t":
        do = "Give it: family=bossa.negbinomial(2.0)." if family.name == "negbinomial" else "Use another family."
        raise NotYet(f"a prior with a shape parameter that is estimated (family {family.name!r}) is not built yet.", where="model()", do=do)
    if prior.sigma is not None:
        raise OptionError(
            "σ is told of, and this family has none.", where="prior=", do="Leave 'sigma' out; use .gaussian() of a posterior."
        )
    if prior.df is not None:
        raise Refused("a Student-t prior is for linear models.", where="prior=", do="Use post.gaussian().")
    phi = fit_glm(evolve(problem, prior=None)).dispersion if family.dispersion == "pearson" else 1.0
    precision = precision_rows(prior.cov)
    if len(precision) < design.X.shape[1]:
        kept = lstsq(np.concatenate((design.X, precision)), np.zeros(design.n + len(precision))).kept
        design, precision = design.keep(kept), precision[:, kept]
    else:
        kept = np.ones(design.X.shape[1], dtype=bool)
    prior = _kept(prior, kept)
    rows = Rows(design.X, np.asarray(design.y), family, link, design.total_weights, design.offset)
    found = _most_probable(rows, precision.T @ precision, prior.mean, phi, problem)
    point, steps, distance = found
    penalty = float(np.sum((precision @ (point.coef - prior.mean)) ** 2))
    response = make_response(family, link, rows.y, design.weights, design.freq)
    observed = bend(response, point.eta, phi).observed
    H = (design.X.T * observed) @ design.X + precision.T @ precision
    vcov = _inverse(H)
    plain = family.logpdf is not None
    fitted_loglik = loglik(family, rows.y, point.deviance, design.weights, design.freq) if plain else math.nan
    evidence = None
    if plain and len(precision) == len(point.coef):
        saturated = np.asarray(family.logpdf(rows.y, rows.y, phi, design.weights))
        at_mode = float(saturated.sum() if design.freq is None else design.freq @ saturated) - point.deviance / (2 * phi)
        evidence = at_mode - 0.5 * penalty + _log_volume(precision) - 0.5 * float(np.linalg.slogdet(H)[1])
    df_resid = design.n_obs - len(point.coef)
    said = _said(prior) + ("" if phi == 1.0 else f"; dispersion {phi:.6g} from the fit without a prior")
    return FitState(
        estimator="prior",
        coef=point.coef,
        vcov=vcov,
        kept=kept,
        sigma=math.sqrt(phi),
        dispersion=phi,
        dispersion_estimated=False,
        eta=point.eta,
        mu=point.mu,
        working=point.working,
        loglik=fitted_loglik,
        deviance=point.deviance,
        npar=len(point.coef) + (family.dispersion == "pearson" and plain),
        df_resid=df_resid,
        outcome=_outcome(steps, distance),
        notes=(*dropped_note(problem.design, kept), said),
        engine=triangular(np.concatenate((design.X, math.sqrt(phi) * precision)), np.concatenate((point.working, np.ones(len(precision))))),
        prior=prior,
        log_evidence=evidence,
    )


def _inverse(H: Floats) -> Floats:
    try:
        return inverse_spd(H)
    except np.linalg.LinAlgError:
        raise FitFailed(
            "the observed information is not positive definite where the search ended.", where="fit()", do="Use a tighter prior."
        ) from None


def _most_probable(rows: Rows, precision: Floats, centre: Floats, phi: float, problem: Problem) -> tuple[Point, int, float]:
    """Scoring with the prior's precision added, halved while the penalised deviance would grow; where it ended, steps, last distance."""

    def penalised(at: Point) -> float:
        away = at.coef - centre
        return at.deviance / phi + float(away @ precision @ away)

    control = _control(problem)
    limit, tol = control.max_iter, control.tol
    with np.errstate(all="ignore"):
        point = _start(rows, centre, problem.options.start)
        distance = math.inf
        for steps in range(1, limit + 1):
            gradient = point.score / phi - precision @ (point.coef - centre)
            R = cholesky_factor(point.information / phi + precision)
            half = np.linalg.solve(R.T, gradient)
            before, distance = distance, float(np.sqrt(half @ half))
            step, now = np.linalg.solve(R, half), penalised(point)
            if distance <= tol or (distance < 1e-6 and distance > 0.9 * before):
                return point, steps, distance
            for halvings in range(30):
                moved = evaluate(rows, point.coef + 0.5**halvings * step)
                if moved is not None and penalised(moved) <= now + 1e-10 * abs(now):
                    break
            else:
                return point, steps, distance
            point = moved
    return point, limit, distance


def _start(rows: Rows, centre: Floats, start: Any) -> Point:
    """Where the user says, else where the fit without a prior begins, else at the prior's mean."""
    if start is not None:
        start = start.coef if isinstance(start, FitState) else np.asarray(start, dtype=float)
        if start.shape != centre.shape:
            raise OptionError(
                f"start= has shape {start.shape}, not ({len(centre)},).", where="fit()", do="Give one number per coefficient."
            )
    for point in (None if start is None else evaluate(rows, start), first_point(rows), evaluate(rows, centre)):
        if point is not None and point.information is not None:
            return point
    raise FitFailed("no start was found inside the family's range.", where="fit()", do="Give start=, or another link.")


def _outcome(steps: int, distance: float) -> Outcome:
    if distance < 1e-6:
        message = f"Converged in {steps} scoring step{'s' * (steps != 1)}."
        return Outcome(message=message, method="Fisher scoring with a prior", iterations=steps, gradient=distance)
    message = f"The search was not finished after {steps} steps, {distance:.2g} standard errors from its end."
    warn(f"{message} Raise max_iter=, or give start=.", ConvergenceWarning)
    status = "suspect" if distance < 1e-3 else "failed"
    return Outcome(status=status, message=message, advice="Raise max_iter=, or give start=.", iterations=steps, gradient=distance)
