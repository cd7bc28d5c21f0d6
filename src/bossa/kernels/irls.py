"""Fisher scoring: which coefficients maximise a generalized linear model's likelihood?

One pass over the rows, block by block, gives everything a step needs:

    η = Xβ + o,  μ = g⁻¹(η),  ω = w μ′²/V,  H = XᵀΩX,  s = Xᵀ(w μ′ score),  D = Σ w d        β ← β + H⁻¹s, halved while D would grow

Failure is a code, never an exception (the first four are those of `gram`):

    0 fine    1 H is singular    2 not converged    3 no coefficients inside the family's range    4 η runs away while D stands still

The distance to the maximum is measured in standard errors, √(sᵀH⁻¹s/φ), and predicted one step ahead from the last two.

Source: McCullagh & Nelder (1989) §2.5; Marschner (2011) for the halving.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from attrs import evolve, frozen

from ..types import Floats
from .family import Family
from .gram import FINE, NOT_CONVERGED, OUT_OF_RANGE, RANK
from .linalg import row_blocks, solve_spd
from .link import Link

DIVERGES = 4
SMALLEST = np.finfo(float).tiny
BELOW_ONE = 1.0 - 2.0**-53
NEARLY_ONE = 1.0 - 1e-7
SLOW = 12  # scoring steps after which those along one direction are summed at once
DRIFT = 1e-9  # relative change of any weight over the last step: above it H is formed again at the end; a tail at z feels z² times that
NEAR = 1e-6  # standard errors from the maximum that are no matter where the search has run out of steps


@frozen(eq=False)
class Rows:
    """A regression as arrays: X (n, p), y (n,), weights (n,) prior × counts or None, offset (n,) or None, and the rule."""

    X: Floats
    y: Floats
    family: Family
    link: Link
    weights: Floats | None = None
    offset: Floats | None = None


@frozen(eq=False)
class Control:
    """When to stop.

    tol        predicted distance to the maximum, in standard errors
    diverging  once the distance is below this, an η that still moves by 0.1 ends the search with code 4; 0: never
    """

    max_iter: int = 100
    tol: float = 1e-9
    diverging: float = 0.0


@frozen(eq=False)
class Point:
    """One pass: η, μ, ω (n,), s (p,), H (p, p) (None where not asked for), D."""

    coef: Floats
    eta: Floats
    mu: Floats
    working: Floats
    deviance: float
    score: Floats
    information: Any = None


@frozen(eq=False)
class Scoring:
    """Where the search ended.

    point     the last pass, H = XᵀΩX among it
    distance  of the last step, in standard errors; step (p,) the last step
    """

    point: Point
    code: int
    iterations: int
    distance: float
    step: Floats


def irls(rows: Rows, start: Floats | None = None, control: Control | None = None) -> Scoring:
    """Scoring from `start` (None: from each row's own mean, as R does) until the predicted distance is below `control.tol`.

    start    (p,)
    returns  Scoring; its point holds nan where there was none to begin with
    """
    control = Control() if control is None else control
    with np.errstate(all="ignore"):
        point = first_point(rows) if start is None else evaluate(rows, start)
        if point is None:
            return _nowhere(rows)
        return _search(rows, point, control)


def _search(rows: Rows, point: Point, control: Control) -> Scoring:
    floor = rounding(rows, point.mu)
    distance, before, code, iterations, step = math.inf, math.inf, NOT_CONVERGED, 0, np.zeros(rows.X.shape[1])
    rate, previous = 0.0, None
    while iterations < control.max_iter:
        iterations += 1
        newton = _solved(point)
        if newton is None:
            code = RANK
            break
        two_before, before = before, distance
        step, distance = newton, math.sqrt(max(float(newton @ point.score), 0.0) / _scale(rows, point, floor))
        ratio = min(max(distance / before, rate), 0.99) if before < math.inf else 0.5
        last = distance * ratio / (1 - ratio) <= control.tol or (distance < 1e-6 and distance > 0.9 * two_before)
        ahead = 0.0 if previous is None or last or iterations < SLOW else _rate(point, step, previous)
        rate, previous = (abs(ahead), None) if ahead else (rate, step)
        moved = _halved(rows, point, step / (1 - ahead), last)
        if moved is None:  # no shorter step is better: at the maximum up to rounding, or stuck at the edge of the range
            code = FINE if distance < 1e-4 else NOT_CONVERGED
            break
        running = distance < control.diverging and float(np.abs(moved.eta - point.eta).max()) > 0.1
        drift = float(np.abs(moved.working / point.working - 1)[point.working > 0].max(initial=0.0)) if last else 0.0
        if last:
            moved = evolve(moved, information=point.information) if drift < DRIFT else evaluate(rows, moved.coef) or moved
        point = moved
        if last or running:
            code = DIVERGES if running else FINE
            break
    else:  # scoring is slow where the expected information is far from the observed: what is left to go is then no matter
        code = FINE if distance * ratio / (1 - ratio) < NEAR else NOT_CONVERGED
    return Scoring(point, code, iterations, distance, step)


def _rate(point: Point, step: Floats, previous: Floats) -> float:
    """r of steps along one direction, each r times the one before, whose sum is step/(1 − r); 0 where they are not, or run away (r near 1).

    r < 0: scoring overshoots, because the observed information is larger than the expected.

    Source: Aitken's Δ², along the direction that scoring is slow in.
    """
    H = point.information
    if H is None:
        return 0.0
    together, lengths = float(step @ H @ previous), (float(step @ H @ step), float(previous @ H @ previous))
    if lengths[1] <= 0 or together * together < 0.9 * lengths[0] * lengths[1]:
        return 0.0
    r = together / lengths[1]
    return r if abs(r) > 0.5 and -10 < r < 0.95 else 0.0


def evaluate(rows: Rows, coef: Floats, gram: bool = True) -> Point | None:
    """One pass over the rows at `coef`; None where η, μ or D leave their range. `gram` False: without H."""
    X, family, link = rows.X, rows.family, rows.link
    n, p = X.shape
    eta, mu, working = np.empty(n), np.empty(n), np.empty(n)
    H, s, deviance = np.zeros((p, p)), np.zeros(p), 0.0
    for part in row_blocks(n, p):
        x, y, e = X[part], rows.y[part], X[part] @ coef
        if rows.offset is not None:
            e += rows.offset[part]
        m = mean_inside(e, family, link)
        if m is None:
            return None
        w, score, d = _row_terms(y, e, m, family, link)
        if rows.weights is not None:
            w, score, d = rows.weights[part] * w, rows.weights[part] * score, rows.weights[part] * d
        deviance += float(d.sum())
        eta[part], mu[part], working[part] = e, m, w
        s += score @ x
        if gram:
            root = x * np.sqrt(w)[:, None]
            H += root.T @ root
    if not (math.isfinite(deviance) and np.isfinite(s).all()):
        return None
    return Point(coef, eta, mu, working, deviance, s, H if gram else None)


def _row_terms(y: Floats, eta: Floats, mu: Floats, family: Family, link: Link) -> tuple[Floats, Floats, Floats]:
    """μ′²/V, μ′ score and d of each row, without prior weights.

    A failure where μ is 1 up to rounding is taken as a success with probability 1 − μ, which the link still knows.
    """
    if family.natural == link.name:
        w, score = family.variance(mu), y - mu
    else:
        slope = link.slope(eta)
        w, score = slope * slope / family.variance(mu), slope * family.score(y, mu)
    d = family.deviance(y, mu)
    far = (mu > NEARLY_ONE) & (y < 1.0) if link.complement is not None else None
    if far is not None and far.any():
        rest = np.maximum(link.complement(eta[far]), SMALLEST)  # type: ignore[misc]
        slope, other = link.slope(eta[far]), 1.0 - y[far]
        w[far] = slope * slope / family.variance(rest)
        score[far] = -slope * family.score(other, rest)
        d[far] = family.deviance(other, rest)
    return w, score, d


def mean_inside(eta: Floats, family: Family, link: Link) -> Floats | None:
    """g⁻¹(η), or None where the family does not allow it.

    A link whose range is the family's never leaves it but by rounding: then μ is kept off the ends, as R does.
    """
    if link.eta_low > -math.inf and not (eta > link.eta_low).all():
        return None
    mu = link.inverse(eta)
    if link.low >= family.low and link.high <= family.high:
        if family.low == 0.0:
            mu = np.maximum(mu, SMALLEST)
        if family.high == 1.0:
            mu = np.minimum(mu, BELOW_ONE)
        return mu
    return mu if ((mu > family.low) & (mu < family.high)).all() else None


def first_point(rows: Rows) -> Point | None:
    """One weighted least squares step from each row's own starting mean; from a constant mean where that leaves the range.

    Source: R's glm.fit and its mustart.
    """
    family, link, offset = rows.family, rows.link, rows.offset
    mu = np.broadcast_to(family.start(rows.y, rows.weights), rows.y.shape)
    constant = constant_mean(rows)
    if not (np.isfinite(link.link(mu)).all() and np.isfinite(link.slope(link.link(mu))).all()):
        mu = np.full(len(rows.y), constant)
    eta = link.link(mu)
    slope = link.slope(eta)
    w = slope**2 / family.variance(mu)
    s = slope * family.score(rows.y, mu)
    if rows.weights is not None:
        w, s = rows.weights * w, rows.weights * s
    away = eta if offset is None else eta - offset
    from_rows = _least_squares(rows.X, w, w * away + s)
    point = None if from_rows is None else evaluate(rows, from_rows)
    if point is not None:
        return point
    level = np.full(len(rows.y), float(link.link(np.array(constant)))) - (0.0 if offset is None else offset)
    flat = _least_squares(rows.X, np.ones(len(level)), level)
    point = None if flat is None else evaluate(rows, flat)
    if point is None or from_rows is None:
        return point
    return _halved(rows, point, from_rows - point.coef, last=False, worse=True) or point


def constant_mean(rows: Rows) -> float:
    """The weighted mean of y, moved off the ends of the family's range."""
    mean = float(np.average(rows.y, weights=rows.weights))
    n = len(rows.y) if rows.weights is None else float(rows.weights.sum())
    if rows.family.high == 1.0:
        return (n * mean + 0.5) / (n + 1.0)
    return (n * mean + 0.1) / (n + 0.1) if rows.family.low == 0.0 and mean == 0.0 else mean


def _least_squares(X: Floats, w: Floats, right: Floats) -> Floats | None:
    H, s = np.zeros((X.shape[1], X.shape[1])), np.zeros(X.shape[1])
    for part in row_blocks(*X.shape):
        root = X[part] * np.sqrt(w[part])[:, None]
        H += root.T @ root
        s += right[part] @ X[part]
    return _solve(H, s)


def _solve(H: Floats, s: Floats) -> Floats | None:
    if not (np.isfinite(H).all() and (np.diag(H) > 0).all()):
        return None
    try:
        step = solve_spd(H, s)
    except np.linalg.LinAlgError:
        return None
    return step if np.isfinite(step).all() else None


def _solved(point: Point) -> Floats | None:
    return _solve(point.information, point.score)


def _halved(rows: Rows, point: Point, step: Floats, last: bool, worse: bool = False) -> Point | None:
    """The pass after the longest of step, step/2, step/4 … that does not raise D (`worse`: that stays in range); None: there is none."""
    allowed = math.inf if worse else point.deviance + 1e-10 * abs(point.deviance)
    for halvings in range(30):
        moved = evaluate(rows, point.coef + 0.5**halvings * step, gram=not last)
        if moved is not None and moved.deviance <= allowed:
            return moved
    return None


def _scale(rows: Rows, point: Point, floor: float) -> float:
    """φ, in which a distance counts: 1, the scale² of t, or D/n."""
    if rows.family.dispersion == "pearson":
        return max(point.deviance / len(rows.y), floor)
    return rows.family.aux.get("scale", 1.0) ** 2


def rounding(rows: Rows, mu: Floats) -> float:
    """D/n of a fit that is perfect to eight digits of the signal mu (n,): below it, distances no longer count."""
    size = np.square(mu) / rows.family.variance(mu)
    return 1e-16 * float(np.mean(size if rows.weights is None else rows.weights * size)) + SMALLEST


def _nowhere(rows: Rows) -> Scoring:
    """No pass anywhere: because of the columns, or of the family's range."""
    n, p = rows.X.shape
    dependent = _least_squares(rows.X, np.ones(n), np.ones(n)) is None
    lost = np.full(n, np.nan)
    point = Point(np.full(p, np.nan), lost, lost, lost, math.nan, np.full(p, np.nan), np.full((p, p), np.nan))
    return Scoring(point, RANK if dependent else OUT_OF_RANGE, 0, math.nan, np.full(p, np.nan))
