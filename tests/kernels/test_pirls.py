"""Marginal likelihoods of generalized mixed models against their definition with dense matrices and against integrals; every gradient
against differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from attrs import evolve

from bossa.kernels import blocks
from bossa.kernels.family import BINOMIAL, GAMMA, GAUSSIAN, INVERSE_GAUSSIAN, POISSON, negbinomial
from bossa.kernels.link import resolve_link
from bossa.kernels.pirls import Mixed, find_mode, hermite, laplace, quadrature
from bossa.kernels.response import at_shape, bend, bend_slopes, constants, make_response, shape_slopes
from bossa.kernels.systems import Blocked, OneFactor, system
from mixed_cases import re_term

N = 60
RNG = np.random.default_rng(3)
x = RNG.standard_normal(N)
SLOPE = np.column_stack((np.ones(N), x))
g = np.concatenate((np.arange(6), RNG.integers(0, 6, N - 6)))
h = np.concatenate((np.arange(4), RNG.integers(0, 4, N - 4)))
i = np.concatenate((np.arange(3), RNG.integers(0, 3, N - 3)))
STRUCTURES = {
    "intercept": [re_term("g", g, np.ones(N))],
    "slope": [re_term("g", g, SLOPE)],
    "uncorrelated": [re_term("g", g, SLOPE, mask=np.eye(2, dtype=bool))],
    "one per row": [re_term("row", np.arange(N), np.ones(N))],
    "nested": [re_term("h:g", g, np.ones(N)), re_term("h", g // 2, SLOPE)],
    "crossed": [re_term("g", g, SLOPE), re_term("h", h, np.ones(N))],
    "three factors": [re_term("g", g, SLOPE), re_term("h", h, np.ones(N)), re_term("i", i, SLOPE)],
}
OFFSET = 0.2 * RNG.standard_normal(N)
TRIALS = RNG.integers(1, 6, N).astype(float)
COUNTS = RNG.integers(1, 4, N).astype(float)
ETA = 0.4 + 0.3 * x + 0.6 * RNG.standard_normal(6)[g]
MU = np.exp(ETA)
RESPONSES = {
    "binomial": RNG.binomial(TRIALS.astype(int), 1 / (1 + np.exp(-ETA))) / TRIALS,
    "poisson": RNG.poisson(MU) + 0.0,
    "negbinomial": RNG.negative_binomial(2.0, 2.0 / (2.0 + MU)) + 0.0,
    "gamma": MU * RNG.gamma(4.0, 0.25, N),
    "inverse_gaussian": RNG.wald(MU, 8.0),
    "gaussian": MU + 0.2 * RNG.standard_normal(N) + 1.0,
}
# family, link, β (with an η that is inside the range), γ or None, scale of the random effects
KINDS = {
    "binomial-logit": (BINOMIAL, "logit", [0.3, 0.2], None, 0.7),
    "binomial-probit": (BINOMIAL, "probit", [0.2, 0.1], None, 0.5),
    "binomial-cloglog": (BINOMIAL, "cloglog", [-0.3, 0.1], None, 0.5),
    "binomial-cauchit": (BINOMIAL, "cauchit", [0.2, 0.2], None, 0.5),
    "poisson-log": (POISSON, "log", [0.4, 0.2], None, 0.5),
    "poisson-sqrt": (POISSON, "sqrt", [1.9, 0.02], None, 0.1),
    "negbinomial-log": (negbinomial(), "log", [0.4, 0.2], 0.6, 0.5),
    "negbinomial-sqrt": (negbinomial(), "sqrt", [1.9, 0.02], 0.6, 0.1),
    "gamma-log": (GAMMA, "log", [0.4, 0.2], -1.2, 0.5),
    "gamma-inverse": (GAMMA, "inverse", [1.6, -0.05], -1.2, 0.1),
    "inverse_gaussian-log": (INVERSE_GAUSSIAN, "log", [0.4, 0.2], -1.8, 0.4),
    "inverse_gaussian-inverse_squared": (INVERSE_GAUSSIAN, "inverse_squared", [1.8, -0.05], -1.8, 0.1),
    "gaussian-log": (GAUSSIAN, "log", [0.9, 0.1], -1.0, 0.2),
    "gaussian-inverse": (GAUSSIAN, "inverse", [0.5, -0.01], -1.0, 0.02),
}


def made(kind, structure, *, freq=None, blocked=False, count=None):
    """Mixed, β, θ, γ: rows in the system's order."""
    family, link, beta, shape, size = KINDS[kind]
    lay = blocks.layout(STRUCTURES[structure])
    s = Blocked(lay, np.arange(N)) if blocked else system(lay, count)
    weights = TRIALS if family is BINOMIAL else None
    response = make_response(family, resolve_link(link), RESPONSES[family.name], weights, freq).rows(s.order)
    model = Mixed(s, response, np.ascontiguousarray(SLOPE[s.order].T), (0.1 * OFFSET if shape is not None else OFFSET)[s.order])
    T = []
    for grouping in lay.groupings:
        full = size * (np.eye(grouping.k) + 0.3 * np.tril(np.ones((grouping.k, grouping.k)), -1))
        mask = np.zeros_like(full)
        mask[grouping.rows, grouping.cols] = 1.0
        T.append(full * mask)
    return model, np.array(beta), blocks.theta_of(lay, T), shape


