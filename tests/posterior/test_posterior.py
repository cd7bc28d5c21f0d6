"""A posterior can be read, cut, mapped, drawn from, stored and taken apart; every number against a closed form."""

from __future__ import annotations

import json

import attrs
import numpy as np
import pytest

from bossa import load_dataset, model
from bossa.errors import DataError, OptionError, Refused, UnknownOption
from bossa.kernels import covop, densities
from bossa.state.posterior import Posterior
from covop_cases import KINDS, operator


def gaussian(k=3, seed=0, prior=False):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((k, k))
    names = tuple(f"b{i}" for i in range(k))
    before = Posterior(names=names, mean=rng.standard_normal(k), cov=covop.Diag(rng.uniform(1, 3, k))) if prior else None
    if before is None:
        return Posterior(names=names, mean=rng.standard_normal(k), cov=covop.from_root(A))
    H = A @ A.T + np.diag(1 / before.cov.d)
    mean = np.linalg.solve(H, A @ rng.standard_normal(k) + before.mean / before.cov.d)
    return Posterior(names=names, mean=mean, cov=covop.from_precision(H), prior=before)


def test_limits_are_those_of_scipy():
    from scipy import stats

    post = gaussian()
    P = post.cov.dense()
    for level in (0.5, 0.95):
        np.testing.assert_allclose(post.interval(level), stats.norm.interval(level, post.mean, np.sqrt(np.diag(P))), rtol=1e-12)
    t = attrs.evolve(post, kind="student_t", df=7.0)
    np.testing.assert_allclose(t.interval(0.9), stats.t.interval(0.9, 7, post.mean, np.sqrt(np.diag(P))), rtol=1e-10)
    np.testing.assert_allclose(t.sd(), np.sqrt(np.diag(P) * 7 / 5), rtol=1e-12)
    x = np.array([[0.1, 0.2, 0.3], [1.0, -1.0, 0.0]])
    np.testing.assert_allclose(post.logpdf(x), stats.multivariate_normal(post.mean, P).logpdf(x), rtol=1e-10)
    np.testing.assert_allclose(t.logpdf(x), stats.multivariate_t(post.mean, P, df=7).logpdf(x), rtol=1e-10)
    np.testing.assert_allclose(t.gaussian().cov.dense(), P * 7 / 5, rtol=1e-12)


def test_the_narrowest_interval_of_draws_is_narrower_and_holds_its_share():
    draws = np.random.default_rng(1).exponential(size=(20_000, 1))
    post = Posterior(names=["x"], mean=draws.mean(axis=0), samples=draws, kind="samples")
    eti, hdi = post.interval(0.9)[:, 0], post.interval(0.9, "hdi")[:, 0]
    assert hdi[1] - hdi[0] < eti[1] - eti[0]
    assert np.mean((draws >= hdi[0]) & (draws <= hdi[1])) == pytest.approx(0.9, abs=1e-4)
    np.testing.assert_allclose(hdi, [0, -np.log(0.1)], atol=0.06)  # of an exponential: [0, −log 0.1]
    np.testing.assert_allclose(eti, [-np.log(0.95), -np.log(0.05)], atol=0.06)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_the_moments_and_images_the_matrices(kind):
    op = operator(kind, 4, 2)
    post = Posterior(names=[f"b{i}" for i in range(op.size)], mean=np.arange(op.size) / 2, cov=op)
    P, n = op.dense(), 200_000
    draws = post.sample(n, seed=3)
    scale = np.sqrt(np.diag(P))
    assert np.abs(draws.mean(axis=0) - post.mean).max() < 5 * scale.max() / np.sqrt(n)
    # var of a sample covariance: (P_ii P_jj + P_ij²)/n
    assert (np.abs(np.cov(draws.T) - P) / np.outer(scale, scale)).max() < 5 * np.sqrt(2 / n)
    L = np.random.default_rng(0).standard_normal((3, op.size))
    image = post.transform(L, offset=np.ones(3))
    np.testing.assert_allclose(image.mean, L @ post.mean + 1)
    np.testing.assert_allclose(image.cov.dense(), L @ P @ L.T, atol=1e-12 * np.abs(P).max() * 20)
    part = post.marginal(["b2", "b0"])
    np.testing.assert_allclose(part.cov.dense(), P[np.ix_([2, 0], [2, 0])], atol=1e-12 * np.abs(P).max())
    assert (post.sample(5, seed=9) == post.sample(5, seed=9)).all()


