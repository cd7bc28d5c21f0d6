"""What an estimator returns: estimates, their covariance, and how the search ended."""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import field, frozen

from .fields import array, check_axes


@frozen(kw_only=True)
class Outcome:
    """How the search ended.

    status      "ok" | "boundary" | "suspect" | "failed"
    message     one plain sentence
    advice      what to do about it; empty when ok
    gradient    largest scaled gradient at the end
    boundary    names of the variance parameters at their boundary
    """

    status: str = "ok"
    message: str = "The fit has a closed form."
    advice: str = ""
    method: str = ""
    iterations: int = 0
    gradient: float = 0.0
    boundary: tuple[str, ...] = ()


@frozen(kw_only=True, eq=False)
class FitState:
    """Estimates of one model on one design (p columns kept of P).

    coef       (p,)
    vcov       (p, p)  model-based covariance of coef, dispersion included
    kept       (P,)    which of the design's columns rank allowed
    sigma              residual standard deviation: √dispersion (1 where the family has none)
    dispersion         φ; `dispersion_estimated` says whether it was estimated
    eta, mu    (n,)    linear predictor with offset; fitted mean
    working    (n,)    IRLS weights at the end, prior weights and counts included (LM: those alone; None: all 1)
    loglik             maximised log-likelihood (mixed by REML: minus half the REML criterion)
    npar               parameters counted by AIC, scale included where R counts it
    df_resid           residual degrees of freedom
    theta      (t,)    variance parameters of a mixed model (lme4's order): entries of T, b_g = σ T u_g, u_g ~ N(0, I)
    b          (q,)    conditional modes, terms concatenated, group-major (all columns of group 0, then of group 1 …)
    aux                extra estimated parameters by name: {"theta": …} for negbinomial, {"df": …} for t
    prior              the Posterior that the fit started from, about the coefficients kept; log_evidence: log p(data), where it is proper
    engine             whatever the estimator wants back (factors) for later questions; never read by report
    """

    estimator: str
    coef: np.ndarray = array("p")
    vcov: np.ndarray = array("p", "p")
    kept: np.ndarray = array("P")
    sigma: float
    dispersion: float = 1.0
    dispersion_estimated: bool = False
    eta: np.ndarray = array("n")
    mu: np.ndarray = array("n")
    working: np.ndarray | None = array("n", optional=True)
    loglik: float
    deviance: float
    null_deviance: float | None = None
    npar: int
    df_resid: float
    theta: np.ndarray | None = array("t", optional=True)
    b: np.ndarray | None = array("q", optional=True)
    aux: dict = field(factory=dict)
    outcome: Outcome = field(factory=Outcome)
    notes: tuple[str, ...] = ()
    engine: object = None
    prior: Any = None
    log_evidence: float | None = None

    __attrs_post_init__ = check_axes
