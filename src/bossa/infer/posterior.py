"""What is known of K numbers, as a `Posterior` to be handed on: how="posterior", and `.posterior` after any other how.

    adapter        covariance of the coefficients                                                   mean
    exact          linear model: t or normal, (XᵀWX + V₀⁻¹)⁻¹ s²; mixed: given the variances         the estimates
    gauss_newton   (JᵀWJ/φ + B⁻¹)⁻¹, the expected information: the factor of the last scoring step   the estimates
    laplace        (−ℓ″ + B⁻¹)⁻¹, the observed information; the same for canonical links             the estimates
    ensemble       of bootstrap refits: inflation · S ∘ taper, S Bessel's, or shrunk                 their mean
    samples        draws by sampling–importance resampling from a t about the Laplace approximation  their mean
    auto           exact for linear models, gauss_newton for the others, laplace where they have a prior

A target is a map of the coefficients: linear ones carry mean and covariance exactly, others by their slope (draws: each one exactly).

Source: Tierney & Kadane (1986); Rubin (1988) for SIR; Evensen (2009) ch. 4; Ledoit & Wolf (2004); Gaspari & Cohn (1999).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from attrs import evolve, field, fields, frozen

from ..assimilate.origin import provenance
from ..design.data import as_frame
from ..errors import DataError, DataWarning, FitFailed, OptionError, Refused, warn
from ..estimate.many import refit
from ..explore.diagnose import is_linear
from ..explore.scale import through
from ..kernels import covop, densities
from ..kernels.covop import CovOp
from ..kernels.linalg import cholesky_factor
from ..kernels.response import bend, make_response
from ..kernels.streams import entropy, stream
from ..state.design import Design, Problem
from ..state.fields import choice, conf_level, integer, workers
from ..state.fit import FitState
from ..state.inference import EffectsState, InferenceState, JointTestState, PredictionState, ResamplesState
from ..state.posterior import Posterior
from ..state.target import Linear, Target
from ..types import Floats
from . import backend
from .bootstrap import warn_of_failures
from .covariance import covariance
from .plan import plan

ADAPTERS = ("auto", "exact", "gauss_newton", "laplace", "ensemble", "samples")
USES = {  # options that an adapter has a use for, besides conf_level and adapter
    "ensemble": ("n_draws", "seed", "scheme", "inflate", "shrink", "localization", "n_jobs"),
    "samples": ("n_draws", "seed"),
    "exact": ("solver", "n_krylov"),
    "gauss_newton": ("solver", "n_krylov"),
}


def _positive(instance: Any, attribute: Any, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < math.inf:
        raise OptionError(f"{attribute.name}={value!r} is not a positive number.", where="infer(how='posterior')")


@frozen(kw_only=True)
class PosteriorOptions:
    """Options of how="posterior".

    adapter       "auto" | "exact" | "gauss_newton" | "laplace" | "ensemble" | "samples"
    n_draws, seed of ensemble and samples;  scheme, n_jobs of the bootstrap behind an ensemble
    inflate       factor of an ensemble's covariance;  shrink None | "ledoit-wolf" towards uncorrelated coefficients
    localization  of an ensemble: None | "term" (terms are uncorrelated) | a radius in columns (Gaspari–Cohn, for ordered bases)
    solver        "chol" | "lanczos" (many coefficients with independent proper priors), with n_krylov steps
    """

    conf_level: float = field(default=0.95, converter=conf_level)
    adapter: str = choice("auto", among=ADAPTERS)
    n_draws: int = integer(1000, minimum=2)
    seed: Any = None
    scheme: str = "auto"
    n_jobs: int | None = workers()
    inflate: float = field(default=1.0, validator=_positive)
    shrink: str | None = None
    localization: Any = None
    solver: str = choice("chol", among=("chol", "lanczos"))
    n_krylov: int = integer(50, minimum=1)


@backend("posterior", PosteriorOptions)
def posterior(problem: Problem, fit: FitState, target: Target, options: PosteriorOptions) -> InferenceState:
    """The posterior of the target's rows; their means, standard deviations and limits in the table, itself at `.posterior`."""
    post = of_target(of_coefficients(problem, fit, options), target)
    middle, spread, limits = post.mean, post.sd(), post.interval(options.conf_level)
    if post.back is not None:
        spread = np.abs(np.asarray(post.back.slope(post.mean))) * spread
        middle = np.asarray(post.back.value(post.mean))
    known = np.ones(len(spread), dtype=bool) if target.estimable is None else target.estimable
    mean, sd, interval = (np.full(shape, np.nan) for shape in (len(known), len(known), (2, len(known))))
    mean[known], sd[known], interval[:, known] = middle, spread, limits
    df = None if post.df is None else np.where(known, post.df, np.nan)
    used = post.provenance.adapter if post.provenance is not None else options.adapter
    told = {"adapter": used} | {
        f.name: getattr(options, f.name) for f in fields(PosteriorOptions) if _asked(options, f) and f.name in USES.get(used, ())
    }
    return InferenceState(
        how="posterior",
        level=options.conf_level,
        estimate=mean,
        interval=interval,
        df=df,
        columns={"sd": sd},
        notes=post.notes,
        options=told,
        extra=post,
    )


