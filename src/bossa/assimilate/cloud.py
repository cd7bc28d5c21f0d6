"""Streams that are not Gaussian: a cloud of particles instead of a mean and a variance.

    bootstrap   x moves by the transition, is weighted by the look, resampled when Kish's ESS falls below a share of N
    guided      Gaussian steps and looks: x moves given the look, and is weighted by the look's forecast
    ibis        an effect that stands still: tempered weights, resampling, and Metropolis moves that leave the posterior as it is

    rao-blackwell   particles of (log Q, log s) alone, errors being s times what they are said to be; an exact Kalman filter in each

A cloud that only moves by resampling dies on a static effect, with a healthy ESS; `unique` counts how many different particles are left
(of a drifting one: different parents at the last resampling).

Source: Gordon, Salmond & Smith (1993); Chopin (2002) and Chopin & Papaspiliopoulos (2020) ch. 17 for IBIS; Del Moral, Doucet & Jasra
(2012) for adaptive tempering.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from attrs import frozen

from ..errors import DataError, DataWarning, FitFailed, OptionError, warn
from ..kernels.intervals import t_quantile
from ..kernels.kalman import ScalarPath, filter_scalars
from ..kernels.particles import RESAMPLING, hypercube, ibis, kish, normalised, weighted_quantile
from ..kernels.particles import Cloud as After
from ..types import Floats, is_number
from .drift import PRIOR_SD

LOG_2PI = math.log(2 * math.pi)


@frozen
class Gaussian:
    """log N(estimate; particles, standard_error²)."""

    def __call__(self, estimate: float, standard_error: float, particles: Floats) -> Floats:
        z = (estimate - particles) / standard_error
        z *= z
        z *= -0.5
        z -= 0.5 * LOG_2PI + math.log(standard_error)
        return z


@frozen
class StudentT:
    """(estimate − particles)/standard_error is Student-t with df degrees of freedom: an outlier is believed less."""

    df: float

    def __call__(self, estimate: float, standard_error: float, particles: Floats) -> Floats:
        z = (estimate - particles) / standard_error
        constant = math.lgamma((self.df + 1) / 2) - math.lgamma(self.df / 2) - 0.5 * math.log(math.pi * self.df)
        return constant - (self.df + 1) / 2 * np.log1p(z * z / self.df) - math.log(standard_error)


def student_t(df: float) -> StudentT:
    """Student-t estimates: particle_filter(…, observation_log_pdf=student_t(4)), so that an outlier is believed less.

    >>> student_t(4)
    StudentT(df=4.0)
    """
    if not is_number(df) or not math.isfinite(df) or df <= 0:
        raise OptionError(f"df={df!r} is not a positive number.", where="student_t()", do="Use student_t(4), say.")
    return StudentT(float(df))


@frozen(kw_only=True, eq=False)
class Cloud:
    """How to run: particles N, the generator, when and how to resample, and the model's own parts (None: Gaussian)."""

    N: int
    rng: np.random.Generator
    threshold: float
    resampling: str
    algorithm: str
    m0: float
    P0: float
    q_sd: float
    alpha: float
    prior_sampler: Callable | None = None
    transition_sampler: Callable | None = None
    log_pdf: Callable | None = None
    moves: int = 2


@frozen(kw_only=True, eq=False)
class CloudPath:
    """(T,) each: moments, limits (T, 2), forecast moments, Kish's ESS, distinct particles, log-likelihood of each look; counts."""

    mean: Floats
    sd: Floats
    ci: Floats
    mean_f: Floats
    sd_f: Floats
    ess: Floats
    unique: np.ndarray
    loglik: Floats
    resampled: int
    acceptance: float | None = None
    tempering: int = 0
    particles: Floats
    weights: Floats


def _start(cloud: Cloud) -> Floats:
    if cloud.prior_sampler is None:
        return cloud.m0 + math.sqrt(cloud.P0) * cloud.rng.standard_normal(cloud.N)
    return checked(cloud.prior_sampler(cloud.N, cloud.rng), cloud.N, "prior_sampler")


def checked(values: Any, N: int, name: str) -> Floats:
    """What a function of the user's returned, as (N,) numbers."""
    array = np.asarray(values, dtype=float)
    if array.shape != (N,) or np.isnan(array).any():
        what = f"it returned {'nan' if array.shape == (N,) else f'shape {array.shape}'} for {N} particles."
        raise DataError(what, where=name, do="Return one number for each particle.")
    return array


def _impossible(t: int) -> FitFailed:
    return FitFailed(
        f"no particle can have produced batch {t} (counting from 0): every weight is 0.",
        where="particle_filter()",
        do="Use more particles, a wider prior or a heavier-tailed observation_log_pdf.",
    )


