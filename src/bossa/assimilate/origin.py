"""Where does a posterior come from? The provenance of a fit: hashes of its model, its prior and its data.

Source: `state.provenance` for what the hashes mean.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..design.formula import data_names
from ..estimate.prior import resolve_prior
from ..state.design import Problem
from ..state.fit import FitState
from ..state.posterior import Posterior, describe
from ..state.provenance import Provenance, digest, hash_columns


def provenance(problem: Problem, fit: FitState, adapter: str, seed: Any = None) -> Provenance:
    """Of one fit, its covariance by `adapter`."""
    spec, told = problem.spec, None if problem.prior is None else resolve_prior(problem.prior, problem.design.columns)
    names = used_columns(problem)
    rows = problem.design.rows
    left_out = np.setdiff1d(np.arange(problem.design.n_data), rows) if len(rows) < problem.design.n_data else ()
    data = {} if problem.data is None else {"data": hash_columns({c: problem.data[c] for c in names})}
    parent = problem.prior.hash if isinstance(problem.prior, Posterior) else None
    return Provenance(
        forward_model_id=f"bossa.{_kind(problem)}/{problem.family.name}-{problem.link.name}: {spec.formula}",
        forward_model_hash=digest(model_description(problem)),
        n_iter=fit.outcome.iterations,
        J_star=_objective(fit, told),
        converged=fit.outcome.status in ("ok", "boundary"),
        cov_op_hash=digest(None if told is None else [told.mean, describe(told.cov), told.sigma, told.df]),
        data_hash=data,
        data_columns=tuple(names),
        rows_left_out=tuple(int(i) for i in left_out),
        seed=None if seed is None else str(seed),
        adapter=adapter,
        parent_hash=parent,
    )


def _kind(problem: Problem) -> str:
    linear = problem.family.name == "gaussian" and problem.link.name == "identity"
    return ("lm" if linear else "glm") + ("" if problem.design.random is None else "m")


def model_description(problem: Problem) -> dict[str, Any]:
    """Everything about the model that is not data: terms, codings, column order, family, link, weights, offset, random effects."""
    spec, encoder = problem.spec, problem.encoder
    codings = [] if encoder is None else [[(str(p.expr), p.names, p.matrix) for p in pieces] for pieces in encoder.pieces]
    shape = {k: v for k, v in problem.family.aux.items() if k not in problem.family.free}
    return {
        "response": str(spec.response),
        "terms": problem.design.terms,
        "columns": problem.design.columns,
        "codings": codings,
        "family": [problem.family.name, shape],
        "link": problem.link.name,
        "method": problem.method,
        "weights": [spec.weights, spec.freq_weights],
        "offsets": [spec.offset, *(str(e) for e in spec.offsets)],
        "random": [[b.group, [str(t) for t in b.lhs], b.correlated] for b in spec.bars],
    }


def used_columns(problem: Problem) -> list[str]:
    """Columns of the data that entered, sorted."""
    spec = problem.spec
    names = set(data_names(spec.response)) | {n for n in (spec.weights, spec.freq_weights, spec.offset) if n is not None}
    if problem.encoder is not None:
        names |= set(problem.encoder.variables)
    return sorted(names) if problem.data is None else sorted(names & set(problem.data.columns))


def _objective(fit: FitState, told: Posterior | None) -> float | None:
    """−log-likelihood, and half the squared distance from the prior's mean; None for a quasi-likelihood."""
    if not math.isfinite(fit.loglik):
        return None
    penalty = 0.0
    if told is not None and fit.kept.all():
        away = told.cov.whiten(fit.coef - told.mean)
        penalty = 0.5 * float(away @ away)
    return penalty - fit.loglik
