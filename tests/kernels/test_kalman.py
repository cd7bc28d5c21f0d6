"""Filters and smoothers: the forms agree, and agree with the joint Gaussian that they factorise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.kernels.kalman import (
    LOG_2PI,
    filter_scalar,
    filter_scalars,
    joseph,
    known,
    known_many,
    look,
    running_kish,
    running_median,
    scalar_still,
    scalar_walk,
    smooth_back,
    smooth_scalar,
    square_root,
    steady_variance,
    walk,
)

B_Y = np.array([1.2, 0.9, 1.5, 1.1, 1.8, 2.0])
B_V = np.array([0.3, 0.25, 0.4, 0.2, 0.35, 0.3]) ** 2


def case_b(q=0.05):
    return filter_scalar(B_Y, B_V, np.full(6, q), 0.5, 4.0)


def test_golden_ratio():
    """Q = R: the steady gain is 1/φ, precision ESS φ, Kish's ESS √5."""
    T = 200
    path = filter_scalar(np.zeros(T), np.ones(T), np.ones(T), 0.0, 1.0)
    golden = (1 + math.sqrt(5)) / 2
    assert path.gain[-1] == pytest.approx(0.618033988749895, abs=1e-12)
    assert running_median(np.ones(T))[-1] / path.var[-1] == pytest.approx(golden, abs=1e-12)
    assert running_kish(path.gain)[0][-1] == pytest.approx(2.236067977500, abs=1e-12)
    assert path.var[-1] == pytest.approx(steady_variance(1.0, 1.0), abs=1e-15)


@given(st.integers(0, 10_000), st.floats(0, 2))
@settings(max_examples=40, deadline=None)
def test_weights_of_looks_and_prior_sum_to_one_and_give_the_mean(seed, q):
    rng = np.random.default_rng(seed)
    T = 8
    y, v, m0 = rng.normal(size=T), rng.uniform(0.1, 2, T), 0.7
    path = filter_scalar(y, v, np.full(T, q), m0, 1.5)
    left = np.append(np.cumprod((1 - path.gain)[::-1])[::-1][1:], 1.0)
    w = path.gain * left
    kish, prior = running_kish(path.gain)
    assert w.sum() + prior[-1] == pytest.approx(1.0, abs=1e-14)
    assert w @ y + prior[-1] * m0 == pytest.approx(path.mean[-1], abs=1e-13)
    assert kish[-1] == pytest.approx(w.sum() ** 2 / (w @ w), rel=1e-12)


def test_many_streams_at_once_are_each_stream_alone():
    rng = np.random.default_rng(1)
    y, v, q = rng.normal(size=(20, 5)), rng.uniform(0.1, 1, (20, 5)), rng.uniform(0, 0.3, (20, 5))
    y[3, 2] = np.nan
    together = filter_scalars(y, v, q, 0.1, math.inf)
    for j in range(5):
        alone = filter_scalar(y[:, j], v[:, j], q[:, j], 0.1, math.inf)
        for name in ("mean", "var", "gain", "loglik"):
            np.testing.assert_allclose(getattr(together, name)[:, j], getattr(alone, name), rtol=1e-14, atol=1e-15)


def test_a_missing_look_is_two_forecast_steps():
    y, v, q = B_Y.copy(), B_V, np.full(6, 0.05)
    y[2] = np.nan
    missing = filter_scalar(y, v, q, 0.5, 4.0)
    doubled = filter_scalar(np.delete(y, 2), np.delete(v, 2), np.array([0.05, 0.05, 0.1, 0.05, 0.05]), 0.5, 4.0)
    # specification, case B with batch 2 missing
    assert missing.mean[-1] == pytest.approx(1.6971637623, abs=5e-11)
    assert math.sqrt(missing.var[-1]) == pytest.approx(0.2170469825, abs=5e-11)
    assert missing.mean[-1] == pytest.approx(doubled.mean[-1], rel=1e-15)
    assert missing.loglik.sum() == pytest.approx(doubled.loglik.sum(), rel=1e-14)


