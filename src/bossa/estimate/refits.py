"""One linear mixed model refitted many times without going through its rows again: new responses, or new counts of its groups.

    refits(problem, fit, replicates) → Draws

Only what a replicate changes is computed anew. One grouping factor: replicates side by side (`kernels.replicates`). Several: new responses
one after another, each from θ̂; counts have no such form. A replicate whose search does not end, or ends where it should not, or whose
data may be too few for the model, is left to a fit of its own (code 2).

Source: Bates et al. (2015) §3.4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import evolve

from ..kernels import blocks, profiled
from ..kernels.blocks import Layout, Products
from ..kernels.gram import FINE, NOT_CONVERGED
from ..kernels.groups import Groups
from ..kernels.optimize import minimize
from ..kernels.replicates import Block, curvature, evaluate, lmm_many, merged, triangles
from ..state.design import Design
from ..state.fit import FitState
from ..state.plan import Draws
from ..types import Bools, Floats, Ints
from .random import SINGULAR

SADDLE = 1e-5  # as in `lmm`: criterion gained per unit of variance below which a boundary is one
NEAR_RANK = 1e-8  # eigenvalue of a replicate's unit-scaled XᵀWX below which its rank is judged by a fit of its own


def refit_responses(prepared: Any, design: Design, weights: Floats | None, fit: FitState, Y: Floats) -> Draws:
    """Draws of the responses Y (b, n).   prepared: `lmm.Prepared` of the problem; weights: of its rows"""
    F, y = columns(prepared, design), Y - fixed_part(prepared, design)
    start = prepared.inward(np.asarray(fit.theta))
    if prepared.layout.rest:
        theta, criterion, L, code = _in_turn(prepared, F, y, weights, start)
    else:
        theta, criterion, L, code = _side_by_side(prepared, response_block(prepared, F, y, weights), start)
    return _draws(prepared, np.full(len(Y), prepared.n), np.full(len(Y), prepared.log_weights), (theta, criterion, L, code))


def refit_counts(prepared: Any, design: Design, weights: Floats | None, fit: FitState, count: Floats) -> Draws:
    """Draws of replicates in which group g counts count[b, g] times, each copy with random effects of its own."""
    assert design.y is not None
    F = columns(prepared, design)
    y = design.y - fixed_part(prepared, design)
    block, enough = _counted_block(prepared, F, y, weights, count)
    theta, criterion, L, code = _side_by_side(prepared, block, prepared.inward(np.asarray(fit.theta)))
    log_weights = np.zeros(len(count))
    if weights is not None:
        log_weights = count @ _by_group(prepared.layout, np.log(weights))
    return _draws(prepared, block.n, log_weights, (theta, criterion, L, np.where(enough, code, NOT_CONVERGED)))


def columns(prepared: Any, design: Design) -> Floats:
    """X of the search (n, p), its columns orthonormal over the rows, up to √n."""
    X = design.X if prepared.kept.all() else design.X[:, prepared.kept]
    return X @ np.linalg.inv(prepared.R)


def fixed_part(prepared: Any, design: Design) -> Floats:
    """Xβ₀ + offset (n,), which the search takes off every response."""
    X = design.X if prepared.kept.all() else design.X[:, prepared.kept]
    base = X @ prepared.start
    return base if design.offset is None else base + design.offset


# ---------------------------------------------------------------- cross-products
def response_block(prepared: Any, F: Floats, Y: Floats, w: Floats | None) -> Block:
    """The cross-products of responses Y (b, n)."""
    P, lay, (b, p) = prepared.P, prepared.layout, (len(Y), F.shape[1])
    g, W = lay.first, Y if w is None else Y * w
    By = Groups(g.group).sums_of_products(W, g.Z)
    count = None if P.count is None else np.broadcast_to(P.count, (b, g.G))
    each = W if P.count is None else W * P.count[g.group]
    C = np.empty((b, p + 1, p + 1))
    C[:, :p, :p] = P.C[:p, :p]
    C[:, p, :p] = C[:, :p, p] = each @ F
    C[:, p, p] = np.einsum("bi,bi->b", each, Y)
    return _block(P, By, C, np.full(b, float(prepared.n)), count, prepared.reml)


def _counted_block(prepared: Any, F: Floats, y: Floats, w: Floats | None, count: Floats) -> tuple[Block, Bools]:
    """The cross-products of counts (b, G); and which replicates have groups, rows and rank enough beyond doubt (b,)."""
    P, lay, p = prepared.P, prepared.layout, F.shape[1]
    dense = np.column_stack((F, y))
    C = np.empty((len(count), p + 1, p + 1))
    for s in range(p + 1):
        for t in range(s + 1):
            both = dense[:, s] * dense[:, t]
            C[:, s, t] = C[:, t, s] = count @ _by_group(lay, both if w is None else both * w)
    By = np.stack([_by_group(lay, z * (y if w is None else y * w)) for z in lay.first.Z])
    rows, present = _by_group(lay, np.ones(len(y))), count > 0
    n = count @ rows
    scale = np.sqrt(np.maximum(np.einsum("bii->bi", C), 1e-300))[:, :p]
    ranked = np.linalg.eigvalsh(C[:, :p, :p] / (scale[:, :, None] * scale[:, None, :]))[:, 0] > NEAR_RANK if p else np.ones(len(n), bool)
    groups = present.sum(axis=1)
    enough = ranked & (n > p + 1) & (groups > 1) & (groups * lay.first.k < present @ rows)
    By = np.broadcast_to(By[:, None], (lay.first.k, *count.shape))
    return _block(P, By, C, n, count, prepared.reml), enough


def _block(P: Products, By: Floats, C: Floats, n: Floats, count: Floats | None, reml: bool) -> Block:
    g, p = P.layout.first, C.shape[1] - 1
    order = np.argsort(g.index)
    return merged(Block(A=P.A, B=P.B[:, :p], By=By, C=C, n=n, count=count, rows=g.rows[order], cols=g.cols[order], reml=reml))


def _by_group(lay: Layout, v: Floats) -> Floats:
    """Sums of v (n,) over the rows of each group (G,)."""
    return np.asarray(np.bincount(lay.first.group, v, lay.first.G), dtype=float)


# ---------------------------------------------------------------- searches
Found = tuple[Floats, Floats, Floats, Ints]  # θ (b, t), criterion (b,), L (b, p + 1, p + 1), code (b,)


def _side_by_side(prepared: Any, block: Block, start: Floats) -> Found:
    """Those that end at a boundary are searched once more from elsewhere, and stand where no direction wants variance."""
    inverse = np.linalg.inv(_definite(profiled.average_information(prepared.evaluate(start))))
    theta, criterion, L, code = lmm_many(block, np.tile(start, (len(block.n), 1)), inverse)
    edge = np.flatnonzero(_singular(prepared, theta))
    if len(edge):
        few = block.some(edge)
        away = blocks.theta_of(prepared.layout, [np.eye(g.k) for g in prepared.layout.groupings])
        second, there, _, ended = lmm_many(few, np.tile(away, (len(edge), 1)), inverse)
        better = (ended == FINE) & ((there < criterion[edge]) | (code[edge] != FINE))
        theta[edge[better]], code[edge[better]] = second[better], FINE
        again = evaluate(few, theta[edge])
        L[edge], criterion[edge] = again.L, again.criterion
        code[edge] = np.where(_saddle(prepared, theta[edge], curvature(few, again)), NOT_CONVERGED, code[edge])
    return theta, criterion, L, code


def _saddle(prepared: Any, theta: Floats, Q: Floats) -> Bools:
    """Does a direction without variance want some?  (b,)"""
    U, s, _ = np.linalg.svd(_triangles(prepared, theta)[0])
    null = U * (s < 10 * SINGULAR)[:, None, :]
    inner = np.einsum("bai,bac,bcj->bij", null, Q, null)
    return np.linalg.eigvalsh(inner)[:, 0] < -SADDLE


def _in_turn(prepared: Any, F: Floats, y: Floats, weights: Floats | None, start: Floats) -> Found:
    b, p, t = len(y), F.shape[1], len(start)
    theta, L, criterion, code = np.full((b, t), np.nan), np.tile(np.eye(p + 1), (b, 1, 1)), np.full(b, np.nan), np.full(b, NOT_CONVERGED)
    for i in range(b):
        found = minimize(with_response(prepared, F, y[i], weights).evaluate, profiled.average_information, start)
        if found is not None and found.converged:
            theta[i], L[i], criterion[i], code[i] = found.x, found.point.L, found.point.criterion, FINE
    code[_singular(prepared, theta)] = NOT_CONVERGED
    return theta, criterion, L, code


def with_response(prepared: Any, F: Floats, y: Floats, weights: Floats | None) -> Any:
    """`lmm.Prepared` with another response y (n,), less `fixed_part`."""
    return evolve(prepared, P=blocks.with_response(prepared.P, np.column_stack((F, y)), y, weights))


def _definite(H: Floats) -> Floats:
    """H (t, t) by its eigenvalues' absolute values, none of them nearly 0; the identity where all are, as at θ = 0."""
    values, vectors = np.linalg.eigh(H)
    size = np.abs(values)
    return (vectors * np.maximum(size, 1e-3 * size.max() if size.max() > 1e-10 else 1.0)) @ vectors.T


