"""Resampling: what each scheme promises of its counts, and weights that neither overflow nor vanish."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.kernels.particles import RESAMPLING, kish, normalised, tempered_step, weighted_quantile


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
