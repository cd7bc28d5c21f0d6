"""Many minimisations side by side: replicates of one search take their quasi-Newton steps together, and leave when they are done.

    descend(objective, start, inverse, tol) → Descent

An objective computes f of the replicates asked for, each at its own x, and is told which of its latest trial points were taken:

    objective.at(x (b, m), active (b,)) → values (b,), gradients (b, m); inf where f cannot be computed
    objective.settle(taken, better)       the trial points `better` (b,) bool of that call are where the replicates `taken` now stand

Source: Nocedal & Wright (2006) §3.1 and eq. 6.17.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from attrs import frozen

from ..types import Bools, Floats, Ints

STEPS = 60
SHORTEST = 1e-9  # part of a step below which a replicate is given up
SHORTER = 0.3
DECREASE = 1e-4  # of what the slope promises
ROUNDING = 1e-10  # relative rounding of f
CURVED = 1e-8  # cosine of step and change of gradient from which on an update is made


class Objective(Protocol):
    def at(self, x: Floats, active: Ints) -> tuple[Floats, Floats]: ...

    def settle(self, taken: Ints, better: Bools) -> None: ...


@frozen(eq=False)
class Descent:
    """Where each search ended: x (b, m), f there (b,), whether gᵀHg came below the tolerance (b,), and the step (b, m) not taken then."""

    x: Floats
    value: Floats
    done: Bools
    step: Floats


def descend(objective: Objective, start: Floats, inverse: Floats, tol: float) -> Descent:
    """BFGS of every replicate.

    start    (b, m)
    inverse  (m, m)  of the Hessian about there, the same for all
    tol      gᵀHg where a replicate stops: twice what its next step would gain
    """
    b = len(start)
    x, H, length, done = start.copy(), np.tile(inverse, (b, 1, 1)), np.ones(b), np.zeros(b, dtype=bool)
    everyone, last = np.arange(b), np.zeros(start.shape)
    value, gradient = objective.at(x, everyone)
    objective.settle(everyone, np.ones(b, dtype=bool))
    active = np.flatnonzero(np.isfinite(value))
    for _ in range(STEPS):
        g = gradient[active]
        step = -np.matmul(H[active], g[:, :, None])[:, :, 0]
        gain = -(step * g).sum(axis=1)
        over = gain < tol
        done[active[over]], last[active[over]] = True, step[over]
        active, step, gain = active[~over], step[~over], gain[~over]
        if not len(active):
            break
        step *= np.minimum(1.0, (1.0 + 2.0 * np.abs(x[active]).max(axis=1)) / np.abs(step).max(axis=1))[:, None]
        moved, here = length[active, None] * step, value[active]
        new, slopes = objective.at(x[active] + moved, active)
        better = new <= here - DECREASE * length[active] * gain + ROUNDING * (1.0 + np.abs(here))
        length[active] = np.where(better, 1.0, SHORTER * length[active])
        taken = active[better]
        objective.settle(taken, better)
        H[taken] = updated(H[taken], moved[better], slopes[better] - gradient[taken])
        x[taken] += moved[better]
        value[taken], gradient[taken] = new[better], slopes[better]
        active = active[length[active] > SHORTEST]
    return Descent(x, value, done, last)


def updated(H: Floats, s: Floats, y: Floats) -> Floats:
    """Inverse BFGS updates of H (b, m, m) for steps s and changes of gradient y (b, m); none where the curvature is not positive."""
    sy = (s * y).sum(axis=1)
    Hy = np.matmul(H, y[:, :, None])[:, :, 0]
    use = sy > CURVED * np.sqrt((s * s).sum(axis=1) * (y * y).sum(axis=1))
    r = np.where(use, 1.0 / np.where(use, sy, 1.0), 0.0)
    cross = (r[:, None] * Hy)[:, :, None] * s[:, None, :]
    return H + ((1.0 + (y * Hy).sum(axis=1) * r) * r)[:, None, None] * (s[:, :, None] * s[:, None, :]) - cross - cross.transpose(0, 2, 1)
