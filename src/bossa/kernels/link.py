"""How the mean hangs on the linear predictor: one `Link` instance per link function, everything about it in one table.

With η = g(μ), each instance holds

    link(mu)     η = g(μ)              inverse(eta)  μ = g⁻¹(η)
    slope(eta)   dμ/dη                 curve(eta)    d²μ/dη²

all elementwise, and accurate in both tails as far as the result itself can be represented; links of probabilities hold 1 − μ too, which
is lost in μ near 1. Nothing is clipped here: R bounds μ away from 0 and 1 by 2⁻⁵² in these functions.

Source: McCullagh & Nelder (1989) §2.2.3 and §4.3.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from attrs import frozen

from ..errors import OptionError, UnknownOption
from ..types import Floats

Elementwise = Callable[[Floats], Floats]


@frozen(kw_only=True, eq=False)
class Link:
    """One link function.

    low, high   the open range of `inverse`; where it lies inside the family's, no η is out of reach
    eta_low     η must exceed this
    complement  1 − g⁻¹(η), for links of probabilities
    """

    name: str
    link: Elementwise
    inverse: Elementwise
    slope: Elementwise
    curve: Elementwise
    low: float = -math.inf
    high: float = math.inf
    eta_low: float = -math.inf
    complement: Elementwise | None = None

    def __repr__(self) -> str:
        return f"<link {self.name}>"


def _same(x: Floats) -> Floats:
    return np.asarray(x, dtype=float)


def _ones(eta: Floats) -> Floats:
    return np.ones(np.shape(eta))


def _zeros(eta: Floats) -> Floats:
    return np.zeros(np.shape(eta))


def _exp(eta: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.exp(eta)


def _log(mu: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.log(mu)


def _logit(mu: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.log(mu) - np.log1p(-mu)


def _expit(eta: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-eta))


def _expit_slope(eta: Floats) -> Floats:
    e = np.exp(-np.abs(eta))
    return e / (1.0 + e) ** 2


def _expit_curve(eta: Floats) -> Floats:
    return -_expit_slope(eta) * np.tanh(0.5 * np.asarray(eta))


def _expit_complement(eta: Floats) -> Floats:
    return _expit(-np.asarray(eta))


def _probit(mu: Floats) -> Floats:
    from scipy.special import ndtri

    return ndtri(mu)


def _normal_cdf(eta: Floats) -> Floats:
    from scipy.special import ndtr

    return ndtr(eta)


def _normal_complement(eta: Floats) -> Floats:
    return _normal_cdf(-np.asarray(eta))


def _normal_density(eta: Floats) -> Floats:
    return np.exp(-0.5 * np.square(eta)) / math.sqrt(2 * math.pi)


def _normal_curve(eta: Floats) -> Floats:
    return -eta * _normal_density(eta)


def _cloglog(mu: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.log(-np.log1p(-mu))


def _cloglog_inverse(eta: Floats) -> Floats:
    return -np.expm1(-_exp(eta))


def _cloglog_complement(eta: Floats) -> Floats:
    return np.exp(-_exp(eta))


def _cloglog_slope(eta: Floats) -> Floats:
    eta = np.minimum(eta, 700.0)  # where e^η is still finite and the slope has long been 0
    return np.exp(eta - np.exp(eta))


def _cloglog_curve(eta: Floats) -> Floats:
    eta = np.minimum(eta, 700.0)
    e = np.exp(eta)
    return np.exp(eta - e) * (1.0 - e)


def _cauchit(mu: Floats) -> Floats:
    mu = np.asarray(mu)
    with np.errstate(divide="ignore"):
        return np.where(mu < 0.5, -1.0, 1.0) / np.tan(math.pi * np.minimum(mu, 1.0 - mu))


def _cauchy_cdf(eta: Floats) -> Floats:
    return np.arctan2(1.0, -np.asarray(eta)) / math.pi


def _cauchy_complement(eta: Floats) -> Floats:
    return np.arctan2(1.0, np.asarray(eta)) / math.pi


def _cauchy_density(eta: Floats) -> Floats:
    return 1.0 / (math.pi * (1.0 + np.square(eta)))


def _cauchy_curve(eta: Floats) -> Floats:
    return -2.0 * eta * _cauchy_density(eta) / (1.0 + np.square(eta))


def _reciprocal(x: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return 1.0 / np.asarray(x)


def _reciprocal_slope(eta: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return -1.0 / np.square(eta)


def _reciprocal_curve(eta: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return 2.0 / np.asarray(eta) ** 3


def _inverse_square(mu: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return 1.0 / np.square(mu)


def _inverse_root(eta: Floats) -> Floats:
    return 1.0 / np.sqrt(eta)


def _inverse_root_slope(eta: Floats) -> Floats:
    return -0.5 / (eta * np.sqrt(eta))


def _inverse_root_curve(eta: Floats) -> Floats:
    return 0.75 / (np.square(eta) * np.sqrt(eta))


def _double(eta: Floats) -> Floats:
    return 2.0 * np.asarray(eta)


def _twos(eta: Floats) -> Floats:
    return np.full(np.shape(eta), 2.0)


IDENTITY = Link(name="identity", link=_same, inverse=_same, slope=_ones, curve=_zeros)
LOG = Link(name="log", link=_log, inverse=_exp, slope=_exp, curve=_exp, low=0.0)
LOGIT = Link(
    name="logit", link=_logit, inverse=_expit, slope=_expit_slope, curve=_expit_curve, complement=_expit_complement, low=0.0, high=1.0
)
PROBIT = Link(
    name="probit",
    link=_probit,
    inverse=_normal_cdf,
    slope=_normal_density,
    curve=_normal_curve,
    complement=_normal_complement,
    low=0.0,
    high=1.0,
)
CLOGLOG = Link(
    name="cloglog",
    link=_cloglog,
    inverse=_cloglog_inverse,
    slope=_cloglog_slope,
    curve=_cloglog_curve,
    complement=_cloglog_complement,
    low=0.0,
    high=1.0,
)
CAUCHIT = Link(
    name="cauchit",
    link=_cauchit,
    inverse=_cauchy_cdf,
    slope=_cauchy_density,
    curve=_cauchy_curve,
    complement=_cauchy_complement,
    low=0.0,
    high=1.0,
)
INVERSE = Link(name="inverse", link=_reciprocal, inverse=_reciprocal, slope=_reciprocal_slope, curve=_reciprocal_curve)
INVERSE_SQUARED = Link(
    name="inverse_squared",
    link=_inverse_square,
    inverse=_inverse_root,
    slope=_inverse_root_slope,
    curve=_inverse_root_curve,
    low=0.0,
    eta_low=0.0,
)
SQRT = Link(name="sqrt", link=np.sqrt, inverse=np.square, slope=_double, curve=_twos, low=0.0, eta_low=0.0)

LINKS = {k.name: k for k in (IDENTITY, LOG, LOGIT, PROBIT, CLOGLOG, CAUCHIT, INVERSE, INVERSE_SQUARED, SQRT)}
SPELLINGS = {"1/mu^2": "inverse_squared", "1/mu": "inverse", "reciprocal": "inverse", "logistic": "logit"}


def resolve_link(link: Any, where: str = "model()") -> Link:
    """A Link from its name in bossa's or R's spelling, or itself.

    raises  UnknownOption with the nearest name; OptionError for what is neither a name nor a Link
    """
    if isinstance(link, Link):
        return link
    if not isinstance(link, str):
        raise OptionError(f"link={link!r} is neither a name nor a Link.", where=where, do=f"Use one of {', '.join(LINKS)}.")
    name = link.strip().lower().replace(".", "_").replace("-", "_").replace(" ", "_")
    name = SPELLINGS.get(name, name)
    if name not in LINKS:
        raise UnknownOption(link, LINKS, where=where, kind="link")
    return LINKS[name]
