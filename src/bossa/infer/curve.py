"""ζ(ψ): how far the likelihood falls when one number is held at ψ, as a signed square root, and where it leaves ±a quantile.

    ζ(ψ) = sign(ψ − ψ̂) √(D(ψ) − D̂),        ends: ζ = ∓q

ζ is nearly a straight line of slope 1/se, so a secant with a bracket finds an end in a few evaluations. A number that ends at a boundary
(a standard deviation at 0) before ζ reaches the quantile has its end there; one for which ζ levels off has none (±inf).

Source: Bates et al. (2015) §5.1 for ζ; Ridders & Illinois rules as in Dahlquist & Björck (1974) §6.4 for the bracket.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from attrs import frozen

from ..types import Floats

FAR = 40  # doublings of the distance within which an end must be found
CLOSE = 1e-9  # of a standard error


@frozen(kw_only=True, eq=False)
class Curve:
    """ψ and ζ(ψ) of one number, (m,) each, and the ends where ζ = ∓q."""

    psi: Floats
    zeta: Floats
    lower: float
    upper: float


def profile_curve(
    zeta: Callable[[float], float], estimate: float, se: float, cut: float, steps: int, reach: float, within: tuple[float, float]
) -> Curve:
    """The ends at |ζ| = cut, and `steps` points of the curve out to about |ζ| = reach.

    zeta    ψ → ζ; nan where it cannot be computed
    se      about the distance over which ζ changes by 1
    within  smallest and largest ψ there are
    """
    known: dict[float, float] = {estimate: 0.0}

    def at(psi: float) -> float:
        if psi not in known:
            known[psi] = zeta(psi)
        return known[psi]

    ends = {}
    for name, sign, edge in (("lower", -1.0, within[0]), ("upper", 1.0, within[1])):
        ends[name] = _end(at, estimate, se, sign * cut, edge)
    if steps:
        low, high = (_beyond(ends[name], estimate, sign * se, reach / cut) for name, sign in (("lower", -3.0), ("upper", 3.0)))
        low, high = max(low, within[0]), min(high, within[1])
        for psi in _gaps(sorted(known), low, high, steps):
            at(psi)
    places = np.array(sorted(known))
    values = np.array([known[p] for p in places])
    keep = np.isfinite(values)
    return Curve(psi=places[keep], zeta=values[keep], **ends)


def _beyond(end: float, estimate: float, otherwise: float, factor: float) -> float:
    """A little further from the estimate than the end, or `otherwise` away where there is no finite end."""
    return estimate + (end - estimate) * factor if math.isfinite(end) else estimate + otherwise


def _gaps(known: list[float], low: float, high: float, steps: int) -> list[float]:
    """Values between `low` and `high` that bring the known ones there to `steps`, evenly spread: middles of the widest gaps."""
    points = sorted({low, high, *(p for p in known if low < p < high)})
    added: list[float] = []
    while len(points) < steps:
        i = max(range(len(points) - 1), key=lambda i: points[i + 1] - points[i])
        added.append(0.5 * (points[i] + points[i + 1]))
        points.insert(i + 1, added[-1])
    return sorted(added)


def _end(at: Callable[[float], float], estimate: float, se: float, target: float, edge: float) -> float:
    """ψ with ζ(ψ) = target; the edge where ζ does not get there, nan where it cannot be followed, ±inf where it levels off."""
    sign = math.copysign(1.0, target)
    inner, f_inner = estimate, -target
    step = abs(target) * se
    for _ in range(FAR):
        outer = estimate + sign * step
        beyond = (outer - edge) * sign >= 0
        outer = edge if beyond else outer
        f_outer = at(outer) - target
        if math.isnan(f_outer):
            return _last_valid(at, inner, outer, target)
        if f_outer * sign >= 0:
            return outer if f_outer == 0 else _root(at, (inner, f_inner), (outer, f_outer), target, CLOSE * se)
        if beyond:
            return edge
        if step > 50 * se and abs(f_outer - f_inner) < 1e-3 * abs(target):
            return sign * math.inf
        inner, f_inner, step = outer, f_outer, step * 1.6
    return sign * math.inf


def _last_valid(at: Callable[[float], float], inner: float, outer: float, target: float) -> float:
    """The end between a point where ζ can be computed and one where it cannot; nan where it is not reached on the way."""
    for _ in range(60):
        middle = 0.5 * (inner + outer)
        f = at(middle) - target
        if math.isnan(f):
            outer = middle
        elif f * target >= 0:
            return _root(at, (inner, at(inner) - target), (middle, f), target, CLOSE * abs(outer - inner) + 1e-300)
        else:
            inner = middle
    return math.nan


def _root(at: Callable[[float], float], one: tuple[float, float], two: tuple[float, float], target: float, width: float) -> float:
    """Root of ζ − target between two points of opposite sign, by false position with halved weights (Illinois)."""
    (a, fa), (b, fb) = one, two
    for _ in range(80):
        c = b - fb * (b - a) / (fb - fa)
        fc = at(c) - target
        if fc == 0.0 or abs(c - b) < width or abs(fc) < 1e-12:
            return c
        if math.isnan(fc):
            return math.nan
        if fc * fb < 0:
            a, fa = b, fb
        else:
            fa *= 0.5
        b, fb = c, fc
    return b
