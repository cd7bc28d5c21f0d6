"""Minimising a smooth function whose gradient is exact and whose Hessian is known approximately.

Where is the minimum of f, to the last digit that its gradient allows? Newton steps on the caller's approximate Hessian (average
information for variance parameters), corrected by BFGS updates with the latest steps, so that convergence is superlinear however rough
the approximation; negative curvature is used by its absolute value, so that saddle points (a variance at 0 that should not be) repel.

    evaluate(x) → a point with .criterion and .gradient, or None where f cannot be computed
    hessian(point) → (t, t)

Source: Nocedal & Wright (2006) §3.1, §6.1, §7.2; Dauphin et al. (2014) for the absolute values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from attrs import frozen

from ..types import Floats

NEAR = 1.0  # expected gain of a step below which its secant pair is kept
SETTLED = 1e-2  # and below which the Hessian is only updated, not asked for again
ROUNDING = 1e-10  # relative rounding of f: smaller gains are judged by the gradient alone


@frozen(kw_only=True, eq=False)
class Minimum:
    """Where a search ended.

    point        the last point;  x (t,) its place
    gain         gᵀH⁻¹g: twice what the next step would be expected to gain
    converged    gain ≤ tol, or as small as rounding lets it be
    evaluations  of f and its gradient
    hessian      (t, t)  as it was last approximated
    """

    x: Floats
    point: Any
    gain: float
    converged: bool
    iterations: int
    evaluations: int
    hessian: Floats


def minimize(
    evaluate: Callable[[Floats], Any],
    hessian: Callable[[Any], Floats],
    start: Floats,
    tol: float = 1e-13,
    max_iter: int = 200,
    forget: bool = False,
) -> Minimum | None:
    """Minimum of f from `start` (t,); None where f cannot be computed even there.

    forget  let go of a point before the next is computed: for points that hold large factors, from an `evaluate` without a memory
    """
    x, point = start, evaluate(start)
    if point is None:
        return None
    pairs: list[tuple[Floats, Floats]] = []
    B, evaluations, stalled, gain = hessian(point), 1, 0, np.inf
    for iteration in range(max_iter):
        step, new_gain = newton_step(B, point.gradient)
        small = new_gain <= ROUNDING * (1.0 + abs(point.criterion))
        stalled = stalled + 1 if small and new_gain > 0.25 * gain else 0
        gain = new_gain
        if gain <= tol or stalled == 3:
            return Minimum(x=x, point=point, gain=gain, converged=True, iterations=iteration, evaluations=evaluations, hessian=B)
        step *= min(1.0, (1.0 + 2.0 * np.abs(x).max()) / np.abs(step).max())
        here, before = (point.criterion, point.gradient), None if forget else point
        point = None
        point, moved, tried = line_search(evaluate, x, *here, step)
        evaluations += tried
        if point is None:
            point = evaluate(x) if forget else before
            return Minimum(x=x, point=point, gain=gain, converged=small, iterations=iteration, evaluations=evaluations + forget, hessian=B)
        x, pair = x + moved, (moved, point.gradient - here[1])
        if gain < NEAR:
            pairs = [*pairs[-len(x) - 1 :], pair]
        if gain < SETTLED:
            B = secant_update(B, *pair)
            continue
        B = hessian(point)
        for moved, change in pairs:
            B = secant_update(B, moved, change)
    return Minimum(x=x, point=point, gain=gain, converged=False, iterations=max_iter, evaluations=evaluations, hessian=B)


def secant_update(B: Floats, s: Floats, y: Floats) -> Floats:
    """B (t, t) made to agree with the change y of the gradient over the step s.   Source: Nocedal & Wright eq. 6.19 (BFGS)."""
    Bs, sy = B @ s, s @ y
    sBs, size = s @ Bs, math.sqrt(s @ s)
    if sy > 1e-8 * size * math.sqrt(y @ y) and sBs > 1e-8 * size * math.sqrt(Bs @ Bs):
        B = B - Bs[:, None] * (Bs / sBs) + y[:, None] * (y / sy)
    return B


def newton_step(B: Floats, gradient: Floats) -> tuple[Floats, float]:
    """−|B|⁻¹g and gᵀ|B|⁻¹g, with B (t, t) by its eigenvalues' absolute values, on the scale of its diagonal."""
    scale = np.sqrt(np.abs(B.diagonal()))
    largest = scale.max(initial=0.0)
    scale[scale <= 1e-8 * largest] = 1.0
    values, vectors = np.linalg.eigh(B / (scale[:, None] * scale))
    values = np.abs(values)
    values = np.maximum(values, max(1e-10 * values.max(), 1e-100))
    along = (gradient / scale) @ vectors
    weighted = along / values
    return -(vectors @ weighted) / scale, float(along @ weighted)


def line_search(evaluate: Callable[[Floats], Any], x: Floats, criterion: float, gradient: Floats, step: Floats) -> tuple[Any, Floats, int]:
    """The first point along `step` that gains enough, how far it is, and how many were tried; None where 30 reductions find none."""
    slope, slack = gradient @ step, ROUNDING * (1.0 + abs(criterion))
    t = 1.0
    for tried in range(1, 31):
        new = evaluate(x + t * step)
        if new is not None and new.criterion <= criterion + 1e-4 * t * slope + slack:
            return new, t * step, tried
        curved = np.inf if new is None else new.criterion - criterion - t * slope
        t *= float(np.clip(-slope * t / (2.0 * curved), 0.1, 0.5)) if np.isfinite(curved) and curved > 0 else 0.25
    return None, step, 30


def differences(gradient: Callable[[Floats], Floats], x: Floats, step: Floats) -> Floats:
    """Derivative (…, t) of a vector function of x (t,) by central differences: error O(step²).

    gradient  (t,) → (…,)
    step      (t,)  of each coordinate
    """
    columns = []
    for i, h in enumerate(step):
        unit = np.zeros_like(x)
        unit[i] = h
        columns.append((gradient(x + unit) - gradient(x - unit)) / (2.0 * h))
    return np.stack(columns, axis=-1)
