"""How fast does it drift? The process variance given, estimated, or integrated out.

Where it is not given, Q = q · diag(v), v_j the median variance of coefficient j in the batches that determine it (times σ², where σ is
unknown), per step of median length; so q has no units.

    "ml"     q maximises the evidence; the likelihood ratio against q = 0 is ½χ²₀ + ½χ²₁
    "bayes"  log q ~ N(log 1/10, 1.5²), integrated by Gauss–Hermite quadrature, or by nodes `placed` where many batches leave q
             little room: an estimate plugged in is often 0 and intervals are then too narrow (with 40 batches they hold the last
             state in 82% of streams where 95% is claimed)

Each state is then a mixture over q, weighted by the evidence of the batches so far: nothing looks ahead.

Source: Harvey (1989) §4.2; Self & Liang (1987) for the boundary; Stram & Lee (1994).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from attrs import frozen

from ..errors import OptionError, UnknownOption
from ..kernels.intervals import f_tail
from ..types import Floats, is_number

NODES, SCALAR_NODES = 31, 61  # of a vector, of one number (which costs less): 6 and 10 digits of the evidence
CLOSE_NODES = 61  # where the batches have placed q: 9 digits of the last state
PRIOR_MEAN, PRIOR_SD = math.log(0.1), 1.5
SMALLEST, LARGEST = 1e-10, 1e6  # range of q for "ml"; below it is 0


@frozen
class Discount:
    """Each unit of time, what is known counts `factor` as much: precision × factor (exponential forgetting)."""

    factor: float


def discount(factor: float) -> Discount:
    """Forgetting by a factor in (0, 1] per unit of time: drift=discount(0.95).

    >>> discount(0.95)
    Discount(factor=0.95)
    """
    if not is_number(factor) or not 0 < factor <= 1:
        raise OptionError(f"discount({factor!r}) is not in (0, 1].", where="drift=", do="discount(0.95) forgets 5% per unit of time.")
    return Discount(float(factor))


def read_drift(drift: Any, names: tuple[str, ...], where: str) -> Any:
    """ "none" | "ml" | "bayes" | Discount | Q (k, k), checked."""
    k = len(names)
    if drift is None or drift is False:
        return "none"
    if drift is True:
        return "bayes"
    if isinstance(drift, Discount):
        return drift
    if isinstance(drift, str):
        if drift.lower() not in ("ml", "bayes", "none"):
            raise UnknownOption(drift, ("ml", "bayes", "none"), where=where, kind="drift")
        return drift.lower()
    if isinstance(drift, Mapping):
        unknown = [name for name in drift if name not in names]
        if unknown:
            raise UnknownOption(unknown[0], names, where=f"{where} drift=", kind="coefficient")
        Q = np.diag([_variance(drift.get(name, 0.0), where) for name in names])
    elif isinstance(drift, np.ndarray) and drift.ndim == 2:
        Q = np.asarray(drift, dtype=float)
        if Q.shape != (k, k) or not np.isfinite(Q).all() or not np.allclose(Q, Q.T) or np.linalg.eigvalsh(Q).min(initial=0) < -1e-12:
            raise OptionError(f"it is not a covariance matrix of {k} coefficients.", where=f"{where} drift=")
    else:
        Q = np.eye(k) * _variance(drift, where)
    return Q if Q.any() else "none"


def _variance(value: Any, where: str) -> float:
    if not is_number(value) or not math.isfinite(value):
        do = "Use a process variance, 'bayes', 'ml', discount(0.95) or {'x': 0.01}."
        raise OptionError(f"drift={value!r} is not a variance.", where=where, do=do)
    if value < 0:
        raise OptionError(f"drift={value!r} is negative.", where=where, do="A variance is at least 0.")
    return float(value)


def root_of(Q: Floats) -> Floats:
    """G (k, s) with GGᵀ = Q, s its rank."""
    values, vectors = np.linalg.eigh(Q)
    keep = values > 1e-14 * max(float(values[-1]), 0.0)
    return vectors[:, keep] * np.sqrt(values[keep])


def nodes(count: int) -> tuple[Floats, Floats]:
    """q and prior weights (count,) of Gauss–Hermite quadrature over log q."""
    x, w = np.polynomial.hermite_e.hermegauss(count)
    return np.exp(PRIOR_MEAN + PRIOR_SD * x), w / w.sum()


def placed(evidence: Callable[[Floats], Floats], q: Floats, prior: Floats) -> tuple[Floats, Floats]:
    """Nodes q (N,) and their prior weights; others where the posterior of log q is narrow beside their distance:

        log q = c + s sinh(u),  u evenly spaced            c: the posterior's mode, s: 1.5 sd

    So nodes lie a fifth of s apart about c, and reach as far as the prior does: the path begins with the prior.

    evidence  of all batches, of many q at once

    Source: the trapezoidal rule under a change of variable; Trefethen & Weideman (2014) for its accuracy.
    """

    def height(x: Floats) -> Floats:
        return evidence(np.exp(x)) - 0.5 * ((x - PRIOR_MEAN) / PRIOR_SD) ** 2

    x = np.log(q)
    heights = height(x)
    at = min(max(int(np.argmax(heights)), 1), len(x) - 2)
    here = slice(at - 1, at + 2)
    centre, sd = _peak(x[here], heights[here])
    if not sd < 1.25 * (x[at + 1] - x[at - 1]) / 2:
        return q, prior
    for _ in range(6):
        x = centre + sd * np.array([-1.0, 0.0, 1.0])
        better, spread = _peak(x, height(x))
        if not math.isfinite(spread):
            break
        settled = abs(better - centre) < 0.3 * sd and 0.7 < spread / sd < 1.4
        centre, sd = min(max(better, centre - 3 * sd), centre + 3 * sd), spread
        if settled:
            break
    s, far = 1.5 * sd, 6 * PRIOR_SD
    low, high = min(PRIOR_MEAN - far, centre - 8 * sd), max(PRIOR_MEAN + far, centre + 8 * sd)
    u = np.linspace(np.arcsinh((low - centre) / s), np.arcsinh((high - centre) / s), CLOSE_NODES)
    x = centre + s * np.sinh(u)
    w = np.exp(-0.5 * ((x - PRIOR_MEAN) / PRIOR_SD) ** 2) * np.cosh(u)
    return np.exp(x), w / w.sum()


def _peak(x: Floats, height: Floats) -> tuple[float, float]:
    """Mode and sd of the normal density whose logarithm passes through three points; sd nan where they do not bend down."""
    left, right = x[0] - x[1], x[2] - x[1]
    falls = (height[0] - height[1]) / left, (height[2] - height[1]) / right
    bend = 2 * (falls[1] - falls[0]) / (right - left)
    if not bend < 0:
        return float(x[1]), math.nan
    return float(x[1] - (falls[0] - bend * left / 2) / bend), 1 / math.sqrt(-bend)


def most_likely(evidence: Callable[[Floats], Floats]) -> tuple[float, float, float, float]:
    """q that maximises the evidence, that maximum, the likelihood ratio against q = 0, and its p-value.

    evidence  of many q at once, (Q,) → (Q,)

    A coarse grid first: the evidence may have two maxima.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_q: float) -> float:
        return -float(evidence(np.array([math.exp(log_q)]))[0])

    grid = np.linspace(math.log(SMALLEST), math.log(LARGEST), 25)
    at = int(np.argmax(evidence(np.exp(grid))))
    low, high = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-10})
    still, best, q = float(evidence(np.zeros(1))[0]), -float(found.fun), math.exp(float(found.x))
    if best <= still:
        return 0.0, still, 0.0, 1.0
    ratio = 2 * (best - still)
    return q, best, ratio, 0.5 * float(f_tail(ratio, 1.0, math.inf))