def test_draws_of_a_student_t_have_its_covariance():
    post = attrs.evolve(gaussian(), kind="student_t", df=9.0)
    draws = post.sample(300_000, seed=1)
    np.testing.assert_allclose(np.cov(draws.T), post.cov.dense() * 9 / 7, rtol=0.05, atol=0.02)


def test_kl_is_the_expected_log_ratio():
    a, b = gaussian(seed=1), gaussian(seed=2)
    draws = a.sample(200_000, seed=0)
    ratio = a.logpdf(draws) - b.logpdf(draws)
    assert a.kl(b) == pytest.approx(ratio.mean(), abs=5 * ratio.std() / np.sqrt(len(ratio)))
    assert a.kl(a) == pytest.approx(0, abs=1e-12)
    assert a.kl(b) == pytest.approx(a.marginal(a.names[::-1]).kl(b), rel=1e-10)  # names are matched
    d, e = covop.Diag(np.array([1.0, 2.0])), covop.Diag(np.array([3.0, 1.0]))
    full = densities.kl_normal(np.zeros(2), covop.from_matrix(d.dense()), np.ones(2), covop.from_matrix(e.dense()))
    assert densities.kl_normal(np.zeros(2), d, np.ones(2), e) == pytest.approx(full, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_likelihood_times_prior_is_the_posterior(seed):
    post = gaussian(4, seed, prior=True)
    part = post.likelihood_part()
    B = post.prior.cov.dense()
    H = part.precision + np.linalg.inv(B)
    np.testing.assert_allclose(np.linalg.inv(H), post.cov.dense(), rtol=1e-9)
    np.testing.assert_allclose(np.linalg.solve(H, part.shift + np.linalg.solve(B, post.prior.mean)), post.mean, rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_degrees_of_freedom_for_signal_agree_three_ways(seed):
    """Property 31: tr A = tr of the hat matrix = k − tr(P B⁻¹)."""
    rng = np.random.default_rng(seed)
    n, k, s2 = 30, 4, 0.7
    X, b = rng.standard_normal((n, k)), rng.uniform(0.2, 2, k)
    prior = Posterior(names=list("abcd"), mean=np.zeros(k), cov=covop.Diag(b))
    post = Posterior(names=list("abcd"), mean=np.zeros(k), cov=covop.from_precision(X.T @ X / s2 + np.diag(1 / b)), prior=prior)
    info = post.information()
    P = post.cov.dense()
    hat = np.trace(X @ P @ X.T / s2)
    assert info.dfs == pytest.approx(hat, abs=4e-15 * 10)
    assert info.dfs == pytest.approx(k - np.trace(P / b), abs=4e-15 * 10)
    np.testing.assert_allclose(info.share, np.diag(P @ X.T @ X / s2), atol=1e-14)
    assert info.entropy == pytest.approx(0.5 * (np.log(b).sum() - np.linalg.slogdet(P)[1]), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_stored_and_read_back_bit_for_bit(kind):
    op = operator(kind, 3, 1)
    names = [f"b{i}" for i in range(op.size)]
    prior = Posterior(names=names, mean=np.zeros(op.size), cov=covop.Diag(np.full(op.size, np.inf)))
    post = Posterior(
        names=names, mean=np.random.default_rng(0).standard_normal(op.size), cov=op, prior=prior, log_evidence=-1 / 3, notes=("n",)
    )
    again = Posterior.from_dict(json.loads(json.dumps(post.to_dict())))
    assert (again.mean == post.mean).all()
    assert again.cov.kind == op.kind
    assert (again.cov.dense() == op.dense()).all()
    assert (again.hash, again.log_evidence, again.notes) == (post.hash, post.log_evidence, post.notes)
    assert (again.sample(4, seed=1) == post.sample(4, seed=1)).all()


def test_a_changed_number_is_noticed():
    document = json.loads(json.dumps(gaussian().to_dict()))
    document["mean"]["hex"][0] = (1.5).hex()
    with pytest.raises(DataError, match="changed since it was stored"):
        Posterior.from_dict(document)


def test_frozen():
    post = gaussian()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        post.mean = np.zeros(3)
    with pytest.raises(ValueError, match="read-only"):
        post.mean[0] = 1.0


def test_arviz_dictionary():
    chains = gaussian().to_arviz(50, seed=1)
    assert {name: values.shape for name, values in chains["posterior"].items()} == dict.fromkeys(("b0", "b1", "b2"), (1, 50))


MISTAKES = [
    (lambda p: p.interval(1.5), OptionError, "between 0 and 1"),
    (lambda p: p.interval(kind="het"), UnknownOption, "hdi"),
    (lambda p: p.marginal(["b9"]), UnknownOption, "b0"),
    (lambda p: p.transform(np.ones((2, 4))), DataError, "4 columns"),
    (lambda p: p.as_prior(0), OptionError, "positive"),
    (lambda p: p.kl(attrs.evolve(p, kind="student_t", df=5.0)), Refused, ".gaussian()"),
    (lambda p: p.predict({"x": [1]}), AttributeError, "transform"),
    (lambda p: Posterior(names=["a"], mean=np.zeros(1)), DataError, "neither"),
    (lambda p: Posterior(names=["a", "b"], mean=np.zeros(1), cov=covop.Diag(np.ones(1))), DataError, "2 names"),
    (lambda p: Posterior(names=["a"], mean=np.zeros(1), cov=covop.Diag(np.ones(1)), df=3.0), DataError, "df=3"),
]


@pytest.mark.parametrize("case", range(len(MISTAKES)))
def test_mistakes_say_what_to_do(case):
    act, error, text = MISTAKES[case]
    with pytest.raises(error) as caught:
        act(gaussian())
    assert text in str(caught.value)


@pytest.mark.parametrize("adapter", ["exact", "samples"])
def test_draws_go_to_arviz(adapter):
    """Mean, sd and names as arviz reads them; arviz is optional."""
    arviz = pytest.importorskip("arviz", reason="arviz is not installed")
    post = (
        model("mpg ~ wt", load_dataset("mtcars"))
        .fit()
        .infer(how="posterior", adapter=adapter, **({"seed": 1} if adapter == "samples" else {}))
    )
    draws = post.posterior.to_arviz(4000, seed=2)
    made = arviz.from_dict(**draws) if int(arviz.__version__.split(".")[0]) < 1 else arviz.from_dict(draws)
    assert list(made.posterior.data_vars) == ["Intercept", "wt"]
    chain = made.posterior["wt"].to_numpy()
    assert chain.shape == (1, 1000 if adapter == "samples" else 4000)
    assert chain.mean() == pytest.approx(post.posterior.mean[1], abs=0.1)
    summary = arviz.summary(made)
    assert summary.loc["wt", "sd"] == pytest.approx(post.posterior.sd()[1], rel=0.1)


def test_what_goes_to_arviz_is_plain():
    post = model("mpg ~ wt", load_dataset("mtcars")).fit().infer().posterior
    found = post.to_arviz(50, seed=1)
    assert found.keys() == {"posterior"}
    np.testing.assert_array_equal(found["posterior"]["wt"][0], post.sample(50, seed=1)[:, 1])
