"""Blocks of replicates of a linear or generalized linear model, refitted at once by matrix products.

    lm_many, glm_many (problem, fit, replicates) → Draws

Each equals the estimator's own fit of the replicate's data (tested); None says that the block has no batched form and is fitted one by
one: families whose extra parameter is estimated anew.
"""

from __future__ import annotations

import numpy as np

from ..kernels.gram import FINE, ols_many, ols_responses
from ..kernels.gram import glm_many as score_many
from ..kernels.linalg import inverse_factored, triangular
from ..state.design import Problem
from ..state.fit import FitState
from ..state.plan import Draws, Replicates
from ..types import Floats

ILL = 1e8  # condition number of the unit-scaled XᵀWX from which replicates are refitted in orthonormal columns


def counts_of(problem: Problem, replicates: Replicates) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the normal equations (b, n) and observations (b,) of a block of frequencies."""
    design = problem.design
    counts = np.asarray(replicates.freq)
    if design.freq is not None:
        counts = counts * design.freq
    W = counts if design.weights is None else counts * design.weights
    return W, counts.sum(axis=1)


def coordinates(problem: Problem, fit: FitState) -> tuple[Floats, Floats | None]:
    """X, or X R⁻¹ with R⁻¹ where X is too ill-conditioned for normal equations: replicates of orthonormal columns are not."""
    X, V = problem.design.X, fit.vcov
    scale = np.sqrt(np.diag(V))
    if np.isfinite(V).all() and (scale > 0).all() and np.linalg.cond(V / np.outer(scale, scale)) < ILL:
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
        n_obs, code = np.full(len(change), design.n_obs), np.full(len(change), FINE)
    else:
        W, n_obs = counts_of(problem, replicates)
        change, inverse, rss, code = ols_many(X, W, np.asarray(design.y) - base)
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma = np.sqrt(np.maximum(rss, 0) / (n_obs - X.shape[1]))
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
    if replicates.y is not None:
        base = np.ones(design.n) if design.total_weights is None else design.total_weights
        W, n_obs, Y = np.tile(base, (replicates.size, 1)), np.full(replicates.size, design.n_obs), replicates.y
    else:
        (W, n_obs), Y = counts_of(problem, replicates), np.asarray(design.y)
    X, back = coordinates(problem, fit)
    start = fit.coef if back is None else np.linalg.solve(back, fit.coef)
    coef, inverse, code = score_many(X, W, Y, design.offset, (family, link), start)
    sigma = np.ones(len(coef))
    if fit.dispersion_estimated:
        eta = coef @ X.T if design.offset is None else coef @ X.T + design.offset
        mu = link.inverse(eta)
        with np.errstate(invalid="ignore"):
            sigma = np.sqrt((W * (Y - mu) ** 2 / family.variance(mu)).sum(axis=1) / (n_obs - len(fit.coef)))
    coef, se = _returned(coef, inverse, sigma, back)
    return Draws(coef=coef, sigma=sigma, code=code, se=se)
