"""How wrong could the estimate be, judged by refitting to resampled data.

A scheme (infer/plan.py) turns the data into replicates; every replicate is refitted by the model's own estimator (estimate/many.py); the
Target is evaluated on each refit. So this module holds only what happens to the (B, K) values afterwards:

    values (B, K), observed (K,)  →  interval (2, K), se (K,), p_value (K,)

Where the target has a `back` map (link → response, log → ratio), limits and p-values are found before it and limits carried through it;
replicates and standard errors are of the numbers shown. Failed refits are left out, counted by reason and said.

Source: Davison & Hinkley (1997) ch. 5; Efron & Tibshirani (1993) ch. 11, 13–14.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from attrs import field, frozen

from ..errors import ConvergenceWarning, FitFailed, OptionError, Refused, warn
from ..estimate.many import failures, refit
from ..estimate.random import term_factors
from ..kernels import resample
from ..kernels.intervals import t_limits, t_tail
from ..kernels.linalg import inverse_factored, leverage, triangular
from ..state.design import Problem
from ..state.fields import choice, flag, integer, workers
from ..state.fit import FitState
from ..state.inference import InferenceState, ResamplesState, SpreadState
from ..state.plan import Draws
from ..state.target import Target
from . import Common, backend, grouped
from .clusters import cluster_codes
from .plan import SCHEMES, expanded, plan
from .progress import progress_bar
from .shown import Question, question
from .studentize import robust, studentizers

CI_TYPES = ("auto", "bca", "percentile", "basic", "studentized")
FEW_FAILURES = 0.10
TOO_NARROW = "the numbers describe only the data sets on which the model can be fitted, so intervals are likely too narrow"
FEW_GROUPS = 20  # below it the note (docs/calibration.md)
VALUES = 2_000_000  # numbers asked of all replicates at a time (16 MB)


@frozen(kw_only=True)
class Boot(Common):
    """Options of how="boot".

    n_boot             replicates; None: 1000
    scheme             "auto": rows ("case") for LM and GLM, parametric for mixed models; with `cluster=` "case" is "group"
    ci_type            "auto": BCa where it is defined (rows or clusters of LM and GLM), else percentile
    cluster            column of the groups that are drawn whole
    seed               whatever numpy's default_rng takes; the result keeps the entropy
    n_jobs             workers; None: one, or what `joblib.parallel_config` says; never changes a number
    save_resamples     keep the replicates for `.resamples`
    progress           "auto": a bar on work that lasts, where there is a terminal
    """

    n_boot: int | None = integer(None, minimum=2, optional=True)
    scheme: str = choice("auto", among=("auto", *SCHEMES))
    ci_type: str = choice("auto", among=CI_TYPES)
    cluster: str | None = None
    seed: Any = None
    n_jobs: int | None = workers()
    save_resamples: bool = flag(True)
    progress: Any = field(default="auto")


@backend("boot", Boot)
def bootstrap(problem: Problem, fit: FitState, target: Target, options: Boot) -> InferenceState:
    """Interval, standard error and p-value of each row of the target from refits to resampled data."""
    groups = None if options.cluster is None else cluster_codes(problem, options.cluster)
    name = options.scheme
    if name == "auto":
        name = "parametric" if problem.design.random is not None else "case"
    if name == "case" and groups is not None:
        name = "group"
    ci_type = _ci_type(options, name, problem, target)
    _worth_resampling(problem, fit, name)
    effects = grouped.effects_of(problem, target, name)
    if SCHEMES[name].unit == "response" or problem.design.random is not None:
        problem, fit, groups = expanded(problem, fit, groups)
    if name == "jackknife":
        return jackknife(problem, fit, target, options, groups)
    chosen = plan(problem, fit, name, 1000 if options.n_boot is None else options.n_boot, options.seed, groups)
    with progress_bar(options.progress, chosen.n, "bootstrap") as tick:
        draws = refit(problem, fit, chosen, n_jobs=options.n_jobs, tick=tick, then=effects)
    asked = question(target, fit.coef, options)
    coef = usable_coef(draws, "bootstrap replicates")
    errors = None if effects is None else grouped.errors(problem, fit, chosen, effects, draws)[draws.code == 0]
    K = len(asked.observed)
    se, p_value, interval, undefined = np.empty(K), np.empty(K), np.empty((2, K)), np.zeros(K, dtype=int)
    kept = np.full((len(draws.code), K), np.nan) if options.save_resamples else None
    context = (problem, fit, chosen, draws, groups, left_out_coef(problem, fit, groups) if ci_type == "bca" else None)
    for rows, part in asked.cut(max(1, VALUES // max(len(coef), problem.design.n if ci_type == "bca" else 1))):
        values = part.of(coef)
        if errors is not None:
            values = 2 * part.observed - values - errors[:, rows]
        interval[:, rows], p_value[rows] = _interval(ci_type, values, part, context, options.conf_level)
        undefined[rows] = (~np.isfinite(values) & np.isfinite(part.observed)).sum(axis=0)
        se[rows] = part.show(values).std(axis=0, ddof=1)
        if kept is not None:
            kept[:, rows] = part.kept(values, draws.code)
    interval[:, undefined > 0], p_value[undefined > 0] = np.nan, np.nan
    state = ResamplesState(
        values=kept,
        observed=asked.show(asked.observed),
        code=draws.code,
        scheme=name,
        seed=chosen.seed,
        planned=chosen.n,
        failed=failures(draws.code),
        spread=spread_limits(problem, fit, draws, options.conf_level, name) if target.kind == "params" else None,
    )
    said = (*(() if effects is None else (grouped.SAID,)), *_studentized(ci_type, problem, groups), *_few(name, ci_type, problem, groups))
    return InferenceState(
        how="boot",
        level=options.conf_level,
        se=se,
        p_value=asked.blank(p_value),
        interval=asked.carried(interval),
        null=asked.null_shown,
        side=options.alternative,
        notes=(
            *_notes(state, chosen.said, ci_type, options, tested=target.kind != "predictions"),
            *said,
            *_undefined(undefined, len(coef)),
        ),
        options={"n_boot": chosen.n, "scheme": name, "ci_type": ci_type, "cluster": options.cluster, "seed": chosen.seed},
        extra=state,
    )


def _worth_resampling(problem: Problem, fit: FitState, scheme: str) -> None:
    """Refuses where replicates would say nothing, or something else, about the estimate."""
    where = f"infer(how='boot', scheme={scheme!r})"
    if problem.prior is not None:
        if SCHEMES[scheme].unit == "response":
            what = "new responses are drawn about estimates that the prior has moved already, and it moves their refits again."
            raise Refused(what, where=where, do="Use scheme='case', or how='posterior'.")
    elif fit.df_resid <= 0 and (scheme != "parametric" or fit.dispersion_estimated):
        what = "there are as many coefficients as observations: every replicate that can be fitted gives the same estimates."
        raise Refused(what, where=where, do="Use fewer terms or more rows.")


def usable_coef(draws: Draws, what: str) -> np.ndarray:
    """Coefficients (B′, p) of the usable replicates; a warning where many are not, an error where fewer than two are."""
    warn_of_failures(draws.code, what)
    usable = draws.code == 0
    if usable.sum() < 2:
        raise FitFailed(f"{int(usable.sum())} of {len(usable)} refits are usable.", where="infer()", do="Use how='asymp'.")
    return draws.coef[usable]


def _ci_type(options: Boot, scheme: str, problem: Problem, target: Target) -> str:
    """The interval to use; BCa needs replicates of independent units whose influence is known."""
    asked, where = options.ci_type, "infer(how='boot')"
    if scheme == "jackknife":
        for name, given in (("ci_type", asked != "auto"), ("n_boot", options.n_boot is not None), ("seed", options.seed is not None)):
            if given:
                what = f"{name}= has no use for scheme='jackknife', which leaves out each unit once."
                raise OptionError(what, where=where, do="Leave it out.")
        return "t"
    defined = scheme in ("case", "group") and problem.design.random is None and problem.prior is None
    if asked == "auto":
        return "bca" if defined else "percentile"
    if asked == "bca" and not defined:
        raise Refused(
            f"ci_type='bca' is not defined for scheme={scheme!r} of this model: it needs rows or clusters of known influence.",
            where=where,
            do="Use ci_type='percentile'.",
        )
    if asked == "studentized" and target.steps:
        raise Refused("ci_type='studentized' is for coefficients.", where=where, do="Use ci_type='basic' or 'percentile'.")
    return asked


def _interval(kind: str, values: np.ndarray, asked: Question, context: tuple, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Limits (2, K) and p-values (K,) of one type, on the scale tested."""
    problem, fit, chosen, draws, groups, left_out = context
    side, null, observed = asked.side, asked.null, asked.observed
    if kind == "percentile":
        return resample.percentile_interval(values, level, side), resample.percentile_p(values, null, side)
    if kind == "basic":
        mirrored = 2 * observed - values
        return resample.basic_interval(observed, values, level, side), resample.percentile_p(mirrored, null, side)
    if kind == "bca":
        a = resample.acceleration(asked.of(left_out), None if groups is not None else problem.design.freq)
        return resample.bca_interval(observed, values, a, level, side), resample.bca_p(observed, values, a, null, side)
    se, own = studentizers(problem, fit, chosen, draws, groups)
    with np.errstate(divide="ignore", invalid="ignore"):
        pivots = (values - observed) / own
    limits = resample.studentized_interval(observed, se, pivots, level, side)
    return limits, resample.percentile_p(observed - se * pivots, null, side)


