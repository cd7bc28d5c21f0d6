"""Parametric bootstrap of a likelihood ratio: how often is it as large when the smaller model is true?

New responses are drawn from the smaller fit, both models are refitted to them, and p = (1 + #{W* ≥ W}) / (1 + B).

Source: Davison & Hinkley (1997) §4.2.3.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from attrs import evolve

from ..errors import FitFailed
from ..estimate.lm import gaussian_loglik
from ..estimate.many import refit
from ..infer.plan import expanded, plan
from ..kernels.family import loglik
from ..kernels.linalg import lstsq
from ..state.design import Problem
from ..state.fit import FitState
from ..state.plan import Draws, Plan
from ..types import Floats
from .nesting import Candidate, Step
from .tests import NOTHING, Verdict, by_moments

WHERE = "compare(how='boot')"


def bootstrap_test(
    smaller: Candidate, larger: Candidate, more: Step, n: int, seed: Any, n_jobs: int | None
) -> tuple[Verdict, tuple[str, ...]]:
    """The likelihood ratio of two models and its bootstrap p-value from `n` replicates."""
    if more.parameters <= 0:
        return NOTHING, ()
    (a, fit_a, _), (b, fit_b, _) = (expanded(c.problem, c.fit, None) for c in (smaller, larger))
    chosen = plan(a, fit_a, "parametric", n, seed)
    fit_b = _null_start(b, fit_b, fit_a)
    draws = [refit(p, f, chosen, n_jobs=n_jobs) for p, f in ((a, fit_a), (b, fit_b))]
    usable = (draws[0].code == 0) & (draws[1].code == 0)
    B = int(usable.sum())
    if B < 2:
        raise FitFailed(f"{B} of {n} pairs of refits are usable.", where=WHERE, do="Use how='lrt'.")
    moments = by_moments(larger)
    lost = [_lost(p, d, chosen) for p, d in ((a, draws[0]), (b, draws[1]))]
    W = (lost[0] - lost[1])[usable] / (draws[1].sigma[usable] ** 2 if moments else 1.0)
    observed = 2 * (larger.fit.loglik - smaller.fit.loglik)
    if moments:
        observed = (smaller.fit.deviance - larger.fit.deviance) / larger.fit.dispersion
    as_large = W - observed > -1e-9 * max(abs(observed), 1.0)
    p = (1 + int(as_large.sum())) / (1 + B)
    notes = [f"p_value: parametric bootstrap of the likelihood ratio, {B} replicates of the smaller model, seed {chosen.seed}"]
    if not usable.all():
        notes.append(f"{len(usable) - B} of {len(usable)} pairs of refits have no maximum and are left out")
    return Verdict(more.parameters, math.inf, observed, p, p_mc_se=math.sqrt(p * (1 - p) / (B + 1))), tuple(notes)


def _null_start(problem: Problem, fit: FitState, null: FitState) -> FitState:
    """`fit` at the coefficients that make the null model's linear predictor: where refits to its responses start."""
    if problem.design.random is not None:
        return fit
    eta = null.eta if problem.design.offset is None else null.eta - problem.design.offset
    return evolve(fit, coef=lstsq(problem.design.X, eta).coef)


def _lost(problem: Problem, draws: Draws, chosen: Plan) -> Floats:
    """−2 log-likelihood of each refit, or its deviance where the dispersion is estimated by moments.   (B,)"""
    if draws.loglik is not None:
        return -2 * draws.loglik
    design, family, link = problem.design, problem.family, problem.link
    if family.name == "gaussian" and link.name == "identity":
        rss = draws.sigma**2 * (design.n_obs - design.X.shape[1])
        return np.array([-2 * gaussian_loglik(design, value) for value in rss])
    out = np.empty(len(draws.code))
    weights = np.ones(design.n) if design.total_weights is None else design.total_weights
    for i in range(chosen.blocks):
        y = np.asarray(chosen.block(i).y)
        rows = slice(i * chosen.block_size, i * chosen.block_size + len(y))
        eta = draws.coef[rows] @ design.X.T
        mu = link.inverse(eta if design.offset is None else eta + design.offset)
        with np.errstate(all="ignore"):
            out[rows] = family.deviance(y, mu) @ weights
        if family.dispersion != "pearson":
            out[rows] = [-2 * loglik(family, one, d, design.weights, design.freq) for one, d in zip(y, out[rows])]
    return out
