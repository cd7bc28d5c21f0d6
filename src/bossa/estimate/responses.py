"""New responses of one linear mixed model, refitted without going through its rows again: parametric bootstrap, power.

Only what the response touches is computed anew. One grouping factor: replicates side by side (`kernels.lockstep`). Several: one after
another, each from θ̂. A replicate whose search does not end, or ends where it should not, is left to a fit of its own (code 2).

Source: Bates et al. (2015) §3.4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import evolve

from ..kernels import blocks, lockstep, profiled
from ..kernels.gram import FINE, NOT_CONVERGED
from ..kernels.optimize import minimize
from ..state.design import Problem
from ..state.fit import FitState
from ..state.plan import Draws
from ..types import Floats
from .random import SINGULAR

SADDLE = 1e-5  # as in `lmm`: criterion gained per unit of variance below which a boundary is one


def refit_responses(prepared: Any, weights: Floats | None, problem: Problem, fit: FitState, Y: Floats) -> Draws:
    """Draws of the responses Y (b, n).   prepared: `lmm.Prepared` of the problem; weights: of its rows"""
    design = problem.design
    X = design.X if prepared.kept.all() else design.X[:, prepared.kept]
    base = X @ prepared.start if design.offset is None else X @ prepared.start + design.offset
    F = X @ np.linalg.inv(prepared.R)
    start = prepared.inward(np.asarray(fit.theta))
    y = Y - base
    made = _side_by_side if not prepared.layout.rest and prepared.P.count is None else _in_turn
    theta, L, criterion, code = made(prepared, F, y, weights, start)
    p, n = F.shape[1], prepared.n
    sigma = L[:, p, p] / np.sqrt(n - p if prepared.reml else n)
    whole = np.einsum("bji,jk->bik", L[:, :p, :p], prepared.R)
    root = np.linalg.inv(whole)
    coef = prepared.start + np.einsum("bij,bj->bi", root, L[:, p, :p])
    se = sigma[:, None] * np.sqrt(np.einsum("bij,bij->bi", root, root))
    value = criterion - prepared.log_weights
    if prepared.reml:
        value = value + 2.0 * float(np.log(np.abs(np.diag(prepared.R))).sum())
    failed = code != FINE
    for values in (coef, se, sigma):
        values[failed] = np.nan
    return Draws(coef=coef, sigma=sigma, code=code, se=se, theta=_outward(prepared, theta), loglik=-0.5 * value)


def _side_by_side(prepared: Any, F: Floats, y: Floats, weights: Floats | None, start: Floats) -> tuple[Floats, Floats, Floats, Any]:
    """Those that end at a boundary are searched once more from elsewhere, and stand where no direction wants variance."""
    at = lockstep.responses(prepared.P, F, y, weights, prepared.n, prepared.reml)
    point = prepared.evaluate(start)
    hessian = _definite(profiled.average_information(point))
    theta, points, code = lockstep.maximise(at, start, hessian)
    L, criterion = points.L, points.criterion
    edge = np.flatnonzero(_singular(prepared, theta))
    if len(edge):
        few = at.some(edge)
        away = blocks.theta_of(prepared.layout, [np.eye(g.k) for g in prepared.layout.groupings])
        second, there, ended = lockstep.maximise(few, away, hessian)
        better = (ended == FINE) & ((there.criterion < criterion[edge]) | (code[edge] != FINE))
        theta[edge[better]], code[edge[better]] = second[better], FINE
        again = lockstep.evaluate(few, theta[edge])
        L[edge], criterion[edge] = again.L, again.criterion
        code[edge] = np.where(_saddle(prepared, theta[edge], lockstep.curvature(few, again)), NOT_CONVERGED, code[edge])
    return theta, L, criterion, code


def _saddle(prepared: Any, theta: Floats, Q: Floats) -> Any:
    """Does a direction without variance want some?  (b,) bool"""
    T = lockstep.triangles(prepared.layout.first, theta)
    U, s, _ = np.linalg.svd(T)
    null = U * (s < 10 * SINGULAR)[:, None, :]
    inner = np.einsum("bai,bac,bcj->bij", null, Q, null)
    return np.linalg.eigvalsh(inner)[:, 0] < -SADDLE


def _in_turn(prepared: Any, F: Floats, y: Floats, weights: Floats | None, start: Floats) -> tuple[Floats, Floats, Floats, Any]:
    b, p, t = len(y), F.shape[1], len(start)
    theta, L, criterion, code = np.full((b, t), np.nan), np.tile(np.eye(p + 1), (b, 1, 1)), np.full(b, np.nan), np.full(b, NOT_CONVERGED)
    columns = np.column_stack((F, np.zeros(len(F))))
    for i in range(b):
        one = evolve(prepared, P=blocks.with_response(prepared.P, columns, y[i], weights))
        found = minimize(one.evaluate, profiled.average_information, start)
        if found is not None and found.converged:
            theta[i], L[i], criterion[i], code[i] = found.x, found.point.L, found.point.criterion, FINE
    code[_singular(prepared, theta)] = NOT_CONVERGED
    return theta, L, criterion, code


def _definite(H: Floats) -> Floats:
    """H (t, t) by its eigenvalues' absolute values, none of them nearly 0."""
    values, vectors = np.linalg.eigh(H)
    return (vectors * np.maximum(np.abs(values), 1e-3 * np.abs(values).max())) @ vectors.T


def _triangles(prepared: Any, theta: Floats) -> list[Floats]:
    return [lockstep.triangles(g, theta) for g in prepared.layout.groupings]


def _singular(prepared: Any, theta: Floats) -> Any:
    """Has some T of a replicate a singular value of nearly 0?  (b,) bool; nan counts"""
    out = np.zeros(len(theta), dtype=bool)
    for T in _triangles(prepared, np.nan_to_num(theta)):
        out |= np.linalg.svd(T, compute_uv=False)[:, -1] < 10 * SINGULAR
    return out


def _outward(prepared: Any, theta: Floats) -> Floats:
    """θ (b, t) in the user's units, diagonals of T ≥ 0."""
    out = np.empty_like(theta)
    for g, K, T in zip(prepared.layout.groupings, prepared.scales, _triangles(prepared, np.nan_to_num(theta))):
        R: Floats = np.asarray(np.linalg.qr(np.linalg.solve(K, T).transpose(0, 2, 1), mode="r"))
        lower = R.transpose(0, 2, 1)
        lower = lower * np.where(np.einsum("bii->bi", lower) < 0, -1.0, 1.0)[:, None, :]
        out[:, g.index] = lower[:, g.rows, g.cols]
    return out