def minus_two_constant(model, shape):
    response, phi = (model.response, 1.0) if shape is None else at_shape(model.response, shape)
    return -2.0 * model.system.total(constants(response, phi))


def dense(kind, structure, model, theta):
    """Z (n, q) in the model's row order, Λ (q, q)."""
    terms, lay = STRUCTURES[structure], model.system.lay
    columns, T = [], dict(zip([grouping.factor for grouping in lay.groupings], blocks.factors(lay, theta)))
    factors = []
    for term in terms:
        G, k = len(term.levels), term.Z.shape[1]
        Z = np.zeros((N, G, k))
        Z[np.arange(N), term.group] = term.Z
        columns.append(Z.reshape(N, -1)[model.system.order])
        factors.append(np.kron(np.eye(G), T[term.factor]))
    q = sum(len(f) for f in factors)
    Lambda, at = np.zeros((q, q)), 0
    for f in factors:
        Lambda[at : at + len(f), at : at + len(f)] = f
        at += len(f)
    return np.concatenate(columns, axis=1), Lambda


def dense_laplace(kind, structure, model, beta, theta, shape):
    """−2ℓ + |u|² + log|ΛᵀZᵀWZΛ + I| with whole matrices; the mode by damped Newton steps with the observed information."""
    response, phi = (model.response, 1.0) if shape is None else at_shape(model.response, shape)
    Z, Lambda = dense(kind, structure, model, theta)
    ZL = Z @ Lambda
    fixed = model.offset + beta @ model.XT
    u = np.zeros(ZL.shape[1])
    for _ in range(200):
        at = bend(response, fixed + ZL @ u, phi)
        gradient = ZL.T @ at.score - u
        w = np.where(at.observed > 0, at.observed, at.expected)
        step = np.linalg.solve(ZL.T @ (w[:, None] * ZL) + np.eye(len(u)), gradient)
        if np.abs(step).max() < 1e-13:
            break
        u = u + step
    weight = at.observed if model.observed else at.expected
    logdet = np.linalg.slogdet(ZL.T @ (weight[:, None] * ZL) + np.eye(len(u)))[1]
    return -2.0 * at.loglik.sum() + u @ u + logdet


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("kind", ["binomial-logit", "binomial-probit", "poisson-log", "gamma-log"])
def test_laplace_is_its_definition(kind, structure):
    """To 1e-9: both find the mode to rounding, D ~ 100."""
    model, beta, theta, shape = made(kind, structure, freq=COUNTS)
    at = laplace(model, beta, theta, model.system.zero(), shape)
    assert float(at.deviance) == pytest.approx(dense_laplace(kind, structure, model, beta, theta, shape), abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_bend_as_their_log_density(kind):
    """Score, observed information and its slope are the derivatives of the family's log-density by η, and by the dispersion parameter;
    the expected information is the mean of the observed one."""
    model, beta, _, shape = made(kind, "intercept", freq=COUNTS)
    response, phi = (model.response, 1.0) if shape is None else at_shape(model.response, shape)
    eta, step = model.offset + beta @ model.XT, 1e-5

    def density(e, r=response, f=phi):
        return r.count * r.family.logpdf(r.y, r.link.inverse(e), f, r.prior)

    def difference(f, slot, *tail):
        return (f(eta + step)[slot] - f(eta - step)[slot]) / (2 * step)

    at = bend(response, eta, phi)
    close = {"rtol": 1e-6, "atol": 1e-6}
    np.testing.assert_allclose(at.loglik + constants(response, phi), density(eta), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(at.score, (density(eta + step) - density(eta - step)) / (2 * step), **close)

    def fields(e):
        b = bend(response, e, phi)
        return b.score, b.observed, b.expected

    observed, expected = bend_slopes(response, eta, at, phi)
    np.testing.assert_allclose(-difference(fields, 0), at.observed, **close)
    np.testing.assert_allclose(difference(fields, 1), observed, **close)
    np.testing.assert_allclose(difference(fields, 2), expected, **close)
    mean = evolve(response, y=at.mu)  # observed information is linear in y
    np.testing.assert_allclose(bend(mean, eta, phi).observed, at.expected, rtol=1e-10)
    if shape is None:
        return
    sides = [at_shape(model.response, shape + d) for d in (step, -step)]
    up, down = (bend(r, eta, f) for r, f in sides)
    by_shape = shape_slopes(response, eta, at, phi)
    np.testing.assert_allclose((density(eta, *sides[0]) - density(eta, *sides[1])) / (2 * step), by_shape[0], **close)
    np.testing.assert_allclose((up.score - down.score) / (2 * step), by_shape[1], **close)
    np.testing.assert_allclose((up.observed - down.observed) / (2 * step), by_shape[2], **close)


def central(f, at, step=1e-5):
    return np.array([(f(at + step * e) - f(at - step * e)) / (2 * step) for e in np.eye(len(at))])


def split(at, p, t, shape):
    return at[:p], at[p : p + t], at[-1] if shape is not None else None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("structure", ["slope", "crossed"])
@pytest.mark.parametrize("joint", [False, True], ids=["laplace", "nagq 0"])
def test_the_gradient_is_the_slope_of_the_deviance(kind, structure, joint):
    """Differences of step 1e-5 are good to about 1e-7 of the largest slope."""
    model, beta, theta, shape = made(kind, structure, freq=COUNTS)
    u = model.system.zero()

    def deviance(at):
        b, t, s = split(at, 0 if joint else 2, len(theta), shape)
        return float(laplace(model, beta if joint else b, t, u, s, joint).deviance) + minus_two_constant(model, s)

    place = np.concatenate(([] if joint else beta, theta, [] if shape is None else [shape]))
    slopes = central(deviance, place)
    found = laplace(model, beta, theta, u, shape, joint).gradient
    np.testing.assert_allclose(found, slopes, atol=3e-6 * max(1.0, np.abs(slopes).max()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_the_quadrature_is_the_slope_of_its_deviance(kind):
    model, beta, theta, shape = made(kind, "intercept", freq=COUNTS)
    nodes, u = hermite(5), model.system.zero()

    def deviance(at):
        return float(quadrature(model, *split(at, 2, 1, None)[:2], u, nodes, None if shape is None else at[-1]).deviance) + (
            minus_two_constant(model, None if shape is None else at[-1])
        )

    place = np.concatenate((beta, theta, [] if shape is None else [shape]))
    slopes = central(deviance, place)
    found = quadrature(model, beta, theta, u, nodes, shape).gradient
    np.testing.assert_allclose(found, slopes, atol=3e-6 * max(1.0, np.abs(slopes).max()))


@pytest.mark.parametrize("kind", ["binomial-logit", "binomial-cloglog", "poisson-log", "gamma-log", "inverse_gaussian-log"])
def test_quadrature_is_laplace_at_one_node_and_the_integral_at_many(kind):
    """The integral of each group by the trapezoid rule over ±9 standard deviations, exact to rounding for smooth functions."""
    model, beta, theta, shape = made(kind, "intercept")
    u, s = model.system.zero(), model.system
    response, phi = (model.response, 1.0) if shape is None else at_shape(model.response, shape)
    one = quadrature(model, beta, theta, u, hermite(1), shape)
    np.testing.assert_allclose(float(one.deviance), float(laplace(model, beta, theta, u, shape).deviance), rtol=1e-13)
    grid = np.linspace(-9, 9, 4001)
    eta = model.offset + beta @ model.XT + theta[0] * grid[:, None]
    each = np.add.reduceat(bend(response, eta, phi).loglik, s.starts, axis=1) - 0.5 * grid[:, None] ** 2
    whole = np.log(np.exp(each).sum(axis=0) * (grid[1] - grid[0]) / math.sqrt(2 * math.pi)).sum()
    found = quadrature(model, beta, theta, u, hermite(60), shape)
    assert float(found.deviance) == pytest.approx(-2.0 * whole, abs=1e-7)


@pytest.mark.parametrize("structure", ["intercept", "slope", "uncorrelated", "one per row"])
def test_one_factor_at_once_is_the_blocked_factor(structure):
    fast, beta, theta, _ = made("binomial-probit", structure)
    slow, *_ = made("binomial-probit", structure, blocked=True)
    assert isinstance(fast.system, OneFactor)
    for joint in (False, True):
        a, b = (laplace(m, beta, theta, m.system.zero(), None, joint) for m in (fast, slow))
        assert float(a.deviance) == pytest.approx(float(b.deviance), rel=1e-13)
        np.testing.assert_allclose(a.gradient, b.gradient, atol=1e-10)
        np.testing.assert_allclose(fast.system.modes(a.mode.b), slow.system.modes(b.mode.b), atol=1e-11)
    F = np.vstack((fast.XT, fast.response.y))
    G = np.vstack((slow.XT, slow.response.y))
    np.testing.assert_allclose(a.mode.factor.reduced(F), b.mode.factor.reduced(G), rtol=1e-9)
    for one, two in zip(a.mode.factor.covariances(), b.mode.factor.covariances()):
        np.testing.assert_allclose(one, two, atol=1e-12)


@pytest.mark.parametrize("kind", ["binomial-logit", "poisson-sqrt"])
@pytest.mark.parametrize("structure", ["intercept", "slope"])
def test_parameter_sets_together_are_each_alone(kind, structure):
    model, beta, theta, _ = made(kind, structure)
    betas = beta + 0.05 * np.arange(4)[:, None]
    thetas = theta * (1.0 + 0.2 * np.arange(4)[:, None])
    for joint in (False, True):
        many = laplace(model, betas, thetas, model.system.zero(4), None, joint)
        for j in range(4):
            one = laplace(model, betas[j], thetas[j], model.system.zero(), None, joint)
            assert many.deviance[j] == pytest.approx(float(one.deviance), rel=1e-11)
            np.testing.assert_allclose(many.gradient[j], one.gradient, atol=1e-8)


@pytest.mark.parametrize("structure", ["intercept", "slope", "crossed"])
def test_without_spread_it_is_the_model_without_random_effects(structure):
    model, beta, theta, _ = made("poisson-log", structure)
    at = laplace(model, beta, 0.0 * theta, model.system.zero())
    r = model.response
    plain = -2.0 * r.family.logpdf(r.y, np.exp(model.offset + beta @ model.XT)).sum()
    assert float(at.deviance) + minus_two_constant(model, None) == pytest.approx(plain, rel=1e-13)
    np.testing.assert_array_equal(at.gradient[2:][np.abs(theta) > 0], 0.0)  # D is even in θ


def test_a_group_that_counts_twice_is_two_groups_like_it():
    counts = np.array([1.0, 2.0, 1.0, 3.0, 1.0, 2.0])
    copies = np.concatenate([np.flatnonzero(g == k) for k in range(6) for _ in range(int(counts[k]))])
    label = np.concatenate([np.full((g == k).sum(), 10 * k + c) for k in range(6) for c in range(int(counts[k]))])
    groups = np.unique(label, return_inverse=True)[1]
    for kind in ("binomial-logit", "gamma-log"):
        counted, beta, theta, shape = made(kind, "slope", count=counts)
        s = system(blocks.layout([re_term("g", groups, SLOPE[copies])]))
        rows = copies[s.order]
        base = made(kind, "slope", blocked=True)[0]
        spelt = Mixed(s, base.response.rows(rows), np.ascontiguousarray(base.XT[:, rows]), base.offset[rows])
        for joint in (False, True):
            a = laplace(counted, beta, theta, counted.system.zero(), shape, joint)
            b = laplace(spelt, beta, theta, s.zero(), shape, joint)
            assert float(a.deviance) == pytest.approx(float(b.deviance), rel=1e-12)
            np.testing.assert_allclose(a.gradient, b.gradient, atol=1e-8)
        assert minus_two_constant(counted, shape) == pytest.approx(minus_two_constant(spelt, shape), rel=1e-12)


def test_modes_are_found_from_far_away_and_with_huge_spread():
    """Newton steps that overshoot are halved; the mode does not depend on where it was looked for."""
    for kind in ("poisson-log", "binomial-cauchit", "binomial-logit"):
        model, beta, theta, _ = made(kind, "slope")
        with np.errstate(all="ignore"):
            near = find_mode(model, beta, 4.0 * theta, model.system.zero())
            far = find_mode(model, beta, 4.0 * theta, model.system.zero() + 2.0)
        assert near.arrived.all()
        assert far.arrived.all()
        np.testing.assert_allclose(near.u, far.u, atol=1e-8)


def test_what_cannot_be_computed_is_infinite_not_an_exception():
    model, beta, theta, _ = made("poisson-sqrt", "intercept")
    at = laplace(model, -5.0 * beta, theta, model.system.zero())
    assert at.deviance == np.inf or not at.mode.arrived.all()


def test_hermite_nodes_integrate_polynomials_of_the_normal():
    z, w = hermite(5)
    np.testing.assert_allclose([w @ z**k for k in range(0, 9, 2)], [1, 1, 3, 15, 105], rtol=1e-12)