def posterior_of(problem: Problem, fit: FitState, focus: Any, target: Target, state: InferenceState | JointTestState) -> Posterior:
    """The posterior that an inference of any kind leaves: its own, that of its replicates, or that of its covariance.

    focus  what was asked (None: the parameters), whose Target is `target`
    """
    if focus is not None and not isinstance(focus, (EffectsState, PredictionState)):
        raise Refused("simulated responses have no posterior.", where=".posterior", do="Use .predict(…).infer(how='posterior').")
    if isinstance(state, JointTestState):
        return of_target(of_coefficients(problem, fit, PosteriorOptions()), target)
    if isinstance(state.extra, Posterior):
        return state.extra
    if isinstance(state.extra, ResamplesState) and state.how == "boot":
        return _of_replicates(problem, fit, target, state.extra)
    errors = state.options.get("errors", "iid")
    if state.how == "asymp" and errors != "iid":
        cov = covop.from_root(covariance(problem, fit, errors, state.options.get("cluster")).root)
        notes = (f"posterior: normal about the estimates, covariance {errors}", "prior: flat")
        return of_target(_posterior(problem, fit, f"sandwich {errors}", cov=cov, notes=notes), target)
    return of_target(of_coefficients(problem, fit, PosteriorOptions()), target)


# ---------------------------------------------------------------- of the coefficients
def of_coefficients(problem: Problem, fit: FitState, options: PosteriorOptions) -> Posterior:
    """The posterior of the coefficients kept, by one adapter."""
    linear, mixed = is_linear(problem), problem.design.random is not None
    adapter = options.adapter
    if adapter == "auto":
        adapter = "exact" if linear else "laplace" if mixed or fit.prior is not None else "gauss_newton"
    _check_uses(adapter, options)
    if mixed:
        return _mixed(problem, fit, adapter, linear) if adapter != "ensemble" else _ensemble(problem, fit, options)
    if adapter == "ensemble":
        return _ensemble(problem, fit, options)
    if adapter == "samples":
        return _samples(problem, fit, options)
    if adapter == "exact" and not linear:
        raise Refused(
            "a closed form exists for linear models only.",
            where="adapter='exact'",
            do="Use adapter='laplace', or 'samples' for exact draws.",
        )
    if not fit.dispersion > 0:
        raise Refused(
            "no residual degree of freedom is left to estimate σ from.", where=f"adapter={adapter!r}", do="Use fewer terms or a prior."
        )
    df, sigma, said = None, None, ""
    if adapter == "exact":
        sigma = fit.sigma
        df = float(fit.df_resid) if fit.dispersion_estimated else None
        said = f"Student-t with {df:.6g} df: σ is unknown" if df is not None else f"normal: σ = {sigma:.6g} is known"
    cov = _krylov(problem, fit, options) if options.solver == "lanczos" else _covariance(problem, fit, adapter)
    flat = () if fit.prior is not None else ("prior: flat",)
    notes = (f"posterior: {adapter.replace('_', '–')}{f', {said}' if said else ''}", *flat)
    return _posterior(problem, fit, adapter, cov=cov, kind="gaussian" if df is None else "student_t", df=df, sigma=sigma, notes=notes)


