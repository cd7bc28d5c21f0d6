"""Every family against scipy's distributions, and the laws that tie its parts together."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import scipy.stats as st
from hypothesis import given
from hypothesis import strategies as some

import bossa
from bossa.errors import DataError, OptionError, Refused, UnknownOption
from bossa.kernels.family import FAMILIES, Family, loglik, negbinomial, resolve_family, t
from bossa.kernels.link import LINKS

T5 = t(df=5).fitted({"scale": 1.3})
FULL = {name: f for name, f in FAMILIES.items() if f.logpdf is not None and not f.aux} | {"negbinomial": negbinomial(2.5), "t": T5}
PHI = {"gaussian": 1.7, "gamma": 0.4, "inverse_gaussian": 0.2, "t": 1.3**2}
MU = {"binomial": np.array([0.02, 0.3, 0.5, 0.97])}
Y = {
    "gaussian": np.array([-2.0, 0.1, 3.0, 4.0]),
    "t": np.array([-2.0, 0.1, 3.0, 4.0]),
    "binomial": np.array([0.0, 1.0, 0.25, 0.75]),
    "poisson": np.array([0.0, 1.0, 4.0, 20.0]),
    "negbinomial": np.array([0.0, 1.0, 4.0, 20.0]),
    "gamma": np.array([0.01, 0.8, 2.0, 30.0]),
    "inverse_gaussian": np.array([0.01, 0.8, 2.0, 30.0]),
}
TRIALS = np.array([4.0, 12.0, 4.0, 8.0])
families = pytest.mark.parametrize("name", sorted(FULL))


def mean(name):
    return MU.get(name, np.array([0.3, 1.0, 4.5, 12.0]))


def weights(name):
    return TRIALS if name == "binomial" else None


def scipy_logpdf(name, y, mu, phi, w):
    """log f by scipy.stats in its own parameters."""
    return {
        "gaussian": lambda: st.norm.logpdf(y, mu, np.sqrt(phi)),
        "t": lambda: st.t.logpdf(y, 5, mu, np.sqrt(phi)),
        "binomial": lambda: st.binom.logpmf(np.round(y * w), w, mu),
        "poisson": lambda: st.poisson.logpmf(y, mu),
        "negbinomial": lambda: st.nbinom.logpmf(y, 2.5, 2.5 / (2.5 + mu)),
        "gamma": lambda: st.gamma.logpdf(y, 1 / phi, scale=mu * phi),
        "inverse_gaussian": lambda: st.invgauss.logpdf(y, mu * phi, scale=1 / phi),
    }[name]()


@families
def test_logpdf_is_scipys(name):
    y, mu, phi, w = Y[name], mean(name), PHI.get(name, 1.0), weights(name)
    np.testing.assert_allclose(FULL[name].logpdf(y, mu, phi, w), scipy_logpdf(name, y, mu, phi, w), rtol=1e-12, atol=1e-13)


@families
def test_score_is_the_slope_of_logpdf(name):
    """∂ log f/∂μ = w score/φ, by central differences (relative error h² ≈ 1e-8)."""
    f, y, mu, phi, w = FULL[name], Y[name], mean(name), PHI.get(name, 1.0), weights(name)
    h = 1e-4 * np.minimum(mu, 1 - mu) if name == "binomial" else 1e-4 * mu
    slope = (f.logpdf(y, mu + h, phi, w) - f.logpdf(y, mu - h, phi, w)) / (2 * h)
    np.testing.assert_allclose((1.0 if w is None else w) * f.score(y, mu) / phi, slope, rtol=1e-6, atol=1e-7)


@families
def test_deviance_is_twice_the_distance_from_the_saturated_model(name):
    f, y, mu, phi, w = FULL[name], Y[name], mean(name), PHI.get(name, 1.0), weights(name)
    distance = 2 * phi * (f.logpdf(y, y, phi, w) - f.logpdf(y, mu, phi, w)) / (1.0 if w is None else w)
    np.testing.assert_allclose(f.deviance(y, mu), distance, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_variance_slope_is_the_derivative_of_variance(name):
    f, mu = FULL.get(name, FAMILIES[name]), mean("binomial" if "binomial" in name and name != "negbinomial" else name)
    h = 1e-5 * mu
    np.testing.assert_allclose(f.variance_slope(mu), (f.variance(mu + h) - f.variance(mu - h)) / (2 * h), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", sorted(set(FULL) - {"t"}))
@pytest.mark.parametrize("step", [1e-6, 1e-3])
def test_deviance_has_no_cancellation_near_its_minimum(name, step):
    """d = (y − μ)²/V at a mean between y and μ: to 4 steps relative, whatever the size of μ (t's is a logarithm of its square)."""
    f, mu = FULL[name], np.array([0.2, 0.4, 0.7]) if name == "binomial" else np.array([0.3, 4.0, 5e6])
    y = mu * (1 + step)
    np.testing.assert_allclose(f.deviance(y, mu), np.square(y - mu) / f.variance(mu), rtol=4 * step)


@pytest.mark.parametrize("name", ["poisson", "gamma", "binomial", "negbinomial"])
def test_deviance_of_means_far_from_y(name):
    """The textbook formulas in extended precision, six decades and more to either side of y."""
    y = np.array([0.25, 0.5, 0.875]) if name == "binomial" else np.array([1.0, 3.0, 1e3 if name == "negbinomial" else 1e6])
    for factor in (1e-12, 1e-6, 0.1, 0.49, 0.51, 0.95, 1.02, 1.1, 2.0, 1e6, 1e12):
        if name == "binomial" and factor > 1.1:
            continue
        mu = y * factor
        Y, M, θ = y.astype(np.longdouble), mu.astype(np.longdouble), np.longdouble(2.5)
        expected = {
            "poisson": lambda Y=Y, M=M: 2 * (Y * np.log(Y / M) - (Y - M)),
            "gamma": lambda Y=Y, M=M: 2 * ((Y - M) / M - np.log(Y / M)),
            "binomial": lambda Y=Y, M=M: 2 * (Y * np.log(Y / M) + (1 - Y) * np.log((1 - Y) / (1 - M))),
            "negbinomial": lambda Y=Y, M=M, θ=θ: 2 * (Y * np.log(Y / M) - (Y + θ) * np.log((Y + θ) / (M + θ))),
        }[name]()
        np.testing.assert_allclose(FULL[name].deviance(y, mu), expected.astype(float), rtol=2e-13)


@families
def test_draws_have_the_moments_of_the_family(name):
    """Mean μ and variance φV/w (t: φ df/(df − 2)): within 5 of their standard errors over 40 000 draws, seeded."""
    f, mu, phi, w = FULL[name], mean(name), PHI.get(name, 1.0), weights(name)
    draws = f.sample(np.random.default_rng(20), np.tile(mu, (40_000, 1)), phi, w)
    variance = phi * f.variance(mu) / (1.0 if w is None else w) if name != "t" else np.full(4, phi * 5 / 3)
    m, v = draws.mean(axis=0), draws.var(axis=0)
    fourth = ((draws - m) ** 4).mean(axis=0)
    assert (np.abs(m - mu) <= 5 * np.sqrt(variance / 40_000)).all()
    assert (np.abs(v - variance) <= 5 * np.sqrt((fourth - v**2) / 40_000)).all()


@families
def test_score_has_mean_zero_and_the_information_as_variance(name):
    """E score = 0 and E score² = φ/V: what Fisher scoring and the standard errors rest on. 5 standard errors over 40 000 draws."""
    f, mu, phi = FULL[name], mean(name), PHI.get(name, 1.0)
    draws = f.sample(np.random.default_rng(7), np.tile(mu, (40_000, 1)), phi)
    score = f.score(draws, mu)
    second = score**2
    assert (np.abs(score.mean(axis=0)) <= 5 * score.std(axis=0) / 200).all()
    assert (np.abs(second.mean(axis=0) - phi / f.variance(mu)) <= 5 * second.std(axis=0) / 200).all()


def test_weights_are_precisions_in_draws():
    """Gamma, gaussian: Var = φV/w (R's simulate); 5 standard errors over 40 000 draws."""
    w = np.array([0.5, 4.0])
    for name in ("gaussian", "gamma", "inverse_gaussian"):
        draws = FULL[name].sample(np.random.default_rng(3), np.full((40_000, 2), 2.0), 0.3, w)
        v, fourth = draws.var(axis=0), ((draws - 2.0) ** 4).mean(axis=0)
        assert (np.abs(v - 0.3 * FULL[name].variance(np.full(2, 2.0)) / w) <= 5 * np.sqrt((fourth - v**2) / 40_000)).all()


@given(y=some.integers(0, 10**9), mu=some.floats(1e-6, 1e9), theta=some.floats(1e-3, 1e9))
def test_negbinomial_tends_to_poisson_and_is_below_it(y, mu, theta):
    """As θ → ∞ the law is Poisson's; its deviance never exceeds Poisson's. Both without cancellation, at any size."""
    y, mu = np.array([float(y)]), np.array([mu])
    poisson, nb, limit = FAMILIES["poisson"], negbinomial(theta), negbinomial(1e18)
    assert nb.deviance(y, mu)[0] >= -1e-9 * (1 + y[0])
    assert nb.deviance(y, mu)[0] <= poisson.deviance(y, mu)[0] * (1 + 1e-9) + 1e-9 * (1 + y[0])
    np.testing.assert_allclose(limit.logpdf(y, mu), poisson.logpdf(y, mu), rtol=1e-7, atol=1e-7)


@families
def test_loglik_is_the_sum_of_logpdf_at_rs_dispersion(name):
    """With counts f: Σ f log f(y; μ), φ = D/Σf where it is free (t: its own scale)."""
    f, y, mu, w, freq = FULL[name], Y[name], mean(name), weights(name), np.array([1.0, 3.0, 2.0, 1.0])
    deviance = float(freq @ ((1.0 if w is None else w) * f.deviance(y, mu)))
    phi = deviance / freq.sum() if f.dispersion == "pearson" else PHI.get(name, 1.0)
    assert loglik(f, y, deviance, w, freq) == pytest.approx(freq @ scipy_logpdf(name, y, mu, phi, w), rel=1e-12)


def test_deviance_of_zeros_and_ones_in_both_tails():
    """−2 log μ of a one and −2 log(1 − μ) of a zero, at probabilities that 1 − μ cannot tell from 1."""
    mu, one, zero = np.array([1e-300, 1e-20, 1e-5]), np.ones(3), np.zeros(3)
    np.testing.assert_allclose(FULL["binomial"].deviance(one, mu), -2 * np.log(mu), rtol=1e-15)
    np.testing.assert_allclose(FULL["binomial"].deviance(zero, mu), 2 * mu * (1 + mu / 2), rtol=1e-9)


def test_large_counts_and_small_dispersions_keep_their_digits():
    """Against Stirling-free identities: f(y; y) ≈ 1/√(2πy) for Poisson and 1/(y√(2πφ)) for gamma, next term 1/(12y), φ/12."""
    big = np.array([1e12])
    np.testing.assert_allclose(FAMILIES["poisson"].logpdf(big, big), -0.5 * np.log(2 * math.pi * big), rtol=1e-13)
    phi = 1e-12
    np.testing.assert_allclose(FAMILIES["gamma"].logpdf(big, big, phi), -np.log(big) - 0.5 * np.log(2 * math.pi * phi), rtol=1e-12)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_starting_means_lie_inside_the_range(name):
    f, y = FAMILIES[name], Y.get(name, Y["binomial"] if name == "quasibinomial" else Y["poisson"])
    for w in (None, TRIALS):
        start = f.start(y, w)
        assert ((start > f.low) & (start < f.high)).all()
        assert start.shape == y.shape


BAD = [
    ("poisson", [1, -1, 2], "row 1 "),
    ("poisson", [1, 2, 2.5], "quasipoisson"),
    ("negbinomial", [0.5, 1, 1], "row 0 "),
    ("binomial", [0, 1, 2], "row 2 "),
    ("binomial", [0, 0.3, 1], "cbind"),
    ("quasibinomial", [0, -0.1, 1], "from 0 to 1"),
    ("quasipoisson", [0, -0.1, 1], "both signs"),
    ("gamma", [1, 0, 2], "zeros apart"),
    ("inverse_gaussian", [1, -1, 2], "values > 0"),
    ("gaussian", [1, math.inf, 2], "finite"),
    ("t", [1, math.nan, 2], "finite"),
]


@pytest.mark.parametrize(("name", "y", "says"), BAD)
def test_values_outside_the_support_are_named(name, y, says):
    with pytest.raises(DataError, match=f"family '{name}'") as error:
        FAMILIES[name].check(np.array(y, dtype=float), response="count")
    assert says in str(error.value)
    assert "count is " in str(error.value)


def test_support_is_checked_with_the_weights_and_rows_of_the_data():
    f = FAMILIES["binomial"]
    f.check(np.array([0.25, 0.5]), np.array([4.0, 2.0]))
    f.check(np.array([0.0, 1.0]), np.array([0.37, 2.2]))  # weights of 0/1 need not be whole
    with pytest.raises(DataError, match="row 17 of the data"):
        f.check(np.array([0.25, 0.5]), np.array([4.0, 3.0]), np.array([3, 17]))


SPELLINGS = [
    ("Gamma", "gamma"),
    ("inverse.gaussian", "inverse_gaussian"),
    ("Inverse Gaussian", "inverse_gaussian"),
    ("nb", "negbinomial"),
    ("negative.binomial", "negbinomial"),
    ("bernoulli", "binomial"),
    ("normal", "gaussian"),
    ("quasi-poisson", "quasipoisson"),
    ("student_t", "t"),
]


@pytest.mark.parametrize(("spelling", "name"), SPELLINGS)
def test_spellings_of_r(spelling, name):
    assert resolve_family(spelling).name == name


def test_unknown_family_names_the_nearest():
    with pytest.raises(UnknownOption, match="Did you mean 'poisson'"):
        resolve_family("poison")
    with pytest.raises(OptionError, match="neither a name nor a Family"):
        resolve_family(None)


def test_shape_parameters_are_checked_and_remembered():
    assert resolve_family(bossa.negbinomial).free == ("theta",)
    assert resolve_family(bossa.t).aux["df"] == 4
    assert bossa.negbinomial(3).aux == {"theta": 3.0}
    assert bossa.negbinomial(3).free == ()
    assert bossa.t(df="ML").free == ("scale", "df")
    again = bossa.negbinomial().fitted({"theta": 2.0, "theta_se": 0.1})
    assert again.aux == {"theta": 2.0}
    assert again.free == ("theta",)
    for bad in (0, -1, "x", True, math.nan, math.inf):
        with pytest.raises(OptionError, match="not a positive number"):
            bossa.negbinomial(bad)
    with pytest.raises(OptionError, match="t\\(df='ml'\\)"):
        bossa.t(df=-3)


def test_drawing_without_a_shape_parameter_is_refused():
    for f in (negbinomial(), t("ml")):
        with pytest.raises(OptionError, match="nothing to draw"):
            f.sample(np.random.default_rng(0), np.ones(2))
    with pytest.raises(Refused, match="whole numbers of trials"):
        FAMILIES["binomial"].sample(np.random.default_rng(0), np.full(2, 0.5), 1.0, np.array([1.5, 2.0]))


def test_links_that_make_no_sense_are_refused():
    for f in FAMILIES.values():
        f.check_link(LINKS[f.canonical])
    with pytest.raises(OptionError, match="Use one of log, identity, sqrt"):
        FAMILIES["poisson"].check_link(LINKS["logit"])


@pytest.mark.parametrize("f", [*FULL.values(), *FAMILIES.values()], ids=repr)
def test_families_pickle(f: Family):
    again = pickle.loads(pickle.dumps(f))
    y, mu = Y.get(f.name, Y["binomial"]), mean("binomial")
    assert repr(again) == repr(f)
    np.testing.assert_array_equal(again.deviance(y, mu), f.deviance(y, mu))


def test_quasi_families_have_no_likelihood():
    assert math.isnan(loglik(FAMILIES["quasibinomial"], np.array([0.0, 1.0]), 1.0))
    assert FAMILIES["quasipoisson"].sample is None