def jackknife(problem: Problem, fit: FitState, target: Target, options: Boot, groups: np.ndarray | None) -> InferenceState:
    """Each unit left out once: standard errors from how far the numbers move, limits by t with N − 1 degrees of freedom.

    LM in closed form, others by refits. Source: Efron & Tibshirani (1993) ch. 11.
    """
    where = "infer(how='boot', scheme='jackknife')"
    counts = problem.design.freq if groups is None and problem.design.random is None else None
    draw: Any = SCHEMES["jackknife"].make(problem, fit, groups)
    units = int(draw.folds.max()) + 1
    chosen = plan(problem, fit, "jackknife", units, 0, groups)
    if fit.estimator == "lm":
        coef = left_out_coef(problem, fit, groups)
        code = np.where(np.isfinite(coef).all(axis=1), 0, 1)
        draws = Draws(coef=coef, sigma=np.full(units, np.nan), code=code, planned=units)
    else:
        with progress_bar(options.progress, units, "jackknife") as tick:
            draws = refit(problem, fit, chosen, n_jobs=options.n_jobs, tick=tick)
        if len(draws.code) < units:  # some of the units are no jackknife
            raise KeyboardInterrupt
    usable_coef(draws, "jackknife refits")
    asked = question(target, fit.coef, options)
    values = asked.of(np.where((draws.code == 0)[:, None], draws.coef, np.nan))
    total = float(len(values) if counts is None else counts.sum())
    if total < 3:
        raise Refused(f"{total:g} units are too few.", where=where, do="Use how='asymp'.")
    df = np.full(len(asked.observed), total - 1)
    se = resample.jackknife_se(values, counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = (asked.observed - asked.null) / se
    state = ResamplesState(
        values=asked.show(values) if options.save_resamples else None,
        observed=asked.show(asked.observed),
        code=draws.code,
        scheme="jackknife",
        seed=None,
        planned=units,
        failed=failures(draws.code),
    )
    notes = [f"jackknife: each of {units} refits {chosen.said}", f"limits and tests: t with {total - 1:g} df"]
    notes += _left_out(state)
    return InferenceState(
        how="boot",
        level=options.conf_level,
        se=asked.blank(resample.jackknife_se(asked.show(values), counts)),
        statistic=asked.blank(statistic),
        df=df,
        p_value=asked.blank(t_tail(statistic, df, asked.side)),
        interval=asked.carried(t_limits(asked.observed, se, df, options.conf_level, asked.side)),
        null=asked.null_shown,
        side=options.alternative,
        notes=tuple(notes),
        options={"scheme": "jackknife", "cluster": options.cluster},
        extra=state,
    )


def left_out_coef(problem: Problem, fit: FitState, groups: np.ndarray | None = None) -> np.ndarray:
    """Coefficients without each row, or without each cluster: exact for LM, one Newton step for GLM.

        β̂₍ᵢ₎ = β̂ − (XᵀWX)⁻¹ xᵢ wᵢ rᵢ / (1 − hᵢ),        β̂₍g₎ = β̂ − (XᵀWX − X_gᵀW_gX_g)⁻¹ X_gᵀW_g r_g

    returns  (n or G, p)  nan where what is left does not determine them; of one copy where rows have counts

    Source: Cook & Weisberg (1982) §2.2; Pregibon (1981) for the GLM.
    """
    design = problem.design
    W = np.ones(design.n) if fit.working is None else fit.working
    R = triangular(design.X, W)
    residual = (design.y - fit.mu) / problem.link.slope(fit.eta)
    if groups is None:
        one = W if design.freq is None else W / design.freq
        left = 1 - leverage(design.X, R, one)
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = np.where(left > 1e-10, one * residual / left, np.nan)
        return fit.coef - (design.X * scores[:, None]) @ inverse_factored(R)
    G, p = int(groups.max()) + 1, design.X.shape[1]
    score = np.zeros((G, p))
    np.add.at(score, groups, design.X * (W * residual)[:, None])
    order, A = np.argsort(groups, kind="stable"), R.T @ R
    out = np.full((G, p), np.nan)
    for g, rows in enumerate(np.split(order, np.cumsum(np.bincount(groups, minlength=G))[:-1])):
        X = design.X[rows]
        rest = A - (X.T * W[rows]) @ X
        scale = np.sqrt(np.diag(A))
        unit = rest / np.outer(scale, scale)
        if np.linalg.eigvalsh(unit)[0] > 1e-10:
            out[g] = fit.coef - np.linalg.solve(unit, score[g] / scale) / scale
    return out


def spread_limits(problem: Problem, fit: FitState, draws: Draws, level: float, scheme: str) -> SpreadState | None:
    """Percentile limits and standard errors of the rows of `varying_spread`: standard deviations, correlations, σ; None without any."""
    random = problem.design.random
    if random is None or draws.theta is None:
        return None
    usable = draws.code == 0
    sigma = draws.sigma[usable, None]
    columns = []
    for term, T in zip(random.terms, term_factors(random, np.asarray(draws.theta)[usable])):
        sd = np.sqrt((T**2).sum(axis=2))
        columns += list((sd * sigma).T)
        connected = term.mask | term.mask.T
        with np.errstate(divide="ignore", invalid="ignore"):
            unit = T / sd[:, :, None]
        k = len(term.names)
        columns += [(unit[:, i] * unit[:, j]).sum(axis=1) for j in range(k) for i in range(j + 1, k) if connected[i, j]]
    columns += [sigma[:, 0]] if fit.dispersion_estimated else []
    columns = [c[np.isfinite(c)] for c in columns]  # a correlation has no value where a replicate's sd is 0
    lower, upper = np.array([resample.percentile_interval(c[:, None], level)[:, 0] for c in columns]).T
    se = np.array([c.std(ddof=1) if len(c) > 1 else np.nan for c in columns])
    return SpreadState(lower=lower, upper=upper, se=se, method=f"boot ({scheme}, percentile)")


def warn_of_failures(code: np.ndarray, what: str, so: str = TOO_NARROW) -> dict[str, int]:
    """How many replicates failed, by reason; a warning where they are many.   code (B,);  so: what that does to the numbers"""
    failed = failures(code)
    share = sum(failed.values()) / max(len(code), 1)
    if share > FEW_FAILURES:
        reasons = ", ".join(f"{k} {reason}" for reason, k in failed.items())
        warn(f"{share:.0%} of the {what} failed ({reasons}); {so}.", ConvergenceWarning)
    return failed


def _studentized(ci_type: str, problem: Problem, groups: np.ndarray | None) -> tuple[str, ...]:
    """By which standard errors, where they are not the model's."""
    return ("studentized by cluster-robust standard errors",) if ci_type == "studentized" and robust(problem, groups) else ()


def _few(scheme: str, ci_type: str, problem: Problem, groups: np.ndarray | None) -> tuple[str, ...]:
    """What to say where few groups are drawn: replicates are then too alike."""
    if groups is None and problem.design.random is not None:
        groups = problem.design.random.terms[0].group
    if groups is None or ci_type == "studentized" or SCHEMES[scheme].unit == "response":
        return ()
    count = int(groups.max()) + 1
    return (f"{count} groups are few to draw from: below some {FEW_GROUPS} such intervals are too narrow",) if count < FEW_GROUPS else ()


def _left_out(state: ResamplesState) -> list[str]:
    if not state.failed:
        return []
    return ["left out: " + ", ".join(f"{k} of {len(state.code)} {reason}" for reason, k in state.failed.items())]


def _undefined(undefined: np.ndarray, B: int) -> tuple[str, ...]:
    """What to say of rows that have no value in some of B replicates (a ratio of means one of which is negative).   (K,) counts"""
    rows, most = int((undefined > 0).sum()), int(undefined.max(initial=0))
    return (f"{rows} row(s) have no value in up to {most} of {B} replicates, and so no limits",) if rows else ()


def _enough(tail: float) -> int:
    """Replicates of which some twenty lie beyond a limit with this tail area."""
    return math.ceil(20 / tail / 100) * 100


def _notes(state: ResamplesState, said: str, ci_type: str, options: Any, tested: bool) -> tuple[str, ...]:
    used, level, one_sided = int((state.code == 0).sum()), options.conf_level, options.alternative != "two-sided"
    least = 1 if one_sided or ci_type == "bca" else 2  # the map of BCa may take a tail below 1/(B + 1)
    notes = [
        f"bootstrap: each replicate {said}; {used} refits, seed {state.seed}",
        f"{ci_type} interval, {level:.15g}" + (f"; p-value from the same tail areas, at least {least}/{used + 1}" if tested else ""),
        *_left_out(state),
    ]
    tail = 1 - level if one_sided else (1 - level) / 2
    if tail * (used + 1) < 1:
        notes.append(
            f"{used} replicates do not reach so far out: a limit is no further than the most extreme of them; n_boot={_enough(tail)} do"
        )
    if state.partial:
        notes.append(f"partial: interrupted after {len(state.code)} of {state.planned} replicates")
    return tuple(notes)
