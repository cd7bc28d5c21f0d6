"""Many refits of one generalized linear mixed model in lock-step: the replicates of a bootstrap as one more axis of every array.

    glmm_many(problem, fit, replicates) → Draws

All replicates take their quasi-Newton steps together, from the full data's estimates and Hessian; those that are done leave. Each equals
the estimator's own fit of its data (tested). A replicate that ends at the boundary or not at all gets NOT_CONVERGED and is fitted on its
own by `many.refit_block`. None says that the block has no batched form: several grouping factors, an estimated dispersion parameter,
quadrature or nagq = 0, counts that differ within groups, groups large enough for one fit to fill the machine.

Source: Nocedal & Wright (2006) eq. 6.17 for the updates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import evolve

from ..kernels.gram import FINE, NOT_CONVERGED
from ..kernels.pirls import Mixed, laplace, mode_slopes
from ..kernels.response import constants
from ..kernels.systems import OneFactor
from ..state.design import Problem
from ..state.fit import FitState
from ..state.plan import Draws, Replicates
from ..types import Bools, Floats
from .marginal import DIFFERENCE, TOL
from .mixed import MixedEngine, prepare

STEPS = 60
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

    def models(self, active: Any) -> Mixed:
        """The model of the replicates `active`, as one."""
        model, s = self.model, self.model.system
        if self.y is not None:
            return evolve(model, response=evolve(model.response, y=self.y[active]))
        count = self.count[active]  # type: ignore[index]
        return evolve(model, system=evolve(s, count=count, row_count=count[:, s.code]))

    def __call__(self, x: Floats, active: Any) -> tuple[Floats, Floats, Any]:
        """D (b,), gradient (b, m) and the modes; D is inf where it cannot be computed."""
        made = laplace(self.models(active), x[:, : self.p], x[:, self.p :], self.u[:, active])
        good = made.mode.arrived & np.isfinite(made.gradient).all(axis=1)
        return np.where(good, made.deviance, np.inf), made.gradient, made.mode


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
    counts = _group_counts(s, replicates, problem)
    if replicates.y is None and counts is None:
        return None
    block = Block(model, replicates, counts, engine.x)
    with np.errstate(all="ignore"):
        found, done = _descend(block, np.asarray(np.linalg.pinv(engine.hessian), dtype=float))
        done &= (np.abs(block.x[:, : block.p] - fit.coef) < FAR * np.sqrt(np.diag(fit.vcov))).all(axis=1)
        return _draws(block, found, done)


def _group_counts(s: OneFactor, replicates: Replicates, problem: Problem) -> Floats | None:
    """(b, G) where the frequencies are constant within groups and the design's own counts are groups' too, else None."""
    if replicates.freq is None or (problem.design.freq is not None and s.count is None):
        return None
    freq = np.asarray(replicates.freq)[:, s.order]
    by_group = freq[:, s.starts]
    if not (by_group[:, s.code] == freq).all():
        return None
    return by_group if s.count is None else by_group * s.count


def _descend(block: Block, inverse: Floats) -> tuple[Floats, Bools]:
    """D (B,) at the end and which replicates got there; x and u of the block are moved."""
    B = len(block.x)
    H = np.tile(inverse, (B, 1, 1))
    active = np.arange(B)
    D, g, mode = block(block.x, active)
    block.u = mode.u
    t, gain = np.ones(B), np.full(B, np.inf)
    for _ in range(STEPS):
        step = -np.einsum("bij,bj->bi", H[active], g[active])
        slope = np.einsum("bi,bi->b", step, g[active])
        gain[active] = -slope
        keep = (gain[active] > TOL) & np.isfinite(D[active])
        active, step, slope = active[keep], step[keep], slope[keep]
        if not len(active):
            break
        moved = t[active, None] * step
        newD, newg, mode = block(block.x[active] + moved, active)
        better = newD <= D[active] + 1e-4 * t[active] * slope + 1e-10 * (1.0 + np.abs(D[active]))
        t[active] = np.where(better, 1.0, 0.3 * t[active])
        at = active[better]
        H[at] = _updated(H[at], moved[better], (newg[better] - g[at]))
        block.x[at] += moved[better]
        block.u[:, at] = mode.u[:, better]
        D[at], g[at] = newD[better], newg[better]
    return D, (gain <= TOL) & np.isfinite(D)


def _updated(H: Floats, s: Floats, y: Floats) -> Floats:
    """Inverse BFGS updates of H (b, m, m) with steps s and changes of gradient y (b, m); none where the curvature is not positive."""
    sy = np.einsum("bi,bi->b", s, y)
    Hy = np.einsum("bij,bj->bi", H, y)
    yHy = np.einsum("bi,bi->b", y, Hy)
    good = sy > 1e-8 * np.sqrt(np.einsum("bi,bi->b", s, s) * np.einsum("bi,bi->b", y, y))
    r = np.where(good, 1.0 / np.where(good, sy, 1.0), 0.0)
    cross = r[:, None, None] * (Hy[:, :, None] * s[:, None, :])
    return H + ((1.0 + yHy * r) * r)[:, None, None] * (s[:, :, None] * s[:, None, :]) - cross - cross.transpose(0, 2, 1)


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
    _, g, mode = block(block.x, everyone)
    block.u = mode.u
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
