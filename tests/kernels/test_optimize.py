"""The search on functions whose minimum is known, with Hessians that are rough, indefinite or missing a direction."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from bossa.kernels.optimize import differences, minimize, newton_step


def point(f, slope):
    def evaluate(x):
        value = f(x)
        return SimpleNamespace(criterion=value, gradient=slope(x), x=x) if np.isfinite(value) else None

    return evaluate


def rosenbrock(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def rosenbrock_slope(x):
    inner = 200 * (x[1] - x[0] ** 2)
    return np.array([-2 * x[0] * inner - 2 * (1 - x[0]), inner])


def test_a_rough_hessian_still_gives_the_last_digit():
    """The Hessian is given 30 % wrong: updates with the steps make up for it."""
    rough = minimize(
        point(rosenbrock, rosenbrock_slope),
        lambda p: 1.3 * np.array([[1200 * p.x[0] ** 2 - 400 * p.x[1] + 2, -400 * p.x[0]], [-400 * p.x[0], 200.0]]),
        np.array([-1.2, 1.0]),
        tol=1e-24,
    )
    assert rough.converged
    np.testing.assert_allclose(rough.x, 1, atol=1e-10)
    assert rough.evaluations < 60


def test_saddles_repel():
    """x⁴ − x² + y²: (0, 0) is a saddle; the search from beside it ends at x² = 1/2."""
    made = minimize(
        point(lambda x: x[0] ** 4 - x[0] ** 2 + x[1] ** 2, lambda x: np.array([4 * x[0] ** 3 - 2 * x[0], 2 * x[1]])),
        lambda p: np.diag([12 * p.x[0] ** 2 - 2, 2.0]),
        np.array([1e-3, 1.0]),
    )
    np.testing.assert_allclose(np.abs(made.x), [np.sqrt(0.5), 0], atol=1e-7)


def test_outside_the_domain_the_step_is_shortened():
    made = minimize(
        point(lambda x: float(x[0] - np.log(x[0])) if x[0] > 0 else np.inf, lambda x: 1 - 1 / x),
        lambda p: np.array([[1e-3]]),
        np.array([3.0]),
    )
    assert made.x[0] == pytest.approx(1, abs=1e-6)


def test_no_start_is_said_and_no_progress_is_not_called_converged():
    assert minimize(point(lambda x: np.inf, lambda x: x), lambda p: np.eye(1), np.zeros(1)) is None
    uphill = minimize(point(lambda x: float(x @ x), lambda x: -2 * x), lambda p: np.eye(2), np.ones(2))
    assert not uphill.converged
    few = minimize(point(rosenbrock, rosenbrock_slope), lambda p: np.eye(2), np.array([-1.2, 1.0]), max_iter=3)
    assert (few.converged, few.iterations) == (False, 3)


def test_newton_step_is_invariant_to_units():
    rng = np.random.default_rng(0)
    A, g, units = rng.standard_normal((3, 3)), rng.standard_normal(3), np.array([1e-3, 1.0, 1e3])
    B = A @ A.T
    step, gain = newton_step(B, g)
    other, same = newton_step(B * np.outer(units, units), g * units)
    np.testing.assert_allclose(step, -np.linalg.solve(B, g), rtol=1e-9)
    np.testing.assert_allclose(other * units, step, rtol=1e-9)
    assert same == pytest.approx(gain, rel=1e-9)
    assert newton_step(np.zeros((2, 2)), np.zeros(2))[1] == 0


def test_differences_of_a_gradient_are_the_hessian():
    x = np.array([0.3, -0.4])
    H = differences(rosenbrock_slope, x, np.full(2, 1e-4))
    np.testing.assert_allclose(H, [[1200 * 0.09 + 160 + 2, -120], [-120, 200]], rtol=1e-6)
