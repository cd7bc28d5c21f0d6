"""Resampling: what each scheme promises of its counts, and weights that neither overflow nor vanish."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bossa.kernels.particles import RESAMPLING, hypercube, ibis, kish, normalised, tempered_step, weighted_quantile


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_systematic_counts_are_the_floor_or_the_ceiling(seed):
    rng = np.random.default_rng(seed)
    W = rng.dirichlet(np.full(25, 0.3))
    counts = np.bincount(RESAMPLING["systematic"](W, rng), minlength=25)
    assert counts.sum() == 25
    assert (counts >= np.floor(25 * W - 1e-9)).all()
    assert (counts <= np.ceil(25 * W + 1e-9)).all()
    least = np.bincount(RESAMPLING["residual"](W, rng), minlength=25)
    assert (least >= np.floor(25 * W - 1e-9)).all()


@pytest.mark.parametrize("scheme", RESAMPLING)
def test_resampling_is_unbiased(scheme):
    rng = np.random.default_rng(1)
    W = rng.dirichlet(np.full(12, 0.5))
    counts = np.mean([np.bincount(RESAMPLING[scheme](W, rng), minlength=12) for _ in range(20_000)], axis=0)
    # multinomial: four standard errors of .01; systematic counts vary by less than a half each
    np.testing.assert_allclose(counts, 12 * W, atol=0.015 if scheme == "systematic" else 0.04)


@pytest.mark.parametrize("scheme", RESAMPLING)
def test_weights_of_zero_leave_no_offspring(scheme):
    rng = np.random.default_rng(2)
    W = np.array([0.0, 0.5, 0.0, 0.5, 0.0])
    for _ in range(50):
        assert set(RESAMPLING[scheme](W, rng).tolist()) <= {1, 3}


def test_weights_far_from_one_are_kept():
    W, total = normalised(np.array([-1e5, -1e5 + math.log(3)]))
    np.testing.assert_allclose(W, [0.25, 0.75])
    assert total == pytest.approx(-1e5 + math.log(4), rel=1e-15)
    W, total = normalised(np.full(3, -np.inf))
    assert np.isnan(W).all()
    assert total == -math.inf


def test_kish_and_quantiles():
    assert kish(np.full(10, 0.1)) == pytest.approx(10)
    assert kish(np.array([1.0, 0.0])) == 1.0
    x, W = np.array([3.0, 1.0, 2.0]), np.array([0.2, 0.5, 0.3])
    assert weighted_quantile(x, W, np.array([0.4, 0.6, 0.9])).tolist() == [1.0, 2.0, 3.0]


def test_tempering_stops_where_the_effective_size_is_the_one_asked_for():
    rng = np.random.default_rng(3)
    loglik = -0.5 * (rng.normal(size=1000) * 30) ** 2
    log_w = np.full(1000, -math.log(1000))
    phi = tempered_step(loglik, log_w, 0.0, 500.0)
    assert kish(normalised(log_w + phi * loglik)[0]) == pytest.approx(500, rel=1e-6)
    assert tempered_step(loglik * 1e-6, log_w, 0.3, 500.0) == 1.0


def test_quantiles_of_a_long_cloud_are_those_of_its_sorted_draws():
    """Long clouds sort only the bins that hold a quantile; outliers, ties and one value throughout included."""
    rng = np.random.default_rng(4)
    asked = np.array([0.001, 0.025, 0.5, 0.975, 0.999])
    for x in (rng.normal(size=5000), rng.standard_cauchy(5000), np.round(rng.normal(size=5000), 1), np.full(5000, 2.0)):
        W = rng.random(5000)
        W /= W.sum()
        order = np.argsort(x, kind="stable")
        expected = x[order][np.searchsorted(np.cumsum(W[order]), asked)]
        np.testing.assert_array_equal(weighted_quantile(x, W, asked), expected)


def test_a_latin_hypercube_has_one_point_in_each_interval():
    points = hypercube(200, 3, np.random.default_rng(5))
    for column in points.T:
        assert sorted(np.floor(stats.norm.cdf(column) * 200).astype(int).tolist()) == list(range(200))
    assert np.abs(np.corrcoef(points.T)[np.triu_indices(3, 1)]).max() < 0.25


class Gaussian:
    """x ~ N(0, 9 I) in k dimensions, looked at T times: y_t ~ N(x, I)."""

    def __init__(self, y):
        self.y = y

    def start(self, N, rng):
        return 3 * rng.standard_normal((N, self.y.shape[1]))

    def so_far(self, x, t):
        return -0.5 * (x**2).sum(axis=1) / 9 + sum((self.look(x, s) for s in range(t)), start=np.zeros(len(x)))

    def look(self, x, t):
        return stats.norm.logpdf(self.y[t] - x).sum(axis=1)


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("scheme", RESAMPLING)
def test_ibis_is_the_conjugate_posterior_after_every_look(k, scheme):
    y = np.random.default_rng(6).normal(2, 1, (8, k))
    clouds = list(ibis(Gaussian(y), 8, 4000, np.random.default_rng(7), resample=RESAMPLING[scheme]))
    assert clouds[0].resampled == 0
    for t, cloud in enumerate(clouds[1:], start=1):
        V = 1 / (1 / 9 + t)
        np.testing.assert_allclose(cloud.W @ cloud.x, V * y[:t].sum(axis=0), atol=0.12 * math.sqrt(V) * 2)
        np.testing.assert_allclose(np.cov(cloud.x.T, aweights=cloud.W).reshape(k, k), V * np.eye(k), atol=0.15 * V)
        assert kish(cloud.W) >= 0.499 * 4000
    marginal = stats.multivariate_normal(np.zeros(8), np.eye(8) + 9)
    exact = sum(marginal.logpdf(column) for column in y.T)
    assert sum(c.loglik for c in clouds) == pytest.approx(exact, abs=0.25)


def test_a_look_that_nothing_can_have_made_ends_with_no_evidence():
    class Never(Gaussian):
        def look(self, x, t):
            return np.full(len(x), -np.inf)

    *_, last = ibis(Never(np.zeros((1, 1))), 1, 50, np.random.default_rng(8))
    assert last.loglik == -math.inf
