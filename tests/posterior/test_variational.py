"""Incremental Gauss–Newton and its two covariances, on linear problems with a closed form and on exponential decay."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import optimize

from bossa import normal
from bossa.assimilate import least_squares
from bossa.errors import ConvergenceWarning, DataError, FitFailed, OptionError, UnknownOption
from bossa.kernels import covop
from bossa.kernels.variational import Problem, analyse, laplace
from bossa.state.posterior import Posterior


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


# ---------------------------------------------------------------- the door: a Posterior of any model
def curve(seed=1):
    rng = np.random.default_rng(seed)
    x, s = np.linspace(0, 3, 15), 0.15
    y = 2 * np.exp(-0.8 * x) + s * rng.standard_normal(15)

    def residual(b):
        return (b[0] * np.exp(-b[1] * x) - y) / s

    def jacobian(b):
        e = np.exp(-b[1] * x)
        return np.column_stack((e, -b[0] * x * e)) / s

    return residual, jacobian


@pytest.mark.parametrize("adapter", ["laplace", "gauss_newton"])
def test_least_squares_is_a_posterior_like_any_other(adapter):
    residual, jacobian = curve()
    prior = {"height": normal(1.5, 0.5**0.5), "rate": normal(1.0, 0.1**0.5)}
    post = least_squares(residual, jacobian, [1.0, 1.0], prior=prior, names=["height", "rate"], adapter=adapter, tol=1e-12)
    problem = decay(True)
    found = analyse(problem, np.array([1.0, 1.0]), tol=1e-12)
    np.testing.assert_allclose(post.mean, found.mean, rtol=1e-12)
    cov = found.gauss_newton if adapter == "gauss_newton" else laplace(problem, found)
    np.testing.assert_allclose(post.cov.dense(), cov.dense(), rtol=1e-10)
    assert post.information().dfs < 2
    assert Posterior.from_dict(post.to_dict()).hash == post.hash
    assert post.provenance.J_star == pytest.approx(found.J_star)
    assert "normal, of every number" in str(post.explain())


def test_flat_priors_and_some_that_are():
    residual, jacobian = curve()
    free = least_squares(residual, jacobian, [1.0, 1.0])
    found = optimize.least_squares(residual, [1.0, 1.0], jac=jacobian, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    np.testing.assert_allclose(free.mean, found.x, rtol=1e-7)
    assert free.names == ("b[0]", "b[1]")
    some = least_squares(residual, jacobian, [1.0, 1.0], prior={"b[1]": normal(0.8, 0.01)})
    assert abs(some.mean[1] - 0.8) < abs(free.mean[1] - 0.8)
    assert some.prior.cov.diag()[0] == np.inf


def test_a_solver_of_ones_own_is_taken_at_its_word_and_checked():
    residual, jacobian = curve()

    def simplex(cost, start, data):
        return optimize.minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": data}).x

    ours = least_squares(residual, jacobian, [1.0, 1.0])
    theirs = least_squares(residual, jacobian, [1.0, 1.0], solver=simplex, data=1000)
    np.testing.assert_allclose(theirs.mean, ours.mean, atol=1e-6)
    np.testing.assert_allclose(theirs.cov.dense(), ours.cov.dense(), rtol=1e-4)
    with pytest.warns(ConvergenceWarning, match="from the minimum"):
        least_squares(residual, jacobian, [1.0, 1.0], solver=simplex, data=10)
    with pytest.warns(ConvergenceWarning, match="not finished"):
        least_squares(residual, jacobian, [1.0, 1.0], outer=1)


def test_a_basis_is_a_smaller_problem():
    """b = b₀ + Φc: the answer lies in the span, and is that of the problem written in c."""
    rng = np.random.default_rng(3)
    A, y, Phi, b0 = rng.standard_normal((30, 8)), rng.standard_normal(30), rng.standard_normal((8, 2)), rng.standard_normal(8)
    post = least_squares(lambda b: A @ b - y, lambda b: A, b0, basis=Phi, prior=normal(0, 2))
    H = Phi.T @ A.T @ A @ Phi + np.eye(2) / 4
    np.testing.assert_allclose(post.mean, np.linalg.solve(H, Phi.T @ A.T @ (y - A @ b0)), rtol=1e-9)
    assert post.names == ("c[0]", "c[1]")
    field = post.transform(Phi, offset=b0)
    np.testing.assert_allclose(field.mean, b0 + Phi @ post.mean, rtol=1e-12)


MISTAKES = [
    ({"adapter": "laplce"}, UnknownOption, "laplace"),
    ({"inner": "gmres"}, UnknownOption, "chol"),
    ({"outer": 0}, OptionError, "outer=0"),
    ({"names": ["a"]}, OptionError, "1 names for 2"),
    ({"prior": {"b[0]": normal(0, 1), "sigma": 2.0}}, OptionError, "units of their sd"),
    ({"prior": {"b[0]": normal(0, 1)}, "inner": "cg"}, OptionError, "proper prior"),
    ({"start": [np.nan, 1.0]}, DataError, "start"),
    ({"start": [1.0]}, DataError, "Jacobian"),
    ({"basis": np.ones((3, 1))}, DataError, "basis has shape"),
    ({"solver": lambda cost, start, data: [1.0]}, DataError, "returned shape"),
]


@pytest.mark.parametrize("case", range(len(MISTAKES)))
def test_mistakes_say_what_to_do(case):
    changes, error, words = MISTAKES[case]
    x = np.linspace(0, 1, 5)
    given = {"residual": lambda b: b[0] + x - 1, "jacobian": lambda b: np.column_stack((np.ones(5), x)), "start": [1.0, 1.0]} | changes
    with pytest.raises(error, match=re.escape(words)):
        least_squares(given.pop("residual"), given.pop("jacobian"), given.pop("start"), **given)


def test_a_wrong_jacobian_is_said():
    x = np.linspace(0, 2, 9)
    y = 2 * np.exp(-x) + 0.05 * np.cos(9 * x)

    def residual(b):
        return (b[0] * np.exp(-b[1] * x) - y) / 0.1

    def jacobian(b):
        return np.column_stack((np.exp(-b[1] * x), -b[0] * x * np.exp(-b[1] * x))) / 0.1

    def wrong(b):
        return 1.3 * jacobian(b)

    right = least_squares(residual, jacobian, [1.0, 1.0], adapter="gauss_newton")
    with pytest.warns(ConvergenceWarning, match="not the derivative"):
        other = least_squares(residual, wrong, [1.0, 1.0], adapter="gauss_newton")
    np.testing.assert_allclose(other.mean, right.mean, rtol=1e-6)
    np.testing.assert_allclose(other.sd(), right.sd() / 1.3, rtol=1e-5)
