"""What random effects did each replicate find? Their conditional modes at the estimates of a refit, given its responses.

    with_effects(problem, fit, replicates, draws, index) → Draws with b (B, m)

for `index` (m,) places of FitState.b, which the groups of a question ask for. Refits record estimates alone; here the modes are solved
for once at those, as the estimator itself does at its end.

Source: Bates et al. (2015) §3 for linear models, §5 for generalized ones.
"""

from __future__ import annotations

import math

import numpy as np
from attrs import evolve

from ..kernels import blocks
from ..kernels.gram import FINE
from ..kernels.groups import Groups
from ..kernels.pirls import at_x, find_mode
from ..kernels.replicates import triangles
from ..kernels.systems import OneFactor
from ..state.design import Problem
from ..state.fit import FitState
from ..state.plan import Draws, Replicates
from ..types import Floats, Ints
from . import lmm, mixed, refits


def with_effects(problem: Problem, fit: FitState, replicates: Replicates, draws: Draws, index: Ints) -> Draws:
    """Draws of new responses with the random effects at `index`; nan where a refit is not usable."""
    b = np.full((len(draws.code), len(index)), np.nan)
    usable = np.flatnonzero(draws.code == FINE)
    find = _linear if fit.estimator == "lmm" else _generalized
    if len(usable):
        find(problem, replicates, draws, (usable, index), b)
    return evolve(draws, b=b)


def _linear(problem: Problem, replicates: Replicates, draws: Draws, wanted: tuple[Ints, Ints], out: Floats) -> None:
    """One grouping factor: all replicates at once,  b_g = T(TᵀA_gT + I)⁻¹TᵀZ_gᵀW(y − o − Xβ)."""
    design, prepared = problem.design, lmm.prepare(problem, scaled=False)
    weights, lay, (usable, index) = lmm.rows_and_counts(design)[0], prepared.layout, wanted
    Y, theta = replicates.y[usable], draws.theta[usable]  # type: ignore[index]
    if lay.rest:
        F, y = refits.columns(prepared, design), Y - refits.fixed_part(prepared, design)
        for i, one, at in zip(usable, y, theta):
            point = refits.with_response(prepared, F, one, weights).evaluate(at)
            if point is not None:
                out[i] = blocks.flatten(lay, point.modes.b0[:, 0], point.modes.br[:, 0])[index]
        return
    g, residual = lay.first, Y - draws.coef[usable] @ design.X.T
    residual = residual if design.offset is None else residual - design.offset
    residual = residual if weights is None else residual * weights
    sides = Groups(g.group).sums_of_products(residual, g.Z)
    T = triangles(g.rows, g.cols, g.k, theta[:, g.index])
    M = np.einsum("bia,ijg,bjc->bgac", T, prepared.P.A, T, optimize=True) + np.eye(g.k)
    u = np.linalg.solve(M, np.einsum("bia,ibg->bga", T, sides)[..., None])[..., 0]
    b = np.einsum("bac,bgc->bag", T, u)
    out[usable] = [blocks.flatten(lay, one, np.empty(0))[index] for one in b]


def _generalized(problem: Problem, replicates: Replicates, draws: Draws, wanted: tuple[Ints, Ints], out: Floats) -> None:
    """One grouping factor and no dispersion parameter: all replicates at once."""
    prepared = mixed.prepare(problem)
    model, s = prepared.model, prepared.model.system
    together = isinstance(s, OneFactor) and not model.response.shaped
    usable, index = wanted
    for at in [usable] if together else usable:
        coef = draws.coef[at] if prepared.basis is None else np.linalg.solve(prepared.basis, draws.coef[at].T).T
        spread = draws.theta[at] * draws.sigma[at, None] if together else draws.theta[at] * draws.sigma[at]  # type: ignore[index]
        response = evolve(model.response, y=replicates.y[at][..., s.order])  # type: ignore[index]
        shape = 2.0 * math.log(draws.sigma[at]) if model.response.shaped else None
        here, phi = at_x(evolve(model, response=response), shape)
        mode = find_mode(here, coef, spread, s.zero(len(at)) if together else s.zero(), phi)
        if together:
            out[at] = [s.modes(mode.b[:, i])[index] if mode.arrived[i] else np.full(len(index), np.nan) for i in range(len(at))]
        elif mode.arrived:
            out[at] = s.modes(mode.b)[index]
