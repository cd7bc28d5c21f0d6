"""From sites to a path: filter, smoother and log-evidence of a vector that stands still, walks or is forgotten.

The states are those of `track`, at σ = 1. With Λ_t the precision after batch t, the evidence telescopes,

    log p(y_1 … y_t) = Σ logc − ½ Σ (rss + ρ²) − ½ [log|Λ_t| − log|Λ_0| + Σ log|I + Q_s Λ_{s−1}|] + m/2 log 2π

m coefficients whose prior is flat (log|Λ_0| is of the others): then it is the restricted likelihood, defined once Λ_t has full rank.
With σ unknown, σ² ~ IG(a_0, b_0) and everything else in units of σ², a = a_0 + (N − m)/2, b = b_0 + ½ Σ (rss + ρ²), and
(2π)^(−N/2) exp(−b) becomes its integral Γ(a)/b^a · b_0^a_0/Γ(a_0).

Source: West & Harrison (1997) §4.5; O'Hagan & Forster (2004) §11 for the conjugate linear model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from attrs import frozen

from ..kernels.kalman import LOG_2PI, Known, known_many
from ..types import Floats, Ints
from .sites import Site
from .track import BLOCK, Motion, Source, Start, Track, tracked
from .weighing import KISH_SIZE, Weighing


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
