"""Least squares and rank: against exact rational arithmetic, numpy.linalg and R's pivot rule."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.kernels import linalg


def exact_lstsq(X, y):
    """Normal equations solved in rational arithmetic: every float is a rational, so this is the exact answer."""
    X, y = [[Fraction(v) for v in row] for row in X.tolist()], [Fraction(v) for v in y.tolist()]
    p = len(X[0])
    A = [[sum(r[i] * r[j] for r in X) for j in range(p)] + [sum(r[i] * v for r, v in zip(X, y))] for i in range(p)]
    for i in range(p):
        pivot = next(k for k in range(i, p) if A[k][i])
        A[i], A[pivot] = A[pivot], A[i]
        A[i] = [v / A[i][i] for v in A[i]]
        for k in range(p):
            if k != i and A[k][i]:
                A[k] = [a - A[k][i] * b for a, b in zip(A[k], A[i])]
    return np.array([float(row[p]) for row in A])


def columns(n, seed=0):
    rng = np.random.default_rng(seed)
    return np.column_stack((np.ones(n), rng.normal(40, 10, n), rng.integers(0, 2, n), rng.gamma(2.0, 1e6, n))), rng


@pytest.mark.parametrize("n", [30, 2 * linalg.GRAM_ROWS])
@pytest.mark.parametrize("weighted", [False, True])
def test_both_paths_agree_with_numpy(n, weighted):
    X, rng = columns(n)
    y, w = rng.normal(size=n), rng.uniform(0.1, 5, n) if weighted else None
    root = np.ones(n) if w is None else np.sqrt(w)
    found = linalg.lstsq(X, y, w)
    scale = np.sqrt(np.diag(np.linalg.inv((X * root[:, None] ** 2).T @ X)))
    np.testing.assert_allclose(found.coef / scale, np.linalg.lstsq(X * root[:, None], y * root, rcond=None)[0] / scale, atol=1e-11)
    np.testing.assert_allclose(found.R.T @ found.R, (X * root[:, None] ** 2).T @ X, rtol=1e-11)
    assert found.kept.all()


def test_ill_conditioned_polynomial_is_as_good_as_its_condition_allows():
    """y on x … x⁵, x = 0 … 20 (NIST Wampler's columns): condition ~ 1e6 scaled, so ten digits."""
    x = np.arange(21.0)
    X, y = np.vander(x, 6, increasing=True), np.cos(x)
    np.testing.assert_allclose(linalg.lstsq(X, y).coef, exact_lstsq(X, y), rtol=1e-9)


@pytest.mark.parametrize("n", [12, 6000])
def test_later_of_dependent_columns_are_dropped(n):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, n))
    X = np.column_stack((np.ones(n), a, np.zeros(n), a * 1e8 - 3, b, a + b * 1e-3, np.full(n, 7.0)))
    expected = [True, True, False, False, True, False, False]
    assert linalg.independent_columns(X).tolist() == expected
    found = linalg.lstsq(X, a)
    assert found.kept.tolist() == expected
    np.testing.assert_allclose(found.coef, [0, 1, 0], atol=1e-12)


def test_tolerance_is_relative_to_what_earlier_columns_leave():
    rng = np.random.default_rng(2)
    a, noise = rng.normal(size=(2, 50))
    for left, kept in [(1e-9, True), (1e-13, False)]:
        assert linalg.independent_columns(np.column_stack((a, a + left * noise))).tolist() == [True, kept]


def test_more_columns_than_rows_keeps_as_many_as_rows():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(4, 7))
    found = linalg.lstsq(X, X @ np.arange(7.0))
    assert found.kept.tolist() == [True] * 4 + [False] * 3
    np.testing.assert_allclose(X[:, :4] @ found.coef, X @ np.arange(7.0), rtol=1e-10)


def test_leverage_is_the_diagonal_of_the_hat_matrix():
    X, rng = columns(40, 4)
    w = rng.uniform(0.1, 3, 40)
    R = linalg.lstsq(X, X[:, 1], w).R
    A = X * np.sqrt(w)[:, None]
    np.testing.assert_allclose(linalg.leverage(X, R, w), np.diag(A @ np.linalg.pinv(A)), rtol=1e-9)
    assert linalg.leverage(X, R, w).sum() == pytest.approx(4, rel=1e-12)


def test_row_blocks_cover_every_row_once():
    for n, p in [(1, 1), (511, 300), (200_001, 3)]:
        assert np.array_equal(np.concatenate([np.arange(n)[s] for s in linalg.row_blocks(n, p)]), np.arange(n))


def test_weighted_gram_by_blocks():
    X, rng = columns(70_000, 5)
    w, y = rng.uniform(size=(2, 70_000))
    G, c = linalg.weighted_gram(X, w, y)
    np.testing.assert_allclose(G, X.T @ (X * w[:, None]), rtol=1e-12)
    np.testing.assert_allclose(c, X.T @ (w * y), rtol=1e-12)


def test_spd_solves_do_not_mind_units():
    rng = np.random.default_rng(6)
    B = rng.normal(size=(9, 5))
    scale = np.array([1e-9, 1.0, 1e7, 3.0, 1e-3])
    A = (B.T @ B) * np.outer(scale, scale)
    x = rng.normal(size=5) / scale
    np.testing.assert_allclose(linalg.solve_spd(A, A @ x), x, rtol=1e-11)
    np.testing.assert_allclose(linalg.inverse_spd(A) * np.outer(scale, scale), np.linalg.inv(B.T @ B), rtol=1e-10)
    with pytest.raises(np.linalg.LinAlgError):
        linalg.inverse_spd(np.array([[1.0, 2.0], [2.0, 1.0]]))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), power=st.lists(st.integers(-40, 40), min_size=4, max_size=4))
def test_scaling_columns_by_powers_of_two_scales_coefficients_exactly(seed, power):
    X, rng = columns(25, seed)
    y, scale = rng.normal(size=25), 2.0 ** np.array(power)
    once, scaled = linalg.lstsq(X, y), linalg.lstsq(X * scale, y)
    np.testing.assert_allclose(scaled.coef * scale, once.coef, rtol=1e-9, atol=1e-14 * np.abs(once.coef).max())
    assert scaled.kept.tolist() == once.kept.tolist()
