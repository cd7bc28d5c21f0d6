"""Every link against distributions of scipy where it is one, and against its own laws in both tails."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.stats as st

from bossa.errors import OptionError, UnknownOption
from bossa.kernels.link import LINKS, resolve_link

# Links that are the inverse of a distribution function: μ = F(η), slope the density. Values and densities are scipy's.
DISTRIBUTIONS = {"logit": st.logistic, "probit": st.norm, "cloglog": st.gumbel_l, "cauchit": st.cauchy}
ETA = {name: np.linspace(-30, 30, 241) for name in DISTRIBUTIONS}
ETA |= {
    "identity": np.linspace(-1e3, 1e3, 81),
    "log": np.linspace(-700, 700, 141),
    "inverse": np.concatenate([-np.logspace(-8, 8, 40), np.logspace(-8, 8, 40)]),
    "inverse_squared": np.logspace(-8, 8, 60),
    "sqrt": np.logspace(-8, 8, 60),
}
# Steps of the differences: small beside the distance over which the function changes by a factor e.
STEP = dict.fromkeys(("identity", "sqrt"), np.ones_like)
STEP |= {name: lambda eta: 1e-2 * np.abs(eta) for name in ("inverse", "inverse_squared")}
STEP |= {name: lambda eta: np.full(len(eta), 1e-2) for name in ("log", "logit", "cauchit")}
STEP |= {"probit": lambda eta: 1e-2 / (1 + np.abs(eta)), "cloglog": lambda eta: 1e-2 / (1 + np.exp(np.minimum(eta, 8.0)))}
names = pytest.mark.parametrize("name", sorted(LINKS))


def derivative(f, x, h):
    """Sixth-order central difference; its error here is below 1e-9 of |f|/h."""
    a, b, c = (f(x + k * h) - f(x - k * h) for k in (1, 2, 3))
    return (45 * a - 9 * b + c) / (60 * h)


@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
def test_mean_and_slope_are_a_distribution_and_its_density(name):
    """scipy.stats; both tails to relative rounding (a few eps × |η|, which the exponent carries)."""
    eta, link, d = ETA[name], LINKS[name], DISTRIBUTIONS[name]
    np.testing.assert_allclose(link.inverse(eta), d.cdf(eta), rtol=1e-13)
    np.testing.assert_allclose(link.complement(eta), d.sf(eta), rtol=1e-12)
    np.testing.assert_allclose(link.slope(eta), d.pdf(eta), rtol=1e-12, atol=1e-300)


@names
def test_link_of_inverse_is_the_identity(name):
    """From η: where μ is off its upper end, beyond which η is not in μ; the error is eps in μ, divided by the slope."""
    link, eta = LINKS[name], ETA[name]
    mu = link.inverse(eta)
    held = np.abs(link.high - mu) > 1e-6 if np.isfinite(link.high) else np.ones(len(eta), dtype=bool)
    loss = 4e-16 * np.maximum(np.abs(mu / np.where(link.slope(eta) == 0, 1, link.slope(eta))), np.abs(eta))
    assert held.sum() > 20
    assert (np.abs(link.link(mu) - eta) <= 4 * loss)[held].all()


@names
def test_inverse_of_link_is_the_identity(name):
    link = LINKS[name]
    mu = np.concatenate([np.logspace(-15, -1, 30), np.linspace(0.1, 0.9, 17), 1 - np.logspace(-12, -1, 12)])
    np.testing.assert_allclose(link.inverse(link.link(mu)), mu, rtol=2e-14)


@names
def test_slope_and_curve_are_derivatives(name):
    """By differences; a relative error in the lower tail, an absolute one where μ itself has lost 1 − μ."""
    link, eta = LINKS[name], ETA[name]
    h = STEP[name](eta)
    slope, curve = derivative(link.inverse, eta, h), derivative(link.slope, eta, h)
    size = np.abs(link.inverse(eta)) / h
    assert (np.abs(link.slope(eta) - slope) <= 1e-7 * np.abs(link.slope(eta)) + 1e-14 * size).all()
    size = np.abs(link.slope(eta)) / h
    assert (np.abs(link.curve(eta) - curve) <= 1e-6 * np.abs(link.curve(eta)) + 1e-8 * np.abs(link.slope(eta)) + 1e-14 * size).all()


@names
def test_far_tails_are_numbers_without_a_warning(name):
    """No NaN and no warning (warnings are errors here) at |η| = 1e3, where exp overflows."""
    link = LINKS[name]
    for eta in (np.array([1e3]), np.array([-1e3])):
        if eta[0] > link.eta_low:
            assert not np.isnan([link.inverse(eta), link.slope(eta), link.curve(eta)]).any()


def test_cloglog_curve_far_right_is_zero():
    assert LINKS["cloglog"].curve(np.array([10.0, 800.0])) == pytest.approx([0.0, 0.0], abs=1e-300)


@pytest.mark.parametrize(
    ("spelling", "name"), [("1/mu^2", "inverse_squared"), ("Logit", "logit"), (" 1/mu ", "inverse"), ("inverse-squared", "inverse_squared")]
)
def test_spellings_of_r(spelling, name):
    assert resolve_link(spelling) is LINKS[name]
    assert resolve_link(LINKS[name]) is LINKS[name]


def test_unknown_link_names_the_nearest():
    with pytest.raises(UnknownOption, match="Did you mean 'probit'"):
        resolve_link("probitt", where="model()")
    with pytest.raises(OptionError, match="neither a name nor a Link"):
        resolve_link(3)


@names
def test_links_pickle(name):
    again = pickle.loads(pickle.dumps(LINKS[name]))
    eta = ETA[name][5:9]
    assert again.name == name
    np.testing.assert_array_equal(again.slope(eta), LINKS[name].slope(eta))
