"""Incremental Gauss–Newton and its two covariances, on linear problems with a closed form and on exponential decay."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from bossa.errors import FitFailed, UnknownOption
from bossa.kernels import covop
from bossa.kernels.variational import Problem, analyse, laplace


def linear(n=12, k=4, seed=0):
    rng = np.random.default_rng(seed)
    A, y = rng.standard_normal((n, k)), rng.standard_normal(n)
    y[3] = np.nan  # not seen
    B = covop.from_root(rng.standard_normal((k, k)) + np.eye(k))
    m0 = rng.standard_normal(k)
    return Problem(lambda b: A @ b - y, lambda b: A, m0, B), A, y, B.dense(), m0


@pytest.mark.parametrize("inner", ["chol", "cg"])
def test_a_linear_problem_is_solved_in_one_outer_step(inner):
    problem, A, y, B, m0 = linear()
    found = analyse(problem, np.zeros(4), outer=1, inner=inner)
    seen = ~np.isnan(y)
    H = np.linalg.inv(B) + A[seen].T @ A[seen]
    exact = np.linalg.solve(H, np.linalg.solve(B, m0) + A[seen].T @ y[seen])
    np.testing.assert_allclose(found.mean, exact, rtol=1e-10)
    np.testing.assert_allclose(found.gauss_newton.dense(), np.linalg.inv(H), rtol=1e-11)
    np.testing.assert_allclose(laplace(problem, found).dense(), np.linalg.inv(H), rtol=1e-7)
    wide = linear(9, 40)  # fewer rows than parameters
    again = analyse(wide[0], np.zeros(40), outer=1, inner=inner)
    seen = ~np.isnan(wide[2])
    K = wide[3] @ wide[1][seen].T @ np.linalg.inv(wide[1][seen] @ wide[3] @ wide[1][seen].T + np.eye(seen.sum()))
    np.testing.assert_allclose(again.mean, wide[4] + K @ (wide[2][seen] - wide[1][seen] @ wide[4]), rtol=1e-6, atol=1e-8)


def decay(prior=False, seed=1):
    rng = np.random.default_rng(seed)
    x, s = np.linspace(0, 3, 15), 0.15
    y = 2 * np.exp(-0.8 * x) + s * rng.standard_normal(15)

    def residual(b):
        return (b[0] * np.exp(-b[1] * x) - y) / s

    def jacobian(b):
        e = np.exp(-b[1] * x)
        return np.column_stack((e, -b[0] * x * e)) / s

    cov = covop.Diag(np.array([0.5, 0.1])) if prior else None
    return Problem(residual, jacobian, np.array([1.5, 1.0]) if prior else None, cov)


@pytest.mark.parametrize("inner", ["chol", "cg"])
@pytest.mark.parametrize("prior", [False, True])
def test_a_nonlinear_problem_ends_where_the_gradient_is_zero(prior, inner):
    problem = decay(prior)
    found = analyse(problem, np.array([1.0, 1.0]), inner=inner, tol=1e-12)
    assert found.converged
    assert found.gradient < 1e-10
    assert list(found.trace) == sorted(found.trace, reverse=True) or np.ptp(found.trace[-2:]) < 1e-12
    best = optimize.minimize(
        problem.cost, found.mean + 0.1, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-14, "maxiter": 2000}
    )
    np.testing.assert_allclose(found.mean, best.x, atol=1e-6)


@pytest.mark.parametrize("prior", [False, True])
def test_the_two_covariances_are_the_two_curvatures(prior):
    problem = decay(prior)
    found = analyse(problem, np.array([1.0, 1.0]))
    A = problem.jacobian(found.mean)
    B_inv = np.diag([2.0, 10.0]) if prior else 0.0
    np.testing.assert_allclose(found.gauss_newton.dense(), np.linalg.inv(A.T @ A + B_inv), rtol=1e-10)
    r, x = problem.residual(found.mean), np.linspace(0, 3, 15)
    e = np.exp(-found.mean[1] * x) / 0.15
    second = np.array([[0, -(r * x * e).sum()], [-(r * x * e).sum(), found.mean[0] * (r * x * x * e).sum()]])
    exact = np.linalg.inv(A.T @ A + second + B_inv)
    np.testing.assert_allclose(laplace(problem, found).dense(), exact, rtol=1e-6)
    assert np.abs(exact / found.gauss_newton.dense() - 1).max() > 1e-3


def test_the_gradient_passes_taylors_test():
    """J(b + ah) − J(b) − a gᵀh falls with a²."""
    problem, b = decay(True), np.array([1.2, 0.9])
    h = np.array([0.3, -0.4])
    g = problem.gradient(b) @ h
    left = [abs(problem.cost(b + a * h) - problem.cost(b) - a * g) / a**2 for a in (1e-2, 1e-3, 1e-4)]
    np.testing.assert_allclose(left, left[1], rtol=0.05)


def test_jacobian_and_adjoint_agree():
    """⟨Jv, w⟩ = ⟨v, Jᵀw⟩, the adjoint being what the gradient uses."""
    rng, problem, b = np.random.default_rng(0), decay(), np.array([1.2, 0.9])
    A, v, w = problem.jacobian(b), rng.standard_normal(2), rng.standard_normal(15)
    assert (A @ v) @ w == pytest.approx(v @ (A.T @ w), rel=1e-12)
    h = 1e-6
    np.testing.assert_allclose((problem.residual(b + h * v) - problem.residual(b - h * v)) / (2 * h), A @ v, rtol=1e-7, atol=1e-8)


def test_what_cannot_be_solved_is_said():
    flat = Problem(lambda b: np.array([b[0] - 1.0]), lambda b: np.array([[1.0, 0.0]]))
    with pytest.raises(FitFailed, match="not determined"):
        analyse(flat, np.zeros(2))
    with pytest.raises(UnknownOption, match="cg"):
        analyse(flat, np.zeros(2), inner="gc")
