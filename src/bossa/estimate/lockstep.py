"""Many refits of one generalized linear mixed model in lock-step: the replicates of a bootstrap as one more axis of every array.

    glmm_many(problem, fit, replicates) → Draws

All replicates take their quasi-Newton steps together, from the full data's estimates and Hessian; those that are done leave. Each equals
the estimator's own fit of its data (tested). A replicate that ends at the boundary or not at all gets NOT_CONVERGED and is fitted on its
own by `many.refit_block`. None says that the block has no batched form: several grouping factors, an estimated dispersion parameter,
quadrature or nagq = 0, counts that differ within groups, groups large enough for one fit to fill the machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import evolve

from ..kernels.gram import FINE, NOT_CONVERGED
from ..kernels.lockstep import descend
from ..kernels.pirls import Mixed, laplace, mode_slopes
from ..kernels.response import constants
from ..kernels.systems import OneFactor
from ..state.design import Problem
from ..state.fit import FitState
from ..state.plan import Draws, Replicates
from ..types import Bools, Floats, Ints
from .lmm import group_counts
from .marginal import DIFFERENCE, TOL
from .mixed import MixedEngine, prepare

MOST_ROWS = 20_000  # rows above which replicates gain nothing from being together
SMALL_SD = 1e-2  # on the linear predictor: a random effect below this may be on its way to 0
LARGE_SD = 10.0  # and one above it to infinity
FAR = 10.0  # standard errors from the full data's estimate at which a coefficient may be on its way to infinity


class Block:
    """Replicates still searching: D and its gradient for the rows `active` of x, each from its own last modes."""

    def __init__(self, model: Mixed, replicates: Replicates, group_counts: Floats | None, start: Floats):
        self.model, self.p = model, len(model.XT)
        s = model.system
        self.y = None if replicates.y is None else np.asarray(replicates.y)[:, s.order]
        self.count = group_counts
        self.u = s.zero(replicates.size)
        self.x = np.tile(start, (replicates.size, 1))
        self.mode: Any = None

    def models(self, active: Any) -> Mixed:
        """The model of the replicates `active`, as one."""
        model, s = self.model, self.model.system
        if self.y is not None:
            return evolve(model, response=evolve(model.response, y=self.y[active]))
        count = self.count[active]  # type: ignore[index]
        return evolve(model, system=evolve(s, count=count, row_count=count[:, s.code]))

    def at(self, x: Floats, active: Ints) -> tuple[Floats, Floats]:
        """D (b,) and its gradient (b, m); inf where they cannot be computed."""
        made = laplace(self.models(active), x[:, : self.p], x[:, self.p :], self.u[:, active])
        good = made.mode.arrived & np.isfinite(made.gradient).all(axis=1)
        self.mode = made.mode
        return np.where(good, made.deviance, np.inf), made.gradient

    def settle(self, taken: Ints, better: Bools) -> None:
        """The next modes are searched from these."""
        self.u[:, taken] = self.mode.u[:, better]


def glmm_many(problem: Problem, fit: FitState, replicates: Replicates) -> Draws | None:
    """Laplace fits of every replicate from the full data's."""
    engine = fit.engine
    if not isinstance(engine, MixedEngine) or engine.nagq != 1 or problem.options.nagq not in (None, 1):
        return None
    prepared = prepare(problem)
    model, s = prepared.model, prepared.model.system
    small = isinstance(s, OneFactor) and model.XT.shape[1] <= MOST_ROWS
    if not small or model.response.shaped or prepared.basis is not None or not prepared.kept.all():
        return None
    counts = None if replicates.freq is None else group_counts(problem.design, s.count, np.asarray(replicates.freq))
    if replicates.y is None and counts is None:
        return None
    block = Block(model, replicates, counts, engine.x)
    with np.errstate(all="ignore"):
        found = descend(block, block.x, np.asarray(np.linalg.pinv(engine.hessian), dtype=float), TOL)
        block.x = found.x
        near = (np.abs(found.x[:, : block.p] - fit.coef) < FAR * np.sqrt(np.diag(fit.vcov))).all(axis=1)
        return _draws(block, found.value, found.done & near)


