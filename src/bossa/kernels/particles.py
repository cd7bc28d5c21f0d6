"""Where is a state, when its distribution is a cloud of weighted draws? Resampling, tempering, and moves that keep a cloud alive.

    weights W_i = exp(log w_i)/Σ exp(log w_j);      ESS = 1/ΣW² (Kish);      log Ẑ_t = log Σ W_{t−1} p(y_t | x)

Every resampling scheme takes weights and a generator and returns m ancestors (m,): the expected count of i is m W_i.

Source: Gordon, Salmond & Smith (1993); Douc, Cappé & Moulines (2005) for the schemes; Chopin & Papaspiliopoulos (2020) ch. 9–10, 17.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from attrs import frozen

from ..types import Floats, Ints


def normalised(log_weights: Floats) -> tuple[Floats, float]:
    """Weights that sum to 1, and log Σ exp(log_weights); -inf and weights of nan where every particle is impossible."""
    top = float(log_weights.max())
    if not math.isfinite(top):
        return np.full(len(log_weights), np.nan), top
    w = log_weights - top
    np.exp(w, out=w)
    total = float(w.sum())
    w /= total
    return w, top + math.log(total)


def kish(weights: Floats) -> float:
    """1/ΣW², the number of equal weights that would be as informative.

    Source: Kish (1965); Kong, Liu & Wong (1994).
    """
    return float(1.0 / (weights @ weights))


def inverse_cdf(u: Floats, weights: Floats) -> Ints:
    """Smallest j with Σ_{i≤j} W_i ≥ u, for each u (m,), increasing, in (0, 1)."""
    return np.minimum(np.searchsorted(np.cumsum(weights), u), len(weights) - 1)


def systematic(weights: Floats, rng: np.random.Generator) -> Ints:
    """One uniform, N teeth of a comb: every count is ⌊NW⌋ or ⌈NW⌉."""
    N = len(weights)
    teeth = np.floor(N * np.cumsum(weights) - rng.random()).astype(np.intp) + 1  # at (i + u)/N, up to each particle's end
    teeth[-1] = N
    upto = np.clip(teeth, 0, N)
    upto[1:] -= upto[:-1].copy()
    return np.repeat(np.arange(N), upto)


def stratified(weights: Floats, rng: np.random.Generator) -> Ints:
    """One uniform in each of N strata."""
    N = len(weights)
    return inverse_cdf((np.arange(N) + rng.random(N)) / N, weights)


def multinomial(weights: Floats, rng: np.random.Generator) -> Ints:
    """N independent draws."""
    return inverse_cdf(np.sort(rng.random(len(weights))), weights)


def residual(weights: Floats, rng: np.random.Generator) -> Ints:
    """⌊NW⌋ copies of each, the rest multinomial in what is left."""
    N = len(weights)
    whole = np.floor(N * weights).astype(int)
    rest = N - int(whole.sum())
    ancestors = np.repeat(np.arange(N), whole)
    if rest:
        left = N * weights - whole
        ancestors = np.concatenate((ancestors, inverse_cdf(np.sort(rng.random(rest)), left / left.sum())))
    return ancestors


RESAMPLING = {"systematic": systematic, "stratified": stratified, "residual": residual, "multinomial": multinomial}


BINS, MANY = 512, 2_000  # of a long cloud only the bins that hold the quantiles are sorted


def weighted_quantile(x: Floats, weights: Floats, probabilities: Floats) -> Floats:
    """Quantiles (m,) of weighted draws x (N,): the smallest draw whose cumulative weight reaches the probability."""
    asked = np.asarray(probabilities)
    low, high = (float(x.min()), float(x.max())) if len(x) >= MANY else (0.0, 0.0)
    if not 0.0 < high - low < math.inf:
        order = np.argsort(x)
        return x[order][inverse_cdf(asked, weights[order])]
    place = ((x - low) * ((BINS - 1) / (high - low))).astype(np.intp)
    upto = np.cumsum(np.bincount(place, weights, BINS))
    out = np.empty(len(asked))
    for i, (p, at) in enumerate(zip(asked, inverse_cdf(asked, np.diff(upto, prepend=0.0)))):
        here = np.flatnonzero(place == at)
        here = here[np.argsort(x[here])]
        before = upto[at - 1] if at else 0.0
        out[i] = x[here[min(int(np.searchsorted(before + np.cumsum(weights[here]), p)), len(here) - 1)]]
    return out


def tempered_step(loglik: Floats, log_weights: Floats, start: float, target: float) -> float:
    """The largest φ in (start, 1] for which weights ∝ w · L^{φ − start} keep a Kish ESS of `target`; by bisection.

    loglik, log_weights  (N,)

    Source: Jasra, Stephens, Doucet & Tsagaris (2011); Del Moral, Doucet & Jasra (2012).
    """

    def enough(phi: float) -> bool:
        return kish(normalised(log_weights + (phi - start) * loglik)[0]) >= target

    if enough(1.0):
        return 1.0
    low, high = start, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if enough(middle) else (low, middle)
    return max(low, start + 1e-12)


# ---------------------------------------------------------------- parameters that stand still
class Still(Protocol):
    """A static model of x (N, k), looked at T times: log-densities (N,)."""

    def start(self, N: int, rng: np.random.Generator) -> Floats:
        """Draws (N, k) of the prior."""

    def so_far(self, x: Floats, t: int) -> Floats:
        """Log prior, up to a constant, plus the log-likelihood of the looks before t."""

    def look(self, x: Floats, t: int) -> Floats:
        """Log-likelihood of look t."""


@frozen(eq=False)
class Cloud:
    """After a look: particles x (N, k), weights W (N,); log Ẑ of the look; resamplings, of them at powers below 1, share of moves taken."""

    x: Floats
    W: Floats
    loglik: float
    resampled: int
    tempering: int
    acceptance: float


def ibis(
    model: Still, T: int, N: int, rng: np.random.Generator, threshold: float = 0.5, resample: Callable = systematic, moves: int = 2
) -> Iterator[Cloud]:
    """The cloud before any look, then after each: tempered iterated batch importance sampling.

    Each look is brought in by the largest powers φ that leave an ESS of threshold · N. After each resampling every particle makes `moves`
    rounds of a random walk and an independence move from the cloud's own moments, both accepted by Metropolis–Hastings on
    prior × likelihood so far × look^φ. The independence proposals are a Latin hypercube: each is normal, together they fill the space.
    A look whose likelihood no particle has ends with loglik = −inf.

    Source: Chopin (2002) alg. 1; Jasra et al. (2011) for the powers; McKay, Beckman & Conover (1979); Del Moral, Doucet & Jasra (2006).
    """
    x, log_w = model.start(N, rng), np.full(N, -math.log(N))
    yield Cloud(x, np.full(N, 1 / N), 0.0, 0, 0, math.nan)
    before = model.so_far(x, 0)
    for t in range(T):
        look, phi, evidence, resampled, tempering, rates = model.look(x, t), 0.0, 0.0, 0, 0, []
        while phi < 1 and np.isfinite(look).any():
            step = tempered_step(look, log_w, phi, threshold * N)
            W, total = normalised(log_w + (step - phi) * look)
            evidence, log_w, phi = evidence + total, np.log(np.maximum(W, 1e-320)), step
            if kish(W) > threshold * N * 1.001 and phi == 1:
                break
            resampled, tempering = resampled + 1, tempering + (phi < 1)
            mean, L = W @ x, _spread(x, W)
            ancestors = resample(W, rng)
            x, before, look, log_w = x[ancestors], before[ancestors], look[ancestors], np.full(N, -math.log(N))
            for move in range(2 * moves):
                x, before, look, rate = _moved(model, (t, phi), (x, before, look), (mean, L), move % 2 == 0, rng)
                rates.append(rate)
        else:
            if phi < 1:
                evidence = -math.inf
        before = before + look
        yield Cloud(x, normalised(log_w)[0], evidence, resampled, tempering, float(np.mean(rates)) if rates else math.nan)


def _spread(x: Floats, W: Floats) -> Floats:
    """Lower factor of the cloud's covariance; a direction in which it has none keeps a trace of its scale."""
    V = np.atleast_2d(np.cov(x.T, aweights=W, ddof=0))
    size = np.sqrt(np.maximum(np.diag(V), 1e-300))
    return size[:, None] * np.linalg.cholesky(V / np.outer(size, size) + 1e-12 * np.eye(len(V)))


