"""Batched refits against the same refits done one by one."""

from __future__ import annotations

import numpy as np
import pytest

from bossa.kernels.family import resolve_family
from bossa.kernels.gram import FINE, RANK, glm_many, grams, ols_many, ols_responses, solve_many
from bossa.kernels.link import resolve_link


@pytest.fixture
def data():
    rng = np.random.default_rng(7)
    X = np.column_stack([np.ones(60), rng.normal(size=(60, 3))])
    return X, X @ [1.0, -2.0, 0.5, 0.0] + rng.normal(size=60), rng.integers(0, 4, size=(9, 60)).astype(float)


def test_weighted_least_squares_of_a_block_equals_each_on_its_own(data):
    X, y, W = data
    coef, inverse, rss, code = ols_many(X, W, y)
    assert (code == FINE).all()
    for b, w in enumerate(W):
        root = np.sqrt(w)
        one, _, _, _ = np.linalg.lstsq(X * root[:, None], y * root, rcond=None)
        np.testing.assert_allclose(coef[b], one, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(rss[b], (w * (y - X @ one) ** 2).sum(), rtol=1e-10)
        np.testing.assert_allclose(inverse[b], np.linalg.inv(X.T * w @ X), rtol=1e-9)


def test_many_responses_equal_each_on_its_own(data):
    X, _, W = data
    rng = np.random.default_rng(1)
    Y, w = rng.normal(size=(5, 60)), W[0] + 0.5
    coef, rss = ols_responses(X, np.linalg.cholesky(X.T * w @ X).T, w, Y)
    for b in range(5):
        one = np.linalg.solve(X.T * w @ X, X.T @ (w * Y[b]))
        np.testing.assert_allclose(coef[b], one, rtol=1e-10)
        np.testing.assert_allclose(rss[b], (w * (Y[b] - X @ one) ** 2).sum(), rtol=1e-10)


def test_a_replicate_without_a_level_is_a_code_and_nan_and_spares_the_others():
    X = np.column_stack([np.ones(6), [0, 0, 0, 0, 1, 1]])
    W = np.array([[1, 1, 1, 1, 1, 1], [1, 2, 1, 2, 0, 0]], dtype=float)
    G, right, total = grams(X, W, np.arange(6.0))
    np.testing.assert_allclose(total, W @ np.arange(6.0) ** 2)
    coef, _, code = solve_many(G, right)
    assert code.tolist() == [FINE, RANK]
    assert np.isnan(coef[1]).all()
    np.testing.assert_allclose(coef[0], [1.5, 3.0])


@pytest.mark.parametrize(("family", "link"), [("binomial", "logit"), ("poisson", "log"), ("binomial", "probit"), ("gamma", "log")])
def test_scoring_of_a_block_solves_every_score_equation(data, family, link):
    X, _, W = data
    family, link = resolve_family(family), resolve_link(link)
    rng = np.random.default_rng(3)
    start = np.array([0.3, 0.4, -0.2, 0.1])
    mu = link.inverse(X @ start)
    y = {"binomial": lambda: (rng.random(60) < mu) * 1.0, "poisson": lambda: rng.poisson(mu) * 1.0, "gamma": lambda: rng.gamma(2, mu / 2)}
    y = y[family.name]()
    coef, _, code = glm_many(X, W + 0.25, y, None, (family, link), start)
    assert (code == FINE).all()
    for b in range(len(W)):
        eta = X @ coef[b]
        m = link.inverse(eta)
        score = X.T @ ((W[b] + 0.25) * link.slope(eta) * (y - m) / family.variance(m))
        assert np.abs(score).max() < 1e-6