def _asked(options: PosteriorOptions, option: Any) -> bool:
    return getattr(options, option.name) != option.default


def _check_uses(adapter: str, options: PosteriorOptions) -> None:
    """An option that the adapter has no use for is an error, never ignored."""
    for option in fields(PosteriorOptions):
        name = option.name
        if name == "n_krylov" and options.solver != "lanczos" and _asked(options, option):
            raise OptionError(
                "n_krylov= is for solver='lanczos'.", where="infer(how='posterior')", do="Leave it out, or ask for that solver."
            )
        if name in ("conf_level", "adapter", *USES.get(adapter, ())) or not _asked(options, option):
            continue
        fitting = [a for a, uses in USES.items() if name in uses]
        raise OptionError(
            f"{name}= has no use for adapter={adapter!r}.", where="infer(how='posterior')", do=f"It is for {', '.join(fitting)}."
        )


def _posterior(problem: Problem, fit: FitState, adapter: str, seed: Any = None, **moments: Any) -> Posterior:
    """With what every adapter adds: names, prior, evidence, new rows, provenance."""
    return Posterior(
        names=problem.design.names,
        mean=moments.pop("mean", fit.coef),
        prior=fit.prior,
        log_evidence=fit.log_evidence,
        rows=None if problem.encoder is None else NewRows(problem.encoder, problem.design.kept, problem.link),
        provenance=provenance(problem, fit, adapter, seed),
        **moments,
    )


def _covariance(problem: Problem, fit: FitState, adapter: str) -> CovOp:
    if adapter == "laplace" and not _natural(problem):
        return _laplace(problem, fit)
    if not isinstance(fit.engine, np.ndarray) or not np.isfinite(fit.engine).all():
        raise FitFailed("the information matrix is singular.", where=f"adapter={adapter!r}", do="Simplify the model, or give prior=.")
    return covop.PrecisionChol(fit.engine / fit.sigma)


def _natural(problem: Problem) -> bool:
    """Is the observed information the expected one?"""
    return is_linear(problem) or problem.family.natural == problem.link.name


def _laplace(problem: Problem, fit: FitState) -> CovOp:
    design = problem.design
    family = problem.family.fitted(fit.aux)
    if family.own_score is not None:
        raise Refused(f"it is not defined here for family {family.name!r}.", where="adapter='laplace'", do="Use adapter='gauss_newton'.")
    response = make_response(family, problem.link, np.asarray(design.y), design.weights, design.freq)
    H = (design.X.T * bend(response, fit.eta, fit.dispersion).observed) @ design.X
    if fit.prior is not None:
        H = H + fit.prior.cov.solve(np.eye(len(fit.coef)))
    try:
        return covop.from_precision(H)
    except np.linalg.LinAlgError:
        raise FitFailed(
            "the observed information is not positive definite at the estimates.",
            where="adapter='laplace'",
            do="Use adapter='gauss_newton'.",
        ) from None


def _krylov(problem: Problem, fit: FitState, options: PosteriorOptions) -> CovOp:
    prior = None if fit.prior is None else fit.prior.cov
    if not isinstance(prior, covop.Diag) or not np.isfinite(prior.d).all():
        do = "Give prior=bossa.normal(0, 2.5), or use solver='chol'."
        raise Refused("it improves on independent proper priors of all coefficients.", where="solver='lanczos'", do=do)
    X, w = problem.design.X, (1.0 if fit.working is None else fit.working) / fit.dispersion
    if fit.prior is not None and fit.prior.sigma is not None:
        prior = prior.scaled(fit.dispersion / fit.prior.sigma**2)

    def information(v: Floats) -> Floats:
        return X.T @ (w * (X @ v))

    found = covop.krylov(prior, information, options.n_krylov)
    probe = stream(0, 0).standard_normal(len(fit.coef))
    off = float(np.linalg.norm(found.mv(prior.solve(probe) + information(probe)) - probe) / np.linalg.norm(probe))
    if off > 1e-3:  # P P⁻¹ v ≠ v
        what = f"{options.n_krylov} Lanczos steps do not exhaust the data (off by {off:.2g}): what is left has the prior's variance."
        warn(f"{what} Raise n_krylov=, or use solver='chol'.", DataWarning)
    return found


