"""How wrong could the estimate be, judged by refitting to resampled data.

A scheme (infer/plan.py) turns the data into replicates; every replicate is refitted by the model's own estimator (estimate/many.py); the
Target is evaluated on each refit. So this module holds only what happens to the (B, K) values afterwards:

    values (B, K), observed (K,)  →  interval (2, K), se (K,), p_value (K,)

Failed refits are left out, counted by reason and said.

Source: Davison & Hinkley (1997) ch. 5; Efron & Tibshirani (1993) ch. 13–14.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from ..errors import ConvergenceWarning, FitFailed, Refused
from ..estimate.many import failures, refit
from ..kernels import resample
from ..kernels.linalg import inverse_factored, leverage, triangular
from ..state.design import Problem
from ..state.fields import choice, flag, integer
from ..state.fit import FitState
from ..state.inference import InferenceState, ResamplesState
from ..state.plan import Draws
from ..state.target import Target
from . import Common, backend
from .clusters import cluster_codes
from .plan import SCHEMES, plan
from .progress import progress_bar

CI_TYPES = ("auto", "bca", "percentile", "basic", "studentized")
FEW_FAILURES = 0.10


@frozen(kw_only=True)
class Boot(Common):
    """Options of how="boot".

    n_boot             replicates
    scheme             "auto": rows for LM and GLM, whole clusters with `cluster=`, parametric for mixed models
    ci_type            "auto": BCa where it is defined (rows or clusters of LM and GLM), else percentile
    cluster            column of the groups that are drawn whole
    seed               whatever numpy's default_rng takes; the result keeps the entropy
    n_jobs             workers; None: one, or what `joblib.parallel_config` says; never changes a number
    save_resamples     keep the replicates for `.resamples`
    progress           "auto": a bar on work that lasts, where there is a terminal
    """

    n_boot: int = integer(1000, minimum=1)
    scheme: str = choice("auto", among=("auto", *SCHEMES))
    ci_type: str = choice("auto", among=CI_TYPES)
    cluster: str | None = None
    seed: Any = None
    n_jobs: int | None = None
    save_resamples: bool = flag(True)
    progress: Any = field(default="auto")


@backend("boot", Boot)
def bootstrap(problem: Problem, fit: FitState, target: Target, options: Boot) -> InferenceState:
    """Interval, standard error and p-value of each row of the target from refits to resampled data."""
    groups = None if options.cluster is None else cluster_codes(problem, options.cluster)
    name = options.scheme
    if name == "auto":
        name = "parametric" if problem.design.random is not None else "case" if groups is None else "group"
    problem, fit, groups = expanded(problem, fit, groups, name)
    chosen = plan(problem, fit, name, options.n_boot, options.seed, groups)
    with progress_bar(options.progress, chosen.n, "bootstrap") as tick:
        draws = refit(problem, fit, chosen, n_jobs=options.n_jobs, tick=tick)
    observed = target.value(fit.coef)
    usable = draws.code == 0
    warn_of_failures(draws, "bootstrap replicates")
    if usable.sum() < 2:
        raise FitFailed(f"{int(usable.sum())} of {len(usable)} refits are usable.", where="infer(how='boot')", do="Use how='asymp'.")
    values = target.value(draws.coef[usable])
    ci_type = _ci_type(options.ci_type, name, problem, target)
    interval, p_value = _interval(ci_type, values, observed, (problem, fit, target, draws, groups), options)
    kept = np.full((len(usable), len(observed)), np.nan)
    kept[usable] = values
    state = ResamplesState(
        values=kept if options.save_resamples else None,
        observed=observed,
        code=draws.code,
        scheme=name,
        seed=chosen.seed,
        planned=chosen.n,
        failed=failures(draws),
    )
    return InferenceState(
        how="boot",
        level=options.conf_level,
        se=values.std(axis=0, ddof=1),
        p_value=p_value,
        interval=interval,
        null=np.broadcast_to(_null(options, target), observed.shape),
        side=options.alternative,
        notes=_notes(state, chosen.said, ci_type, options),
        options={"n_boot": chosen.n, "scheme": name, "ci_type": ci_type, "seed": chosen.seed},
        extra=state,
    )


def expanded(problem: Problem, fit: FitState, groups: Any, scheme: str) -> tuple[Problem, FitState, Any]:
    """Counted rows written out where a scheme draws responses: a row of count 3 then has three of its own."""
    design = problem.design
    if design.freq is None or SCHEMES[scheme].unit != "response":
        return problem, fit, groups
    index = np.repeat(np.arange(design.n), design.freq.astype(int))
    long = evolve(design.take(np.ones(design.n)), freq=None)
    long = evolve(
        long,
        X=design.X[index],
        y=design.y[index],
        weights=None if design.weights is None else design.weights[index],
        offset=None if design.offset is None else design.offset[index],
        rows=design.rows[index],
    )
    working = None if fit.working is None else (fit.working / design.freq)[index]
    fit = evolve(fit, eta=fit.eta[index], mu=fit.mu[index], working=working)
    return evolve(problem, design=long, data=None), fit, None if groups is None else groups[index]


def _null(options: Boot, target: Target) -> float:
    return target.null if options.null is None else options.null


def _ci_type(asked: str, scheme: str, problem: Problem, target: Target) -> str:
    """The interval to use; BCa needs replicates of independent units whose influence is known."""
    defined = scheme in ("case", "group") and problem.design.random is None
    if asked == "auto":
        return "bca" if defined else "percentile"
    if asked == "bca" and not defined:
        raise Refused(
            f"ci_type='bca' is not defined for scheme={scheme!r} of this model: it needs independent rows or clusters to leave out.",
            where="infer(how='boot')",
            do="Use ci_type='percentile'.",
        )
    if asked == "studentized" and target.steps:
        raise Refused("ci_type='studentized' is for coefficients.", where="infer(how='boot')", do="Use ci_type='bca' or 'percentile'.")
    return asked


def _interval(kind: str, values: np.ndarray, observed: np.ndarray, context: tuple, options: Boot) -> tuple[np.ndarray, np.ndarray]:
    """Limits (2, K) and p-values (K,) of one type."""
    problem, fit, target, draws, groups = context
    level, side, null = options.conf_level, options.alternative, np.broadcast_to(_null(options, target), observed.shape)
    if kind == "percentile":
        return resample.percentile_interval(values, level, side), resample.percentile_p(values, null, side)
    if kind == "basic":
        mirrored = 2 * observed - values
        return resample.basic_interval(observed, values, level, side), resample.percentile_p(mirrored, null, side)
    if kind == "bca":
        a = resample.acceleration(left_out_values(problem, fit, target, groups))
        return resample.bca_interval(observed, values, a, level, side), resample.bca_p(observed, values, a, null, side)
    se = np.sqrt(np.diag(fit.vcov))
    pivots = (values - observed) / np.asarray(draws.se)[draws.code == 0]
    limits = resample.studentized_interval(observed, se, pivots, level, side)
    return limits, resample.percentile_p(observed - se * pivots, null, side)


def left_out_values(problem: Problem, fit: FitState, target: Target, groups: np.ndarray | None = None) -> np.ndarray:
    """The target on the coefficients without each row (LM: exact; GLM: one Newton step) or without each cluster (one step).

        β̂₍ᵢ₎ = β̂ − (XᵀWX)⁻¹ xᵢ wᵢ rᵢ / (1 − hᵢ)

    returns  (n or G, K)

    Source: Cook & Weisberg (1982) §2.2; Pregibon (1981) for the GLM.
    """
    design = problem.design
    W = np.ones(design.n) if fit.working is None else fit.working
    R = triangular(design.X, W)
    slope = problem.link.slope(fit.eta)
    scores = W * (design.y - fit.mu) / slope
    if groups is None:
        scores = scores / np.maximum(1 - leverage(design.X, R, W), 1e-12)
    influence = design.X * scores[:, None]
    if groups is not None:
        summed = np.zeros((int(groups.max()) + 1, influence.shape[1]))
        np.add.at(summed, groups, influence)
        influence = summed
    return target.value(fit.coef - influence @ inverse_factored(R))


def warn_of_failures(draws: Draws, what: str) -> None:
    failed = failures(draws)
    share = sum(failed.values()) / max(len(draws.code), 1)
    if share > FEW_FAILURES:
        reasons = ", ".join(f"{k} {reason}" for reason, k in failed.items())
        warnings.warn(
            f"{share:.0%} of the {what} failed ({reasons}); the numbers describe only the data sets on which the model can be fitted, "
            "so intervals are likely too narrow.",
            ConvergenceWarning,
            stacklevel=4,
        )


def _notes(state: ResamplesState, said: str, ci_type: str, options: Boot) -> tuple[str, ...]:
    used = int((state.code == 0).sum())
    notes = [
        f"bootstrap: each replicate {said}; {used} refits, seed {state.seed}",
        f"{ci_type} interval, {options.conf_level:.15g}; p-value from the same tail areas, at least 1/{used + 1}",
    ]
    if state.failed:
        notes.append("left out: " + ", ".join(f"{k} of {len(state.code)} {reason}" for reason, k in state.failed.items()))
    if state.partial:
        notes.append(f"partial: interrupted after {len(state.code)} of {state.planned} replicates")
    return tuple(notes)