def _draws(block: Block, D: Floats, done: Bools) -> Draws:
    """The last Newton step by each replicate's own Hessian, and what a refit reports."""
    p, (B, m) = block.p, block.x.shape
    H, g = _hessians(block)
    scale = np.sqrt(np.maximum(np.einsum("bii->bi", H), 1e-300))
    unit = H / (scale[:, :, None] * scale[:, None, :])
    unit = np.where(np.isfinite(unit).all(axis=(1, 2))[:, None, None], unit, np.eye(m))
    done &= np.linalg.eigvalsh(unit)[:, 0] > 1e-6
    inverse = np.linalg.pinv(unit) / (scale[:, :, None] * scale[:, None, :])
    step = -np.einsum("bij,bj->bi", inverse, g)
    x = block.x + step
    theta, regular = _turned(block.model.system, x[:, p:])
    model = block.models(np.arange(B))
    constant = model.system.total(constants(model.response))
    se = np.sqrt(2.0 * np.maximum(np.einsum("bii->bi", inverse)[:, :p], 0.0))
    code = np.where(done & regular, FINE, NOT_CONVERGED)
    fine = code == FINE

    def blank(v: Floats) -> Floats:
        return np.where(fine.reshape(-1, *[1] * (v.ndim - 1)), v, np.nan)

    return Draws(
        coef=blank(x[:, :p]),
        sigma=blank(np.ones(B)),
        code=code,
        se=blank(se),
        theta=blank(theta),
        loglik=blank(constant - 0.5 * (D + 0.5 * np.einsum("bi,bi->b", step, g))),
    )


def _hessians(block: Block) -> tuple[Floats, Floats]:
    """Hessians (B, m, m) of D by central differences, and its gradients (B, m), at the block's x."""
    B, m = block.x.shape
    everyone = np.arange(B)
    _, g = block.at(block.x, everyone)
    mode = block.mode
    model = block.models(everyone)
    slopes = mode_slopes(model, mode)
    scale = np.sqrt(2.0 * np.einsum("bii->bi", model_information(model, mode, block.x)))
    h = DIFFERENCE * np.sqrt(2.0) / np.where(scale > 0, scale, 1.0)
    still = evolve(model, still=True)
    H = np.empty((B, m, m))
    for j, du in enumerate(slopes):
        sides = []
        for sign in (1.0, -1.0):
            x = block.x.copy()
            x[:, j] += sign * h[:, j]
            sides.append(laplace(still, x[:, : block.p], x[:, block.p :], mode.u + sign * h[:, j, None] * du).gradient)
        H[:, j] = (sides[0] - sides[1]) / (2.0 * h[:, j, None])
    return 0.5 * (H + H.transpose(0, 2, 1)), g


def model_information(model: Mixed, mode: Any, x: Floats) -> Floats:
    """A rough diagonal (b, m, m) for the size of differences: XᵀWX − … for β, one group's effect for θ."""
    p, m = len(model.XT), x.shape[1]
    out = np.zeros((len(x), m, m))
    out[:, :p, :p] = mode.mover.reduced(model.XT)
    A = np.einsum("aa...g->a...", mode.mover.A)
    g = model.system.grouping
    for a, index in zip(g.rows, g.index):
        out[:, p + index, p + index] = A[a]
    return out


def _turned(s: OneFactor, theta: Floats) -> tuple[Floats, Bools]:
    """θ (b, t) with the diagonals of T positive; which are well inside the parameter space."""
    (T,) = s.T_of(theta)
    diagonal = np.einsum("aa...->a...", T)
    T = T * np.where(diagonal < 0, -1.0, 1.0)
    size = np.sqrt(np.square(s.Z).mean(axis=1))
    sds = np.abs(diagonal) * size[:, None]
    return s.theta_of((T,)), ((sds > SMALL_SD) & (sds < LARGE_SD)).all(axis=0)
