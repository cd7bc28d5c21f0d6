"""Every kind of covariance operator answers as its dense matrix would."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.errors import DataError
from bossa.kernels import covop
from covop_cases import KINDS, operator


@pytest.mark.parametrize("kind", KINDS)
@given(k=st.integers(2, 7), seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_an_operator_is_its_dense_matrix(kind, k, seed):
    op = operator(kind, k, seed)
    P = op.dense()
    rng = np.random.default_rng(seed + 1)
    full = op.rank == op.size
    for v in (rng.standard_normal(op.size), rng.standard_normal((op.size, 3))):
        np.testing.assert_allclose(op.mv(v), P @ v, atol=1e-10 * np.abs(P).max())
        inside = P @ v  # solve is Moore and Penrose's where P is singular
        np.testing.assert_allclose(P @ op.solve(inside), inside, rtol=1e-6, atol=1e-8 * np.abs(inside).max())
        np.testing.assert_allclose(op.sqrt_mv(op.sqrt_t(v)), P @ v, atol=1e-10 * np.abs(P).max())
        W = op.whiten(inside)
        np.testing.assert_allclose((W * W).sum(axis=0), (inside * op.solve(inside)).sum(axis=0), rtol=1e-6)
    np.testing.assert_allclose(op.diag(), np.diag(P), rtol=1e-10)
    values = np.linalg.eigvalsh(P)
    assert op.logdet() == pytest.approx(np.log(values[-op.rank :]).sum(), rel=1e-7, abs=1e-7)
    assert op.sqrt_mv(np.zeros(op.width)).shape == (op.size,)
    assert full or op.rank == np.linalg.matrix_rank(P)
    np.testing.assert_allclose(op.scaled(2.5).dense(), 2.5 * P, rtol=0, atol=1e-14 * np.abs(P).max())  # an element may cancel


@pytest.mark.parametrize("kind", KINDS)
def test_linear_images_and_parts_are_those_of_the_matrix(kind):
    op = operator(kind, 4, 3)
    P = op.dense()
    rng = np.random.default_rng(0)
    for rows in (2, 7):
        L = rng.standard_normal((rows, op.size))
        np.testing.assert_allclose(covop.transformed(op, L).dense(), L @ P @ L.T, atol=1e-12 * np.abs(P).max() * 50)
    index = np.array([2, 0])
    np.testing.assert_allclose(covop.subset(op, index).dense(), P[np.ix_(index, index)], atol=1e-13 * np.abs(P).max() * 10)


@pytest.mark.parametrize(
    ("P", "what"),
    [
        ([[1.0, 2.0], [2.0, 1.0]], "not positive semidefinite"),
        ([[1.0, 0.5], [0.2, 1.0]], "not symmetric"),
        ([[1.0, np.nan], [np.nan, 1.0]], "not finite"),
        ([1.0, 2.0], "not (k, k)"),
    ],
)
def test_what_is_no_covariance_is_refused(P, what):
    with pytest.raises(DataError) as caught:
        covop.from_matrix(P)
    assert what in str(caught.value)


def test_lanczos_gives_the_posterior_of_a_penalised_fit():
    """3000 coefficients with 40 informative rows: 50 steps see the whole of XᵀX."""
    rng = np.random.default_rng(5)
    k, n = 3000, 40
    X = rng.standard_normal((n, k))
    prior = covop.Diag(rng.uniform(0.1, 0.3, k))
    op = covop.krylov(prior, lambda v: X.T @ (X @ v), 50)
    v = rng.standard_normal(k)
    K = prior.d[:, None] * X.T  # observation-space form: P = B − BXᵀ(I + XBXᵀ)⁻¹XB
    S = np.eye(n) + X @ K
    np.testing.assert_allclose(op.mv(v), prior.d * v - K @ np.linalg.solve(S, X @ (prior.d * v)), atol=1e-10)
    np.testing.assert_allclose(op.diag(), prior.d - np.einsum("ij,ji->i", K, np.linalg.solve(S, K.T)), atol=1e-11)


def test_nothing_is_densified_on_the_way():
    """Sampling, density and linear images of 200 000 coefficients: their matrix would be 320 GB."""
    k = 200_000
    rng = np.random.default_rng(0)
    kron = covop.Kron(covop.Diag(np.ones(k // 4)), covop.from_root(np.eye(4)))
    for op in (covop.Diag(np.ones(k)), covop.lowrank(np.ones(k), rng.standard_normal((k, 2))), kron):
        z = op.sqrt_mv(rng.standard_normal(op.width))
        assert np.isfinite([op.logdet(), z @ op.solve(z)]).all()
        assert covop.transformed(op, np.ones((2, k)) * [[1.0], [2.0]]).rank == 1
