"""Simultaneous tests: against R's p.adjust and mvtnorm, exact special cases, and laws that bind p-values to limits."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.errors import OptionError, UnknownOption
from bossa.kernels import multiplicity as m
from bossa.kernels.intervals import t_quantile, t_tail


def compared(statistic, df=20.0, **more):
    statistic = np.asarray(statistic, dtype=float)
    return m.Tests(statistic=statistic, df=np.full(len(statistic), df), **more)


def equicorrelated(k, r=0.5):
    return np.full((k, k), r) + (1 - r) * np.eye(k)


def pairs(k):
    """Correlations of all differences of k equally precise, independent means."""
    C = np.array([np.eye(k)[i] - np.eye(k)[j] for i in range(k) for j in range(i + 1, k)])
    return C @ C.T / 2


# R 4.2.2 p.adjust(c(.001, .012, .013, .04, .2, .5, .03, .9), method)
P = np.array([0.001, 0.012, 0.013, 0.04, 0.2, 0.5, 0.03, 0.9])
P_ADJUST = {
    "holm": [0.008, 0.084, 0.084, 0.16, 0.6, 1.0, 0.15, 1.0],
    "hochberg": [0.008, 0.078, 0.078, 0.16, 0.6, 0.9, 0.15, 0.9],
    "hommel": [0.008, 0.072, 0.078, 0.16, 0.6, 0.9, 0.12, 0.9],
    "bh": [0.008, 0.034666666666666665, 0.034666666666666665, 0.064, 0.26666666666666666, 0.5714285714285714, 0.06, 0.9],
    "by": [
        0.021742857142857144,
        0.09421904761904762,
        0.09421904761904762,
        0.17394285714285715,
        0.7247619047619048,
        1,
        0.16307142857142856,
        1,
    ],
}


@pytest.mark.parametrize("method", P_ADJUST)
def test_stepwise_p_values_are_those_of_p_adjust(method):
    np.testing.assert_allclose(m.step_p(P, method), P_ADJUST[method], rtol=1e-14)


@pytest.mark.parametrize(
    ("q", "k", "df"), [(3.5, 3, 10), (3.5, 3, 1), (20, 3, 1), (1000, 5, 1), (0.5, 4, 2), (5, 10, 57), (30, 20, 5), (4.2, 5, np.inf)]
)
def test_studentized_range_agrees_with_scipy(q, k, df):
    """scipy integrates adaptively, to about 1e-12 here (it is off by 1e-7 and more from df = 500 up)."""
    from scipy.stats import studentized_range

    assert m.range_tail(q, k, df) == pytest.approx(studentized_range.sf(q, k, df), rel=1e-9)


@pytest.mark.parametrize(("t", "df"), [(2.0, 5), (8.5, 333), (40, 3), (0.3, 1), (1.5, 0.7), (6, 1e4), (9, np.inf)])
def test_two_means_are_a_t_test(t, df):
    """The range of two means and one comparison with a control are t-tests, far into the tail."""
    assert m.range_tail(np.sqrt(2) * t, 2, df) == pytest.approx(float(t_tail(t, df)), rel=1e-10)
    for loading in (0.0, 0.7):
        assert m._dunnett_tail(t, df, np.array([loading]), True) == pytest.approx(float(t_tail(t, df)), rel=1e-10)


# R 4.2.2, mvtnorm 1.1-3: 1 − pmvt(…, GenzBretz(abseps = 1e-9)), error below 1e-6
CONTROL = (2.5, 20.0, equicorrelated(4), "two-sided", 0.06798692290)
CYCLE = np.array([[1, -0.5, 0], [-0.5, 1, -0.5], [0, -0.5, 1]])
UNEQUAL = np.outer([0.2, 0.5, 0.8], [0.2, 0.5, 0.8]) + np.diag(1 - np.array([0.2, 0.5, 0.8]) ** 2)


@pytest.mark.parametrize(
    ("t", "df", "R", "side", "p", "product"),
    [
        (*CONTROL, True),
        (2.3, 8.0, UNEQUAL, "two-sided", 0.12901635836, True),
        (1.3, 8.0, UNEQUAL, "greater", 0.27295194914, True),
        (2.2, 15.0, CYCLE, "two-sided", 0.11060003524, False),
        (2.2, 15.0, CYCLE, "greater", 0.06486918745, False),
    ],
)
def test_multivariate_t_agrees_with_mvtnorm(t, df, R, side, p, product):
    tests = compared(np.full(len(R), t), df, correlation=R, side=side)
    by_lattice = m.adjust(tests, "mvt", 0.95)
    assert by_lattice.p_value[0] == pytest.approx(p, abs=max(1e-6, 5 * by_lattice.error))
    assert by_lattice.error < 2e-4
    exact = m.adjust(tests, "dunnett", 0.95)
    assert (m.loadings(R) is not None) is product
    assert exact.p_value[0] == pytest.approx(p, abs=1e-6 if product else 5 * by_lattice.error)
    assert exact.error == 0.0 if product else exact.error > 0.0


def test_dunnett_quantile_has_its_coverage():
    """1 − pmvt(±2.65102958957, df = 20, corr = .5 for 4) = .0500000 by mvtnorm 1.1-3 (its own qmvt stops at 2.65093)."""
    found = m.adjust(compared(np.zeros(4), 20.0, correlation=equicorrelated(4)), "dunnett", 0.95)
    assert found.critical[0] == pytest.approx(2.65102958957, abs=1e-9)


def test_lattice_reproduces_tukey():
    """All pairs of equal means: the correlations are singular, and the answer is the studentized range."""
    tests = compared([1.0, 2.0, 3.0, 4.0, 6.0, 8.0], 20.0, correlation=pairs(4), contrast="pairwise")
    exact, drawn = m.adjust(tests, "tukey", 0.95), m.adjust(tests, "mvt", 0.95)
    np.testing.assert_allclose(drawn.p_value, exact.p_value, atol=3e-4)
    np.testing.assert_allclose(drawn.p_value[-1], exact.p_value[-1], rtol=1e-2)  # 1e-7: a tail is not lost
    np.testing.assert_allclose(drawn.critical, exact.critical, rtol=1e-3)


@pytest.mark.parametrize("side", ["two-sided", "less", "greater"])
@pytest.mark.parametrize("method", m.METHODS)
def test_limits_exclude_the_null_exactly_when_p_is_small(method, side):
    """A statistic at its critical value has the adjusted p-value 1 − level, for every single-step method; families of 4."""
    R = equicorrelated(4)
    contrast = "pairwise" if method == "tukey" else "treatment"
    zero = m.adjust(compared(np.zeros(4), 11.0, correlation=R, side=side, contrast=contrast), method, 0.9)
    at = zero.critical[0] * (-1.0 if side == "less" else 1.0)
    p = m.adjust(compared([at, 0.0, 0.0, 0.0], 11.0, correlation=R, side=side, contrast=contrast), method, 0.9).p_value[0]
    if method in m.STEPWISE:
        harmonic = sum(1 / i for i in range(1, 5))
        assert p == pytest.approx(0.1 * (harmonic if method == "by" else 1.0), rel=1e-9)
        assert "limits by Bonferroni" in zero.note
    else:
        assert p == pytest.approx(0.1, rel=1e-6)


@given(st.lists(st.floats(0, 8), min_size=2, max_size=7), st.sampled_from([3.0, 30.0, np.inf]))
@settings(max_examples=25, deadline=None)
def test_methods_are_ordered_as_theory_says(t, df):
    """unadjusted ≤ mvt ≤ Šidák ≤ Bonferroni, Hommel ≤ Hochberg ≤ Holm ≤ Bonferroni, mvt ≤ Scheffé; the order of rows does not matter."""
    tests = compared(t, df, correlation=equicorrelated(len(t)))
    chains = [["none", "dunnett", "sidak", "bonferroni"], ["hommel", "hochberg", "holm", "bonferroni"], ["dunnett", "scheffe"]]
    p = {name: m.adjust(tests, name, 0.95).p_value for name in {n for chain in chains for n in chain}}
    for less, more in [pair for chain in chains for pair in pairwise(chain)]:
        assert (p[less] <= p[more] * (1 + 1e-9) + 1e-12).all(), (less, more)
    back = m.adjust(compared(t[::-1], df, correlation=equicorrelated(len(t))), "hommel", 0.95).p_value[::-1]
    np.testing.assert_array_equal(back, p["hommel"])


def test_families_are_adjusted_apart_and_missing_rows_do_not_count():
    statistic, family = np.array([2.0, np.nan, 3.0, 2.0, 3.0, 2.5]), np.array([0, 0, 0, 1, 1, 2])
    found = m.adjust(compared(statistic, 9.0, family=family), "bonferroni", 0.95)
    np.testing.assert_allclose(found.p_value[[0, 2]], 2 * t_tail(statistic[[0, 2]], 9.0), rtol=1e-12)
    assert np.isnan(found.p_value[1])
    assert np.isnan(found.critical[1])
    assert found.p_value[5] == pytest.approx(float(t_tail(2.5, 9.0)))
    assert found.critical[5] == pytest.approx(float(-t_quantile(0.025, np.array(9.0))))
    assert "2 tests" in found.note


def test_one_comparison_needs_no_adjustment():
    for method in set(m.METHODS) - {"scheffe"}:
        found = m.adjust(compared([2.0], 9.0, correlation=np.ones((1, 1)), contrast="pairwise"), method, 0.95)
        assert found.method == "none"
        assert found.p_value[0] == pytest.approx(float(t_tail(2.0, 9.0)))


def test_methods_that_do_not_apply_give_way_to_sidak_and_say_so():
    for tests, method in [
        (compared([1, 2], contrast="treatment"), "tukey"),
        (compared([1, 2], contrast="pairwise", side="less"), "tukey"),
        (compared([1, 2]), "mvt"),
    ]:
        found = m.adjust(tests, method, 0.95)
        assert found.method == "sidak"
        assert "Šidák's is used" in found.note


def test_the_lattice_is_seeded():
    tests = compared([2.0, 1.0, 0.5], correlation=CYCLE)
    once, again = (m.adjust(tests, "mvt", 0.95).p_value for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_auto_follows_the_contrast():
    assert [m.resolve_method("auto", c) for c in ("pairwise", "treatment", "sequential", "effect", "poly", None)] == [
        "tukey",
        "dunnett",
        "mvt",
        "bh",
        "none",
        "none",
    ]
    assert m.resolve_method("FDR", None) == "bh"
    with pytest.raises(UnknownOption, match="Did you mean 'tukey'"):
        m.resolve_method("tuky", None)
    with pytest.raises(OptionError):
        m.resolve_method(3, None)  # type: ignore[arg-type]


def test_infinite_statistics_do_not_break_the_integrals():
    found = m.adjust(compared([np.inf, 1.0, 2.0], 8.0, correlation=equicorrelated(3), contrast="pairwise"), "tukey", 0.95)
    assert found.p_value[0] == 0.0
    assert np.isfinite(found.p_value).all()