def test_fixed_lag_runs_from_filter_to_full_smoother():
    path = case_b()
    full, full_var, _ = smooth_scalar(path)
    none, none_var, _ = smooth_scalar(path, lag=0)
    np.testing.assert_array_equal(none, path.mean)
    np.testing.assert_array_equal(none_var, path.var)
    for lag in (5, 6, 50):
        far, far_var, _ = smooth_scalar(path, lag=lag)
        np.testing.assert_allclose(far, full, rtol=1e-15)
        np.testing.assert_allclose(far_var, full_var, rtol=1e-15)
    some = smooth_scalar(path, lag=2)[0]
    short = filter_scalar(B_Y[:4], B_V[:4], np.full(4, 0.05), 0.5, 4.0)
    assert some[1] == pytest.approx(smooth_scalar(short)[0][1], rel=1e-15)


def test_scalar_smoother_is_the_joint_gaussian():
    T = 6
    prior = 4.0 + 0.05 * np.minimum.outer(np.arange(1, T + 1), np.arange(1, T + 1))
    P = np.linalg.inv(np.linalg.inv(prior) + np.diag(1 / B_V))
    m = P @ (np.linalg.solve(prior, np.full(T, 0.5)) + B_Y / B_V)
    mean, var, lag = smooth_scalar(case_b())
    np.testing.assert_allclose(mean, m, rtol=1e-12)
    np.testing.assert_allclose(var, np.diag(P), rtol=1e-12)
    np.testing.assert_allclose(lag, np.diag(P, 1), rtol=1e-12)


def test_running_median():
    x = np.array([3.0, np.nan, 1.0, 2.0, 10.0, 0.5])
    expected = [np.nanmedian(x[: t + 1]) for t in range(len(x))]
    np.testing.assert_allclose(running_median(x), expected)
    assert np.isnan(running_median(np.array([np.nan]))).all()


# ---------------------------------------------------------------- vectors
def stream(seed, T=5, k=3, r=4):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(r, k)), rng.normal(size=r)) for _ in range(T)]


def test_covariance_square_root_and_information_forms_agree():
    k = 3
    P = np.diag([2.0, 1.0, 0.5])
    m, L, U = np.array([0.3, -0.2, 0.1]), np.linalg.cholesky(P), np.linalg.inv(np.linalg.cholesky(P))
    d, m2, G = U @ m, m, np.linalg.cholesky(np.array([[0.2, 0.05, 0], [0.05, 0.1, 0], [0, 0, 0.3]]))
    for J, z in stream(0, k=k):
        P, L = P + G @ G.T, np.linalg.qr(np.hstack((L, G)).T, mode="r").T
        U, d, _ = walk(U, d, G)
        before = known(U, d)
        U, d, rho2 = look(U, d, J, z)
        now = known(U, d)
        by_information = -0.5 * (len(z) * LOG_2PI + rho2 + now.logdet - before.logdet)
        m, P, by_joseph = joseph(m, P, z, J, np.eye(len(z)))
        m2, L, by_root = square_root(m2, L, z, J, np.eye(len(z)))
        np.testing.assert_allclose(m2, m, atol=1e-14)
        np.testing.assert_allclose(now.mean, m, atol=1e-14)
        np.testing.assert_allclose(L @ L.T, P, atol=1e-14)
        np.testing.assert_allclose(now.V, P, atol=1e-14)
        assert by_joseph == pytest.approx(by_root, abs=1e-12)
        assert by_information == pytest.approx(by_root, abs=1e-12)


def joint(looks, Q, P0, m0):
    """Mean and covariance of all states given all looks, from the dense joint Gaussian."""
    T, k = len(looks), len(m0)
    prior = np.kron(np.ones((T, T)), P0) + np.kron(np.minimum.outer(np.arange(1, T + 1), np.arange(1, T + 1)), Q)
    H = np.zeros((0, T * k))
    z = np.zeros(0)
    for t, one in enumerate(looks):
        if one is None:
            continue
        row = np.zeros((len(one[1]), T * k))
        row[:, t * k : (t + 1) * k] = one[0]
        H, z = np.vstack((H, row)), np.append(z, one[1])
    K = np.linalg.solve(H @ prior @ H.T + np.eye(len(z)), H @ prior).T
    return np.tile(m0, T) + K @ (z - H @ np.tile(m0, T)), prior - K @ H @ prior


