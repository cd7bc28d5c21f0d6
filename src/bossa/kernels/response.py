"""How the log-likelihood of each row bends with its linear predictor: what modes, Laplace's approximation and their gradients need.

With a row's log-likelihood ℓ(η) = c(φ) − a d(y, μ)/2φ, μ = g⁻¹(η), V the variance function and h = μ′/V,

    score  ℓ′ = a (y − μ) h/φ        expected  a μ′h/φ        observed  −ℓ″ = a (μ′h − (y − μ) h′)/φ

For a natural (canonical) link h is constant, so h′ = 0 and the two informations are one. `shape` is the logarithm of the estimated
dispersion parameter: φ of gaussian, gamma and inverse gaussian, θ of the negative binomial.

Source: McCullagh & Nelder (1989) §2.2.2, §2.5; Jørgensen (1987).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from attrs import evolve, frozen

from ..types import Floats, Ints
from .family import Family
from .link import Link

NATURAL = {
    ("gaussian", "identity"),
    ("binomial", "logit"),
    ("poisson", "log"),
    ("gamma", "inverse"),
    ("inverse_gaussian", "inverse_squared"),
}
FREE_SCALE = ("gaussian", "gamma", "inverse_gaussian")
KNOWN_FAMILIES = (*FREE_SCALE, "binomial", "poisson", "negbinomial")


@frozen(eq=False)
class Bend:
    """Derivatives of every row's log-likelihood by its η; (…, n) each.

    loglik    without the constant c(φ); −inf where η leaves the range of the model
    score     ℓ′
    observed  −ℓ″;  expected: its mean.  One array for a natural link
    """

    loglik: Floats
    score: Floats
    observed: Floats
    expected: Floats
    mu: Floats


@frozen(eq=False)
class Response:
    """Response, weights and distribution of n rows, in the order of a random-effects layout.

    y       (…, n)
    a       (n,)    what multiplies the deviance: prior weight × count
    count   (n,)    counts, 1 where there are none;  prior (n,) prior weights or None
    natural         h is constant;  weighted  some a is not 1
    """

    family: Family
    link: Link
    y: Floats
    a: Floats
    count: Floats
    prior: Floats | None = None
    natural: bool = False
    weighted: bool = True

    def rows(self, index: Ints) -> Response:
        """The same response with its rows in the order `index`."""
        prior = None if self.prior is None else self.prior[index]
        return evolve(self, y=self.y[..., index], a=self.a[index], count=self.count[index], prior=prior)

    @property
    def shaped(self) -> bool:
        """A dispersion parameter is estimated along with the coefficients."""
        return self.family.name in FREE_SCALE or bool(self.family.free)


def make_response(family: Family, link: Link, y: Floats, weights: Floats | None = None, freq: Floats | None = None) -> Response:
    """`Response` of rows with prior weights and counts (None: all 1)."""
    count = np.ones(np.shape(y)[-1]) if freq is None else np.asarray(freq, dtype=float)
    a = count if weights is None else count * weights
    natural, weighted = (family.name, link.name) in NATURAL, bool((a != 1.0).any())
    return Response(family, link, np.asarray(y, dtype=float), a, count, weights, natural, weighted)


# ---------------------------------------------------------------- third derivatives of the inverse links
def _zero(eta: Floats, mu: Floats, slope: Floats) -> Floats:
    return np.zeros(np.shape(eta))


def _log_third(eta: Floats, mu: Floats, slope: Floats) -> Floats:
    return mu


def _logit_third(eta: Floats, mu: Floats, slope: Floats) -> Floats:
    return slope * (1.0 - 6.0 * slope)


def _probit_third(eta: Floats, mu: Floats, slope: Floats) -> Floats:
    return (np.square(eta) - 1.0) * slope


def _cloglog_third(eta: Floats, mu: Floats, slope: Floats) -> Floats:
    e = np.exp(np.minimum(eta, 300.0))
    return slope * (np.square(1.0 - e) - e)


def _cauchit_third(eta: Floats, mu: Floats, slope: Floats) -> Floats:
    return (6.0 * np.square(eta) - 2.0) / (math.pi * (1.0 + np.square(eta)) ** 3)


def _inverse_third(eta: Floats, mu: Floats, slope: Floats) -> Floats:
    return -6.0 * np.square(slope)


def _inverse_squared_third(eta: Floats, mu: Floats, slope: Floats) -> Floats:
    return -1.875 * mu**7


THIRD = {
    "identity": _zero,
    "sqrt": _zero,
    "log": _log_third,
    "logit": _logit_third,
    "probit": _probit_third,
    "cloglog": _cloglog_third,
    "cauchit": _cauchit_third,
    "inverse": _inverse_third,
    "inverse_squared": _inverse_squared_third,
}


def _complement(link: Link, eta: Floats, mu: Floats) -> Floats:
    """1 − μ of a binomial mean, accurate where μ ≈ 1."""
    if link.name in ("logit", "probit", "cauchit"):
        return link.inverse(-eta)
    return np.exp(-np.exp(np.minimum(eta, 300.0))) if link.name == "cloglog" else 1.0 - mu


def _variance(family: Family, link: Link, eta: Floats, mu: Floats) -> tuple[Floats, Floats, Any]:
    """V, dV/dμ, d²V/dμ²."""
    if family.name == "binomial":
        q = _complement(link, eta, mu)
        return np.maximum(mu * q, 1e-300), q - mu, -2.0
    second = {"gamma": 2.0, "inverse_gaussian": 6.0 * mu, "negbinomial": 2.0 / family.aux.get("theta", 1.0)}.get(family.name, 0.0)
    return family.variance(mu), family.variance_slope(mu), second


# ---------------------------------------------------------------- log-likelihood and its derivatives by η
def bend(response: Response, eta: Floats, phi: Floats | float = 1.0) -> Bend:
    """Log-likelihood of each row and its first two derivatives by η.

    eta      (…, n)
    phi      dispersion, scalar or (…, 1)
    returns  Bend
    """
    family, link, y, a = response.family, response.link, response.y, response.a
    if response.natural and link.name == "logit":
        down = np.minimum(-eta, 700.0)
        mu = np.exp(down)
        mu += 1.0
        np.reciprocal(mu, out=mu)
        loglik, w, score = np.log(mu), 1.0 - mu, y - mu
        loglik += (1.0 - y) * down
        w *= mu
        for each in (loglik, w, score) if response.weighted else ():
            each *= a
        return Bend(loglik, score, w, w, mu)
    if response.natural and link.name == "log":
        mu = np.exp(eta)
        w = a * mu
        return Bend(a * (y * eta - mu), a * (y - mu), w, w, mu)
    mu, slope = link.inverse(eta), link.slope(eta)
    V, V1, _ = _variance(family, link, eta, mu)
    h = slope / V
    scale = a / phi
    residual = scale * (y - mu)
    expected = scale * slope * h
    observed = expected if response.natural else expected - residual * (link.curve(eta) / V - np.square(h) * V1)
    if family.name == "binomial":
        q = _complement(link, eta, mu)
        loglik = a * (_x_log(y, mu) + _x_log(1.0 - y, q))
        score = a * slope * (y / np.maximum(mu, 1e-300) - (1.0 - y) / np.maximum(q, 1e-300))
    else:
        loglik, score = -0.5 * scale * family.deviance(y, mu), residual * h
    inside = eta > link.eta_low
    if link.low < family.low or link.high > family.high:  # else only rounding puts μ on an end
        inside &= (mu > family.low) & (mu < family.high)
    return Bend(np.where(inside, loglik, -np.inf), score, observed, expected, mu)


def _x_log(x: Floats, y: Floats) -> Floats:
    """x log y, 0 at x = 0."""
    return np.where(x > 0.0, x * np.log(np.where(x > 0.0, y, 1.0)), 0.0)


def bend_slopes(response: Response, eta: Floats, at: Bend, phi: Floats | float = 1.0) -> tuple[Floats, Floats]:
    """Derivatives of the observed and of the expected information by η.

    eta, at  (…, n) and its `bend`
    returns  (…, n), (…, n); one array for a natural link
    """
    family, link, mu = response.family, response.link, at.mu
    if response.natural and link.name == "logit":
        third = at.observed * (1.0 - 2.0 * mu)
        return third, third
    if response.natural and link.name == "log":
        return at.observed, at.observed
    slope, curve = link.slope(eta), link.curve(eta)
    V, V1, V2 = _variance(family, link, eta, mu)
    h, scale = slope / V, response.a / phi
    if response.natural:
        third = scale * curve * h
        return third, third
    h1 = curve / V - np.square(h) * V1
    h2 = THIRD[link.name](eta, mu, slope) / V - h * V1 * curve / V - 2.0 * h * h1 * V1 - np.square(h) * V2 * slope
    expected = scale * (curve * h + slope * h1)
    return expected + scale * (slope * h1 - (response.y - mu) * h2), expected


# ---------------------------------------------------------------- the dispersion parameter
def constants(response: Response, phi: float = 1.0) -> Floats:
    """c(φ) of each row (n,): what `bend` leaves out of the log-likelihood."""
    family, y = response.family, response.y
    if family.name == "negbinomial":
        return response.a * family.logpdf(y, np.maximum(y, 1e-300))  # type: ignore[misc]
    if family.name in FREE_SCALE:
        return response.count * family.logpdf(y, y, phi, response.prior)  # type: ignore[misc]
    mu = family.start(y, response.prior)
    if family.name == "binomial":
        left = response.a * (_x_log(y, mu) + _x_log(1.0 - y, 1.0 - mu))
    elif response.natural:
        left = response.a * (y * np.log(mu) - mu)
    else:
        left = -0.5 * response.a * family.deviance(y, mu)
    return response.count * family.logpdf(y, mu, 1.0, response.prior) - left  # type: ignore[misc]


def at_shape(response: Response, shape: float) -> tuple[Response, float]:
    """The response at a value of the log dispersion parameter, and φ."""
    if response.family.name in FREE_SCALE:
        return response, math.exp(shape)
    if response.family.free:
        return evolve(response, family=response.family.fitted({"theta": math.exp(shape)})), 1.0
    return response, 1.0


def shape_slopes(response: Response, eta: Floats, at: Bend, phi: float) -> tuple[Floats, Floats, Floats]:
    """Derivatives by the log dispersion parameter at fixed η: of each row's log-likelihood, its score, its observed information.

    eta, at  (…, n) and its `bend`
    returns  three of (…, n)
    """
    family = response.family
    if family.name == "negbinomial":
        return _theta_slopes(response, eta, at)
    if family.name == "gamma":
        from scipy.special import psi

        normaliser = response.a * (psi(1.0 / phi) + math.log(phi)) / phi
    else:
        counted = response.count if family.weights == "precision" else response.a
        normaliser = -0.5 * counted
    return normaliser - at.loglik, -at.score, -at.observed


def _theta_slopes(response: Response, eta: Floats, at: Bend) -> tuple[Floats, Floats, Floats]:
    """`shape_slopes` of the negative binomial, by log θ, where V = μ + μ²/θ."""
    from scipy.special import psi

    link, y, a, mu, theta = response.link, response.y, response.a, at.mu, response.family.aux["theta"]
    each = psi(y + theta) - psi(theta) - np.log1p(mu / theta) + 1.0 - (y + theta) / (mu + theta)
    slope, curve = link.slope(eta), link.curve(eta)
    V, V1 = mu + np.square(mu) / theta, 1.0 + 2.0 * mu / theta
    relative, V1_theta = np.square(mu) / theta / V, -2.0 * mu / theta  # −θ ∂log V/∂θ;  θ ∂V′/∂θ
    h = slope / V
    h1_theta = curve / V * relative - 2.0 * np.square(h) * relative * V1 - np.square(h) * V1_theta
    observed = a * (slope * h * relative - (y - mu) * h1_theta)
    return a * theta * each, at.score * relative, observed
