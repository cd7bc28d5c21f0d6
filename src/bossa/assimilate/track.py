"""Sites filtered and smoothed at σ = 1, under one motion of the state or several at once.

The definition is in square-root information form (`defined`; kernels/kalman.py), so a prior may know nothing (U = 0), batches may be of
deficient rank, and Q singular: all exactly. From where the state is determined and well conditioned (every variance inflation below
`INFLATION`: thirteen digits) all batches that follow, and all process variances asked for, are filtered at once in covariances and
precisions (`followed`).

Source: Bierman (1977); West & Harrison (1997) §6.3 for discounts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from attrs import evolve, frozen

from ..kernels.kalman import Known, Step, known, look, smooth_back, still, walk, walks, walks_back
from ..types import Floats, Ints
from .sites import Site

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


Source = Site | Callable[[Floats, Floats], Site]


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