def _mixed(problem: Problem, fit: FitState, adapter: str, linear: bool) -> Posterior:
    right = "exact" if linear else "laplace"
    if adapter != right:
        raise Refused("it is not defined for mixed models.", where=f"adapter={adapter!r}", do=f"Use adapter={right!r} or 'ensemble'.")
    notes = ("posterior: of the fixed effects, normal, the variances of the random effects taken at their estimates", "prior: flat")
    return _posterior(problem, fit, adapter, cov=covop.Chol(cholesky_factor(fit.vcov).T), notes=notes)


# ---------------------------------------------------------------- draws
def _ensemble(problem: Problem, fit: FitState, options: PosteriorOptions) -> Posterior:
    """Moments of bootstrap refits."""
    name = options.scheme if options.scheme != "auto" else "parametric" if problem.design.random is not None else "case"
    chosen = plan(problem, fit, name, options.n_draws, options.seed, None)
    draws = refit(problem, fit, chosen, n_jobs=options.n_jobs)
    warn_of_failures(draws.code, "members of the ensemble")
    members = draws.coef[draws.code == 0]
    mean, cov, samples, said = moments(members, problem.design, options)
    kind = "gaussian" if samples is None else "ensemble"
    notes = (f"posterior: {said} {len(members)} bootstrap refits ({name}), seed {chosen.seed}",)
    return _posterior(problem, fit, "ensemble", chosen.seed, mean=mean, cov=cov, samples=samples, kind=kind, notes=notes)


def moments(members: Floats, design: Design | None, options: PosteriorOptions) -> tuple[Floats, CovOp, Floats | None, str]:
    """Mean (k,), covariance, members that agree with it (None where it was shrunk or tapered) and words.   members (M, k)"""
    M, k = members.shape
    if M < 2:
        raise FitFailed(f"{M} members are usable.", where="adapter='ensemble'", do="Raise n_draws=, or use adapter='laplace'.")
    mean = members.mean(axis=0)
    away = (members - mean) * math.sqrt(options.inflate)
    plain = options.shrink is None and options.localization is None
    if k >= M and plain:
        warn(
            f"{M} members span at most {M - 1} of {k} directions: the covariance says that the others are known exactly. "
            "Use more members, shrink='ledoit-wolf' or localization=.",
            DataWarning,
        )
    if plain:
        return mean, covop.from_root(away.T / math.sqrt(M - 1)), mean + away, "moments of"
    if options.shrink is not None and options.localization is not None:
        raise OptionError("shrink= and localization= are two answers to one question.", where="infer(how='posterior')", do="Give one.")
    if options.localization is not None:
        return mean, _tapered(away.T @ away / (M - 1), design, options.localization), None, "tapered moments of"
    if options.shrink != "ledoit-wolf":
        raise OptionError(f"shrink={options.shrink!r} is not 'ledoit-wolf'.", where="infer(how='posterior')")
    variance = away.var(axis=0, ddof=1)
    share, _ = densities.ledoit_wolf(away / np.sqrt(variance * (M - 1) / M))
    low = covop.lowrank(np.full(k, max(share, 1e-12)), math.sqrt(1 - share) * (away / np.sqrt(variance * (M - 1))).T)
    return mean, _rescaled(low, variance), None, f"moments, shrunk by {share:.4g} towards uncorrelated coefficients, of"


def _rescaled(op: covop.LowRank, variance: Floats) -> covop.LowRank:
    """D^½ P D^½ of a low-rank update of a multiple of the identity."""
    return covop.LowRank(op.d * variance, op.Q, op.f)


