"""Posteriors of parts and of groups: what may be added is the likelihood, never the prior twice."""

from __future__ import annotations

import json

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.stats.meta_analysis import combine_effects

from bossa import model, normal
from bossa.assimilate import combine, fuse, hybrid, population
from bossa.errors import BossaError
from bossa.kernels import covop
from bossa.state.posterior import Posterior
from bossa.state.provenance import digest


def simulated(n=120, seed=0):
    rng = np.random.default_rng(seed)
    x, z = rng.standard_normal((2, n))
    eta = 0.4 + 0.7 * x - 0.3 * z
    return {"y": eta + 0.6 * rng.standard_normal(n), "n": rng.poisson(np.exp(eta)).astype(float), "x": x, "z": z, "id": np.arange(n)}


def rows(d, index):
    return {k: v[index] for k, v in d.items()}


# ---------------------------------------------------------------- combine
PRIORS = {
    "flat": None,
    "σ known": {"Intercept": normal(0, 2), "x": normal(0, 1), "z": normal(1, 1), "sigma": 0.6},
    "σ guessed": {"Intercept": normal(0, 2), "x": normal(0, 1), "z": normal(1, 1), "sigma": (0.5, 3.0)},
    "some flat": {"x": normal(0, 0.3), "sigma": (0.5, 3.0)},
}


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("cuts", [[60], [20, 30, 100]])
def test_parts_combined_are_the_whole(prior, cuts):
    """Property 31: Λ = ΣΛ_b − (B − 1)Λ₀, exactly, σ² and its degrees of freedom too."""
    d, prior = simulated(), PRIORS[prior]
    parts = [model("y ~ x + z", rows(d, i), prior=prior).fit().infer().posterior for i in np.split(np.arange(120), cuts)]
    whole = model("y ~ x + z", d, prior=prior).fit().infer().posterior
    together = combine(parts, prior)
    np.testing.assert_allclose(together.mean, whole.mean, rtol=1e-11)
    np.testing.assert_allclose(together.cov.dense(), whole.cov.dense(), rtol=1e-10)
    assert together.kind == whole.kind
    assert together.df == (None if whole.df is None else pytest.approx(whole.df, abs=1e-9))
    turned = combine(parts[::-1])  # parts say themselves what their prior was
    np.testing.assert_allclose(turned.mean, together.mean, rtol=1e-12)
    np.testing.assert_allclose(turned.cov.dense(), together.cov.dense(), rtol=1e-10)
    if prior is not None and cuts == [20, 30, 100]:
        naive = sum(p.cov.solve(np.eye(3)) for p in parts)
        assert np.abs(np.linalg.inv(naive) / together.cov.dense() - 1).max() > 1e-3


def test_parts_with_different_priors_are_not_combined():
    d, told = simulated(), {"x": normal(0, 1), "sigma": 0.6}
    first, second = rows(d, np.arange(60)), rows(d, np.arange(60, 120))
    one = model("y ~ x + z", first, prior=told).fit().infer().posterior
    for other in (None, {"x": normal(0, 2), "sigma": 0.6}):
        part = model("y ~ x + z", second, prior=other).fit().infer().posterior
        with pytest.raises(BossaError, match=r"different priors|some are not"):
            combine([one, part])
    part = model("y ~ x + z", second, prior=told).fit().infer().posterior
    with pytest.raises(BossaError, match="not the prior that the parts had"):
        combine([one, part], {"x": normal(0, 2), "sigma": 0.6})
    loose = [model("y ~ x + z", part, prior=normal(0, 1)).fit().infer().posterior for part in (first, second)]
    with pytest.raises(BossaError, match="units of each part's own σ"):
        combine(loose)


def test_gaussian_parts_of_quadratic_likelihoods_combine_to_rounding():
    rng = np.random.default_rng(2)
    k, B0 = 4, np.diag([1.0, 2.0, 0.5, 3.0])
    prior = Posterior(names=list("abcd"), mean=rng.standard_normal(k), cov=covop.from_matrix(B0))
    parts, H, shift = [], np.linalg.inv(B0), np.linalg.solve(B0, prior.mean)
    for _ in range(5):
        X, y = rng.standard_normal((3, k)), rng.standard_normal(3)  # each part of rank 3 of 4
        own = np.linalg.inv(B0) + X.T @ X
        op = covop.from_precision(own)
        parts.append(Posterior(names=list("abcd"), mean=op.mv(np.linalg.solve(B0, prior.mean) + X.T @ y), cov=op, prior=prior))
        H, shift = H + X.T @ X, shift + X.T @ y
    together = combine(parts, prior)
    np.testing.assert_allclose(together.mean, np.linalg.solve(H, shift), rtol=2e-14, atol=1e-14)
    np.testing.assert_allclose(together.cov.dense(), np.linalg.inv(H), rtol=1e-13, atol=1e-15)


