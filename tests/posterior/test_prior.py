"""Fits with a prior against closed forms: ridge, conjugate updating, evidence; generalized models against a general optimiser."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import optimize, stats

from bossa import model, negbinomial, normal
from bossa.errors import BossaError, NotYet, OptionError, Refused, UnknownOption
from bossa.kernels import covop
from bossa.state.posterior import Posterior


def simulated(n=60, seed=0, family="gaussian"):
    rng = np.random.default_rng(seed)
    x, z = rng.standard_normal((2, n))
    eta = 0.3 + 0.8 * x - 0.5 * z
    y = {
        "gaussian": eta + 0.7 * rng.standard_normal(n),
        "binomial": (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float),
        "poisson": rng.poisson(np.exp(eta)).astype(float),
        "gamma": rng.gamma(3.0, np.exp(eta) / 3.0),
    }[family]
    return {"y": y, "x": x, "z": z, "w": rng.integers(1, 4, n).astype(float), "o": rng.standard_normal(n)}


def matrix(d):
    return np.column_stack((np.ones(len(d["y"])), d["x"], d["z"]))


def rows(d, index):
    return {k: v[index] for k, v in d.items()}


# ---------------------------------------------------------------- linear models
def test_known_sigma_is_ridge_in_both_forms():
    d, s, sd = simulated(), 0.7, np.array([5.0, 0.5, 0.2])
    X, y, B = matrix(d), d["y"], np.diag(sd**2)
    m0 = np.array([0.0, 1.0, 0.0])
    prior = {"Intercept": normal(0, 5), "x": normal(1, 0.5), "z": normal(0, 0.2), "sigma": s}
    fit = model("y ~ x + z", d, prior=prior).fit().infer()
    P = np.linalg.inv(np.linalg.inv(B) + X.T @ X / s**2)
    m = P @ (X.T @ y / s**2 + np.linalg.solve(B, m0))
    K = B @ X.T @ np.linalg.inv(X @ B @ X.T + s**2 * np.eye(len(y)))  # observation-space form
    np.testing.assert_allclose(fit.params["estimate"], m, rtol=1e-12)
    np.testing.assert_allclose(fit.params["estimate"], m0 + K @ (y - X @ m0), rtol=1e-11)
    np.testing.assert_allclose(fit.fit_state.vcov, P, rtol=1e-11)
    np.testing.assert_allclose(fit.posterior.cov.dense(), B - K @ X @ B, atol=1e-14)
    assert fit.params["df"].to_list() == [np.inf] * 3
    evidence = stats.multivariate_normal(X @ m0, s**2 * np.eye(len(y)) + X @ B @ X.T).logpdf(y)
    assert fit.posterior.log_evidence == pytest.approx(evidence, rel=1e-12)
    info = fit.posterior.information()
    assert info.dfs == pytest.approx(np.trace(X @ P @ X.T) / s**2, rel=1e-12)


def test_unknown_sigma_is_the_conjugate_update():
    """Normal–inverse-gamma by textbook formulas; y itself is multivariate t."""
    d, s0, nu0 = simulated(), 1.3, 5.0
    X, y, n = matrix(d), d["y"], 60
    V0 = np.diag([4.0, 1.0, 0.25]) / s0**2
    prior = {"Intercept": normal(0, 2), "x": normal(0, 1), "z": normal(0, 0.5), "sigma": (s0, nu0)}
    fit = model("y ~ x + z", d, prior=prior).fit().infer()
    V = np.linalg.inv(np.linalg.inv(V0) + X.T @ X)
    m = V @ X.T @ y
    b = 0.5 * nu0 * s0**2 + 0.5 * y @ np.linalg.solve(np.eye(n) + X @ V0 @ X.T, y)
    nu = nu0 + n
    post = fit.posterior
    np.testing.assert_allclose(post.mean, m, rtol=1e-12)
    np.testing.assert_allclose(post.cov.dense(), 2 * b / nu * V, rtol=1e-11)
    assert (post.kind, post.df, fit.params["df"][0]) == ("student_t", nu, nu)
    shape = s0**2 * (np.eye(n) + X @ V0 @ X.T)
    assert post.log_evidence == pytest.approx(stats.multivariate_t(np.zeros(n), shape, df=nu0).logpdf(y), rel=1e-11)
    info = post.information()
    assert info.dfs == pytest.approx(np.trace(X @ V @ X.T), rel=1e-11)
    assert info.entropy == pytest.approx(0.5 * (np.linalg.slogdet(V0)[1] - np.linalg.slogdet(V)[1]), rel=1e-11)


@pytest.mark.parametrize("start", ["flat", "proper"])
def test_batch_by_batch_is_all_at_once(start):
    """Property 5, 7, 8: estimates, covariance, df; evidences add up."""
    d = simulated(90)
    first = None if start == "flat" else {"Intercept": normal(0, 2), "x": normal(0, 1), "z": normal(0, 1), "sigma": (1.0, 4.0)}
    whole = model("y ~ x + z", d, prior=first).fit().infer().posterior
    for cuts in ([30, 60], [5, 80], [88]):
        post, evidence = first, 0.0
        for part in np.split(np.arange(90), cuts):
            post = model("y ~ x + z", rows(d, part), prior=post).fit().infer().posterior
            evidence += post.log_evidence or 0.0
        np.testing.assert_allclose(post.mean, whole.mean, rtol=1e-12)
        np.testing.assert_allclose(post.cov.dense(), whole.cov.dense(), rtol=1e-11)
        assert post.df == pytest.approx(whole.df, abs=1e-12)
        if start == "proper":
            assert evidence == pytest.approx(whole.log_evidence, rel=1e-12)


def test_a_vague_prior_gives_the_fit_without_one():
    d = simulated()
    plain = model("y ~ x + z", d).fit().infer().params
    vague = model("y ~ x + z", d, prior=normal(0, 1e7)).fit().infer().params
    for column in ("estimate", "se", "df", "ci_lower", "p_value"):
        np.testing.assert_allclose(vague[column], plain[column], rtol=1e-6)


def test_priors_by_name_leave_the_others_flat():
    d = simulated()
    X, y = matrix(d), d["y"]
    s = model("y ~ x + z", d).fit().fit_state.sigma
    fit = model("y ~ x + z", d, prior={"z": normal(0.1, 0.05)}).fit()
    H = X.T @ X + s**2 * np.diag([0, 0, 1 / 0.05**2])
    np.testing.assert_allclose(fit.params["estimate"], np.linalg.solve(H, X.T @ y + [0, 0, s**2 * 0.1 / 0.05**2]), rtol=1e-11)
    assert fit.fit_state.df_resid == 57


def test_weights_offset_and_counts():
    d = simulated()
    prior = {"Intercept": normal(0, 1), "x": normal(0, 1), "z": normal(0, 1), "sigma": 0.8}
    counted = model("y ~ x + z + offset(o)", d, freq_weights="w", prior=prior).fit().infer()
    repeated = model("y ~ x + z + offset(o)", rows(d, np.repeat(np.arange(60), d["w"].astype(int))), prior=prior).fit().infer()
    np.testing.assert_allclose(counted.params["se"], repeated.params["se"], rtol=1e-12)
    np.testing.assert_allclose(counted.params["estimate"], repeated.params["estimate"], rtol=1e-12)
    assert counted.posterior.log_evidence == pytest.approx(repeated.posterior.log_evidence, rel=1e-12)
    weighted = model("y ~ x + z", d, weights="w", prior=prior).fit().infer()
    X, y = matrix(d), d["y"]
    cov = X @ X.T + 0.64 * np.diag(1 / d["w"])
    assert weighted.posterior.log_evidence == pytest.approx(stats.multivariate_normal(np.zeros(60), cov).logpdf(y), rel=1e-12)


def test_more_coefficients_than_rows():
    d = rows(simulated(), slice(0, 8))
    fit = model("y ~ poly(x, 5) * z", d, prior={**dict.fromkeys(["z"], normal(0, 1)), "sigma": 1.0}).fit()
    assert fit.fit_state.kept.sum() < 12  # flat about what eight rows do not determine: dropped, and said
    full = model("y ~ x * z + I(x^2) * I(z^2)", rows(d, slice(0, 4)), prior=normal(0, 1))
    with pytest.raises(Refused, match="Say what is known of σ"):
        full.fit()
    names = model("y ~ x * z + I(x^2) * I(z^2)", d).fit().design.columns
    ridge = model("y ~ x * z + I(x^2) * I(z^2)", rows(d, slice(0, 4)), prior={**dict.fromkeys(names, normal(0, 1)), "sigma": 0.5}).fit()
    assert ridge.fit_state.kept.all()
    X, y = np.asarray(ridge.designmat), d["y"][:4]
    np.testing.assert_allclose(ridge.params["estimate"], np.linalg.solve(X.T @ X + 0.25 * np.eye(len(names)), X.T @ y), rtol=1e-9)


# ---------------------------------------------------------------- generalized linear models
CASES = [("binomial", "logit"), ("binomial", "probit"), ("binomial", "cloglog"), ("poisson", "log"), ("gamma", "log")]


def negative_log_posterior(d, family, link, sd, phi):
    X, y = matrix(d), d["y"]

    def function(beta):
        eta = X @ beta
        mu = {"logit": stats.logistic.cdf, "probit": stats.norm.cdf, "log": np.exp}.get(link, lambda e: 1 - np.exp(-np.exp(e)))(eta)
        if family == "binomial":
            loglik = np.where(y > 0, np.log(mu), np.log1p(-mu)).sum()
        elif family == "poisson":
            loglik = stats.poisson.logpmf(y, mu).sum()
        else:
            loglik = stats.gamma.logpdf(y, 1 / phi, scale=mu * phi).sum()
        return -loglik - stats.norm.logpdf(beta, 0, sd).sum()

    return function


@pytest.mark.parametrize(("family", "link"), CASES)
def test_the_most_probable_coefficients_and_their_curvature(family, link):
    d, sd = simulated(80, 3, family), np.array([2.0, 0.4, 0.3])
    prior = {"Intercept": normal(0, 2), "x": normal(0, 0.4), "z": normal(0, 0.3)}
    fit = model("y ~ x + z", d, family=family, link=link, prior=prior).fit().infer()
    function = negative_log_posterior(d, family, link, sd, fit.fit_state.dispersion)
    best = optimize.minimize(
        function, fit.fit_state.coef + 0.05, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 4000}
    )
    np.testing.assert_allclose(fit.params["estimate"], best.x, atol=2e-6)
    at, h = fit.fit_state.coef, 1e-4
    E = h * np.eye(3)
    H = np.array([[function(at + a + b) - function(at + a - b) - function(at - a + b) + function(at - a - b) for a in E] for b in E]) / (
        4 * h * h
    )
    np.testing.assert_allclose(np.linalg.inv(fit.fit_state.vcov), H, rtol=2e-5, atol=2e-5)  # differences of values: eps / h²
    post = fit.posterior
    assert post.provenance.adapter == "laplace"
    np.testing.assert_allclose(post.sd(), fit.params["se"], rtol=1e-9)
    assert set(fit.params["df"]) == {np.inf}
    laplace = -function(at) + 1.5 * np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(H)[1]
    assert post.log_evidence == pytest.approx(laplace, abs=1e-5)


def test_a_vague_prior_gives_the_generalized_fit_without_one():
    d = simulated(200, 1, "poisson")
    plain = model("y ~ x + z", d, family="poisson").fit().infer().params
    vague = model("y ~ x + z", d, family="poisson", prior=normal(0, 1e6)).fit().infer().params
    for column in ("estimate", "se", "p_value"):
        np.testing.assert_allclose(vague[column], plain[column], rtol=1e-7)


def test_separated_data_have_finite_estimates():
    d = {"y": [0.0, 0, 0, 1, 1, 1], "x": [1.0, 2, 3, 4, 5, 6]}
    fit = model("y ~ x", d, family="binomial", prior=normal(0, 2.5)).fit()
    assert fit.convergence.status == "ok"
    assert np.abs(fit.fit_state.coef).max() < 5


def test_a_stored_posterior_is_the_same_prior():
    d, new = simulated(80, 3, "poisson"), simulated(40, 4, "poisson")
    post = model("y ~ x + z", d, family="poisson").fit().infer().posterior
    stored = Posterior.from_dict(json.loads(json.dumps(post.to_dict())))
    for prior in (post, stored, post.as_prior()):
        fit = model("y ~ x + z", new, family="poisson", prior=prior).fit().infer()
        direct = post.cov.solve(np.eye(3)) @ (fit.fit_state.coef - post.mean)
        X = matrix(new)
        np.testing.assert_allclose(X.T @ (new["y"] - np.exp(X @ fit.fit_state.coef)), direct, atol=1e-8)
        assert fit.posterior.provenance.parent_hash == post.hash
    wide = model("y ~ x + z", new, family="poisson", prior=post.as_prior(inflate=100)).fit().infer()
    assert (wide.params["se"].to_numpy() > fit.params["se"].to_numpy()).all()


def test_names_are_matched_and_more_terms_are_flat():
    d = simulated(80)
    post = model("y ~ x", d).fit().infer().posterior
    more = model("y ~ z + x", d, prior=post).fit()
    turned = post.marginal(["x", "Intercept"])
    np.testing.assert_allclose(more.params["estimate"], model("y ~ z + x", d, prior=turned).fit().params["estimate"], rtol=1e-10)
    twice = {k: np.concatenate((v, v)) for k, v in d.items()}
    same = model("y ~ x", twice).fit().params["estimate"]
    np.testing.assert_allclose(model("y ~ x", d, prior=post).fit().params["estimate"], same, rtol=1e-11)


def test_a_prior_about_some_coefficients_is_kept_with_the_posterior():
    d = simulated(80)
    some = model("y ~ x", d).fit().infer().posterior
    post = model("y ~ z + x", d, prior=some).fit().infer().posterior
    again = Posterior.from_dict(json.loads(json.dumps(post.to_dict())))
    assert (again.prior.cov.solve(np.eye(3)) == post.prior.cov.solve(np.eye(3))).all()
    np.testing.assert_allclose(
        post.prior.marginal(["x", "Intercept"]).cov.dense(), some.marginal(["x", "Intercept"]).cov.dense(), rtol=1e-10
    )
    np.testing.assert_allclose(post.prior.marginal(["z", "x"]).cov.diag(), [np.inf, some.cov.diag()[1]], rtol=1e-10)
    info = post.information()
    assert info.entropy == np.inf
    assert info.share[1] == pytest.approx(1.0)  # of z everything is data
    X = np.column_stack((np.ones(80), d["z"], d["x"]))
    np.testing.assert_allclose(post.likelihood_part().precision, X.T @ X / post.sigma**2, atol=1e-9 * 80 / post.sigma**2)


def grouped():
    d = simulated()
    return d | {"g": np.repeat(["a", "b", "c", "d", "e", "f"], 10)}


MISTAKES = [
    (lambda d: model("y ~ x + (1 | g)", d, prior=normal(0, 1)).fit(), NotYet, "random effects and a prior"),
    (lambda d: model("y ~ x", d, family="t", prior=normal(0, 1)).fit(), NotYet, "family 't'"),
    (lambda d: model("o ~ x", d | {"o": d["w"]}, family="negbinomial", prior=normal(0, 1)).fit(), NotYet, "negbinomial"),
    (lambda d: model("y ~ x", d, prior=3.0).fit(), OptionError, "bossa.normal(0, 2.5)"),
    (lambda d: model("y ~ x", d, prior={"X": normal(0, 1)}).fit(), UnknownOption, "Did you mean 'x'"),
    (lambda d: model("y ~ x", d, prior={"x": 2.0}).fit(), OptionError, "bossa.normal(mean, sd)"),
    (lambda d: model("y ~ x", d, prior={"sigma": -2.0}).fit(), OptionError, "positive number"),
    (lambda d: model("w ~ x", d, family="poisson", prior={"x": normal(0, 1), "sigma": 2.0}).fit(), OptionError, "this family has none"),
    (lambda d: model("w ~ x", d, family="poisson", prior=model("y ~ x", d).fit().infer().posterior).fit(), BossaError, "gaussian()"),
    (lambda d: model("y ~ x", d, prior=model("y ~ x + z", d).fit().infer().posterior).fit(), UnknownOption, "post.marginal"),
    (lambda d: model("y ~ x", d, prior=normal(0, 1)).fit(max_iter=3), OptionError, "closed form"),
    (lambda d: model("w ~ x", d, family="poisson", prior=normal(0, 1)).fit(max_iter=0), OptionError, "max_iter=0"),
    (lambda d: model("w ~ x", d, family="poisson", prior=normal(0, 1)).fit(start=[1.0]), OptionError, "one number per coefficient"),
    (lambda d: model("y ~ x", d, prior=normal(0, 1)).fit().infer(errors="HC3"), Refused, "Use errors='iid'"),
    (lambda d: model("y ~ x", d, prior=normal(0, 1)).fit().infer(how="profile"), Refused, "Use how='posterior'"),
    (lambda d: model("w ~ x", d, family="poisson", prior=normal(0, 1)).fit().jointtest(test="lr"), Refused, "Use test='wald'"),
]


@pytest.mark.parametrize("case", range(len(MISTAKES)))
def test_what_is_not_allowed_is_named(case):
    act, error, text = MISTAKES[case]
    with pytest.raises(error) as caught:
        act(grouped())
    assert text in str(caught.value)


def test_a_negative_binomial_of_known_shape_takes_a_prior():
    d = simulated(80, 3, "poisson")
    fit = model("y ~ x", d, family=negbinomial(2.0), prior=normal(0, 0.1)).fit()
    plain = model("y ~ x", d, family=negbinomial(2.0)).fit()
    assert abs(fit.params["estimate"][1]) < abs(plain.params["estimate"][1])


def test_update_keeps_the_prior():
    d = simulated()
    prior = {"x": normal(0, 0.1)}
    direct = model("y ~ x", d, prior=prior).fit().params["estimate"]
    np.testing.assert_allclose(model("y ~ x + z", d, prior=prior).update(". ~ . - z").fit().params["estimate"], direct, rtol=1e-14)


def test_update_says_what_to_do_with_a_prior_of_a_term_that_leaves():
    m = model("y ~ x + z", simulated(), prior={"x": normal(0, 1), "z": normal(0, 1), "sigma": 1.0})
    for prior in (m.spec.prior, m.fit().infer().posterior):
        with pytest.raises(OptionError, match=r"prior names .*z.*, which 'y ~ x' does not have. Write model\("):
            model("y ~ x + z", simulated(), prior=prior).update(". ~ . - z")


def test_a_solver_belongs_to_least_squares():
    with pytest.raises(Refused, match=r"fit\(\): solver='gauss_newton' is not for a formula.*bossa.assimilate.least_squares\("):
        model("y ~ x", simulated()).fit(solver="gauss_newton")


PRIORS = {
    "by name": {"x": normal(0, 0.1), "z": normal(0, 0.2), "sigma": 0.7},
    "one": {"x": normal(0, 0.1)},
    "all": normal(0, 0.5),
    "a posterior": Posterior(names=("Intercept", "x", "z"), mean=np.zeros(3), cov=covop.Diag(np.array([4.0, 0.01, 0.04])), sigma=0.7),
}


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
@pytest.mark.parametrize("formula", ["y ~ x + z", "y ~ scale(x) + z"])
def test_cross_validation_leaves_out_terms_that_a_prior_names(formula, prior):
    """pre of x: by hand, refits to the other folds with and without x, each with what the prior says of the terms there are."""
    d = simulated(40)
    if "scale" in formula and prior is not PRIORS["all"]:
        prior = {"scale(x)": normal(0, 0.1), "z": normal(0, 0.2), "sigma": 0.7}
    m = model(formula, d, prior=prior).fit().infer(how="cv", k=4, seed=1)
    assert m.params["pre"][1:].is_not_null().all()
    if "scale" in formula or prior is PRIORS["one"] or prior is PRIORS["all"]:
        return
    folds = m.predict().infer(how="cv", k=4, seed=1).predictions["cv_fold"].to_numpy()
    X, y, lost = matrix(d), d["y"], []
    for columns in ([0, 1, 2], [0, 2]):
        precision = np.diag([0.25 * (prior is PRIORS["a posterior"]), 100.0, 25.0])[np.ix_(columns, columns)] * 0.49
        out = np.empty(40)
        for fold in range(4):
            inside, held = folds != fold + 1, folds == fold + 1
            A = X[inside][:, columns]
            out[held] = X[held][:, columns] @ np.linalg.solve(A.T @ A + precision, A.T @ y[inside])
        lost.append(((y - out) ** 2).sum())
    assert m.params["pre"][1] == pytest.approx(1 - lost[0] / lost[1], rel=1e-9)


def test_the_printout_says_that_there_is_a_prior():
    m = model("y ~ x", simulated(), prior=normal(0, 1)).fit().infer()
    assert "prior: normal, of every coefficient" in str(m)
    assert "sigma" in str(m)
    steps = {step.name: step.frame for step in m.explain().steps}
    assert steps["prior"]["sd"].to_list() == [1.0, 1.0]
    assert "σ²B⁻¹" in str(m.explain())
