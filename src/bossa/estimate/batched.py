"""Blocks of replicates of a linear or generalized linear model, refitted at once by matrix products.

    lm_many, glm_many (problem, fit, replicates) → Draws

Each equals the estimator's own fit of the replicate's data (tested); None says that the block has no batched form and is fitted one by
one: families whose extra parameter is estimated anew.
"""

from __future__ import annotations

import numpy as np

from ..kernels.gram import FINE, ols_many, ols_responses
from ..kernels.gram import glm_many as score_many
from ..kernels.linalg import triangular
from ..state.design import Problem
from ..state.fit import FitState
from ..state.plan import Draws, Replicates


def counts_of(problem: Problem, replicates: Replicates) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the normal equations (b, n) and observations (b,) of a block of frequencies."""
    design = problem.design
    counts = np.asarray(replicates.freq)
    if design.freq is not None:
        counts = counts * design.freq
    W = counts if design.weights is None else counts * design.weights
    return W, counts.sum(axis=1)


def lm_many(problem: Problem, fit: FitState, replicates: Replicates) -> Draws:
    """Least squares of every replicate."""
    design = problem.design
    p = design.X.shape[1]
    offset = 0.0 if design.offset is None else design.offset
    if replicates.y is not None:
        W = design.total_weights
        R = triangular(design.X, W)
        coef, rss = ols_responses(design.X, R, W, replicates.y - offset)
        unscaled = np.tile((np.linalg.inv(R) ** 2).sum(axis=1), (len(coef), 1))
        n_obs, code = np.full(len(coef), design.n_obs), np.full(len(coef), FINE)
    else:
        W, n_obs = counts_of(problem, replicates)
        coef, inverse, rss, code = ols_many(design.X, W, np.asarray(design.y) - offset)
        unscaled = np.einsum("bii->bi", inverse)
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma = np.sqrt(np.maximum(rss, 0) / (n_obs - p))
    return Draws(coef=coef, sigma=sigma, code=code, se=sigma[:, None] * np.sqrt(unscaled))


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
    coef, inverse, code = score_many(design.X, W, Y, design.offset, (family, link), fit.coef)
    sigma = np.ones(len(coef))
    if fit.dispersion_estimated:
        eta = coef @ design.X.T if design.offset is None else coef @ design.X.T + design.offset
        mu = link.inverse(eta)
        with np.errstate(invalid="ignore"):
            sigma = np.sqrt((W * (Y - mu) ** 2 / family.variance(mu)).sum(axis=1) / (n_obs - len(fit.coef)))
    with np.errstate(invalid="ignore"):
        se = sigma[:, None] * np.sqrt(np.einsum("bii->bi", inverse))
    return Draws(coef=coef, sigma=sigma, code=code, se=se)
