"""Blocks of replicates of a linear or generalized linear model, refitted at once by matrix products.

    lm_many, glm_many (problem, fit, replicates) → Draws

Each equals the estimator's own fit of the replicate's data (tested); None says that the block has no batched form and is fitted one by
one: families whose extra parameter is estimated anew.
"""

from __future__ import annotations

import numpy as np

from ..kernels.gram import FINE, ols_many, ols_responses, pearson, totals
from ..kernels.gram import glm_many as score_many
from ..kernels.linalg import inverse_factored, triangular
from ..state.design import Problem
from ..state.fit import FitState
from ..state.plan import Draws, Replicates
from ..types import Floats

ILL = 1e8  # condition number of the unit-scaled XᵀWX from which replicates are refitted in orthonormal columns


def observations(problem: Problem, replicates: Replicates) -> np.ndarray:
    """How many observations each replicate has (b,)."""
    design = problem.design
    if replicates.freq is None:
        return np.full(replicates.size, design.n_obs)
    return totals(np.asarray(replicates.freq), np.ones(design.n) if design.freq is None else design.freq)


def coordinates(problem: Problem, fit: FitState) -> tuple[Floats, Floats | None]:
    """X, or X R⁻¹ with R⁻¹ where X is too ill-conditioned for normal equations: replicates of orthonormal columns are not."""
    X, V = problem.design.X, fit.vcov
    scale = np.sqrt(np.diag(V))
    if np.isfinite(V).all() and (scale > 0).all():
        values = np.linalg.eigvalsh(V / np.outer(scale, scale))
        if values[-1] < ILL * values[0]:
            return X, None
    back = np.asarray(np.linalg.inv(triangular(X)), dtype=float)
    return X @ back, back


def lm_many(problem: Problem, fit: FitState, replicates: Replicates) -> Draws:
    """Least squares of every replicate, of what the fit to all rows leaves: β* = β̂ + (XᵀWX)⁻¹XᵀW(y* − o − Xβ̂)."""
    design = problem.design
    X, back = coordinates(problem, fit)
    base = design.X @ fit.coef if design.offset is None else design.X @ fit.coef + design.offset
    if replicates.y is not None:
        W = design.total_weights
        R = triangular(X, W)
        change, rss = ols_responses(X, R, W, replicates.y - base)
        inverse = np.broadcast_to(inverse_factored(R), (len(change), *R.shape))
        code = np.full(len(change), FINE)
    else:
        change, inverse, rss, code = ols_many(X, np.asarray(replicates.freq), np.asarray(design.y) - base, design.total_weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma = np.sqrt(np.maximum(rss, 0) / (observations(problem, replicates) - X.shape[1]))
    change, se = _returned(change, inverse, sigma, back)
    return Draws(coef=fit.coef + change, sigma=sigma, code=code, se=se)


def _returned(coef: Floats, inverse: Floats, sigma: Floats, back: Floats | None) -> tuple[Floats, Floats]:
    """Coefficients and standard errors in the columns of the design."""
    if back is not None:
        coef = coef @ back.T
        inverse = back @ inverse @ back.T
    with np.errstate(invalid="ignore"):
        return coef, sigma[:, None] * np.sqrt(np.einsum("bii->bi", inverse))


def glm_many(problem: Problem, fit: FitState, replicates: Replicates) -> Draws | None:
    """Fisher scoring of every replicate from the full data's coefficients."""
    if fit.aux:
        return None
    design, family, link = problem.design, problem.family, problem.link
    W, Y = replicates.freq, np.asarray(design.y) if replicates.y is None else replicates.y
    X, back = coordinates(problem, fit)
    start = fit.coef if back is None else np.linalg.solve(back, fit.coef)
    coef, inverse, code = score_many(X, W, Y, design.offset, (family, link), start, design.total_weights)
    sigma = np.ones(len(coef))
    if fit.dispersion_estimated:
        squares = pearson(X, W, Y, design.offset, (family, link), coef, design.total_weights)
        with np.errstate(divide="ignore", invalid="ignore"):
            sigma = np.sqrt(squares / (observations(problem, replicates) - len(fit.coef)))
    coef, se = _returned(coef, inverse, sigma, back)
    return Draws(coef=coef, sigma=sigma, code=code, se=se)