def drifting(y: Floats, se: Floats, cloud: Cloud, guided: bool = False) -> CloudPath:
    """Bootstrap or guided filter of y (T,), se (T,).

    Source: Chopin & Papaspiliopoulos (2020) alg. 10.1 and §10.3.2 for the locally optimal proposal.
    """
    T, N, rng = len(y), cloud.N, cloud.rng
    out: dict[str, Any] = {name: np.empty(T) for name in ("mean", "sd", "mean_f", "sd_f", "ess", "loglik")}
    ci, unique, resampled = np.empty((T, 2)), np.empty(T, dtype=int), 0
    tails, log_pdf, resample = [cloud.alpha / 2, 1 - cloud.alpha / 2], cloud.log_pdf or Gaussian(), RESAMPLING[cloud.resampling]
    x, log_w = _start(cloud), np.full(N, -math.log(N))
    static = not cloud.q_sd and cloud.transition_sampler is None
    origin, alive, W, own = np.arange(N), N, np.full(N, 1 / N), not guided and cloud.transition_sampler is not None
    for t in range(T):
        if kish(W) < cloud.threshold * N:
            ancestors = resample(W, rng)
            origin = origin[ancestors] if static else ancestors
            x, alive, resampled = x[ancestors], int(np.count_nonzero(np.bincount(origin))), resampled + 1
            W.fill(1 / N)
            log_w.fill(-math.log(N))
        if guided:
            variance = cloud.q_sd**2 + se[t] ** 2
            gain = cloud.q_sd**2 / variance
            log_w += Gaussian()(float(y[t]), math.sqrt(variance), x)
            out["mean_f"][t], out["sd_f"][t] = _moments(x, W, cloud.q_sd)
            x = x + gain * (y[t] - x) + math.sqrt(gain) * se[t] * rng.standard_normal(N)
        else:
            if own:
                x = checked(cloud.transition_sampler(x, rng), N, "transition_sampler")  # type: ignore[misc]
            elif cloud.q_sd:
                step = rng.standard_normal(N)
                step *= cloud.q_sd
                x = np.add(x, step, out=step)
            out["mean_f"][t], out["sd_f"][t] = _moments(x, W)
            log_w += checked(log_pdf(float(y[t]), float(se[t]), x), N, "observation_log_pdf")
        W, total = normalised(log_w)
        if not math.isfinite(total):
            raise _impossible(t)
        log_w -= total
        out["loglik"][t] = total
        out["mean"][t], out["sd"][t] = _moments(x, W)
        ci[t], out["ess"][t] = weighted_quantile(x, W, np.array(tails)), kish(W)
        unique[t] = alive
    return CloudPath(**out, ci=ci, unique=unique, resampled=resampled, particles=x, weights=W)


def _moments(x: Floats, W: Floats, extra_sd: float = 0.0) -> tuple[float, float]:
    mean = float(W @ x)
    away = x - mean
    away *= away
    return mean, math.sqrt(float(W @ away) + extra_sd**2)


@frozen(eq=False)
class Looks:
    """Estimates y (T,) with errors se of one number that stands still, as `kernels.particles.ibis` takes it."""

    y: Floats
    se: Floats
    cloud: Cloud

    def start(self, N: int, rng: np.random.Generator) -> Floats:
        return self.cloud.m0 + math.sqrt(self.cloud.P0) * hypercube(N, 1, rng)

    def so_far(self, x: Floats, t: int) -> Floats:
        particles = x[:, 0]
        total = -0.5 * (particles - self.cloud.m0) ** 2 / self.cloud.P0
        if self.cloud.log_pdf is None:
            precision, shift = float((1 / self.se[:t] ** 2).sum()), float((self.y[:t] / self.se[:t] ** 2).sum())
            return total - 0.5 * precision * particles**2 + shift * particles
        for s in range(t):
            total = total + self.look(x, s)
        return total

    def look(self, x: Floats, t: int) -> Floats:
        log_pdf = self.cloud.log_pdf or Gaussian()
        return checked(log_pdf(float(self.y[t]), float(self.se[t]), x[:, 0]), len(x), "observation_log_pdf")


def still(y: Floats, se: Floats, cloud: Cloud) -> CloudPath:
    """Tempered IBIS of an effect that does not move."""
    T = len(y)
    out: dict[str, Any] = {name: np.empty(T) for name in ("mean", "sd", "mean_f", "sd_f", "ess", "loglik")}
    ci, unique, tails = np.empty((T, 2)), np.empty(T, dtype=int), np.array([cloud.alpha / 2, 1 - cloud.alpha / 2])
    steps = ibis(Looks(y, se, cloud), T, cloud.N, cloud.rng, cloud.threshold, RESAMPLING[cloud.resampling], cloud.moves)
    now = next(steps)
    tally = Tally()
    for t in range(T):
        out["mean_f"][t], out["sd_f"][t] = _moments(now.x[:, 0], now.W)
        now = next(steps)
        if not math.isfinite(now.loglik):
            raise _impossible(t)
        tally.add(now)
        x = now.x[:, 0]
        out["loglik"][t], out["ess"][t], unique[t] = now.loglik, kish(now.W), len(np.unique(x))
        out["mean"][t], out["sd"][t] = _moments(x, now.W)
        ci[t] = weighted_quantile(x, now.W, tails)
    run: dict[str, Any] = {"resampled": tally.resampled, "acceptance": tally.acceptance, "tempering": tally.tempering}
    return CloudPath(**out, ci=ci, unique=unique, **run, particles=now.x[:, 0], weights=now.W)


