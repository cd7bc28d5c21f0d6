"""Where is a state, when its distribution is a cloud of weighted draws? Resampling, and sums of weights that do not overflow.

    weights W_i = exp(log w_i)/Σ exp(log w_j);      ESS = 1/ΣW² (Kish);      log Ẑ_t = log Σ W_{t−1} p(y_t | x)

Every resampling scheme takes weights and a generator and returns m ancestors (m,): the expected count of i is m W_i.

Source: Gordon, Salmond & Smith (1993); Douc, Cappé & Moulines (2005) for the schemes; Chopin & Papaspiliopoulos (2020) ch. 9–10, 17.
"""

from __future__ import annotations

import math

import numpy as np

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
