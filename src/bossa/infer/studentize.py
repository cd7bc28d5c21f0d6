"""By which standard error is a replicate studentized? By one that allows what its scheme allows.

    studentizers(problem, fit, plan, draws, groups) → se (p,), se* (B′, p)

Rows on their own: the model's. Groups drawn whole, or given one sign each: the cluster-robust one, of the fit and of every replicate,

    V* = A*⁻¹ (Σ_g c_g s_g s_gᵀ) A*⁻¹,      A* = Σ c_i w_i x_i x_iᵀ,      s_g = Σ_{i in g} e_i x_i at the replicate's own estimate

with c how often the group was drawn. Factors of G alone cancel between se and se*.

Source: Cameron, Gelbach & Miller (2008) §III; Davison & Hinkley (1997) §3.8, 5.2.
"""

from __future__ import annotations

import numpy as np

from ..kernels.groups import Groups
from ..state.design import Problem
from ..state.fit import FitState
from ..state.plan import BLOCK_CELLS, Draws, Plan
from ..types import Floats


def robust(problem: Problem, groups: np.ndarray | None) -> bool:
    """Are replicates of this problem studentized by cluster-robust standard errors?"""
    return groups is not None and problem.design.random is None and problem.prior is None


def studentizers(problem: Problem, fit: FitState, plan: Plan, draws: Draws, groups: np.ndarray | None) -> tuple[Floats, Floats]:
    """Standard errors of the fit (p,) and of its usable replicates (B′, p)."""
    usable = draws.code == 0
    if groups is None or not robust(problem, groups):
        return np.sqrt(np.diag(fit.vcov)), np.asarray(draws.se)[usable]
    n, clusters = problem.design.n, Groups(groups)
    once = np.ones((1, n))
    own = _clustered(problem, fit, np.asarray(problem.design.y)[None], once, fit.coef[None], clusters)[0]
    rows = []
    for i in range(-(-len(draws.code) // plan.block_size)):
        block = slice(i * plan.block_size, (i + 1) * plan.block_size)
        good, replicates, coef = np.flatnonzero(usable[block]), plan.block(i), draws.coef[block]
        for some in np.array_split(good, -(-len(good) * n // BLOCK_CELLS)) if len(good) else ():
            y = np.asarray(problem.design.y)[None] if replicates.y is None else replicates.y[some]
            freq = once if replicates.freq is None else replicates.freq[some]
            rows.append(_clustered(problem, fit, y, freq, coef[some], clusters))
    return own, np.concatenate(rows)


def _clustered(problem: Problem, fit: FitState, y: Floats, freq: Floats, coef: Floats, clusters: Groups) -> Floats:
    """Cluster-robust standard errors (b, p) at coef (b, p).   y, freq (b or 1, n)"""
    design, family = problem.design, problem.family.fitted(fit.aux)
    X = design.X
    eta = coef @ X.T
    if design.offset is not None:
        eta += design.offset
    mu, slope = np.asarray(problem.link.inverse(eta)), np.asarray(problem.link.slope(eta))
    weights = 1.0 if design.weights is None else design.weights
    copies = weights if design.freq is None else weights * design.freq
    score = np.asarray(family.score(y, mu)) * slope * copies
    W = slope**2 / family.variance(mu) * copies * freq
    b, p = coef.shape
    bread = (W @ (X[:, :, None] * X[:, None, :]).reshape(len(X), p * p)).reshape(b, p, p)
    sums = clusters.sums_of_products(score, X.T).swapaxes(0, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = np.linalg.solve(bread, sums)
    return np.sqrt((moved**2 * freq[:, clusters.first][:, None, :]).sum(axis=2))
