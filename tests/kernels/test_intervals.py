"""Tails and limits against R 4.2.2 (pt, pf, pchisq, pnorm, qt), to the precision of its algorithms."""

import numpy as np
import pytest

from bossa.kernels.intervals import f_tail, t_cdf, t_limits, t_quantile, t_tail

INF = np.inf
# R 4.2.2: sprintf("%.17g", pt(-t, df)), pnorm(-t)
PT = [
    (5, 1.55, 0.030816869150655225),
    (400, 1.55, 3.5775386205935161e-05),
    (0.5, 326, 0.30870620142348892),
    (10, 326, 5.1899403264011675e-21),
    (50, 326, 3.0466245744451527e-155),
    (100, 326, 5.4253062681422924e-247),
    (30, 1e6, 6.0100471168316661e-198),
    (1, INF, 0.15865525393145705),
    (37, INF, 5.7255712225245771e-300),
]
# pf(x, df1, df2, lower.tail = FALSE); pchisq(7 x, 7, lower.tail = FALSE)
PF = [
    (5, 5, 30.7, 0.0018242962699258456),
    (1e5, 5, 30.7, 1.1332884096467755e-63),
    (1000, 6, 326, 1.4323228536077173e-206),
    (100, 3, 1e5, 1.2434917513416948e-64),
    (30 / 7, 7, INF, 9.4959725081341848e-05),
    (1300 / 7, 7, INF, 1.6632784025498241e-276),
]


@pytest.mark.parametrize(("t", "df", "p"), PT)
def test_t_tails_agree_with_r_far_out(t, df, p):
    assert t_cdf(-t, df) == pytest.approx(p, rel=1e-12)
    assert t_tail(np.array([t, -t]), df) == pytest.approx([2 * p, 2 * p], rel=1e-12)
    assert t_tail(t, df, "greater") == pytest.approx(p, rel=1e-12)
    assert t_tail(-t, df, "less") == pytest.approx(p, rel=1e-12)
    assert t_tail(-t, df, "greater") == pytest.approx(1 - p, rel=1e-12)


@pytest.mark.parametrize(("x", "df1", "df2", "p"), PF)
def test_f_tails_agree_with_r_far_out(x, df1, df2, p):
    assert f_tail(x, df1, df2) == pytest.approx(p, rel=1e-12)


def test_quantiles_agree_with_r():
    assert t_quantile(0.025, [1.55, INF]) == pytest.approx([-5.752225947039177, -1.9599639845400538], rel=1e-13)
    assert t_quantile(1e-10, 1.55) == pytest.approx(-1531154.9233193786, rel=1e-13)


def test_limits_cover_where_the_test_does_not_reject():
    """A null at a limit has p = 1 − level, for each side."""
    estimate, se, df = np.array([2.0, -1.0]), np.array([0.5, 3.0]), np.array([4.2, INF])
    for level in (0.5, 0.95):
        for null in t_limits(estimate, se, df, level):
            assert t_tail((estimate - null) / se, df) == pytest.approx([1 - level] * 2, rel=1e-10)
        lower, upper = t_limits(estimate, se, df, level, "greater")
        assert t_tail((estimate - lower) / se, df, "greater") == pytest.approx([1 - level] * 2, rel=1e-10)
        assert (upper == INF).all()
        lower, upper = t_limits(estimate, se, df, level, "less")
        assert t_tail((estimate - upper) / se, df, "less") == pytest.approx([1 - level] * 2, rel=1e-10)
        assert (lower == -INF).all()


def test_nan_stays_nan_on_every_side():
    one = np.array([1.0])
    for side in ("two-sided", "less", "greater"):
        assert np.isnan(t_limits(one, one, np.array([np.nan]), 0.95, side)).all()
        assert np.isnan(t_limits(one, one * np.nan, one, 0.95, side)).all()
    assert np.isnan(t_tail(1.0, np.nan))
    assert np.isnan(f_tail(1.0, 2.0, np.nan))