def test_smoother_is_the_joint_gaussian_with_a_batch_missing():
    k, P0, m0 = 3, np.diag([2.0, 1.0, 0.5]), np.array([0.3, -0.2, 0.1])
    Q = np.array([[0.2, 0.05, 0], [0.05, 0.1, 0], [0, 0, 0.3]])
    looks = stream(1, T=5, k=k)
    looks[2] = None
    U = np.linalg.inv(np.linalg.cholesky(P0))
    d, steps, G = U @ m0, [], np.linalg.cholesky(Q)
    for one in looks:
        U, d, step = walk(U, d, G)
        steps.append(step)
        if one is not None:
            U, d, _ = look(U, d, *one)
    m, P = joint(looks, Q, P0, m0)
    last = known(U, d)
    mean, V = last.mean, last.V
    for t in range(4, -1, -1):
        here = slice(t * k, (t + 1) * k)
        np.testing.assert_allclose(mean, m[here], atol=5e-14)
        np.testing.assert_allclose(V, P[here, here], atol=5e-14)
        if t:
            mean, V, lag = smooth_back(mean, V, steps[t])
            np.testing.assert_allclose(lag, P[here, (t - 1) * k : t * k], atol=5e-14)


def test_singular_process_noise_leaves_the_other_coefficients_still():
    P0, m0, Q = np.diag([2.0, 1.0, 0.5]), np.zeros(3), np.diag([0.2, 0.0, 0.0])
    looks = stream(2, T=4)
    U, d, steps = np.linalg.inv(np.linalg.cholesky(P0)), np.zeros(3), []
    for J, z in looks:
        U, d, step = walk(U, d, np.array([[math.sqrt(0.2)], [0.0], [0.0]]))
        steps.append(step)
        U, d, _ = look(U, d, J, z)
    m, P = joint(looks, Q, P0, m0)
    mean, V = known(U, d).mean, known(U, d).V
    for t in range(3, 0, -1):
        mean, V, _ = smooth_back(mean, V, steps[t])
    np.testing.assert_allclose(mean, m[:3], atol=1e-13)
    np.testing.assert_allclose(V, P[:3, :3], atol=1e-13)


def naive(P, J, R):
    K = P @ J.T @ np.linalg.inv(J @ P @ J.T + R)
    return (np.eye(len(P)) - K @ J) @ P


def test_stability_with_a_vague_prior_and_precise_looks():
    """Vandermonde of 8 terms, prior variance 1e8, noise 1e-8: the covariance after it, against rational arithmetic."""
    from fractions import Fraction

    x, k = np.linspace(0, 1, 20), 8
    J = np.vander(x, k, increasing=True)
    exact = [[Fraction(0)] * k for _ in range(k)]
    for i in range(k):
        for j in range(k):
            exact[i][j] = sum(Fraction(a) * Fraction(b) for a, b in zip(J[:, i].tolist(), J[:, j].tolist())) * 10**8
        exact[i][i] += Fraction(1, 10**8)
    P = np.array(inverse(exact), dtype=float)

    def error(found):
        return np.abs(found - P).max() / np.abs(P).max()

    start, z = np.eye(k) * 1e8, np.zeros(1)
    by_naive, by_joseph, m, by_root = start, start, np.zeros(k), np.eye(k) * 1e4
    U, d = np.eye(k) * 1e-4, np.zeros(k)
    for row in J:
        H = row[None]
        by_naive = naive(by_naive, H, np.array([[1e-8]]))
        _, by_joseph, _ = joseph(m, by_joseph, z, H, np.array([[1e-8]]))
        _, by_root, _ = square_root(m, by_root, z, H, np.array([[1e-4]]))
        U, d, _ = look(U, d, H / 1e-4, z)
    # the specification's prototype, with other rows: naive 1.4e-2, Joseph 3e-6, square root 2e-7. Here 8e-3, 3e-5, 6e-9, 3e-13
    assert error(by_naive) > 1e-3
    assert error(by_joseph) < 1e-4
    assert error(by_root @ by_root.T) < 2e-7
    assert error(known(U, d).V) < 1e-11


def vandermonde(n, k=8):
    """n equally spaced points, one look each, and the covariance after them by rational arithmetic."""
    from fractions import Fraction

    J = np.vander(np.linspace(0, 1, n), k, increasing=True)
    rows = [[Fraction(a) for a in row] for row in J.tolist()]
    exact = [[10**8 * sum(r[i] * r[j] for r in rows) + (Fraction(1, 10**8) if i == j else 0) for j in range(k)] for i in range(k)]
    return J, np.array(inverse(exact), dtype=float)


