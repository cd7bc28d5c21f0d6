"""Likelihoods of one kind for all models of a comparison.

    one_kind(candidates, refit) → candidates, notes

A restricted likelihood (REML) is that of contrasts free of the fixed effects: two of them compare only where the fixed parts are the
same. Else every model is refitted by maximum likelihood, and said. A linear model is compared to a linear mixed model by the likelihood
of the same kind as its rival's.

Source: Pinheiro & Bates (2000) §2.4; R's logLik.lm(REML = TRUE) for the restricted likelihood of a linear model.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
from attrs import evolve

from ..errors import BossaWarning, Refused
from ..estimate import registry
from ..explore.diagnose import factor
from ..state.design import Problem
from ..state.fit import FitState
from .nesting import WHERE, Candidate, same_columns


def one_kind(candidates: list[Candidate], refit: bool | None) -> tuple[list[Candidate], tuple[str, ...]]:
    """The models with likelihoods that may be compared.

    refit  None: restricted likelihoods stay where all models are mixed, by REML, and have the same fixed part; True: by maximum
           likelihood always; False: restricted likelihoods for all, refused where the fixed parts differ
    """
    if not any(c.problem.method == "reml" and c.mixed for c in candidates):
        return candidates, ()
    first = candidates[0].problem.design
    same = all(same_columns(first, c.problem.design) for c in candidates[1:])
    all_reml = all(c.mixed and c.problem.method == "reml" for c in candidates)
    if refit is False:
        if not same:
            raise Refused(
                "REML likelihoods of models with different fixed effects cannot be compared.", where=WHERE, do="Leave refit=False out."
            )
        if any(c.mixed and c.problem.method == "ml" for c in candidates):
            raise Refused("some models were fitted by REML and some by ML.", where=WHERE, do="Leave refit=False out.")
        return [c if c.mixed else restricted(c) for c in candidates], ("restricted likelihoods (REML): the fixed parts are the same",)
    if refit is None and same and all_reml:
        return candidates, ("restricted likelihoods (REML): the fixed parts are the same",)
    why = "as asked (refit=True)" if refit else "the fixed parts differ" if not same else "not all models were fitted by REML"
    made, notes = [], [f"refitted by maximum likelihood instead of REML: {why}"]
    for c in candidates:
        if c.problem.method == "reml" and c.mixed:
            c = by_maximum_likelihood(c)
            if c.fit.outcome.status in ("suspect", "failed"):
                notes.append(f"{c.name}: {c.fit.outcome.message}")
        made.append(c)
    return made, tuple(notes)


def by_maximum_likelihood(c: Candidate) -> Candidate:
    """The same model fitted by ML."""
    problem = evolve(c.problem, method="ml", options=evolve(c.problem.options, start=None))
    return Candidate(c.name, *quiet_fit(problem))


def quiet_fit(problem: Problem) -> tuple[Problem, FitState]:
    """A refit whose warnings are left to its outcome."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BossaWarning)
        return registry.fit(problem)


def restricted(c: Candidate) -> Candidate:
    """A linear model with its restricted log-likelihood,

    −½ {(n − p)(log 2πσ̂² + 1) + log |XᵀWX| − Σ log w},   σ̂² = RSS/(n − p)
    """
    design, fit = c.problem.design, c.fit
    m = design.n_obs - len(fit.coef)
    log_det = 2.0 * float(np.log(np.abs(np.diag(factor(c.problem, fit)))).sum())
    log_weights = 0.0
    if design.weights is not None:
        log_weights = float(np.log(design.weights) @ (np.ones(design.n) if design.freq is None else design.freq))
    value = m * (math.log(2.0 * math.pi * fit.deviance / m) + 1.0) + log_det - log_weights
    return Candidate(c.name, c.problem, evolve(fit, loglik=-0.5 * value))
