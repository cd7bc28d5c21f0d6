"""Adapters against second differences, quadrature, statsmodels and each other; targets; provenance of a fit."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from scipy import stats

from bossa import load_dataset, model, normal
from bossa.errors import BossaError, DataWarning, OptionError, Refused
from bossa.infer.posterior import PosteriorOptions, _laplace, log_posterior, moments


@pytest.fixture(scope="module")
def cars():
    return load_dataset("mtcars")


def posterior(m, adapter, **options):
    return m.infer(how="posterior", adapter=adapter, **options).posterior


GLMS = [
    ("am ~ wt", "binomial", "logit"),
    ("carb ~ wt + hp", "poisson", "log"),
    ("am ~ wt", "binomial", "probit"),
    ("mpg ~ wt", "gamma", "log"),
]


@pytest.mark.parametrize(("formula", "family", "link"), GLMS)
def test_laplace_is_the_curvature_and_gauss_newton_its_mean(cars, formula, family, link):
    m = model(formula, cars, family=family, link=link).fit()
    gn, laplace = (posterior(m, a).cov.dense() for a in ("gauss_newton", "laplace"))
    at = m.fit_state.coef
    h = 3e-3 * np.sqrt(np.diag(laplace))  # in standard errors

    def f(beta):
        return log_posterior(m.problem, m.fit_state, beta[None])[0]

    steps = np.diag(h)
    H = np.array([[f(at + a + b) - f(at + a - b) - f(at - a + b) + f(at - a - b) for a in steps] for b in steps]) / -4 / np.outer(h, h)
    # relative error of the differences: h² of the fourth derivative, and eps/h²
    np.testing.assert_allclose(H, np.linalg.inv(laplace), rtol=3e-5)
    natural = (family, link) in (("binomial", "logit"), ("poisson", "log"))
    gap = np.abs(gn / laplace - 1).max()
    assert gap <= 1e-12 if natural else gap > 1e-3


@pytest.mark.parametrize(("formula", "family", "link"), GLMS[:2])
def test_the_observed_information_formed_anew_is_the_reused_factor(cars, formula, family, link):
    """Canonical links share one factor, the last scoring step's: it may lag behind the estimates by the search's 2e-8 of the weights."""
    m = model(formula, cars, family=family, link=link).fit()
    anew = _laplace(m.problem, m.fit_state).dense()
    np.testing.assert_allclose(posterior(m, "laplace").cov.dense(), anew, rtol=1e-7)


@pytest.mark.parametrize(("formula", "family", "link"), GLMS)
def test_gauss_newton_is_statsmodels_covariance(cars, formula, family, link):
    m = model(formula, cars, family=family, link=link).fit()
    kinds = {"binomial": sm.families.Binomial, "poisson": sm.families.Poisson, "gamma": sm.families.Gamma}
    links = {"logit": sm.families.links.Logit, "probit": sm.families.links.Probit, "log": sm.families.links.Log}
    X = np.asarray(m.designmat)
    theirs = sm.GLM(cars[formula.split()[0]].to_numpy(), X, family=kinds[family](links[link]())).fit(tol=1e-14, maxiter=100)
    np.testing.assert_allclose(posterior(m, "gauss_newton").cov.dense(), theirs.cov_params(), rtol=1e-7)


def test_the_three_are_one_for_a_linear_model(cars):
    m = model("mpg ~ wt + hp", cars).fit()
    covs = [posterior(m, a).cov.dense() for a in ("exact", "gauss_newton", "laplace")]
    for other in covs[1:]:
        np.testing.assert_allclose(other, covs[0], rtol=1e-13)
    np.testing.assert_allclose(covs[0], m.fit_state.vcov, rtol=1e-12)
    exact = posterior(m, "auto")
    asymp = m.infer().params
    np.testing.assert_allclose(exact.interval().T, asymp[["ci_lower", "ci_upper"]].to_numpy(), rtol=1e-12)


def test_default_adapters(cars):
    adapters = {
        "exact": model("mpg ~ wt", cars).fit(),
        "gauss_newton": model("am ~ wt", cars, family="binomial").fit(),
        "laplace": model("am ~ wt", cars, family="binomial", prior=normal(0, 2)).fit(),
    }
    for adapter, m in adapters.items():
        assert m.infer(how="posterior").posterior.provenance.adapter == adapter
        assert m.infer(how="posterior").inference.options["adapter"] == adapter


def test_too_few_lanczos_steps_are_said():
    rng = np.random.default_rng(0)
    d = {f"x{i}": rng.normal(size=100) for i in range(30)} | {"y": rng.normal(size=100)}
    m = model("y ~ " + " + ".join(f"x{i}" for i in range(30)), d, prior=normal(0, 1)).fit()
    exact = posterior(m, "exact")
    with pytest.warns(DataWarning, match="do not exhaust the data"):
        few = posterior(m, "exact", solver="lanczos", n_krylov=5)
    assert (few.sd() > exact.sd() * (1 - 1e-9)).all()  # never surer than the truth
    np.testing.assert_allclose(posterior(m, "exact", solver="lanczos", n_krylov=31).cov.dense(), exact.cov.dense(), atol=1e-12)


def test_lanczos_reaches_the_factor(cars):
    m = model("am ~ wt + hp", cars, family="binomial", prior=normal(0, 2)).fit()
    options = {"adapter": "gauss_newton"}
    direct = posterior(m, **options).cov.dense()
    krylov = posterior(m, **options, solver="lanczos", n_krylov=10).cov
    assert krylov.kind == "lowrank+diag"
    np.testing.assert_allclose(krylov.dense(), direct, rtol=1e-8)
    linear = model("mpg ~ wt + hp", cars, prior=normal(0, 2)).fit()
    np.testing.assert_allclose(posterior(linear, "exact", solver="lanczos").cov.dense(), posterior(linear, "exact").cov.dense(), rtol=1e-8)


# ---------------------------------------------------------------- draws
def test_samples_have_the_moments_of_the_exact_posterior(cars):
    """Two coefficients: the posterior by quadrature on a grid."""
    m = model("am ~ wt", cars, family="binomial", prior=normal(0, 3)).fit()
    post = posterior(m, "samples", n_draws=20_000, seed=4)
    sd = np.sqrt(np.diag(m.fit_state.vcov))
    axes = [np.linspace(c - 8 * s, c + 8 * s, 400) for c, s in zip(m.fit_state.coef, sd)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    logs = log_posterior(m.problem, m.fit_state, grid)
    w = np.exp(logs - logs.max())
    w /= w.sum()
    mean = w @ grid
    cov = (grid - mean).T @ ((grid - mean) * w[:, None])
    assert np.abs(m.fit_state.coef - mean).max() > 0.2  # skewed: the mode is elsewhere
    np.testing.assert_allclose(post.mean, mean, atol=5 * np.sqrt(np.diag(cov)).max() / np.sqrt(18_000))
    np.testing.assert_allclose(np.cov(post.samples.T), cov, rtol=0.06)
    assert (posterior(m, "samples", n_draws=50, seed=4).samples == posterior(m, "samples", n_draws=50, seed=4).samples).all()


def test_an_ensemble_agrees_with_its_draws(cars):
    m = model("mpg ~ wt + hp", cars).fit()
    post = posterior(m, "ensemble", n_draws=400, seed=1)
    np.testing.assert_allclose(post.cov.dense(), np.cov(post.samples.T), rtol=1e-12)
    wide = posterior(m, "ensemble", n_draws=400, seed=1, inflate=1.7)
    np.testing.assert_allclose(wide.cov.dense(), 1.7 * post.cov.dense(), rtol=1e-12)
    np.testing.assert_allclose(np.cov(wide.samples.T), wide.cov.dense(), rtol=1e-12)
    boot = m.infer(how="boot", n_boot=400, seed=1)
    np.testing.assert_allclose(boot.posterior.cov.dense(), post.cov.dense(), rtol=1e-12)
    np.testing.assert_allclose(boot.posterior.sd(), boot.params["se"], rtol=1e-12)


def test_few_members_are_warned_of_shrunk_and_tapered():
    rng = np.random.default_rng(0)
    k, M = 30, 20
    lags = np.arange(k)
    truth = 0.6 ** np.abs(lags[:, None] - lags)
    members = rng.multivariate_normal(np.zeros(k), truth, size=M)
    with pytest.warns(DataWarning, match="20 members span at most 19 of 30"):
        raw = moments(members, None, PosteriorOptions())[1]
    assert raw.rank == M - 1
    shrunk, tapered = (moments(members, None, PosteriorOptions(**o))[1] for o in ({"shrink": "ledoit-wolf"}, {"localization": 5.0}))
    assert shrunk.kind == "lowrank+diag"
    np.testing.assert_allclose(shrunk.diag(), np.var(members, axis=0, ddof=1), rtol=1e-10)
    error = [np.linalg.norm(op.dense() - truth) for op in (raw, shrunk, tapered)]
    assert max(error[1:]) < 0.8 * error[0]
    assert (tapered.dense()[np.abs(lags[:, None] - lags) >= 10] == 0).all()
    assert min(shrunk.rank, tapered.rank) == k


def test_ledoit_and_wolfs_weight_is_the_oracle_on_average():
    """The best weight minimises E‖(1−δ)S + δμI − Σ‖²; the estimate from data comes close (their Theorem 3.2)."""
    from bossa.kernels.densities import ledoit_wolf

    rng, k, M = np.random.default_rng(1), 8, 40
    truth = np.diag(np.linspace(0.5, 3, k))
    weights, S_all = [], []
    for _ in range(400):
        draws = rng.standard_normal((M, k)) * np.sqrt(np.diag(truth))
        away = draws - draws.mean(axis=0)
        weights.append(ledoit_wolf(away)[0])
        S_all.append(away.T @ away / M)
    mu = np.trace(truth) / k
    noise = np.mean([np.sum((S - truth) ** 2) for S in S_all])
    oracle = noise / (noise + np.sum((truth - mu * np.eye(k)) ** 2))
    assert np.mean(weights) == pytest.approx(oracle, abs=0.06)


# ---------------------------------------------------------------- targets
def test_an_effect_is_a_linear_image(cars):
    m = model("mpg ~ wt + factor(cyl)", cars).fit()
    shown = m.explore("pairwise(cyl)").infer(adjust="none")
    post = shown.posterior
    np.testing.assert_allclose(post.mean, shown.effects["estimate"], rtol=1e-12)
    np.testing.assert_allclose(post.scale(), shown.effects["se"], rtol=1e-11)
    np.testing.assert_allclose(post.interval().T, shown.effects[["ci_lower", "ci_upper"]].to_numpy(), rtol=1e-11)
    assert post.names[0] == "cyl4 - cyl6"
    assert post.cov.rank == 2  # three contrasts of three means
    L = m.explore("pairwise(cyl)").focus.target.jacobian(m.fit_state.coef)
    np.testing.assert_allclose(m.infer().posterior.transform(L).cov.dense(), post.cov.dense(), atol=1e-14)
    table = m.explore("cyl").infer(how="posterior").effects
    assert {"estimate", "sd", "ci_lower", "ci_upper"} <= set(table.columns)


def test_predictions_on_the_scale_of_the_response(cars):
    m = model("am ~ wt", cars, family="binomial").fit()
    new = cars[:4]
    table = m.predict(new).infer().predictions
    post = m.infer().posterior.predict(new)
    np.testing.assert_allclose(post.interval().T, table[["ci_lower", "ci_upper"]].to_numpy(), rtol=1e-10)
    np.testing.assert_allclose(m.predict(new).infer(how="posterior").posterior.interval(), post.interval(), rtol=1e-12)
    draws = 1 / (1 + np.exp(-m.infer().posterior.sample(100_000, seed=1) @ np.column_stack((np.ones(4), new["wt"])).T))
    np.testing.assert_allclose(np.quantile(draws, [0.025, 0.975], axis=0), post.interval(), atol=0.01)
    assert m.infer().posterior.predict(new, type="link").back is None


def test_a_bent_target_is_carried_draw_by_draw(cars):
    m = model("am ~ wt", cars, family="binomial").fit()
    shown = m.explore("wt@[3]", average="observed").infer(how="posterior", adapter="samples", n_draws=4000, seed=1)
    draws = posterior(m, "samples", n_draws=4000, seed=1).samples
    expected = 1 / (1 + np.exp(-(draws @ [1.0, 3.0])))
    values = shown.posterior.samples[:, 0]
    shown_values = values if shown.posterior.back is None else shown.posterior.back.value(values)
    np.testing.assert_allclose(shown_values, expected, rtol=1e-10)


@pytest.mark.parametrize("how", ["asymp", "joint", "perm", "posterior", "boot"])
def test_a_posterior_stands_after_every_how(cars, how):
    options = {"perm": {"n_perm": 50, "seed": 1}, "boot": {"n_boot": 50, "seed": 1}}.get(how, {})
    post = model("mpg ~ wt", cars).fit().infer(how=how, **options).posterior
    assert post.names == ("Intercept", "wt")
    assert post.provenance.verify(cars)


def test_robust_errors_make_a_robust_posterior(cars):
    m = model("am ~ wt", cars, family="binomial").fit().infer(errors="HC0")
    np.testing.assert_allclose(m.posterior.sd(), m.params["se"], rtol=1e-10)
    shown = m.predict(cars[:3]).infer(errors="HC0")  # through the link too
    np.testing.assert_allclose(shown.posterior.interval().T, shown.predictions[["ci_lower", "ci_upper"]].to_numpy(), rtol=1e-9)


def test_the_jackknife_has_its_own_covariance(cars):
    for counts in (None, "carb"):
        m = model("mpg ~ wt", cars, freq_weights=counts).fit().infer(how="boot", scheme="jackknife")
        np.testing.assert_allclose(m.posterior.sd(), m.params["se"], rtol=1e-9)
        np.testing.assert_allclose(m.posterior.mean, m.params["estimate"], rtol=1e-12)
    with pytest.raises(Refused, match="save_resamples"):
        _ = model("mpg ~ wt", cars).fit().infer(how="boot", n_boot=20, seed=1, save_resamples=False).posterior


def test_mixed_models_hand_on_their_fixed_effects():
    m = model("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy")).fit()
    post = m.infer().posterior
    np.testing.assert_allclose(post.cov.dense(), m.fit_state.vcov, rtol=1e-12)
    assert "random effects" in post.notes[0]
    boot = m.infer(how="boot", n_boot=30, seed=1).posterior
    assert boot.kind == "ensemble"
    slope = m.explore("Days").infer()
    np.testing.assert_allclose(slope.posterior.mean, slope.effects["estimate"], rtol=1e-12)
    assert m.predict(varying="exclude").infer().posterior.mean.shape == (180,)
    with pytest.raises(Refused, match="varying='exclude'"):
        _ = m.predict().infer().posterior


# ---------------------------------------------------------------- provenance of a fit
def test_a_change_changes_exactly_its_hash(cars):
    def origin(data=cars, formula="mpg ~ wt + factor(cyl)", **options):
        return model(formula, data, **options).fit().infer().posterior.provenance

    base = origin()
    row = cars.with_row_index()
    cell = row.with_columns(pl.when(pl.col("index") == 3).then(pl.col("wt") + 1e-12).otherwise(pl.col("wt")).alias("wt")).drop("index")
    prior, tighter = ({"wt": normal(0, 2)}, {"wt": normal(0, 1)})
    changes = {
        "nothing": (origin(), set()),
        "one cell": (origin(cell), {"data_hash"}),
        "a column that is not used": (origin(cars.with_columns(qsec=pl.lit(0.0))), set()),
        "a contrast": (
            origin(formula="mpg ~ wt + C(cyl, sum)"),
            {"forward_model_hash"},
        ),
        "a prior": (origin(prior=prior), {"cov_op_hash"}),
    }
    watched = ("forward_model_hash", "data_hash", "cov_op_hash", "parent_hash", "model_hash")
    for name, (other, expected) in changes.items():
        assert {w for w in watched if getattr(other, w) != getattr(base, w)} == expected, name
    assert origin(prior=prior).cov_op_hash != origin(prior=tighter).cov_op_hash
    assert base.verify(cars)
    assert not base.verify(cell)


def test_fits_that_build_on_each_other_form_a_chain(cars):
    from bossa.state.provenance import verify_chain

    states = [model("mpg ~ wt", cars[:12]).fit().infer().posterior]
    for i in (12, 22):
        states.append(model("mpg ~ wt", cars[i : i + 10], prior=states[-1]).fit().infer().posterior)
    assert verify_chain(states)
    with pytest.raises(BossaError, match="state 1 does not build on state 0"):
        verify_chain([states[0], states[2]])
    draws = posterior(model("am ~ wt", cars, family="binomial").fit(), "samples", seed=1)
    after = model("am ~ wt", cars, family="binomial", prior=draws).fit().infer().posterior
    assert verify_chain([draws, after])


def test_rows_left_out_do_not_enter(cars):
    gaps = cars.with_columns(wt=pl.when(pl.col("hp") > 200).then(None).otherwise(pl.col("wt")))
    origin = model("mpg ~ wt", gaps).fit().infer().posterior.provenance
    assert origin.rows_left_out == tuple(np.flatnonzero(cars["hp"] > 200))
    assert origin.verify(gaps)
    assert origin.verify(cars)  # the rows used are the same
    assert not origin.verify(cars.with_columns(mpg=pl.col("mpg") + 1))


MISTAKES = [
    (lambda c: model("am ~ wt", c, family="binomial").fit().infer(how="posterior", adapter="exact"), Refused, "linear models only"),
    (lambda c: model("mpg ~ wt", c).fit().infer(how="posterior", inflate=2.0), OptionError, "It is for ensemble"),
    (lambda c: model("mpg ~ wt", c).fit().infer(how="posterior", adapter="ensembel"), OptionError, "Did you mean 'ensemble'"),
    (lambda c: model("mpg ~ wt", c).fit().infer(how="posterior", solver="lanczos"), Refused, "normal(0, 2.5)"),
    (lambda c: model("mpg ~ wt", c).fit().infer(how="posterior", n_krylov=3), OptionError, "n_krylov= is for solver='lanczos'"),
    (lambda c: model("mpg ~ wt", c).fit().posterior, AttributeError, "m.infer()"),
    (lambda c: model("mpg ~ wt", c).fit().simulate(2).infer().posterior, Refused, "predict"),
    (lambda c: model("mpg ~ wt", c, family="t").fit().infer(how="posterior", adapter="laplace"), Refused, "gauss_newton"),
    (lambda c: model("am ~ wt", c, family="quasibinomial").fit().infer(how="posterior", adapter="samples"), Refused, "quasi"),
]


@pytest.mark.parametrize("case", range(len(MISTAKES)))
def test_what_is_not_defined_is_named(cars, case):
    act, error, text = MISTAKES[case]
    with pytest.raises(error) as caught:
        act(cars)
    assert text in str(caught.value)
    assert isinstance(caught.value, BossaError)


def test_intervals_of_a_t_posterior_are_those_of_its_quantiles(cars):
    post = model("mpg ~ wt", cars).fit().infer().posterior
    draws = post.sample(400_000, seed=1)
    np.testing.assert_allclose(np.quantile(draws, [0.05, 0.95], axis=0), post.interval(0.9), atol=0.05)
    assert stats.t.ppf(0.95, 30) * post.scale()[1] == pytest.approx(post.interval(0.9)[1, 1] - post.mean[1])