def posterior_weights(prior: Floats, evidence: Floats) -> Floats:
    """Weights (T, Q) of the nodes after each batch.   prior (Q,), evidence (T, Q) cumulative, nan while undefined (the prior holds)"""
    logs = np.log(prior) + np.where(np.isnan(evidence), 0.0, evidence)
    w = np.exp(logs - logs.max(axis=1, initial=-math.inf, keepdims=True)) if evidence.size else logs
    return w / w.sum(axis=1, keepdims=True)


def mixed_evidence(prior: Floats, evidence: Floats) -> Floats:
    """log Σ prior · exp(evidence) (T,), nan while undefined.   evidence (T, Q)"""
    logs = np.log(prior) + evidence
    top = logs.max(axis=1, initial=-math.inf)
    with np.errstate(invalid="ignore"):
        return top + np.log(np.exp(logs - top[:, None]).sum(axis=1))


def mixed_moments(weights: Floats, means: Floats, covariances: Floats, by: Floats | None = None) -> tuple[Floats, Floats]:
    """Mean (T, k) and covariance (T, k, k) of the mixture.

    weights (T, Q), means (T, Q, k), covariances (T, Q, k, k), to be multiplied by `by` (T, Q)
    """
    T, Q, k = means.shape
    w = weights[:, None, :]
    mean = (w @ means)[:, 0]
    apart = means - mean[:, None]
    within = ((w if by is None else w * by[:, None, :]) @ covariances.reshape(T, Q, k * k)).reshape(T, k, k)
    return mean, within + (apart * weights[:, :, None]).transpose(0, 2, 1) @ apart