def _tapered(S: Floats, design: Design | None, localization: Any) -> CovOp:
    k = len(S)
    if isinstance(localization, str) and localization == "term" and design is not None:
        taper = (design.term_of[:, None] == design.term_of).astype(float)
    elif isinstance(localization, (int, float, np.number)) and not isinstance(localization, bool) and localization > 0:
        place = np.arange(k)
        taper = densities.gaspari_cohn((place[:, None] - place).astype(float), float(localization))
    else:
        raise OptionError(f"localization={localization!r} is neither 'term' nor a positive radius.", where="infer(how='posterior')")
    return covop.from_matrix(S * taper, where="localization=")


def _samples(problem: Problem, fit: FitState, options: PosteriorOptions) -> Posterior:
    """Exact draws of a linear model; else sampling–importance resampling from a t₅ about the Laplace approximation."""
    seed = entropy(options.seed)
    if is_linear(problem):
        exact = of_coefficients(problem, fit, PosteriorOptions(adapter="exact"))
        draws = exact.sample(options.n_draws, seed)
        notes = (f"posterior: {options.n_draws} independent draws, seed {seed}",)
        return _posterior(problem, fit, "samples", seed, mean=draws.mean(axis=0), samples=draws, kind="samples", notes=notes)
    family = problem.family.fitted(fit.aux)
    if family.logpdf is None:
        raise Refused(f"family {family.name!r} is a quasi-likelihood.", where="adapter='samples'", do="Use adapter='gauss_newton'.")
    cov = _covariance(problem, fit, "gauss_newton" if family.own_score is not None else "laplace")
    wide = Posterior(names=problem.design.names, mean=fit.coef, cov=cov, kind="student_t", df=5.0)
    proposals = wide.sample(10 * options.n_draws, seed)
    logs = log_posterior(problem, fit, proposals) - wide.logpdf(proposals)
    weights = np.exp(logs - logs[np.isfinite(logs)].max())
    weights = np.where(np.isfinite(weights), weights, 0.0) / np.nansum(weights)
    draws = proposals[stream(seed, 1).choice(len(weights), size=options.n_draws, p=weights)]
    worth = 1.0 / float(weights @ weights)
    notes = (
        f"posterior: {options.n_draws} draws by importance resampling of {len(weights)} (worth {worth:.0f} independent ones), seed {seed}",
        *(() if fit.prior is not None else ("prior: flat",)),
    )
    if worth < options.n_draws / 2:
        warn(
            f"the proposals are worth only {worth:.0f} draws: the posterior is far from normal, its tails badly known. Raise n_draws=.",
            DataWarning,
        )
    return _posterior(problem, fit, "samples", seed, mean=draws.mean(axis=0), samples=draws, kind="samples", notes=notes)


