"""A posterior divided by its prior stays what the data say, whoever made it: fits, streams with and without drift, and images of them."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from attrs import evolve

from bossa import model, normal
from bossa.assimilate import batches, combine, discount, estimates, nig
from bossa.errors import Refused
from bossa.kernels import covop
from bossa.state.posterior import Posterior


def weeks(T=6, n=20, seed=1):
    rng = np.random.default_rng(seed)
    week, x = np.repeat(np.arange(T), n), rng.normal(size=T * n)
    return pl.DataFrame({"y": 1 + 0.5 * x + 1.3 * rng.normal(size=T * n), "x": x, "week": week})


def normal_equations(data):
    X = np.column_stack((np.ones(data.height), data["x"]))
    return X.T @ X, X.T @ data["y"].to_numpy()


# ---------------------------------------------------------------- nothing known of σ: the same in a fit and in a stream
def test_a_stream_with_a_prior_is_the_fit_with_that_prior():
    data = weeks()
    sigma = model("y ~ x", data).fit().fit_state.sigma
    for prior in (normal(0, 2), {"x": normal(0, 0.1)}):
        fit = model("y ~ x", data, prior=prior).fit().infer().posterior
        r = batches("y ~ x", data, by="week", prior=prior, sigma0=sigma)
        np.testing.assert_allclose(r.posterior.mean, fit.mean, rtol=1e-12)
        np.testing.assert_allclose(r.posterior.cov.dense(), fit.cov.dense(), rtol=1e-11)
        assert r.posterior.df == fit.df == 118
        np.testing.assert_allclose(r.posterior.interval(), fit.interval(), rtol=1e-11)
        assert r.posterior.sigma == pytest.approx(fit.sigma, rel=1e-12)


def test_a_vague_prior_of_a_stream_is_no_prior():
    data = weeks()
    vague, flat = (batches("y ~ x", data, by="week", prior=prior) for prior in (normal(0, 1e6), None))
    np.testing.assert_allclose(vague.final_ci, flat.final_ci, rtol=1e-9)
    np.testing.assert_allclose(vague.df, flat.df)


@pytest.mark.parametrize("drift", ["ml", "bayes"])
def test_sigma_is_handed_on_whatever_drifts(drift):
    """σ of the rows, not of the quadrature's units: the posterior is the next prior of a fit."""
    post = batches("y ~ x", weeks(), by="week", drift=drift).posterior
    assert post.sigma == pytest.approx(1.3, rel=0.15)


# ---------------------------------------------------------------- divided by its prior
@pytest.mark.parametrize("prior", [normal(0.3, 2), {"x": normal(0.3, 0.5)}], ids=["all", "some"])
@pytest.mark.parametrize("sigma", [1.3, "nig", "reml", nig(3, 4)], ids=str)
def test_what_the_data_say_does_not_depend_on_the_prior(prior, sigma):
    data = weeks()
    H, shift = normal_equations(data)
    post = batches("y ~ x", data, by="week", prior=prior, sigma=sigma).posterior
    s2 = {1.3: 1.69, "reml": batches("y ~ x", data, by="week", prior=prior).posterior.sigma ** 2}.get(sigma) or post.sigma**2
    part = post.likelihood_part()
    np.testing.assert_allclose(part.precision * s2, H, rtol=1e-9, atol=1e-9 * H.max())
    np.testing.assert_allclose(part.shift * s2, shift, rtol=1e-9, atol=1e-9 * H.max())
    information = post.information()
    assert information.dfs == pytest.approx(np.trace(np.linalg.solve(post.cov.solve(np.eye(2)) * s2, H)), rel=1e-9)


