"""Coefficients that stand still, exactly: the posterior of a stream as a cloud of particles, whatever the likelihood's shape.

    linear model    σ known, or (β, log σ²) with β ~ N(m, σ²V0), σ² ~ IG(a, b); each batch by its sufficient statistics
    other families  β, with a dispersion (β, log φ) in the same way; every move asks all rows so far again, so they are kept

Tempered IBIS (`kernels.particles.ibis`): batches come in by as many powers as the effective sample size bears, and Metropolis–Hastings
moves keep the particles different. Needs a proper prior: particles are drawn from it. The error is Monte Carlo's alone, and is told by
the number of different particles, the acceptance of the moves, and other seeds.

Source: Chopin (2002); Chopin & Papaspiliopoulos (2020) ch. 17.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from attrs import evolve, frozen

from ..errors import FitFailed
from ..kernels.kalman import LOG_2PI, Known, look
from ..kernels.particles import hypercube, ibis, inverse_cdf, kish, weighted_quantile
from ..kernels.streams import stream
from ..state.fields import array, check_axes
from ..types import Floats
from .cloud import Tally, degenerate
from .engine import Path, Scale
from .sites import Rows, Site, scaled, unit
from .track import Start

CELLS = 2_000_000  # rows × particles evaluated at once


@frozen(kw_only=True, eq=False)
class Clouds:
    """Coefficients (T, N, k) of the particles after each batch, the prior's cloud first, and their weights (T, N)."""

    x: np.ndarray = array("T", "N", "k")
    W: np.ndarray = array("T", "N")

    __attrs_post_init__ = check_axes

    def moments(self, values: Floats) -> tuple[Floats, Floats]:
        """Means (T, K) and covariances (T, K, K) of values (T, N, K) at the particles."""
        mean = np.einsum("tn,tnk->tk", self.W, values)
        away = values - mean[:, None, :]
        return mean, np.einsum("tn,tni,tnj->tij", self.W, away, away)

    def limits(self, values: Floats, alpha: float) -> Floats:
        """Equal-tailed limits (T, K, 2) of values (T, N, K)."""
        tails = np.array([alpha / 2, 1 - alpha / 2])
        return np.array([[weighted_quantile(column, W, tails) for column in at.T] for at, W in zip(values, self.W)])

    def draws(self) -> Floats:
        """The last cloud as N draws (N, k) of equal weight."""
        N = self.W.shape[1]
        return self.x[-1][inverse_cdf((np.arange(N) + 0.5) / N, self.W[-1])]


@frozen(eq=False)
class Conjugate:
    """Sites of a linear model with prior Uβ = d + σe: `before[t]` is the prior and the sites before t as (U, d, quad, logc, n)."""

    sites: tuple[Site, ...]
    start_at: Start
    scale: Scale
    before: tuple[tuple[Floats, Floats, float, float, float], ...]

    @classmethod
    def of(cls, sites: Sequence[Site], start: Start, scale: Scale) -> Conjugate:
        k = start.k
        U, d, quad, n = start.U, start.d, 0.0, 0.0
        logc = 0.5 * start.logdet - 0.5 * k * LOG_2PI
        before = [(U, d, quad, logc, n)]
        for s in sites:
            if len(s.z):
                U, d, rho2 = look(U, d, s.J, s.z)
                quad += rho2
            quad, logc, n = quad + s.rss, logc + s.logc, n + s.n
            before.append((U, d, quad, logc, n))
        return cls(tuple(sites), start, scale, tuple(before))

    def start(self, N: int, rng: np.random.Generator) -> Floats:
        e = hypercube(N, self.start_at.k, rng)
        if self.scale.known is not None:
            return _of_prior(self.start_at, e)
        log_s2 = math.log(self.scale.b) - np.log(rng.gamma(self.scale.a, size=N))
        return np.column_stack((_of_prior(self.start_at, np.exp(log_s2 / 2)[:, None] * e), log_s2))

    def so_far(self, x: Floats, t: int) -> Floats:
        U, d, quad, logc, n = self.before[t]
        k = len(d)
        away = x[:, :k] @ U.T - d
        square = quad + (away * away).sum(axis=1)
        if self.scale.known is not None:
            return logc - 0.5 * square
        a, b, v = self.scale.a, self.scale.b, x[:, k]
        return logc + a * math.log(b) - math.lgamma(a) - (a + 0.5 * (n + k)) * v - (b + 0.5 * square) * np.exp(-v)

    def look(self, x: Floats, t: int) -> Floats:
        s = self.sites[t]
        away = x[:, : s.J.shape[1]] @ s.J.T - s.z
        square = s.rss + (away * away).sum(axis=1)
        if self.scale.known is not None:
            return s.logc - 0.5 * square
        v = x[:, -1]
        return s.logc - 0.5 * s.n * v - 0.5 * square * np.exp(-v)