def log_posterior(problem: Problem, fit: FitState, coef: Floats) -> Floats:
    """log p(y | β) + log p(β) up to a constant, at the fit's dispersion, for draws coef (S, p) → (S,)."""
    design, family = problem.design, problem.family.fitted(fit.aux)
    out = np.empty(len(coef))
    step = max(1, 1_000_000 // max(design.n, 1))
    for start in range(0, len(coef), step):
        some = coef[start : start + step]
        eta = some @ design.X.T
        eta = eta if design.offset is None else eta + design.offset
        with np.errstate(all="ignore"):
            each = family.logpdf(np.asarray(design.y), problem.link.inverse(eta), fit.dispersion, design.weights)
        out[start : start + step] = each.sum(axis=1) if design.freq is None else each @ design.freq
    if fit.prior is not None:
        away = fit.prior.cov.whiten((coef - fit.prior.mean).T)
        out -= 0.5 * np.einsum("ij,ij->j", away, away)
    return np.where(np.isnan(out), -np.inf, out)


def _of_replicates(problem: Problem, fit: FitState, target: Target, state: ResamplesState) -> Posterior:
    """Of the numbers shown: moments of bootstrap draws, or normal with the jackknife's covariance."""
    if state.values is None:
        raise Refused("the replicates were not kept.", where=".posterior", do="Use infer(how='boot', save_resamples=True).")
    known = np.isfinite(state.observed)
    values = np.asarray(state.values)[state.code == 0][:, known]
    if state.scheme == "jackknife":
        cov, told = _jackknife(values, problem), {"kind": "gaussian", "mean": state.observed[known]}
        said = "normal about the estimates, covariance of the jackknife"
    else:
        mean, cov, samples, words = moments(values, None, PosteriorOptions())
        told = {"kind": "ensemble", "mean": mean, "samples": samples}
        said = f"{words} {len(values)} bootstrap refits ({state.scheme}), seed {state.seed}"
    return Posterior(
        names=[n for n, k in zip(row_names(target, len(known)), known) if k],
        cov=cov,
        rows=None if target.steps else NewRows(problem.encoder, problem.design.kept, problem.link),
        provenance=provenance(problem, fit, f"ensemble ({state.scheme})", state.seed),
        notes=(f"posterior: {said}",),
        **told,
    )


def _jackknife(values: Floats, problem: Problem) -> CovOp:
    """(N − 1)/N Σ (θ₍ᵢ₎ − θ̄)(θ₍ᵢ₎ − θ̄)ᵀ, over copies where rows have counts and are what is left out."""
    freq = problem.design.freq
    counts = np.ones(len(values)) if freq is None or len(freq) != len(values) else freq
    total = counts.sum()
    away = values - counts @ values / total
    return covop.from_root((away * np.sqrt(counts * (total - 1) / total)[:, None]).T)


# ---------------------------------------------------------------- of anything computed from them
@frozen(eq=False)
class NewRows:
    """How new rows become columns, offset and the map to the response."""

    encoder: Any
    kept: np.ndarray
    link: Any

    def __call__(self, newdata: Any) -> tuple[Floats, Floats | None, Any]:
        rows = self.encoder.rows(as_frame(newdata))
        if not np.asarray(rows.ok).all():
            first = int(np.argmin(rows.ok))
            raise DataError(f"row {first} has a missing value.", where="posterior.predict()", do="Leave it out.")
        return np.asarray(rows.X)[:, self.kept], rows.offset, through(self.link)


def row_names(target: Target, K: int) -> tuple[str, ...]:
    """One name per row of a target: its labels, or "row 0" … of predictions."""
    labels = target.labels
    if target.kind == "predictions" or labels is None or not labels.columns:
        return tuple(f"row {i}" for i in range(K))
    if labels.width == 1:
        return tuple(str(v) for v in labels[:, 0])
    return tuple(", ".join(f"{c}={v}" for c, v in zip(labels.columns, row)) for row in labels.iter_rows())


def of_target(post: Posterior, target: Target) -> Posterior:
    """The posterior of a target's estimable rows; `back` is the target's."""
    if not target.steps:
        return post
    if "random" in target.details:
        where, do = "infer(how='posterior')", "Use predict(…, varying='exclude')."
        raise Refused("predictions that include random effects have no posterior of the coefficients alone.", where=where, do=do)
    known = slice(None) if target.estimable is None else target.estimable
    names = np.array(row_names(target, target.labels.height), dtype=object)[known].tolist()
    value, J = target.value(post.mean)[known], target.jacobian(post.mean)[known]
    linear = all(isinstance(step, Linear) for step in target.steps)
    if not np.isfinite(J).all():
        raise DataError("some rows have a missing value.", where="infer(how='posterior')", do="Leave them out.")
    made = post.transform(J, names, offset=value - J @ post.mean)
    if linear or post.samples is None:
        notes = post.notes if linear else (*post.notes, "not linear in the coefficients: mean and covariance by the slope at the mean")
        return evolve(made, notes=notes, back=target.back)
    values = target.value(post.samples)[:, known]
    cov = None if post.cov is None else covop.from_root((values - values.mean(axis=0)).T / math.sqrt(len(values) - 1))
    notes = (*post.notes, "each draw carried exactly")
    return evolve(made, mean=values.mean(axis=0), samples=values, cov=cov, notes=notes, back=target.back)
