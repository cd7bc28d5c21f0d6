"""Tests of one model within another.

    f_test, likelihood_ratio, score_test, contrast_test (smaller, larger, …) → Verdict

The dispersion of a sequence of models is that of the largest, as in an analysis of variance.

Source: McCullagh & Nelder (1989) §2.3 for deviances; Rao (1948) for the score test; Self & Liang (1987) case 5, Stram & Lee (1994)
and Crainiceanu & Ruppert (2004) for a variance on the boundary; Halekoh & Højsgaard (2014) for F tests of mixed models.
"""

from __future__ import annotations

import math

import numpy as np
from attrs import frozen

from ..errors import Refused
from ..estimate.lm import sum_of_squares
from ..explore.diagnose import scores
from ..infer.df import kenward_roger_test, satterthwaite_test
from ..kernels.intervals import f_tail
from ..kernels.linalg import lengths
from ..types import Floats
from .nesting import Candidate, Step


@frozen(eq=False)
class Verdict:
    """statistic against F(df1, df2), or χ²(df1) where df2 is inf.   p_boundary: see `boundary_tail`; nan where it is not that question"""

    df1: float = math.nan
    df2: float = math.nan
    statistic: float = math.nan
    p_value: float = math.nan
    p_boundary: float = math.nan
    p_mc_se: float = math.nan


NOTHING = Verdict()


def by_moments(c: Candidate) -> bool:
    """Is the dispersion estimated by moments, so that its deviance is compared in units of it? Not for linear models' likelihoods."""
    return c.problem.family.dispersion == "pearson" and not c.linear


def f_test(smaller: Candidate, larger: Candidate, largest: Candidate, df2: float) -> Verdict:
    """F = (D_small − D_large)/q/φ̂, φ̂ of the largest model; χ² = qF where df2 is inf."""
    q = len(larger.fit.coef) - len(smaller.fit.coef)
    if q == 0 or not largest.fit.df_resid > 0:
        return NOTHING
    F = max(smaller.fit.deviance - larger.fit.deviance, 0.0) / q / largest.fit.dispersion
    return Verdict(q, df2, q * F if math.isinf(df2) else F, float(f_tail(F, q, df2)))


def likelihood_ratio(smaller: Candidate, larger: Candidate, largest: Candidate, more: Step) -> Verdict:
    """−2 log of the ratio of the likelihoods; the change of deviance over φ̂ where the family's dispersion is estimated by moments."""
    if by_moments(largest):
        return f_test(smaller, larger, largest, math.inf)
    q = more.parameters
    if q <= 0:
        return NOTHING
    W = max(2.0 * (larger.fit.loglik - smaller.fit.loglik), 0.0)
    return Verdict(q, math.inf, W, chi2_tail(W, q), boundary_tail(W, q, more.variances))


def chi2_tail(W: float, q: float) -> float:
    return float(f_tail(W / q, q, math.inf))


def boundary_tail(W: float, q: int, variances: int) -> float:
    """p-value of W where one of the q parameters is a variance that is 0 under the smaller model: ½ χ²(q − 1) + ½ χ²(q).

    nan where no variance is tested, or several at once: the mixture then depends on the design.
    """
    if variances != 1:
        return math.nan
    below = chi2_tail(W, q - 1) if q > 1 else float(W <= 0.0)
    return 0.5 * below + 0.5 * chi2_tail(W, q)


def score_test(smaller: Candidate, larger: Candidate, largest: Candidate) -> Verdict:
    """Rao's test, which asks the smaller fit alone: uᵀ(XᵀWX)⁻¹u/φ̂, u the score of the larger model's coefficients at the smaller fit."""
    q = len(larger.fit.coef) - len(smaller.fit.coef)
    if q == 0:
        return NOTHING
    problem, fit = smaller.problem, smaller.fit
    design = problem.design
    u = scores(problem, fit) if design.freq is None else scores(problem, fit) * design.freq
    X, W = larger.problem.design.X, np.ones(design.n) if fit.working is None else fit.working
    root = np.sqrt(W)
    basis = np.linalg.qr(X * root[:, None] / lengths(X * root[:, None]))[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        standard = np.where(root > 0, u / root, 0.0)
    statistic = sum_of_squares(basis.T @ standard, None) / (largest.fit.dispersion if largest.fit.dispersion_estimated else 1.0)
    return Verdict(q, math.inf, statistic, chi2_tail(statistic, q))


def contrast_test(smaller: Candidate, larger: Candidate, df: str) -> Verdict:
    """F test, in the larger linear mixed model, that its fixed part needs no more than the smaller one's.

    df  "kenward-roger" | "satterthwaite" | "residual" | "inf"
    """
    L, distance = restriction(smaller, larger)
    if not len(L):
        return NOTHING
    if df in ("kenward-roger", "satterthwaite"):
        test = (kenward_roger_test if df == "kenward-roger" else satterthwaite_test)(larger.problem, larger.fit, L, distance)
        return Verdict(test.df1, test.df2, test.F, test.p_value)
    F = float(distance @ np.linalg.solve(L @ larger.fit.vcov @ L.T, distance)) / len(L)
    df2 = math.inf if df == "inf" else larger.problem.design.n_obs - len(larger.fit.coef)
    return Verdict(len(L), df2, len(L) * F if math.isinf(df2) else F, float(f_tail(F, len(L), df2)))


def restriction(smaller: Candidate, larger: Candidate) -> tuple[Floats, Floats]:
    """L (q, p) and Lβ̂ − c (q,): the smaller fixed part is Lβ = c in the larger model's coefficients.

    With X = QR of the larger model, its fitted values lie in the smaller span where NᵀRβ = Nᵀ Qᵀ(o₀ − o₁): N spans what the smaller
    model's columns leave of Q, o are the offsets.   Source: Halekoh & Højsgaard (2014) §3.1.
    """
    small, large = smaller.problem.design, larger.problem.design
    Q, R = np.linalg.qr(large.X)
    inside = Q.T @ (small.X / lengths(small.X))
    N = np.linalg.qr(inside, mode="complete")[0][:, inside.shape[1] :]
    L = N.T @ R
    zero = np.zeros(large.n)
    moved = (zero if small.offset is None else small.offset) - (zero if large.offset is None else large.offset)
    return L, L @ larger.fit.coef - N.T @ (Q.T @ moved)


def refuse_f(c: Candidate) -> Refused:
    return Refused(
        f"family {c.problem.family.name!r} has no dispersion to estimate, so there is no F test.",
        where="compare(how='f')",
        do="Use how='lrt', or the quasi family.",
    )
