"""How much of each coefficient is data, and how much is the prior?

    A = P XᵀR⁻¹X = I − P B⁻¹,      share_j = A_jj,      degrees of freedom for signal = tr A,      entropy lowered by ½ log |B|/|P|

P the posterior covariance, B the prior's: 1 where the prior was flat, 0 where the data said nothing.

Source: Rodgers (2000) §2.4–2.5.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from ..errors import OptionError
from ..kernels import covop
from ..state.design import Problem
from ..state.fit import FitState
from ..state.inference import EffectsState
from ..state.posterior import Posterior
from ..state.target import Target
from .diagnose import is_linear

WORD = "information"


def asked(problem: Problem, query: str) -> bool:
    """Is this the question, and not a column of that name?"""
    return isinstance(query, str) and query.strip() == WORD and (problem.encoder is None or WORD not in problem.encoder.variables)


def information(problem: Problem, fit: FitState, options: dict[str, bool]) -> EffectsState:
    """One row per coefficient: prior and posterior sd, and as `estimate` the share that is data.   options: name → was it given?"""
    given = [name for name, told in options.items() if told]
    if given:
        raise OptionError(f"{given[0]}= has no use for {WORD!r}.", where="explore()", do="Leave it out.")
    names, sigma = tuple(problem.design.names), fit.sigma if is_linear(problem) else None
    df = float(fit.df_resid) if sigma is not None and fit.dispersion_estimated else None
    kind = "gaussian" if df is None else "student_t"
    post = Posterior(names=names, mean=fit.coef, cov=covop.from_matrix(fit.vcov), kind=kind, df=df, sigma=sigma, prior=fit.prior)
    found = post.information()
    before = np.full(len(names), np.inf) if fit.prior is None else np.sqrt(fit.prior.marginal(names).cov.diag())
    notes = [f"{found.dfs:.6g} of {len(names)} degrees of freedom are signal, the others prior"]
    if math.isfinite(found.entropy):
        notes.append(f"the data lowered the prior's entropy by {found.entropy:.6g} nats")
    if fit.prior is None:
        notes = ["no prior was given: everything is data"]
    labels = pl.DataFrame({"term": list(names), "prior_sd": before, "posterior_sd": post.scale()})
    details = {"dfs": found.dfs, "entropy": found.entropy}
    target = Target(labels=labels, kind=WORD, notes=("estimate: share of the coefficient that is data", *notes), details=details)
    return EffectsState(query=WORD, target=target, estimate=found.share)