def _triangles(prepared: Any, theta: Floats) -> list[Floats]:
    return [triangles(g.rows, g.cols, g.k, theta[:, g.index]) for g in prepared.layout.groupings]


def _singular(prepared: Any, theta: Floats) -> Bools:
    """Has some T of a replicate a singular value of nearly 0?  (b,); nan counts"""
    out = np.zeros(len(theta), dtype=bool)
    for T in _triangles(prepared, np.nan_to_num(theta)):
        out |= np.linalg.svd(T, compute_uv=False)[:, -1] < 10 * SINGULAR
    return out


# ---------------------------------------------------------------- what comes back
def _draws(prepared: Any, n: Floats, log_weights: Floats, found: Found) -> Draws:
    """Draws in the user's units.   n, log_weights (b,) of each replicate"""
    theta, criterion, L, code = found
    p = L.shape[1] - 1
    sigma = L[:, p, p] / np.sqrt(n - p if prepared.reml else n)
    root = np.linalg.inv(np.einsum("bji,jk->bik", L[:, :p, :p], prepared.R))
    coef = prepared.start + np.einsum("bij,bj->bi", root, L[:, p, :p])
    se = sigma[:, None] * np.sqrt(np.einsum("bij,bij->bi", root, root))
    value = criterion - log_weights
    if prepared.reml:
        value = value + 2.0 * float(np.log(np.abs(np.diag(prepared.R))).sum())
    failed = code != FINE
    for values in (coef, se, sigma):
        values[failed] = np.nan
    return Draws(coef=coef, sigma=sigma, code=code, se=se, theta=_outward(prepared, theta), loglik=-0.5 * value)


def _outward(prepared: Any, theta: Floats) -> Floats:
    """θ (b, t) in the user's units, diagonals of T ≥ 0."""
    out = np.empty_like(theta)
    for g, K, T in zip(prepared.layout.groupings, prepared.scales, _triangles(prepared, np.nan_to_num(theta))):
        R: Floats = np.asarray(np.linalg.qr(np.linalg.solve(K, T).transpose(0, 2, 1), mode="r"))
        lower = R.transpose(0, 2, 1)
        lower = lower * np.where(np.einsum("bii->bi", lower) < 0, -1.0, 1.0)[:, None, :]
        out[:, g.index] = lower[:, g.rows, g.cols]
    return out