@pytest.mark.parametrize("drift", [0.05, discount(0.8)], ids=["walk", "forgotten"])
def test_the_likelihood_of_a_drifting_state_has_the_drifted_prior_taken_off(drift):
    """p(y | θ_T) is the same whatever the prior of θ_0 where the walk forgets it: two priors, one likelihood."""
    y, se = [0.3, 0.8, 0.6, 1.1], [0.3, 0.2, 0.25, 0.3]
    post = estimates(y, se, prior=normal(0.5, 2), drift=drift).posterior
    part, sd = post.likelihood_part(), post.prior.sd()[0]
    if drift == 0.05:
        assert sd == pytest.approx(math.sqrt(4 + 4 * 0.05), rel=1e-12)
        t = np.arange(1, 5)
        Q = 0.05 * np.minimum.outer(t, t) + 4.0
        joint = Q + np.diag(np.square(se))  # of y about 0.5; then given θ_4
        c = Q[:, 3] / Q[3, 3]
        S = joint - np.outer(c, c) * Q[3, 3]
        assert part.precision[0, 0] == pytest.approx(c @ np.linalg.solve(S, c), rel=1e-10)
    else:
        assert sd == pytest.approx(2 / 0.8**2, rel=1e-12)
        w = 0.8 ** np.arange(3, -1, -1) / np.square(se)
        assert part.precision[0, 0] == pytest.approx(w.sum(), rel=1e-10)
        assert part.shift[0] == pytest.approx(w @ y, rel=1e-10)


def test_posteriors_of_streams_combine():
    """Property 31: parts with the same prior, put together, are the whole."""
    data, prior = weeks(), {"Intercept": normal(0, 2), "x": normal(0, 1)}
    parts = [data.filter(pl.col("week") < 3), data.filter(pl.col("week") >= 3)]
    posts = [batches("y ~ x", p, by="week", prior=prior, sigma=1.3).posterior for p in parts]
    whole = batches("y ~ x", data, by="week", prior=prior, sigma=1.3).posterior
    both = combine(posts, prior)
    np.testing.assert_allclose(both.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(both.cov.dense(), whole.cov.dense(), rtol=1e-12)


# ---------------------------------------------------------------- images
def test_the_image_of_a_prior_goes_with_the_image_of_a_posterior():
    data = weeks()
    post = model("y ~ x", data, prior={"Intercept": normal(0, 2), "x": normal(0, 1), "sigma": 1.3}).fit().infer().posterior
    L = np.array([[1.0, 0.5], [0.0, 2.0]])
    turned = post.transform(L)
    np.testing.assert_allclose(turned.prior.cov.dense(), L @ np.diag([4.0, 1.0]) @ L.T, rtol=1e-12)
    part, own = turned.likelihood_part(), post.likelihood_part()
    inverse = np.linalg.inv(L)
    np.testing.assert_allclose(part.precision, inverse.T @ own.precision @ inverse, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(part.shift, inverse.T @ own.shift, rtol=1e-10)
    assert turned.information().dfs == pytest.approx(post.information().dfs, rel=1e-12)
    effect = model("y ~ x", data, prior=normal(0, 1)).fit().explore("x@[0, 1]").infer().posterior
    assert 0 < effect.information().share.min() < effect.information().share.max() < 1


def test_what_is_known_of_combinations_alone_is_kept():
    """Flat about the intercept: nothing is known of either mean, all that was known of their difference is."""
    before = Posterior(names=("a", "b", "c"), mean=np.array([0.0, 1.0, 2.0]), cov=covop.Diag(np.array([np.inf, 4.0, 9.0])))
    L = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    image = before.image(L)
    np.testing.assert_allclose(image.cov.diag(), [np.inf, np.inf, 4.0 + 36.0], rtol=1e-10)
    difference = np.array([[-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    joint = image.image(difference)
    np.testing.assert_allclose(joint.cov.dense(), [[4.0, 4.0], [4.0, 40.0]], rtol=1e-10)
    np.testing.assert_allclose(joint.mean, [1.0, 5.0])
    assert before.image(L[:2, :]).marginal(["[0]"]).cov.diag()[0] == np.inf
    assert before.image([[1.0, 2.0, 3.0]]) is None
    H, loose = np.diag([5.0, 6.0, 7.0]), covop.Diag(np.array([1e9, 4.0, 9.0]))
    post = Posterior(names=("a", "b", "c"), mean=np.zeros(3), cov=covop.from_precision(H + np.diag([0, 1 / 4, 1 / 9])), prior=before)
    near = evolve(post, prior=evolve(before, cov=loose))
    one, other = (p.transform(L).likelihood_part().precision for p in (post, near))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_redundant_rows_are_not_taken_for_information():
    data = weeks().with_columns(g=pl.Series(np.tile(["a", "b", "c"], 40)))
    m = model("y ~ g", data, prior=normal(0, 1)).fit().explore("pairwise(g)").infer()
    with pytest.raises(Refused, match="combinations of others"):
        m.posterior.information()
    assert model("y ~ g", data).fit().explore("pairwise(g)").infer().posterior.information().dfs == 2
