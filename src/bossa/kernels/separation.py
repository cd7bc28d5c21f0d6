"""Does the maximum of a likelihood lie at infinity? The direction along which some means run to the end of their range, if there is one.

With y_i at the end of the family's range to which its η may run for ever (s_i = +1: up, −1: down, 0: η_i must stay), the maximum is at
infinity exactly if some direction d has

    x_iᵀd = 0 where s_i = 0,      s_i x_iᵀd ≥ 0 elsewhere,      not all 0

The equalities leave a null space; a guess that passes the test settles it, else a linear program over few rows at a time.

Source: Albert & Anderson (1984); Santner & Duffy (1986); Correia, Guimarães & Zylkin (2019) §3.
"""

from __future__ import annotations

import numpy as np

from ..types import Bools, Floats, Ints
from .family import Family
from .linalg import lengths, triangular
from .link import Link

ZERO = 1e-9  # of the largest |x_iᵀd|: what counts as not moving
ROWS = 2_000  # rows that enter the linear program at a time


def free_ends(y: Floats, family: Family, link: Link) -> Ints:
    """+1 where η_i → ∞ costs nothing, −1 where η_i → −∞ costs nothing, else 0.   (n,)"""
    s = np.zeros(len(y), dtype=np.intp)
    if np.isfinite(family.low) and link.low == family.low and link.eta_low == -np.inf:
        s[y == family.low] = -1
    if np.isfinite(family.high) and link.high == family.high:
        s[y == family.high] = 1
    return s


def separation(X: Floats, ends: Ints, guess: Floats, moved: Floats) -> Floats | None:
    """A direction d (p,) along which the likelihood rises for ever, or None if there is none.

    X      (n, p)
    ends   (n,)  from `free_ends`
    guess  (p,)  a step that the search made while it ran away;  moved (n,) what that step did to η
    """
    if not ends.any():
        return None
    scale = lengths(X)
    unit = X / scale
    still = (ends == 0) | (np.abs(moved) < 1e-2 * np.abs(moved).max())
    for fixed in (still, ends == 0):
        space = null_space(unit[fixed])
        if space.shape[1] == 0:
            continue
        ways = ends[~fixed, None] * (unit[~fixed] @ space)
        along = space.T @ (guess * scale)
        if not _runs(ways, along):
            along = _program(ways)
        if _runs(ways, along):
            return space @ along / scale
    return None


def null_space(A: Floats) -> Floats:
    """Orthonormal basis (p, k) of {d: A d = 0}.   A (m, p)"""
    if len(A) == 0:
        return np.eye(A.shape[1])
    _, size, V = np.linalg.svd(triangular(A))
    rank = int((size > 1e-10 * max(size[0], 1e-300)).sum())
    return V[rank:].T


def _runs(ways: Floats, along: Floats) -> bool:
    moves = ways @ along
    top = moves.max(initial=0.0)
    return bool(top > 0 and moves.min() >= -ZERO * top)


def _program(ways: Floats) -> Floats:
    """max Σ ways c over ways c ≥ 0, |c| ≤ 1; rows enter when they are violated. Without a solution but 0 on some rows there is none on all.

    ways  (m, k)
    """
    from scipy.optimize import linprog

    size = np.abs(ways).max(axis=1)
    ways = ways[size > ZERO * size.max()] / size[size > ZERO * size.max(), None]
    total = ways.sum(axis=0)
    inside = np.zeros(len(ways), dtype=bool)
    inside[np.linspace(0, len(ways) - 1, min(ROWS, len(ways))).astype(int)] = True
    for _ in range(50):
        solution = linprog(-total / len(ways), A_ub=-ways[inside], b_ub=np.zeros(inside.sum()), bounds=(-1, 1), method="highs")
        if solution.x is None or np.abs(solution.x).max() < 1e-6:
            break
        moves = ways @ solution.x
        violated = np.flatnonzero(moves < -1e-7)
        if len(violated) == 0:
            on_edge = null_space(ways[moves < 1e-6])  # the solver's 1e-7 made exact
            return on_edge @ (on_edge.T @ solution.x)
        inside[violated[np.argsort(moves[violated])[:ROWS]]] = True
    return np.zeros(ways.shape[1])


def moving(X: Floats, direction: Floats) -> Bools:
    """Rows whose η runs along the direction.   (n,)"""
    moves = np.abs(X @ direction)
    return moves > 1e-6 * moves.max()
