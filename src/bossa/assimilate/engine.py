"""From sites to a path: filter, smoother and log-evidence of a vector that stands still, walks or is forgotten.

Everything is in square-root information form at σ = 1 (kernels/kalman.py), so a prior may know nothing (U = 0), batches may be of
deficient rank, and Q singular: all exactly. With Λ_t the precision after batch t, the evidence telescopes,

    log p(y_1 … y_t) = Σ logc − ½ Σ (rss + ρ²) − ½ [log|Λ_t| − log|Λ_0| + Σ log|I + Q_s Λ_{s−1}|] + m/2 log 2π

m coefficients whose prior is flat (log|Λ_0| is of the others): then it is the restricted likelihood, defined once Λ_t has full rank.
With σ unknown, σ² ~ IG(a_0, b_0) and everything else in units of σ², a = a_0 + (N − m)/2, b = b_0 + ½ Σ (rss + ρ²), and
(2π)^(−N/2) exp(−b) becomes its integral Γ(a)/b^a · b_0^a_0/Γ(a_0).

Source: Bierman (1977); West & Harrison (1997) §4.5 and §6.3; O'Hagan & Forster (2004) §11 for the conjugate linear model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from attrs import evolve, frozen

from ..kernels.kalman import LOG_2PI, Known, Step, known, look, smooth_back, walk
from ..types import Floats
from .sites import Site

KISH_SIZE = 20  # coefficients up to which the weights of batches are followed


@frozen(kw_only=True, eq=False)
class Start:
    """The prior at σ = 1: Uβ = d + e; flat: how many coefficients it leaves open; logdet: log|Λ_0| of the others."""

    U: Floats
    d: Floats
    flat: int
    logdet: float

    @property
    def k(self) -> int:
        return len(self.d)


@frozen(kw_only=True, eq=False)
class Scale:
    """What is known of σ²: a number (`known`), or an inverse gamma prior (a, b).

    Nothing known: b = 0 and a = −(coefficients whose prior is proper)/2, which leaves n − k degrees of freedom, as in the fit without a
    prior; the textbook's a = 0 would leave n.
    plug  intervals take its estimate for it
    """

    known: float | None = None
    a: float = 0.0
    b: float = 0.0
    plug: bool = False


@frozen(kw_only=True, eq=False)
class Motion:
    """How the state moves per unit of time: root (k, s) of Q, or a discount in (0, 1]; neither: it stands still."""

    root: Floats | None = None
    discount: float | None = None

    def scaled(self, factor: float) -> Motion:
        """Q times `factor`."""
        assert self.root is not None
        return evolve(self, root=self.root * math.sqrt(factor))

    @property
    def still(self) -> bool:
        return (self.root is None or not self.root.any()) and (self.discount is None or self.discount == 1.0)


@frozen(kw_only=True, eq=False)
class Path:
    """Filtered path of T batches and k coefficients; covariances are at σ = 1, to be multiplied by s2.

    mean, V, mean_f, V_f   (T, k), (T, k, k)  after and before each batch, nan where undetermined
    own, own_V             (T, k), (T, k, k)  the batch on its own
    seen                   (T,)  rows > 0
    nis, nis_df            (T,)  at σ = 1 (divide by s2 of the batch before)
    s2, s2_f               (T,)  σ², or its estimate, after and before each batch;  df, df_f of the t distribution (inf: normal)
    evidence               (T,)  cumulative log-evidence, nan before it is defined
    smoothed, smoothed_V   (T, k), (T, k, k)  None: not asked, or undetermined;  lag_V (T − 1, k, k) covariance of t + 1 and t
    kish                   (T, k)  effective number of batches;  prior_weight (T, k)
    last                   Known after the last batch;  a, b of σ² after it
    """

    mean: Floats
    V: Floats
    mean_f: Floats
    V_f: Floats
    own: Floats
    own_V: Floats
    seen: np.ndarray
    nis: Floats
    nis_df: Floats
    s2: Floats
    s2_f: Floats
    df: Floats
    df_f: Floats
    evidence: Floats
    last: Known
    a: float = math.nan
    b: float = math.nan
    smoothed: Floats | None = None
    smoothed_V: Floats | None = None
    lag_V: Floats | None = None
    kish: Floats | None = None
    prior_weight: Floats | None = None


Source = Site | Callable[[Floats, Floats], Site]


def gaps(sites: Sequence[Any], unit: float = 1.0) -> Floats:
    """Time (T,) that passes before each batch: one unit before the first, none before one that is late."""
    times = np.maximum.accumulate(np.array([s.time for s in sites], dtype=float))
    return np.diff(times, prepend=times[0] - unit) if len(times) else times


def run(
    sources: Sequence[Source],
    start: Start,
    motion: Motion,
    scale: Scale,
    dt: Floats,
    smooth: bool = True,
    alone: Sequence[Known] | None = None,
) -> tuple[Path, list[Site]]:
    """Filter the sites in the order given, then smooth.

    sources  sites, or functions of the forecast (U, d) that make one
    dt       (T,)  time before each
    alone    what each site says on its own, where that is already known
    returns  the path and the sites used
    """
    T, k = len(sources), start.k
    out = {name: np.full((T, k), np.nan) for name in ("mean", "mean_f", "own")}
    big = {name: np.full((T, k, k), np.nan) for name in ("V", "V_f", "own_V")}
    per = {name: np.full(T, np.nan) for name in ("nis", "nis_df", "s2", "s2_f", "df", "df_f", "evidence")}
    seen, steps, sites = np.zeros(T, dtype=bool), [], []
    weights = Weights(start) if k <= KISH_SIZE else None
    state = known(start.U, start.d)
    tally = Tally(start, scale)
    for t, source in enumerate(sources):
        forecast, step = moved(state, motion, float(dt[t]), tally)
        steps.append(step)
        site = source if isinstance(source, Site) else source(forecast.U, forecast.d)
        sites.append(site)
        per["s2_f"][t], per["df_f"][t] = tally.variance()
        if weights is not None:
            weights.fade(backward(state.U.T @ state.U, motion, float(dt[t])))
        U, d, rho2 = look(forecast.U, forecast.d, site.J, site.z) if len(site.z) else (forecast.U, forecast.d, 0.0)
        state = known(U, d) if len(site.z) else forecast
        own = site.estimate if alone is None else alone[t]
        seen[t] = site.n > 0
        out["mean"][t], big["V"][t], out["mean_f"][t], big["V_f"][t] = state.mean, state.V, forecast.mean, forecast.V
        out["own"][t], big["own_V"][t] = own.mean, own.V
        per["nis"][t], per["nis_df"][t] = rho2 + state.rest, own.rank + forecast.rank - state.rank
        tally.add(site, rho2 + state.rest)
        per["evidence"][t] = tally.evidence(state)
        per["s2"][t], per["df"][t] = tally.variance()
        if weights is not None:
            weights.add(site.J.T @ site.J, state)
    smoothed = smoothed_path(out["mean"], big["V"], steps, motion) if smooth and T and state.rank == k else (None, None, None)
    path = Path(
        **out,
        **big,
        **per,
        seen=seen,
        last=state,
        a=tally.a,
        b=tally.b,
        smoothed=smoothed[0],
        smoothed_V=smoothed[1],
        lag_V=smoothed[2],
        kish=None if weights is None else np.array(weights.kish).reshape(T, k),
        prior_weight=None if weights is None else np.array(weights.prior).reshape(T, k),
    )
    return path, sites


def evidence_of(sites: Sequence[Site], start: Start, motion: Motion, scale: Scale, dt: Floats) -> float:
    """The log-evidence of all sites alone, for a search over random walks; nan while a coefficient is undetermined."""
    tally, U, d = Tally(start, scale), start.U, start.d
    for site, gap in zip(sites, dt):
        if motion.root is not None and gap and not motion.still:
            U, d, step = walk(U, d, motion.root * math.sqrt(gap))
            tally.steps += step.logdet
        rho2 = 0.0
        if len(site.z):
            U, d, rho2 = look(U, d, site.J, site.z)
        tally.add(site, rho2)
    state = known(U, d)
    tally.quad += state.rest
    return tally.evidence(state)


def moved(state: Known, motion: Motion, dt: float, tally: Tally) -> tuple[Known, Step | None]:
    """The forecast over dt, and the step for the smoother (None: it stood still, or was discounted)."""
    if motion.still or dt == 0:
        return state, None
    if motion.discount is not None:
        kept = motion.discount**dt
        tally.steps -= state.rank * math.log(kept)
        tally.flat_steps -= (len(state.d) - state.rank) * math.log(kept)
        root = math.sqrt(kept)
        return Known(state.mean, state.V / kept, state.rank, state.U * root, state.d * root), None
    assert motion.root is not None
    U, d, step = walk(state.U, state.d, motion.root * math.sqrt(dt))
    tally.steps += step.logdet
    return known(U, d), step


def backward(Lambda: Floats, motion: Motion, dt: float) -> Floats | float:
    """B = (I + ΛQ)⁻¹, what a step does to Λ and Λm: (k, k), or a number."""
    if motion.still or dt == 0:
        return 1.0
    if motion.discount is not None:
        return motion.discount**dt
    assert motion.root is not None
    G = motion.root * math.sqrt(dt)
    LG = Lambda @ G
    return np.eye(len(Lambda)) - LG @ np.linalg.solve(np.eye(G.shape[1]) + G.T @ LG, G.T)


class Tally:
    """Running sums for the evidence and for σ²."""

    def __init__(self, start: Start, scale: Scale):
        self.start, self.scale = start, scale
        self.n, self.logc, self.quad, self.steps, self.flat_steps = 0.0, 0.0, 0.0, 0.0, 0.0

    def add(self, site: Site, rho2: float) -> None:
        self.n += site.n
        self.logc += site.logc
        self.quad += site.rss + rho2

    @property
    def a(self) -> float:
        return self.scale.a + max(self.n - self.start.flat, 0.0) / 2

    @property
    def b(self) -> float:
        return self.scale.b + 0.5 * self.quad

    def variance(self) -> tuple[float, float]:
        """σ² (or its estimate b/a, nan before there is one) and the degrees of freedom 2a."""
        if self.scale.known is not None:
            return 1.0, math.inf
        if not self.a > 0:
            return math.nan, math.nan
        return self.b / self.a, math.inf if self.scale.plug else 2 * self.a

    def evidence(self, state: Known) -> float:
        """Cumulative log-evidence; nan while Λ is short of rank."""
        if state.rank < self.start.k:
            return math.nan
        total = self.logc - 0.5 * (state.logdet - self.start.logdet + self.steps + self.flat_steps) + 0.5 * self.start.flat * LOG_2PI
        if self.scale.known is not None:
            return total - 0.5 * self.quad
        if self.a <= 0 or self.b <= 0:
            return math.nan
        prior = self.scale.a * math.log(self.scale.b) - math.lgamma(self.scale.a) if self.scale.a > 0 and self.scale.b > 0 else 0.0
        return total + prior + math.lgamma(self.a) - self.a * math.log(self.b)


def smoothed_path(mean: Floats, V: Floats, steps: Sequence[Step | None], motion: Motion) -> tuple[Floats, Floats, Floats]:
    """Means (T, k), covariances (T, k, k) and Cov(θ_{t+1}, θ_t) (T − 1, k, k) given all batches."""
    T, k = mean.shape
    ms, Vs, lag = mean.copy(), V.copy(), np.zeros((max(T - 1, 0), k, k))
    for t in range(T - 2, -1, -1):
        step = steps[t + 1]
        if step is not None:
            ms[t], Vs[t], lag[t] = smooth_back(ms[t + 1], Vs[t + 1], step)
        elif motion.discount is not None and motion.discount < 1:
            d = motion.discount
            ms[t] = mean[t] + d * (ms[t + 1] - mean[t])
            Vs[t], lag[t] = (1 - d) * V[t] + d * d * Vs[t + 1], d * Vs[t + 1]
        else:
            ms[t], Vs[t], lag[t] = ms[t + 1], Vs[t + 1], Vs[t + 1]
    return ms, Vs, lag


class Weights:
    """How much of each coefficient's mean is owed to each batch's own estimate of it: Σ w and Σ w², without keeping the weights.

    m_t = Σ_j P_t B_{t,j} Λ_j β̂_j + P_t B_{t,0} Λ_0 m_0,   B the product of the steps (I + ΛQ)⁻¹ since j;   w_j = diag(P_t B_{t,j} Λ_j)
    """

    def __init__(self, start: Start):
        k = start.k
        self.k, self.squares, self.own = k, np.zeros((k, k, k)), start.U.T @ start.U
        self.kish: list[Floats] = []
        self.prior: list[Floats] = []

    def fade(self, B: Floats | float) -> None:
        """After a step: what each batch has told, seen from its far side."""
        if isinstance(B, float):
            self.squares, self.own = self.squares * B**2, self.own * B
        else:
            self.squares, self.own = B @ self.squares @ B.T, B @ self.own

    def add(self, Lambda: Floats, state: Known) -> None:
        self.squares = self.squares + np.einsum("ai,bi->iab", Lambda, Lambda)
        if state.rank < self.k:
            self.kish.append(np.full(self.k, np.nan))
            self.prior.append(np.full(self.k, np.nan))
            return
        P = state.V
        prior = np.einsum("ij,ji->i", P, self.own)
        second = np.einsum("ia,iab,ib->i", P, self.squares, P)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.kish.append(np.where(second > 0, (1 - prior) ** 2 / second, np.nan))
        self.prior.append(prior)
