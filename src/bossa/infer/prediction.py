"""Where will a new response lie? Intervals for one new observation of each row asked for.

Linear models: μ̂ ± t √(se² + σ²). Linear mixed models: the same, with the variance of the random effects of an unknown group, or of the
prediction error b̂ − b of a known one, in se². Other families: by simulation,

    β* ~ N(β̂, V),   y* ~ f(y | g⁻¹(xβ* + offset), φ̂)   →  quantiles of y*

so that the uncertainty of the parameters is in the limits, and they stay where the family lives.

Source: Gelman & Hill (2007) §7.2; Henderson (1975) for the mixed model.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import NotYet, Refused
from ..estimate.random import term_factors
from ..explore.diagnose import is_linear
from ..kernels.streams import entropy, stream
from ..state.design import Problem
from ..state.fit import FitState
from ..state.target import Target
from ..types import Floats

WHERE = "infer(interval='prediction')"
DRAWS = 10_000
CELLS = 2_000_000  # rows × draws held at a time


def check(problem: Problem, target: Target, errors: str) -> None:
    """Refuses what has no prediction interval."""
    if target.kind != "predictions":
        raise Refused("it is for predictions.", where=WHERE, do="Use .predict(new_rows).infer(interval='prediction').")
    if errors != "iid":
        raise Refused("a new response has the model's own variance, which robust errors do not trust.", where=WHERE, do="Use errors='iid'.")
    if problem.family.sample is None:
        raise Refused(f"family {problem.family.name!r} has no distribution to draw from.", where=WHERE, do="Use interval='confidence'.")
    if problem.design.random is not None and not is_linear(problem):
        raise NotYet("it is not built for generalized mixed models.", where=WHERE, do="Use interval='confidence', or .simulate().")


def mixed_se(problem: Problem, fit: FitState, target: Target, J: Floats, new_response: bool) -> Floats | None:
    """√Var(xβ̂ + z(b̂ − b)) of the rows of a linear mixed model; None where the random effects play no part.

    An effect of one new group: √(J V Jᵀ + z Σ zᵀ), Σ the covariance of its random effects.

    new_response  the groups are unknown where random effects were left out: their variance then counts
    """
    own = new_group_root(problem, fit, target)
    if own is not None:
        return np.sqrt(np.einsum("kp,pq,kq->k", J, fit.vcov, J) + (own**2).sum(axis=1))
    rows = target.details.get("random")
    if problem.design.random is None or (rows is None and not new_response):
        return None
    if not is_linear(problem):
        if new_response:
            check(problem, target, "iid")
        raise NotYet(
            "standard errors of predictions with the random effects of a generalized mixed model are not built.",
            where="infer()",
            do="Use how='boot', or predict(varying='exclude').",
        )
    from ..explore import conditional, varying  # here: no other model waits for them

    if rows is None:
        rows = conditional.unknown_groups(problem, target.labels)
    ok = np.isfinite(J).all(axis=1) & np.all([np.isfinite(Z).all(axis=1) for _, Z in rows], axis=0)
    se = np.full(len(J), np.nan)
    if ok.any():
        se[ok] = np.sqrt(varying.row_variances(problem, fit, J[ok], [(codes[ok], Z[ok]) for codes, Z in rows]))
    return se


def new_group_root(problem: Problem, fit: FitState, target: Target) -> Floats | None:
    """σ z T (K, q) of effects of one new group: their covariance beside J V Jᵀ is this times its transpose; None for other targets."""
    new_group = target.details.get("new_group")
    if new_group is None:
        return None
    return np.hstack([fit.sigma * Z @ T for Z, T in zip(new_group, term_factors(problem.design.random, fit.theta))])


def simulated(problem: Problem, fit: FitState, target: Target, root: Floats, options: Any) -> tuple[Floats, Any]:
    """Quantiles (2, K) of new responses of weight 1, and the seed.

    root     (p, m)  Cov(β̂) = root rootᵀ
    options  conf_level, alternative, seed
    """
    seed, level, side = entropy(options.seed, WHERE), options.conf_level, options.alternative
    rng = stream(seed, 0)
    coefs = fit.coef + rng.standard_normal((DRAWS, root.shape[1])) @ root.T
    tail = (1 - level) / 2 if side == "two-sided" else 1 - level
    step = target.steps[0]
    offset = np.zeros(len(step.matrix)) if step.offset is None else step.offset  # type: ignore[union-attr]
    limits = np.full((2, len(offset)), np.nan)
    for start in range(0, len(offset), max(1, CELLS // DRAWS)):
        rows = slice(start, min(start + max(1, CELLS // DRAWS), len(offset)))
        eta = coefs @ step.matrix[rows].T + offset[rows]  # type: ignore[union-attr]
        known = np.isfinite(eta).all(axis=0)
        mu = problem.link.inverse(eta[:, known])
        y = problem.family.sample(rng, mu.ravel(), fit.dispersion, None).reshape(mu.shape)
        limits[:, np.arange(rows.start, rows.stop)[known]] = np.quantile(y, [tail, 1 - tail], axis=0, method="inverted_cdf")
    if side != "two-sided":
        limits[0 if side == "less" else 1] = -np.inf if side == "less" else np.inf
    return limits, seed