class Tally:
    """How a run of `ibis` went: resamplings, of them at powers below 1, mean acceptance (None: no move was made)."""

    def __init__(self) -> None:
        self.resampled, self.tempering, self.taken = 0, 0, 0.0

    def add(self, now: After) -> None:
        self.resampled += now.resampled
        self.tempering += now.tempering
        self.taken += now.resampled * now.acceptance if now.resampled else 0.0

    @property
    def acceptance(self) -> float | None:
        return self.taken / self.resampled if self.resampled else None


def degenerate(left: int, N: int) -> tuple[str, ...]:
    """What to say, and warn of, where only `left` of N particles stayed different; nothing where enough did."""
    if left >= 0.02 * N:
        return ()
    what = f"only {left} of {N} particles stayed different: the posterior is too narrow and the evidence is wrong."
    warn(f"{what} Use more particles; where the effect stands still algorithm='ibis', else algorithm='guided'.", DataWarning)
    return (f"degenerate: at one time only {left} of {N} particles were different",)


LOG_S_SD = 0.5  # prior of log s, the factor of the standard errors, about 0


def blackwellised(y: Floats, se: Floats, cloud: Cloud) -> CloudPath:
    """Particles of (log Q, log s) with priors N(log(median se²/10), 1.5²) and N(0, 0.5²), θ integrated out exactly in each.

    After each resampling, random-walk moves on prior × evidence so far.

    Source: Doucet, de Freitas, Murphy & Russell (2000); Chopin (2002) for the moves.
    """
    T, N, rng = len(y), cloud.N, cloud.rng
    out: dict[str, Any] = {name: np.empty(T) for name in ("mean", "sd", "mean_f", "sd_f", "ess", "loglik")}
    ci, unique, resampled, tried, taken = np.empty((T, 2)), np.empty(T, dtype=int), 0, 0, 0
    centre = np.array([math.log(float(np.median(se**2)) / 10) if T else 0.0, 0.0])
    spread = np.array([PRIOR_SD, LOG_S_SD])
    u = centre + spread * rng.standard_normal((N, 2))
    log_w, width = np.full(N, -math.log(N)), t_quantile(1 - cloud.alpha / 2, np.inf)

    def filtered(at: Floats, end: int) -> ScalarPath:
        v = se[:end, None] ** 2 * np.exp(2 * at[:, 1])
        return filter_scalars(y[:end, None], v, np.broadcast_to(np.exp(at[:, 0]), v.shape), cloud.m0, cloud.P0)

    def target(at: Floats, path: ScalarPath) -> Floats:
        return path.loglik.sum(axis=0) - 0.5 * (((at - centre) / spread) ** 2).sum(axis=1)

    path = filtered(u, T)
    for t in range(T):
        W = normalised(log_w)[0]
        out["mean_f"][t] = float(W @ path.mean_f[t])
        out["sd_f"][t] = math.sqrt(float(W @ (path.var_f[t] + (path.mean_f[t] - out["mean_f"][t]) ** 2)))
        W, out["loglik"][t] = normalised(log_w + path.loglik[t])
        log_w = np.log(np.maximum(W, 1e-320))
        out["ess"][t] = kish(W)
        if out["ess"][t] < cloud.threshold * N:
            resampled += 1
            L = np.linalg.cholesky(np.cov(u.T, aweights=W) + 1e-12 * np.eye(2))
            u, log_w = u[RESAMPLING[cloud.resampling](W, rng)], np.full(N, -math.log(N))
            now = target(u, filtered(u, t + 1))
            for _ in range(2 * cloud.moves):
                new = u + rng.standard_normal((N, 2)) @ L.T * (2.38 / math.sqrt(2))
                at_new = target(new, filtered(new, t + 1))
                yes = np.log(rng.random(N)) < at_new - now
                u, now = np.where(yes[:, None], new, u), np.where(yes, at_new, now)
                tried, taken = tried + N, taken + int(yes.sum())
            path, W = filtered(u, T), np.full(N, 1 / N)
        unique[t] = len(np.unique(u[:, 0]))
        out["mean"][t] = float(W @ path.mean[t])
        out["sd"][t] = math.sqrt(float(W @ (path.var[t] + (path.mean[t] - out["mean"][t]) ** 2)))
        ci[t] = out["mean"][t] + np.array([-1, 1]) * width * out["sd"][t]
    rate = taken / tried if tried else None
    return CloudPath(**out, ci=ci, unique=unique, resampled=resampled, acceptance=rate, particles=u, weights=normalised(log_w)[0])
