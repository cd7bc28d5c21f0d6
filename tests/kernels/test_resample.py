"""Intervals and p-values from replicates, against normal theory, direct definitions and each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri

from bossa.kernels import resample

NORMAL = ndtri((np.arange(99_999) + 1) / 100_000)[:, None]  # order statistics of a perfect N(0, 1) sample


def test_percentile_limits_are_order_statistics():
    draws = np.arange(1.0, 1000)[:, None]  # 999 draws: the 25th and the 975th (Davison & Hinkley §5.2)
    np.testing.assert_allclose(resample.percentile_interval(draws, 0.95)[:, 0], [25, 975])


@pytest.mark.parametrize("side", ["less", "greater"])
def test_one_sided_intervals_are_open_and_at_the_full_level(side):
    low, high = resample.percentile_interval(NORMAL, 0.95, side)[:, 0]
    assert (low, high) == pytest.approx((-np.inf, ndtri(0.95)) if side == "less" else (ndtri(0.05), np.inf), abs=1e-4)


def test_bca_without_bias_and_acceleration_is_percentile():
    zero = np.zeros(1)
    np.testing.assert_allclose(resample.bca_interval(zero, NORMAL, zero, 0.9), resample.percentile_interval(NORMAL, 0.9), atol=1e-4)


def test_bca_of_a_monotone_transform_is_the_transform_of_bca():
    a = np.array([0.05])
    plain = resample.bca_interval(np.array([0.2]), NORMAL, a, 0.95)
    np.testing.assert_allclose(resample.bca_interval(np.exp([0.2]), np.exp(NORMAL), a, 0.95), np.exp(plain), rtol=1e-3)


@pytest.mark.parametrize("side", ["two-sided", "less", "greater"])
@pytest.mark.parametrize("null", [-1.3, 0.0, 0.4, 2.1])
def test_p_and_interval_agree_for_percentile_and_bca(null, side):
    observed, a, null = np.array([0.3]), np.array([0.08]), np.array([null])
    for p, interval in [
        (resample.percentile_p(NORMAL, null, side), lambda level: resample.percentile_interval(NORMAL, level, side)),
        (resample.bca_p(observed, NORMAL, a, null, side), lambda level: resample.bca_interval(observed, NORMAL, a, level, side)),
    ]:
        level = 1 - float(p[0])
        if not 0.001 < level < 0.999:
            continue
        low, high = interval(level)[:, 0]
        assert min(abs(low - null[0]), abs(high - null[0])) < 2e-3


def test_acceleration_of_a_mean_is_its_skewness_over_six_root_n():
    x = np.random.default_rng(0).exponential(size=50)
    left_out = ((x.sum() - x) / 49)[:, None]
    d = x - x.mean()
    np.testing.assert_allclose(resample.acceleration(left_out), [(d**3).sum() / (6 * (d**2).sum() ** 1.5)], rtol=1e-10)


def test_p_values_are_never_zero_and_count_ties():
    draws = np.array([[1.0], [2.0], [3.0]])
    assert resample.permutation_p(np.array([10.0]), draws)[0] == 0.25
    assert resample.permutation_p(np.array([3.0]), draws)[0] == 0.5
    assert resample.percentile_p(draws, np.array([0.0]))[0] == 0.5