def test_pooling_with_a_prior_is_case_a():
    """Property 1: five estimates and the prior N(0, 1), each a Gaussian; the product of all."""
    estimates, errors = [0.45, 0.55, 0.50, 0.62, 0.38, 0.0], [0.10, 0.12, 0.08, 0.15, 0.20, 1.0]
    parts = [Posterior(names=["d"], mean=np.array([e]), cov=covop.Diag(np.array([s**2]))) for e, s in zip(estimates, errors)]
    pooled = combine(parts)
    assert pooled.mean[0] == pytest.approx(0.5007713344, abs=5e-11)
    assert pooled.sd()[0] == pytest.approx(0.0502430807, abs=5e-11)


@pytest.mark.parametrize(
    "told", [normal(0, 2), Posterior(names=("Intercept", "x"), mean=np.ones(2), cov=covop.from_matrix([[2.0, 1.0], [1.0, 3.0]]))]
)
def test_a_hybrid_prior_is_the_mixture_of_covariances(told):
    d = simulated()
    ensemble = model("y ~ x", d).fit().infer(how="boot", n_boot=200, seed=1).posterior
    B = np.diag([4.0, 4.0]) if not isinstance(told, Posterior) else told.cov.dense()
    for w in (0.0, 0.3, 1.0):
        made = hybrid(told, ensemble, w)
        np.testing.assert_allclose(made.cov.dense(), (1 - w) * B + w * ensemble.cov.dense(), rtol=1e-11)
        fit = model("n ~ x", d, family="poisson", prior=made).fit()
        assert fit.convergence.status == "ok"
    with pytest.raises(BossaError, match="between 0 and 1"):
        hybrid(told, ensemble, 1.2)