def test_joseph_loses_what_rounding_takes_and_square_roots_half_as_many_digits():
    """Specification: naive 1.4e-2, Joseph 3e-6, square root 2e-7. Forty rows give its naive figure.

    Joseph's error is rounding and no more: it moves between 2e-6 and 5e-5 with the number of rows (geometric mean 1.2e-5, whichever way the
    products are ordered), and the same recursion in extended precision is more than a hundred times closer.
    """
    J, P = vandermonde(40)
    largest = np.abs(P).max()
    start, extended = np.eye(8) * 1e8, np.eye(8, dtype=np.longdouble) * 1e8
    by_naive, by_joseph, by_root = start, start, np.eye(8) * 1e4
    for row in J:
        H = row[None]
        by_naive = naive(by_naive, H, np.array([[1e-8]]))
        _, by_joseph, _ = joseph(np.zeros(8), by_joseph, np.zeros(1), H, np.array([[1e-8]]))
        _, by_root, _ = square_root(np.zeros(8), by_root, np.zeros(1), H, np.array([[1e-4]]))
        h = row.astype(np.longdouble)
        K = extended @ h / (h @ extended @ h + np.longdouble("1e-8"))
        left = np.eye(8, dtype=np.longdouble) - np.outer(K, h)
        extended = left @ extended @ left.T + np.longdouble("1e-8") * np.outer(K, K)
    assert np.abs(by_naive - P).max() / largest == pytest.approx(1.4e-2, rel=0.3)
    lost = np.abs(by_joseph - P).max() / largest
    assert lost < 5e-5
    assert np.abs(by_root @ by_root.T - P).max() / largest < 2e-7
    if np.finfo(np.longdouble).eps < 1e-18:
        assert np.abs(extended.astype(float) - P).max() / largest < lost / 100


def inverse(A):
    """Of a matrix of fractions, by Gauss–Jordan."""
    k = len(A)
    M = [row[:] + [type(row[0])(int(i == j)) for j in range(k)] for i, row in enumerate(A)]
    for i in range(k):
        pivot = next(r for r in range(i, k) if M[r][i] != 0)
        M[i], M[pivot] = M[pivot], M[i]
        M[i] = [v / M[i][i] for v in M[i]]
        for r in range(k):
            if r != i and M[r][i] != 0:
                M[r] = [a - M[r][i] * b for a, b in zip(M[r], M[i])]
    return [[float(v) for v in row[k:]] for row in M]


def test_many_states_at_once_are_each_state_alone():
    rng = np.random.default_rng(6)
    U, d = np.triu(rng.normal(size=(6, 3, 3))), rng.normal(size=(6, 3))
    U[1, 2] = 0.0  # short of rank
    U[2] = 0.0
    U[3, :, 1] *= 1e-9  # a coefficient in other units
    mean, V, rank = known_many(U, d)
    for t in range(6):
        alone = known(U[t], d[t])
        np.testing.assert_allclose(mean[t], alone.mean, rtol=1e-13)
        np.testing.assert_allclose(V[t], alone.V, rtol=1e-13)
        assert rank[t] == alone.rank


@given(st.integers(0, 10_000), st.floats(0, 1e20))
@settings(max_examples=30, deadline=None)
def test_running_sums_are_the_recursion(seed, P0):
    """A number that stands still, of whatever prior variance, with looks missing."""
    rng = np.random.default_rng(seed)
    y, v, q = rng.normal(5, 1, 30), rng.uniform(0.01, 10, 30), np.zeros(30)
    y[rng.random(30) < 0.2] = np.nan
    for prior in (P0, math.inf):
        if prior == 0:
            continue
        quick, plain = scalar_still(y, v, 3.0, prior), scalar_walk(y, v, q, 3.0, prior)
        for a, b in zip(quick, plain):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_what_is_not_determined_is_nan_and_contradictions_are_counted():
    J = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    U, d, rest = look(np.zeros((3, 3)), np.zeros(3), J, np.array([1.0, 3.0, 4.0]))
    found = known(U, d)
    assert found.rank == 2
    assert np.isnan(found.mean[:2]).all()
    assert found.mean[2] == pytest.approx(2.0)
    assert found.V[2, 2] == pytest.approx(0.25)
    assert rest + found.rest == pytest.approx(2.0)  # 1 and 3 about their mean 2
    assert known(np.zeros((2, 2)), np.zeros(2)).rank == 0