def _of_prior(start: Start, e: Floats) -> Floats:
    """β (N, k) with Uβ = d + e."""
    return np.asarray(np.linalg.solve(start.U, (start.d + e).T).T, dtype=float)


@frozen(eq=False)
class Likelihood:
    """Rows of a generalized linear model; `prior` of β, and of log φ where it is unknown: a `Conjugate` of no sites."""

    rows: tuple[Rows, ...]
    family: Any
    link: Any
    prior: Conjugate

    def start(self, N: int, rng: np.random.Generator) -> Floats:
        return self.prior.start(N, rng)

    def so_far(self, x: Floats, t: int) -> Floats:
        total = self.prior.so_far(x, 0)
        for s in range(t):
            total = total + self.look(x, s)
        return total

    def dispersion(self, x: Floats) -> Floats | float:
        """φ of each particle, or of all."""
        known = self.prior.scale.known
        return unit(self.family) if not scaled(self.family) else np.exp(x[:, -1]) if known is None else known**2

    def look(self, x: Floats, t: int) -> Floats:
        rows, total = self.rows[t], np.zeros(len(x))
        size, phi = max(1, CELLS // len(x)), self.dispersion(x)
        for at in range(0, len(rows.y), size):
            part = slice(at, at + size)
            eta = rows.X[part] @ x[:, : rows.X.shape[1]].T
            if rows.offset is not None:
                eta += rows.offset[part, None]
            with np.errstate(all="ignore"):
                inside = (eta > self.link.eta_low).all(axis=0)
                w = None if rows.weights is None else rows.weights[part, None]
                each = self.family.logpdf(rows.y[part, None], self.link.inverse(eta), phi, w)
                total += np.where(inside, each.sum(axis=0) if rows.freq is None else rows.freq[part] @ each, -np.inf)
        return np.where(np.isnan(total), -np.inf, total)


def tempered(
    model: Conjugate | Likelihood, path: Path, N: int, seed: int | tuple[int, ...], chosen: dict, notes: list[str]
) -> tuple[Path, Clouds]:
    """The path with the moments of the cloud in place of the Gaussian ones, and the cloud after each batch.

    path    of the sites (each by Laplace's method where it is not exact): its innovations are kept
    chosen  gains how the run went
    """
    T, k = path.mean.shape
    steps = ibis(model, T, N, stream(seed, 0))
    first = next(steps)
    x, W, tally, unique = [first.x[:, :k]], [first.W], Tally(), []
    gained: list[float] = []
    for t, now in enumerate(steps):
        if not math.isfinite(now.loglik):
            raise FitFailed(
                f"no particle can have produced batch {t} (counting from 0).",
                where="backend='ibis'",
                do="Use more particles (n_particles=), or a wider prior.",
            )
        x.append(now.x[:, :k])
        W.append(now.W)
        unique.append(len(np.unique(now.x[:, 0])))
        gained.append(now.loglik)
        tally.add(now)
    clouds = Clouds(x=np.array(x), W=np.array(W))
    mean, V = clouds.moments(clouds.x)
    ess = np.array([kish(w) for w in clouds.W[1:]])
    chosen |= {"n_particles": N, "seed": seed, "resampled": tally.resampled, "tempering_steps": tally.tempering}
    if first.x.shape[1] > k:
        at = np.exp(now.x[:, k])
        dispersion = float(now.W @ at)
        chosen |= {"dispersion": dispersion, "dispersion_sd": math.sqrt(float(now.W @ (at - dispersion) ** 2))}
    chosen |= {"acceptance": tally.acceptance, "unique": min(unique), "min_ess": float(ess.min())}
    notes.append(
        f"tempered IBIS, {N} particles, seed {seed}: {tally.resampled} resamplings, acceptance {tally.acceptance or 0:.2f}, "
        f"at least {min(unique)} different particles; intervals are quantiles"
    )
    if isinstance(model, Likelihood):
        notes.append("every move asks all rows so far again, so they are kept")
    notes.extend(degenerate(min(unique), N))
    ones, open_ended = np.ones(T), np.full(T, np.inf)
    still: dict[str, Any] = {"smoothed": np.repeat(mean[-1:], T, axis=0), "smoothed_V": np.repeat(V[-1:], T, axis=0)}
    root = np.linalg.inv(np.linalg.cholesky(V[-1]))
    typical = np.where(np.isnan(path.s2_f), 1.0, path.s2_f)
    return evolve(
        path,
        **still,
        mean=mean[1:],
        V=V[1:],
        mean_f=mean[:-1],
        V_f=V[:-1],
        own_V=path.own_V * typical[:, None, None],
        nis=path.nis / typical,
        s2=ones,
        s2_f=ones,
        df=open_ended,
        df_f=open_ended,
        lag_V=None,
        evidence=np.cumsum(gained),
        last=Known(mean[-1], V[-1], k, root, root @ mean[-1]),
    ), clouds
