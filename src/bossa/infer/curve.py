"""ζ(ψ): how far the likelihood falls when one number is held at ψ, as a signed square root, and where it leaves ±a quantile.

    ζ(ψ) = sign(ψ − ψ̂) √(D(ψ) − D̂),        ends: ζ = ∓q

ζ is nearly a straight line of slope 1/se, so inverse interpolation in a bracket finds an end in a few evaluations. A number that ends at
a boundary (a standard deviation at 0) before ζ reaches the quantile has its end there; one for which ζ levels off has none (±inf).

Source: Bates et al. (2015) §5.1 for ζ; Brent (1973) ch. 4 for inverse interpolation kept in a bracket.
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
        ends[name] = _end(known, at, se, sign * cut, edge)
    if steps:
        low = _beyond(known, ends["lower"], (estimate, -se), -reach, reach / cut)
        high = _beyond(known, ends["upper"], (estimate, se), reach, reach / cut)
        low, high = max(low, within[0]), min(high, within[1])
        for psi in _gaps(sorted(known), low, high, steps):
            at(psi)
    places = np.array(sorted(known))
    values = np.array([known[p] for p in places])
    keep = np.isfinite(values)
    return Curve(psi=places[keep], zeta=values[keep], **ends)


def _beyond(known: dict[float, float], end: float, about: tuple[float, float], reach: float, factor: float) -> float:
    """About where ζ = reach, a little further than the end; three standard errors away where there is no finite end.

    about   estimate, standard error;   factor  reach over the end's ζ
    """
    estimate, se = about
    if not math.isfinite(end) or end == estimate:
        return end if end == estimate else estimate + 3.0 * se
    ratio = (_inverse(known, reach) - estimate) / (end - estimate)
    return estimate + (end - estimate) * (ratio if 1.0 < ratio < factor**2 else factor)


def _gaps(known: list[float], low: float, high: float, steps: int) -> list[float]:
    """`low`, `high` and values between that bring the known ones there to `steps`, evenly spread: middles of the widest gaps."""
    points = sorted({low, high, *(p for p in known if low < p < high)})
    added = [low, high]
    while len(points) < steps:
        i = max(range(len(points) - 1), key=lambda i: points[i + 1] - points[i])
        added.append(0.5 * (points[i] + points[i + 1]))
        points.insert(i + 1, added[-1])
    return sorted(added)


def _end(known: dict[float, float], at: Callable[[float], float], se: float, target: float, edge: float) -> float:
    """ψ with ζ(ψ) = target; the edge (it may be ±inf) where ζ does not get there, nan where it cannot be followed."""
    estimate, sign = min(known, key=lambda psi: abs(known[psi])), math.copysign(1.0, target)
    inner, f_inner = estimate, -target
    step = abs(target) * se
    for _ in range(FAR):
        outer = estimate + sign * step
        beyond = (outer - edge) * sign >= 0
        outer = edge if beyond else outer
        f_outer = at(outer) - target
        if math.isnan(f_outer):
            return _last_valid(known, at, inner, outer, target)
        if f_outer * sign >= 0:
            return outer if f_outer == 0 else _root(known, at, (inner, f_inner), (outer, f_outer), target, CLOSE * se)
        if beyond:
            return edge
        if step > 50 * se and abs(f_outer - f_inner) < 1e-3 * abs(target):
            return edge  # it levels off
        promised = (_inverse(known, target) - estimate) * sign
        inner, f_inner = outer, f_outer
        step *= min(max(1.02 * promised / step, 1.02), 1.6) if promised > step else 1.6
    return edge


def _last_valid(known: dict[float, float], at: Callable[[float], float], inner: float, outer: float, target: float) -> float:
    """The end between a point where ζ can be computed and one where it cannot; nan where it is not reached on the way."""
    for _ in range(60):
        middle = 0.5 * (inner + outer)
        f = at(middle) - target
        if math.isnan(f):
            outer = middle
        elif f * target >= 0:
            return _root(known, at, (inner, at(inner) - target), (middle, f), target, CLOSE * abs(outer - inner) + 1e-300)
        else:
            inner = middle
    return math.nan


Pair = tuple[float, float]


def _root(known: dict[float, float], at: Callable[[float], float], one: Pair, two: Pair, target: float, width: float) -> float:
    """Root of ζ − target between two points of opposite sign: ψ as a cubic of ζ, by halves where that leaves the bracket or stalls."""
    (a, _), (b, fb) = one, two
    for tried in range(80):
        c = _inverse(known, target)
        if tried % 8 == 7 or not min(a, b) < c < max(a, b):
            c = 0.5 * (a + b)
        fc = at(c) - target
        if math.isnan(fc) or abs(fc) < 1e-9 or abs(b - a) < width:
            return c if math.isfinite(fc) else math.nan
        if fc * fb < 0:
            a = c
        else:
            b, fb = c, fc
    return c


def _inverse(known: dict[float, float], target: float) -> float:
    """ψ where ζ = target by the polynomial in ζ through the four nearest points."""
    near = sorted((p for p in known if math.isfinite(known[p])), key=lambda p: abs(known[p] - target))[:4]
    total = 0.0
    for one in near:
        others = [known[p] - known[one] for p in near if p != one]
        if not all(others):
            return math.nan
        total += one * math.prod((known[p] - target) / gap for p, gap in zip((p for p in near if p != one), others))
    return total
