"""From sites to a path: filter, smoother and log-evidence of a vector that stands still, walks or is forgotten.

The definition is in square-root information form at σ = 1 (`defined`; kernels/kalman.py), so a prior may know nothing (U = 0), batches
may be of deficient rank, and Q singular: all exactly. From where the state is determined and well conditioned (every variance inflation
below `INFLATION`: thirteen digits) all batches that follow, and all process variances asked for, are filtered at once in covariances
and precisions (`followed`). With Λ_t the precision after batch t, the evidence telescopes,

    log p(y_1 … y_t) = Σ logc − ½ Σ (rss + ρ²) − ½ [log|Λ_t| − log|Λ_0| + Σ log|I + Q_s Λ_{s−1}|] + m/2 log 2π

m coefficients whose prior is flat (log|Λ_0| is of the others): then it is the restricted likelihood, defined once Λ_t has full rank.
With σ unknown, σ² ~ IG(a_0, b_0) and everything else in units of σ², a = a_0 + (N − m)/2, b = b_0 + ½ Σ (rss + ρ²), and
(2π)^(−N/2) exp(−b) becomes its integral Γ(a)/b^a · b_0^a_0/Γ(a_0).

Source: Bierman (1977); West & Harrison (1997) §4.5 and §6.3; O'Hagan & Forster (2004) §11 for the conjugate linear model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from attrs import evolve, frozen

from ..kernels.kalman import LOG_2PI, Known, Step, known, known_many, look, smooth_back, still, walk, walks, walks_back
from ..kernels.threads import one_thread
from ..types import Floats, Ints
from .sites import Site

KISH_SIZE = 20  # coefficients up to which the weights of batches are followed
INFLATION = 50.0  # largest V_jj Λ_jj at which precisions are formed and inverted
BLOCK = 2**21  # numbers in one block of work (16 MB)


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

    def share(self, dt: float) -> float:
        """What is kept of the precision over dt."""
        return 1.0 if self.discount is None else self.discount**dt

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
    weighing               what `kish` and `prior_weight` (T, k), the effective number of batches, are found from when they are asked for
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
    weighing: Weighing | None = None

    @cached_property
    def weights(self) -> tuple[Floats, Floats] | None:
        """kish, prior_weight (T, k); None where they are not followed."""
        return None if self.weighing is None else self.weighing.found(self.V)

    @property
    def kish(self) -> Floats | None:
        return None if self.weights is None else self.weights[0]

    @property
    def prior_weight(self) -> Floats | None:
        return None if self.weights is None else self.weights[1]


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
    alone: Alone | None = None,
) -> tuple[Path, list[Site]]:
    """Filter the sites in the order given, then smooth.

    sources  sites, or functions of the forecast (U, d) that make one
    dt       (T,)  time before each
    alone    what each site says on its own, where that is already known
    returns  the path and the sites used
    """
    track, sites = tracked(sources, start, [motion], dt)
    own = estimated(sites, start.k) if alone is None else alone
    sums = summed(track, sites, start, scale)
    found = track.smoothed([0]) if smooth else None
    path = Path(
        mean=track.mean[:, 0],
        V=track.V[:, 0],
        mean_f=track.mean_f[:, 0],
        V_f=track.forecasts(slice(None))[:, 0],
        own=own.mean,
        own_V=own.V,
        seen=np.array([s.n > 0 for s in sites], dtype=bool),
        nis=track.nis[:, 0],
        nis_df=(own.rank + track.rank_f - track.rank).astype(float),
        **{name: getattr(sums, name)[:, 0] for name in ("s2", "s2_f", "evidence")},
        df=sums.df,
        df_f=sums.df_f,
        last=track.last[0],
        a=float(sums.a[-1]) if len(sites) else scale.a,
        b=float(sums.b[-1, 0]) if len(sites) else scale.b,
        smoothed=None if found is None else found[0][:, 0],
        smoothed_V=None if found is None else found[1][:, 0],
        lag_V=None if found is None else found[2][:, 0],
        weighing=Weighing(sites=sites, start=start, motions=[motion], dt=dt) if start.k <= KISH_SIZE else None,
    )
    return path, sites


def evidences(sites: Sequence[Site], start: Start, motions: Sequence[Motion], scale: Scale, dt: Floats) -> Floats:
    """The log-evidence (N,) of all sites under each motion, all of one kind; nan while a coefficient is undetermined."""
    size = max(1, 2 * BLOCK // (len(sites) * start.k**2))
    found = []
    for n in range(0, len(motions), size):
        track = tracked(sites, start, motions[n : n + size], dt)[0]
        found.append(summed(track, sites, start, scale).evidence[-1])
    return np.concatenate(found)


# ---------------------------------------------------------------- the batches on their own
@frozen(eq=False)
class Alone:
    """mean (T, k), V (T, k, k) at σ = 1, nan where undetermined, and rank (T,) of each batch."""

    mean: Floats
    V: Floats
    rank: Ints


def estimated(sites: Sequence[Site], k: int) -> Alone:
    """What each site says by itself."""
    out = Alone(np.full((len(sites), k), np.nan), np.full((len(sites), k, k), np.nan), np.zeros(len(sites), dtype=int))
    square = np.array([len(s.z) == k for s in sites], dtype=bool)
    if square.any():
        some = [s for s, yes in zip(sites, square) if yes]
        out.mean[square], out.V[square], out.rank[square] = known_many(np.array([s.J for s in some]), np.array([s.z for s in some]))
    for t in np.flatnonzero(~square).tolist():
        own = sites[t].estimate
        out.mean[t], out.V[t], out.rank[t] = own.mean, own.V, own.rank
    return out


# ---------------------------------------------------------------- filters
@frozen(kw_only=True, eq=False)
class Track:
    """T batches filtered under each of N motions, at σ = 1; the first `head` of them by definition.

    mean, V, mean_f   (T, N, k), (T, N, k, k)  after each batch, and the mean before it
    F                 (T − head, N, k, k)  precision of the forecasts after the head
    before            (N, k, k)  covariance before the first batch after the head
    nis, logdet, lost (T, N)  ρ²; log|Λ_t|, -inf short of rank; what the steps so far took from it
    rank_f, rank      (T,)
    begun             the head under each motion;  last  after the last batch, under each
    """

    motions: Sequence[Motion]
    dt: Floats
    head: int
    mean: Floats
    V: Floats
    mean_f: Floats
    F: Floats
    before: Floats
    nis: Floats
    logdet: Floats
    lost: Floats
    rank_f: Ints
    rank: Ints
    begun: Sequence[Defined]
    last: Sequence[Known]

    def forecasts(self, at: slice) -> Floats:
        """Covariances (…, N, k, k) of the forecasts of some batches."""
        begin, end, _ = at.indices(len(self.dt))
        head = [np.array([one.forecasts[t].V for one in self.begun]) for t in range(begin, min(end, self.head))]
        begin = max(begin, self.head)
        if begin >= end:
            return np.array(head).reshape(-1, *self.V.shape[1:])
        V = self.V[begin - 1 : end - 1] if begin > self.head else np.concatenate((self.before[None], self.V[begin : end - 1]))
        motion, dt = self.motions[0], self.dt[begin:end]
        if motion.root is not None and not motion.still:
            V = V + dt[:, None, None, None] * covariances(self.motions)
        elif motion.discount is not None:
            V = V / np.array([motion.share(float(gap)) for gap in dt])[:, None, None, None]
        return np.concatenate((np.array(head), V)) if head else V

    def smoothed(self, nodes: Sequence[int]) -> tuple[Floats, Floats, Floats] | None:
        """Means (T, n, k), covariances (T, n, k, k) and Cov(θ_{t+1}, θ_t) (T − 1, n, k, k) given all batches, of some motions."""
        T, h, k = len(self.dt), self.head, self.mean.shape[2]
        if not T or self.rank[-1] < k:
            return None
        mean, V = self.mean[:, nodes].copy(), self.V[:, nodes].copy()
        lag = np.zeros((max(T - 1, 0), *V.shape[1:]))
        motion = self.motions[0]
        first = max(h - 1, 0)
        if motion.root is not None and not motion.still:
            Q = covariances([self.motions[n] for n in nodes])
            F = self.F[first + 1 - h :][:, nodes]
            mean[first:-1], V[first:-1], lag[first:] = walks_back(mean[first:-1], V[first:-1], F, Q, self.dt[first + 1 :], mean[-1], V[-1])
        elif motion.still:
            mean[first:-1], V[first:-1], lag[first:] = mean[-1], V[-1], V[-1]
        else:
            for t in range(T - 2, first - 1, -1):
                _unforgotten(mean, V, lag, t, motion.share(float(self.dt[t + 1])))
        for t in range(first - 1, -1, -1):
            for i, n in enumerate(nodes):
                step = self.begun[n].steps[t + 1]
                if step is not None:
                    mean[t, i], V[t, i], lag[t, i] = smooth_back(mean[t + 1, i], V[t + 1, i], step)
                else:
                    _unforgotten(mean[:, i], V[:, i], lag[:, i], t, motion.share(float(self.dt[t + 1])))
        return mean, V, lag


def _unforgotten(mean: Floats, V: Floats, lag: Floats, t: int, kept: float) -> None:
    """Smooth batch t of a state that stood still (kept = 1) or was discounted, in place."""
    if kept == 1.0:
        mean[t], V[t], lag[t] = mean[t + 1], V[t + 1], V[t + 1]
    else:
        mean[t] += kept * (mean[t + 1] - mean[t])
        V[t], lag[t] = (1 - kept) * V[t] + kept**2 * V[t + 1], kept * V[t + 1]


def covariances(motions: Sequence[Motion]) -> Floats:
    """Q (N, k, k) of random walks."""
    return np.array([m.root @ m.root.T for m in motions if m.root is not None])


def tracked(sources: Sequence[Source], start: Start, motions: Sequence[Motion], dt: Floats) -> tuple[Track, list[Site]]:
    """The sources filtered under each motion, all of one kind; where one of several makes its own sites they are of the last motion."""
    sites = [s for s in sources if isinstance(s, Site)]
    if sites and len(sites) == len(sources):
        begun = [defined(sites, start, motions[0], dt, until_sound=True)]
        h = len(begun[0].states)
        if h < len(sites):
            begun += [defined(sites[:h], start, motion, dt) for motion in motions[1:]]
            track = followed(sites, begun, motions, dt)
            if track is not None:
                return track, sites
    begun = [defined(sources, start, motion, dt) for motion in motions]
    return _joined(begun, motions, dt, None), begun[-1].sites


@frozen(eq=False)
class Defined:
    """Batches filtered by definition: forecasts and states, the steps before them, ρ², and what the steps so far took from log|Λ|."""

    start: Known
    forecasts: list[Known]
    states: list[Known]
    steps: list[Step | None]
    nis: list[float]
    lost: list[float]
    sites: list[Site]

    @property
    def last(self) -> Known:
        return self.states[-1] if self.states else self.start


def defined(sources: Sequence[Source], start: Start, motion: Motion, dt: Floats, until_sound: bool = False) -> Defined:
    """One batch after the other in square-root information form; until_sound: no further than to a well-conditioned state."""
    state, lost = known(start.U, start.d), 0.0
    out = Defined(state, [], [], [], [], [], [])
    for t, source in enumerate(sources):
        if until_sound and sound(state):
            break
        forecast, step, taken = moved(state, motion, float(dt[t]))
        site = source if isinstance(source, Site) else source(forecast.U, forecast.d)
        state, rho2, lost = forecast, 0.0, lost + taken
        if len(site.z):
            U, d, rho2 = look(forecast.U, forecast.d, site.J, site.z)
            state = known(U, d)
        out.forecasts.append(forecast)
        out.states.append(state)
        out.steps.append(step)
        out.nis.append(rho2 + state.rest if len(site.z) else 0.0)
        out.lost.append(lost)
        out.sites.append(site)
    return out


def sound(state: Known) -> bool:
    """Is everything determined, and the precision clearly well conditioned?"""
    if state.rank < len(state.d) or not np.isfinite(state.V).all():
        return False
    return bool((np.diag(state.V) * np.einsum("ij,ij->j", state.U, state.U) <= INFLATION).all())


def followed(sites: Sequence[Site], begun: Sequence[Defined], motions: Sequence[Motion], dt: Floats) -> Track | None:
    """The batches after a head, all motions at once; None where that is not well conditioned throughout."""
    h, N, motion = len(begun[0].states), len(motions), motions[0]
    first = [one.last for one in begun]
    if not all(sound(state) for state in first):
        return None
    J, z = stacked(sites[h:])
    m, V0 = np.array([s.mean for s in first]), np.array([s.V for s in first])
    later = dt[h:]
    try:
        if motion.root is not None and not motion.still:
            mean, V, F = walks(J, z, m, V0, covariances(motions), later, free=h)
        else:
            kept = np.array([motion.share(float(gap)) for gap in later])
            mean, V, F = (x[:, None] for x in still(J, z, m[0], first[0].U.T @ first[0].U, kept))
            mean, V = (np.concatenate((np.zeros((h, *x.shape[1:])), x)) for x in (mean, V))
            assert N == 1
        rest = Rest(np.empty((len(z), N)), np.empty((len(z), N)), np.empty((len(z), N)))
        told = np.einsum("trj,trj->tj", J, J)
        mean_f = np.concatenate((m[None], mean[h:-1]))
        size = max(1, BLOCK // (N * m.shape[1] ** 2))
        for t in range(0, len(z), size):
            at = slice(t, t + size)
            if not _rest(at, rest, J, z, mean[h:], V[h:], F, mean_f, told):
                return None
    except np.linalg.LinAlgError:
        return None
    return _joined(begun, motions, dt, (mean, V, F, mean_f, rest))


@frozen(eq=False)
class Rest:
    """ρ², log|Λ_t| and log|F_t| (T, N) of batches followed."""

    nis: Floats
    logdet: Floats
    logdet_f: Floats


def _rest(at: slice, rest: Rest, J: Floats, z: Floats, mean: Floats, V: Floats, F: Floats, mean_f: Floats, told: Floats) -> bool:
    """Fill in some batches; False where one is ill conditioned.

    ρ² = |z − Jm|² + (m − m_f)ᵀF(m − m_f)
    """
    left = z[at, None] - mean[at] @ J[at].transpose(0, 2, 1)
    step = mean[at] - mean_f[at]
    rest.nis[at] = (left**2).sum(axis=2) + ((F[at] @ step[..., None])[..., 0] * step).sum(axis=2)
    precise = np.einsum("tnii->tni", F[at])
    inflation = np.einsum("tnii->tni", V[at]) * (precise + told[at, None])
    if not (inflation <= INFLATION).all():
        return False
    rest.logdet[at] = -2 * np.log(np.einsum("tnii->tni", np.linalg.cholesky(V[at]))).sum(axis=2)
    root = np.linalg.cholesky(F[at])
    rest.logdet_f[at] = 2 * np.log(np.einsum("tnii->tni", root)).sum(axis=2)
    return True


def stacked(sites: Sequence[Site]) -> tuple[Floats, Floats]:
    """J (T, r, k) and z (T, r) of all sites, filled up with rows of zeros."""
    r, k = max(max(len(s.z) for s in sites), 1), sites[0].J.shape[1]
    if all(len(s.z) == r for s in sites):
        return np.array([s.J for s in sites]), np.array([s.z for s in sites])
    J, z = np.zeros((len(sites), r, k)), np.zeros((len(sites), r))
    for t, s in enumerate(sites):
        J[t, : len(s.z)], z[t, : len(s.z)] = s.J, s.z
    return J, z


def _joined(begun: Sequence[Defined], motions: Sequence[Motion], dt: Floats, later: tuple | None) -> Track:
    """A head by definition, and what followed: means and covariances, with room for the head, F, forecast means and the rest."""
    h, N, k, first = len(begun[0].states), len(begun), len(begun[0].start.d), [one.last for one in begun]

    def each(read: Callable[[Defined], list], *shape: int) -> Floats:
        return np.array([read(one) for one in begun], dtype=float).reshape(N, h, *shape).swapaxes(0, 1)

    parts = {
        "mean": each(lambda one: [s.mean for s in one.states], k),
        "V": each(lambda one: [s.V for s in one.states], k, k),
        "mean_f": each(lambda one: [s.mean for s in one.forecasts], k),
        "nis": each(lambda one: one.nis),
        "logdet": each(lambda one: [s.logdet for s in one.states]),
        "lost": each(lambda one: one.lost),
    }
    rank_f, rank = (np.array(ranks, dtype=int) for ranks in ([s.rank for s in begun[0].forecasts], [s.rank for s in begun[0].states]))
    F = np.empty((0, N, k, k))
    if later is not None:
        mean, V, F, mean_f, rest = later
        from_head = parts["lost"][-1] if h else np.zeros(N)
        logdet = np.concatenate(([[s.logdet for s in first]], rest.logdet))
        lost = from_head + np.cumsum(logdet[:-1] - rest.logdet_f, axis=0)
        mean[:h], V[:h] = parts["mean"], parts["V"]
        found = {"mean_f": mean_f, "nis": rest.nis, "logdet": rest.logdet, "lost": lost}
        parts = {name: np.concatenate((parts[name], found[name])) for name in found} | {"mean": mean, "V": V}
        full = np.full(len(mean_f), k)
        rank_f, rank = np.concatenate((rank_f, full)), np.concatenate((rank, full))
        first = [_of_moments(m, P) for m, P in zip(mean[-1], V[-1])]
    before = np.array([one.last.V for one in begun])
    return Track(motions=motions, dt=dt, head=h, F=F, before=before, rank_f=rank_f, rank=rank, begun=begun, last=first, **parts)


def _of_moments(mean: Floats, V: Floats) -> Known:
    """A state from its mean and covariance."""
    U = np.linalg.inv(np.linalg.cholesky(V))
    return Known(mean, V, len(mean), U, U @ mean)


def moved(state: Known, motion: Motion, dt: float) -> tuple[Known, Step | None, float]:
    """The forecast over dt, the step for the smoother (None: it stood still, or was discounted), and what it takes from log|Λ|."""
    if motion.still or dt == 0:
        return state, None, 0.0
    if motion.discount is not None:
        kept = motion.share(dt)
        root = math.sqrt(kept)
        forecast = Known(state.mean, state.V / kept, state.rank, state.U * root, state.d * root)
        return forecast, None, -len(state.d) * math.log(kept)
    assert motion.root is not None
    U, d, step = walk(state.U, state.d, motion.root * math.sqrt(dt))
    return known(U, d), step, step.logdet


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


# ---------------------------------------------------------------- σ² and the evidence
@frozen(kw_only=True, eq=False)
class Sums:
    """σ², or its estimate, and the cumulative log-evidence (nan while undefined) of T batches under N motions.

    s2, s2_f, evidence, b  (T, N);  df, df_f, a  (T,)
    """

    s2: Floats
    s2_f: Floats
    df: Floats
    df_f: Floats
    evidence: Floats
    a: Floats
    b: Floats


def summed(track: Track, sites: Sequence[Site], start: Start, scale: Scale) -> Sums:
    """Running sums over the batches of a track."""
    T, N = track.nis.shape
    n = np.cumsum([0.0, *(s.n for s in sites)])
    logc = np.cumsum([s.logc for s in sites])
    quad = np.concatenate((np.zeros((1, N)), np.cumsum(np.array([s.rss for s in sites]).reshape(T, 1) + track.nis, axis=0)))
    a, b = scale.a + np.maximum(n - start.flat, 0.0) / 2, scale.b + 0.5 * quad
    ready = (n > start.flat) | (scale.a > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        s2 = np.where(ready[:, None], b / a[:, None], np.nan)
    df = np.where(ready, np.inf if scale.plug else 2 * a, np.nan)
    if scale.known is not None:
        s2, df = np.ones((T + 1, N)), np.full(T + 1, np.inf)
    full = (track.rank == start.k)[:, None]
    lost = np.where(full, track.logdet, 0.0) - start.logdet + track.lost
    evidence = logc[:, None] - 0.5 * lost + 0.5 * start.flat * LOG_2PI
    if scale.known is not None:
        evidence = evidence - 0.5 * quad[1:]
    else:
        proper = scale.a > 0 and scale.b > 0
        prior = scale.a * math.log(scale.b) - math.lgamma(scale.a) if proper else 0.0
        some = (a[1:, None] > 0) & (b[1:] > 0)
        gamma = np.array([math.lgamma(x) if x > 0 else math.nan for x in a[1:].tolist()]).reshape(T, 1)
        evidence = np.where(some, evidence + prior + gamma - a[1:, None] * np.log(np.where(some, b[1:], 1.0)), np.nan)
    return Sums(s2=s2[1:], s2_f=s2[:-1], df=df[1:], df_f=df[:-1], evidence=np.where(full, evidence, np.nan), a=a[1:], b=b[1:])


# ---------------------------------------------------------------- what each batch weighs
MANY = 32  # coefficients: the fourth moments below take 8 k⁴ bytes
FAINT = 1e-6  # a motion of less weight than this, at every batch, does not count


@frozen(kw_only=True, eq=False)
class Weighing:
    """How much of each coefficient's mean is owed to each batch: Σ w and Σ w², without keeping the weights.

    m_t = Σ_j P A_{t,j} β̂_j + P A_{t,0} m_0,   A_{t,j} = B Λ_j,   B the product of the steps (I + ΛQ)⁻¹ since j. The weights of all batches'
    estimates in the mean of coefficient c make up matrices that sum to I; in the direction p = P c, in which the other coefficients go
    along with c as far as all the data know, they are numbers that sum to 1 and do not depend on how the others are coded:

        w_j = pᵀ A_{t,j} p / cᵀ P c;   with one coefficient K_j Π (1 − K);   where nothing moves the share of batch j in the precision

    after   (T, N)  weights of N motions after each batch, over which the numbers are averaged; None: there is one
    """

    sites: Sequence[Site]
    start: Start
    motions: Sequence[Motion]
    dt: Floats
    after: Floats | None = None

    def found(self, V: Floats) -> tuple[Floats, Floats]:
        """Kish's (Σw)²/Σw² of the batches, and the prior's weight (T, k); nan beyond `MANY` coefficients.   V (T, k, k)"""
        T, k = len(self.sites), self.start.k
        if k > MANY:
            return np.full((T, k), np.nan), np.full((T, k), np.nan)
        with one_thread():  # small products, many of them
            return self._alone(self.motions[0], V, T) if self.after is None else self._averaged(self.after, T)

    def _averaged(self, after: Floats, T: int) -> tuple[Floats, Floats]:
        k = self.start.k
        kish, prior = np.zeros((T, k)), np.zeros((T, k))
        counted = np.where(after.max(axis=0) > FAINT, after, 0.0)
        counted = counted / counted.sum(axis=1, keepdims=True)
        for motion, weights in zip(self.motions, counted.T):
            some = np.flatnonzero(weights > FAINT**2)  # what comes after the last of them does not count
            end = int(some[-1]) + 1 if len(some) else 0
            if end:
                own = tracked(self.sites[:end], self.start, [motion], self.dt[:end])[0].V[:, 0]
                left = self._alone(motion, own, end)
                kish[:end] += weights[:end, None] * left[0]
                prior[:end] += weights[:end, None] * left[1]
        return kish, prior

    def _alone(self, motion: Motion, V: Floats, T: int) -> tuple[Floats, Floats]:
        k = self.start.k
        fourth, own = np.zeros((k, k, k, k)), self.start.U.T @ self.start.U  # Σ A ⊗ A; the prior's A
        Lambda = own
        kish, prior = np.full((T, k), np.nan), np.full((T, k), np.nan)
        for t, site in enumerate(self.sites[:T]):
            B = backward(Lambda, motion, float(self.dt[t]))
            if isinstance(B, float):
                fourth, own, Lambda = (fourth, own, Lambda) if B == 1.0 else (fourth * B**2, own * B, Lambda * B)
            else:
                moved = B @ (B @ fourth.reshape(k, k**3)).reshape(k**2, k, k)
                fourth, own, Lambda = moved.reshape(k, k, k, k), B @ own, B @ Lambda
            told = site.J.T @ site.J
            Lambda = Lambda + told
            fourth = fourth + told[:, :, None, None] * told
            P = V[t]
            if np.isnan(P).any():
                continue
            variance = np.diag(P)
            prior[t] = ((own @ P) * P).sum(axis=0) / variance
            pp = (P.T[:, :, None] * P.T[:, None, :]).reshape(k, k * k)
            second = ((pp @ fourth.reshape(k * k, k * k)) * pp).sum(axis=1) / variance**2
            with np.errstate(divide="ignore", invalid="ignore"):
                kish[t] = np.where(second > 0, (1 - prior[t]) ** 2 / second, np.nan)
        return kish, prior