def _moved(model: Still, at: tuple[int, float], cloud: tuple, moments: tuple, walk: bool, rng: np.random.Generator) -> tuple:
    """One Metropolis–Hastings move of every particle: x, log-density so far, look's log-likelihood, and the share that moved.

    Source: Roberts, Gelman & Gilks (1997) for the walk's 2.38/√k.
    """
    (t, phi), (x, before, look), (mean, L) = at, cloud, moments
    N, k = x.shape
    if walk:
        new = x + rng.standard_normal((N, k)) @ L.T * (2.38 / math.sqrt(k))
    else:
        new = mean + hypercube(N, k, rng) @ L.T * WIDER
    new_before, new_look = model.so_far(new, t), model.look(new, t)
    ratio = new_before + phi * new_look - before - phi * look
    if not walk:
        away = np.linalg.solve(L, np.concatenate((new - mean, x - mean)).T)
        square = (away * away).sum(axis=0)
        ratio = ratio + 0.5 * (square[:N] - square[N:]) / WIDER**2
    yes = np.log(rng.random(N)) < ratio
    x = np.where(yes[:, None], new, x)
    return x, np.where(yes, new_before, before), np.where(yes, new_look, look), float(yes.mean())


WIDER = 1.1  # sd of independence proposals, in those of the cloud


def hypercube(N: int, k: int, rng: np.random.Generator) -> Floats:
    """Standard normal points (N, k), one in each of N equally likely intervals of each coordinate."""
    from scipy.special import ndtri

    return ndtri((np.array([rng.permutation(N) for _ in range(k)]).T + rng.random((N, k))) / N)