# ---------------------------------------------------------------- population
def groups(J=40, seed=7):
    """Estimates of 40 groups whose effect is 1 − z, each fitted with the prior N(0, 0.25)."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal(J)
    se = rng.uniform(0.2, 0.7, J)
    theta = 1 - z + 0.3 * rng.standard_normal(J)
    estimate = theta + se * rng.standard_normal(J)
    prior = Posterior(names=["d"], mean=np.zeros(1), cov=covop.Diag(np.array([0.25])))
    marks, naive = [], []
    for e, s, zj in zip(estimate, se, z):
        v = 1 / (1 / s**2 + 1 / 0.25)
        post = Posterior(names=["d"], mean=np.array([v * e / s**2]), cov=covop.Diag(np.array([v])), prior=prior)
        marks.append(json.loads(json.dumps(post.to_mark(event_id="e", z=zj))))
        naive.append(Posterior(names=["d"], mean=post.mean, cov=post.cov).to_mark(z=zj))
    return estimate, se, z, marks, naive


def test_prior_divided_marks_are_the_raw_regression():
    estimate, se, z, marks, naive = groups()
    tau2 = 0.09
    Z = np.column_stack((np.ones(40), z))
    raw = sm.WLS(estimate, Z, weights=1 / (se**2 + tau2)).fit()
    fitted = population(marks, "~ z", omega=tau2)
    np.testing.assert_allclose(fitted.posterior.mean, raw.params, rtol=1e-12)
    np.testing.assert_allclose(fitted.posterior.cov.dense(), np.linalg.inv(Z.T @ (Z / (se**2 + tau2)[:, None])), rtol=1e-11)
    assert fitted.posterior.names == ("Intercept", "z")
    biased = population(naive, "~ z", omega=tau2).posterior.mean
    assert np.abs(fitted.posterior.mean - [1, -1]).max() < 0.25
    assert np.abs(biased).max() < 0.8  # the prior at 0, counted forty times


def test_the_variance_between_groups_is_statsmodels():
    """Intercept only: REML (Paule–Mandel and REML are close but not equal; statsmodels iterates 'pm'); checked at its own optimum."""
    estimate, se, _, marks, _ = groups()
    fitted = population(marks, "~ 1")

    def restricted(tau2):
        w = 1 / (se**2 + tau2)
        mu = w @ estimate / w.sum()
        return -0.5 * (np.log(se**2 + tau2).sum() + w @ (estimate - mu) ** 2 + np.log(w.sum()))

    grid = np.linspace(0.5, 3, 250_001)
    best = max(grid[::500], key=restricted)
    local = np.linspace(best - 0.006, best + 0.006, 12_001)
    assert fitted.omega[0, 0] == pytest.approx(max(local, key=restricted), abs=3e-6)
    pm = combine_effects(estimate, se**2, method_re="iterated")
    assert fitted.omega[0, 0] == pytest.approx(pm.tau2, rel=0.25)
    assert fitted.posterior.mean[0] == pytest.approx(pm.mean_effect_re, abs=0.02)
    w = 1 / (1 / fitted.omega[0, 0] + 1 / se[0] ** 2)
    shrunk = w * (estimate[0] / se[0] ** 2 + fitted.posterior.mean[0] / fitted.omega[0, 0])
    assert fitted.groups[0].mean[0] == pytest.approx(shrunk, rel=1e-9)


def test_groups_alike_have_no_variance():
    _, _, z, _, _ = groups()
    marks = [Posterior(names=["d"], mean=np.array([1 - zj]), cov=covop.Diag(np.array([0.1]))).to_mark(z=zj) for zj in z]
    fitted = population(marks, "~ z")
    assert fitted.omega[0, 0] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(fitted.posterior.mean, [1, -1], rtol=1e-8)


def test_too_few_groups_for_a_variance_are_refused():
    marks = [model("y ~ x", rows(simulated(seed=s), np.arange(40))).fit().infer().posterior.to_mark(z=0.0) for s in range(3)]
    with pytest.raises(BossaError, match="apart"):
        population(marks, "~ z")
    with pytest.raises(BossaError, match="nothing to estimate"):
        population(marks[:1])
    assert population(marks[:1], omega=0.1).posterior.mean.shape == (2,)


def test_several_coefficients_and_singular_likelihoods():
    """Rows of four groups in one design, against one mixed-model marginal by hand; one group says nothing of x."""
    rng = np.random.default_rng(3)
    omega = np.array([[0.3, 0.1], [0.1, 0.2]])
    marks, H, shift = [], np.zeros((2, 2)), np.zeros(2)
    prior = Posterior(names=["Intercept", "x"], mean=np.array([0.5, 0.5]), cov=covop.Diag(np.array([1.0, 2.0])))
    for j in range(6):
        X = np.column_stack((np.ones(8), np.zeros(8) if j == 0 else rng.standard_normal(8)))
        y = X @ rng.multivariate_normal([1, 2], omega) + rng.standard_normal(8)
        op = covop.from_precision(X.T @ X + np.diag([1.0, 0.5]))
        post = Posterior(names=prior.names, mean=op.mv(X.T @ y + [0.5, 0.25]), cov=op, prior=prior)
        marks.append(post.to_mark())
        V = np.eye(8) + X @ omega @ X.T
        H, shift = H + X.T @ np.linalg.solve(V, X), shift + X.T @ np.linalg.solve(V, y)
    fitted = population(marks, "~ 1", omega=omega)
    np.testing.assert_allclose(fitted.posterior.mean, np.linalg.solve(H, shift), rtol=1e-10)
    np.testing.assert_allclose(fitted.posterior.cov.dense(), np.linalg.inv(H), rtol=1e-10)
    assert fitted.posterior.names == ("Intercept:Intercept", "Intercept:x")


def test_a_mark_of_a_fit_says_what_its_data_say():
    d = simulated()
    plain = model("y ~ x + z", d).fit()
    flat, told = plain.infer().posterior, model("y ~ x + z", d, prior={"x": normal(3, 0.1), "sigma": 0.6}).fit().infer().posterior
    s2 = plain.fit_state.sigma**2
    X = np.asarray(plain.designmat)
    np.testing.assert_allclose(flat.to_mark()["likelihood"]["precision"], X.T @ X / s2, rtol=1e-10)
    np.testing.assert_allclose(flat.to_mark()["likelihood"]["shift"], X.T @ d["y"] / s2, rtol=1e-10)
    mark = told.to_mark(event_id="a", time=3.0, site="north")
    np.testing.assert_allclose(mark["likelihood"]["shift"], X.T @ d["y"] / 0.36, rtol=1e-9)
    assert json.loads(json.dumps(mark)) == mark
    assert mark["event_metadata"] == {"site": "north"}
    assert {
        "event_id",
        "time",
        "geometry",
        "event_metadata",
        "mean",
        "names",
        "cov",
        "samples",
        "provenance",
        "prior",
        "likelihood",
    } <= set(mark)
    assert mark["cov"]["kind"] in ("diag", "chol", "lowrank", "dense")


# ---------------------------------------------------------------- fuse
def test_the_same_model_twice_is_the_stacked_data():
    d = simulated()
    first, second = rows(d, slice(0, 50)), rows(d, slice(50, 120))
    for formula, family in (("n ~ x + z", "poisson"), ("y ~ x + z", "gaussian")):
        both = fuse({"a": model(formula, first, family=family), "b": model(formula, second, family=family)}, dispersion="common")
        stacked = model(formula, d, family=family).fit()
        np.testing.assert_allclose(both.mean, stacked.fit_state.coef, rtol=1e-9)
        np.testing.assert_allclose(both.cov.dense(), stacked.fit_state.vcov, rtol=1e-8)
        turned = fuse({"b": model(formula, second, family=family), "a": model(formula, first, family=family)}, dispersion="common")
        np.testing.assert_allclose(turned.mean, both.mean, rtol=1e-9)


def test_a_power_prior_counts_rows_by_its_exponent():
    d = simulated()
    d["half"] = np.where(d["id"] < 50, 1.0, 0.5)
    sources = {"a": model("n ~ x", rows(d, slice(0, 50)), family="poisson"), "b": model("n ~ x", rows(d, slice(50, 120)), family="poisson")}
    fused = fuse(sources, weights={"b": 0.5})
    counted = model("n ~ x", d, family="poisson", weights="half").fit()
    np.testing.assert_allclose(fused.mean, counted.fit_state.coef, rtol=1e-9)
    np.testing.assert_allclose(fused.cov.dense(), counted.fit_state.vcov, rtol=1e-8)


def test_sources_of_different_kind_share_what_they_are_told_to():
    """A linear and a Poisson source with x in common: the gradient of the sum is zero at the joint maximum."""
    d = simulated()
    fused = fuse(
        {"trial": model("y ~ x + z", d), "registry": model("n ~ x", d, family="poisson").fit()}, share=["x"], prior={"x": normal(0, 0.5)}
    )
    assert fused.names == ("trial: Intercept", "x", "trial: z", "registry: Intercept")
    X, N = np.column_stack((np.ones(120), d["x"], d["z"])), np.column_stack((np.ones(120), d["x"]))
    b = fused.mean
    r, mu = d["y"] - X @ b[:3], np.exp(N @ b[[3, 1]])
    s2 = r @ r / 117
    gradient = np.zeros(4)
    gradient[:3] += X.T @ r / s2
    gradient[[3, 1]] += N.T @ (d["n"] - mu)
    gradient[1] -= b[1] / 0.25
    np.testing.assert_allclose(gradient, 0, atol=1e-7)
    H = np.zeros((4, 4))
    H[:3, :3] += X.T @ X / s2
    H[np.ix_([3, 1], [3, 1])] += (N.T * mu) @ N
    H[1, 1] += 4
    np.testing.assert_allclose(fused.cov.dense(), np.linalg.inv(H), rtol=1e-9)
    assert fused.provenance.obs_ops_used == ("trial", "registry")
    assert set(fused.provenance.data_hash) == {"trial", "registry"}
    assert fused.provenance.forward_model_hash != digest(None)


def test_draws_alone_make_a_mark_without_a_likelihood():
    post = Posterior(names=["d"], mean=np.zeros(1), samples=np.arange(4.0)[:, None], kind="samples")
    mark = post.to_mark(z=1.0)
    assert mark["likelihood"] is None
    assert mark["samples"] == [[0.0], [1.0], [2.0], [3.0]]
    with pytest.raises(BossaError, match="draws alone"):
        population([mark])


MISTAKES = [
    (lambda d: combine([]), "at least one"),
    (lambda d: combine([model("y ~ x", d).fit().infer().posterior, model("y ~ z", d).fit().infer().posterior]), "part 1 is about"),
    (lambda d: combine([model("y ~ x", d, prior=normal(0, 1)).fit().infer().posterior] * 2, normal(0, 1)), "says what is known of σ"),
    (lambda d: population([{"a": 1}]), "not a mark"),
    (lambda d: population([model("y ~ x", d).fit().infer().posterior.to_mark(z=1.0)] * 3, "z"), "one-sided"),
    (
        lambda d: population([model("y ~ x", d).fit().infer().posterior.to_mark(z=v) for v in (1.0, None, 2.0)], "~ z"),
        "missing in some groups",
    ),
    (lambda d: fuse({"a": model("y ~ x", d)}, weights={"A": 1}), "Did you mean 'a'"),
    (lambda d: fuse({"a": model("y ~ x", d)}, weights={"a": -1}), "positive number"),
    (lambda d: fuse({"a": model("y ~ x", d), "b": model("y ~ z", d)}, share=["z"]), "only one source"),
    (lambda d: fuse({"a": model("y ~ x + (1 | id)", d)}), "combine"),
    (lambda d: fuse({"a": model("y ~ x", d, prior=normal(0, 1))}), "Give prior= to fuse()"),
]


@pytest.mark.parametrize("case", range(len(MISTAKES)))
def test_mistakes_say_what_to_do(case):
    act, text = MISTAKES[case]
    with pytest.raises(BossaError) as caught:
        act(simulated())
    assert text in str(caught.value)
