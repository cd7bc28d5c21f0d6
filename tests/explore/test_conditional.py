"""Predictions with random effects, and intervals for new responses, against dense algebra and simulation."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from bossa import load_dataset, model
from bossa.errors import DataError, NotYet, OptionError, Refused

SLEEP = load_dataset("sleepstudy")


@pytest.fixture(scope="module")
def sleep():
    return model("Reaction ~ Days + (Days | Subject)", SLEEP).fit()


def henderson(m, x, z):
    """Var(xβ̂ + z(b̂ − b)) by the inverse of the dense mixed-model equations (Henderson 1975)."""
    term, fit = m.design.random.terms[0], m.fit_state
    T = np.array([[fit.theta[0], 0], [fit.theta[1], fit.theta[2]]])
    G = np.kron(np.eye(len(term.levels)), fit.sigma**2 * T @ T.T)
    Z = np.zeros((m.design.n, 2 * len(term.levels)))
    for j in range(2):
        Z[np.arange(m.design.n), 2 * term.group + j] = term.Z[:, j]
    C = np.hstack([m.design.X, Z])
    A = C.T @ C / fit.sigma**2
    A[2:, 2:] += np.linalg.inv(G)
    c = np.concatenate([x, z])
    return c @ np.linalg.solve(A, c), z @ G @ z


def test_standard_errors_of_known_and_new_groups_are_hendersons(sleep):
    new = pl.DataFrame({"Days": [0.0, 7.0, 7.0], "Subject": ["308", "350", "new"]})
    got = sleep.predict(new, new_levels="population").infer().predictions
    level = sleep.design.random.terms[0].levels.index
    for i, (days, subject) in enumerate(new.rows()[:2]):
        z = np.zeros(36)
        z[2 * level(subject) : 2 * level(subject) + 2] = [1, days]
        assert got["se"][i] == pytest.approx(np.sqrt(henderson(sleep, [1, days], z)[0]), rel=1e-8)
    fixed = np.array([1, 7]) @ sleep.fit_state.vcov @ [1, 7]
    z = np.zeros(36)
    z[:2] = [1, 7]
    assert got["se"][2] == pytest.approx(np.sqrt(fixed + henderson(sleep, [1, 7], z)[1]), rel=1e-8)


def test_a_prediction_interval_adds_the_residual_variance_and_a_new_groups_whole_variance(sleep):
    new = pl.DataFrame({"Days": [7.0], "Subject": ["new"]})
    known = sleep.predict(new, new_levels="population").infer(interval="prediction").predictions
    left_out = sleep.predict(new.select("Days"), varying="exclude").infer(interval="prediction").predictions
    half = 1.959963984540054 * np.sqrt(known["se"][0] ** 2 + sleep.fit_state.sigma**2)
    assert known["ci_upper"][0] - known["fitted"][0] == pytest.approx(half, rel=1e-9)
    np.testing.assert_allclose(left_out["ci_upper"].to_numpy(), known["ci_upper"].to_numpy(), rtol=1e-9)


def test_every_policy_for_a_group_that_is_new_or_missing(sleep):
    new = pl.DataFrame({"Days": [0, 0, 0], "Subject": ["308", "new", None]})
    with pytest.raises(DataError, match=r"groups that the fit did not have: new\. .*new_levels='population'"):
        sleep.predict(new)
    population = sleep.predict(new, new_levels="population").predictions["fitted"]
    assert population[1] == population[2] == pytest.approx(sleep.params["estimate"][0])
    drawn = sleep.predict(new, new_levels="sample").predictions["fitted"]
    assert drawn[0] == population[0]
    assert len({drawn[1], drawn[2], population[1]}) == 3
    missing = sleep.predict(new[[0, 2]]).predictions["fitted"]
    assert missing.to_list() == [population[0], None]


def test_fitted_values_of_the_data_are_the_predictions_with_groups(sleep):
    np.testing.assert_allclose(sleep.predict().predictions["fitted"].to_numpy(), sleep.fit_state.mu, rtol=1e-12)


def test_uncertainty_of_generalized_mixed_predictions_with_groups_is_refused_by_name():
    cbpp = load_dataset("cbpp")
    m = model("cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp, family="binomial").fit()
    np.testing.assert_allclose(m.predict().predictions["fitted"].to_numpy(), m.fit_state.mu, rtol=1e-8)
    with pytest.raises(NotYet, match="varying='exclude'"):
        m.predict().infer()
    assert m.predict(varying="exclude").infer().predictions["se"].is_finite().all()


@pytest.mark.parametrize(("family", "formula"), [("poisson", "breaks ~ wool * tension"), ("gamma", "breaks ~ wool + tension")])
def test_prediction_intervals_of_glms_cover_new_responses(family, formula):
    """The simulated limits against the quantiles of the family at the fitted mean: wider, by the uncertainty of the parameters."""
    m = model(formula, load_dataset("warpbreaks"), family=family, link="log").fit()
    cells = m.predict("wool ~ tension").infer(interval="prediction", seed=1)
    frame = cells.predictions
    rng = np.random.default_rng(2)
    mu = frame["fitted"].to_numpy()
    y = np.stack([m.spec.family.sample(rng, mu, m.fit_state.dispersion, None) for _ in range(20_000)])
    inside = ((y >= frame["ci_lower"].to_numpy()) & (y <= frame["ci_upper"].to_numpy())).mean(axis=0)
    assert ((inside > 0.945) & (inside < 0.995)).all()
    assert frame.equals(m.predict("wool ~ tension").infer(interval="prediction", seed=1).predictions)
    assert (frame["ci_lower"] >= 0).all()


def test_bad_questions(sleep):
    with pytest.raises(OptionError, match="nothing is drawn"):
        sleep.predict().infer(seed=1)
    with pytest.raises(Refused, match="not defined for predictions with random effects"):
        sleep.predict().infer(df="satterthwaite")


def test_rows_without_groups_are_told_how_to_ask_for_the_population(sleep):
    with pytest.raises(DataError, match=r"'Subject' is not a column of the data, and the random effects need it.*varying='exclude'"):
        sleep.predict(pl.DataFrame({"Days": [1.0]}))
    assert sleep.predict("Days@1", varying="exclude").predictions.height == 1
    one = sleep.predict(pl.DataFrame({"Days": [1.0], "Subject": ["new"]}), new_levels="population")
    assert "1 row with a group that the fit did not have" in repr(one)


def test_what_generalized_mixed_models_do_not_predict_is_refused_with_advice_that_works():
    m = model("cbind(incidence, size - incidence) ~ period + (1 | herd)", load_dataset("cbpp"), family="binomial").fit()
    with pytest.raises(NotYet, match=r"varying='exclude'"):
        m.predict().infer()
    with pytest.raises(NotYet, match=r"interval='confidence'"):
        m.predict("period", varying="exclude").infer(interval="prediction")
    assert m.predict("period", varying="exclude").infer(interval="confidence").predictions["se"].null_count() == 0


def test_effects_of_a_new_group_carry_the_variance_of_its_random_effects(sleep):
    """Means as predictions for a new group; a contrast has the variance of the difference of its random effects."""
    means = sleep.explore("Days@[0, 5]", varying="include").infer()
    new = sleep.predict(pl.DataFrame({"Days": [0.0, 5.0], "Subject": ["new", "new"]}), new_levels="population").infer().predictions
    np.testing.assert_allclose(means.effects["se"].to_numpy(), new["se"].to_numpy(), rtol=1e-8)
    np.testing.assert_allclose(means.effects["estimate"].to_numpy(), sleep.explore("Days@[0, 5]").effects["estimate"].to_numpy())
    assert "for one new group" in repr(means)
    theta, sigma = sleep.fit_state.theta, sleep.fit_state.sigma
    slope = sigma**2 * (theta[1] ** 2 + theta[2] ** 2)
    difference = sleep.explore("pairwise(Days@[0, 5])", varying="include").infer().effects["se"][0]
    assert difference == pytest.approx(5 * np.sqrt(sleep.fit_state.vcov[1, 1] + slope), rel=1e-9)


def test_new_groups_of_a_generalized_model_on_the_link_scale():
    m = model("cbind(incidence, size - incidence) ~ period + (1 | herd)", load_dataset("cbpp"), family="binomial").fit()
    plain, wide = (m.explore("period", scale="link", varying=v).infer().effects["se"].to_numpy() for v in ("exclude", "include"))
    np.testing.assert_allclose(wide**2 - plain**2, m.fit_state.theta[0] ** 2, rtol=1e-9)


def test_including_random_effects_is_refused_where_it_means_nothing_or_is_not_built(sleep):
    with pytest.raises(Refused, match="no random effects to include"):
        model("Reaction ~ Days", SLEEP).fit().explore("Days@[0, 5]", varying="include")
    with pytest.raises(NotYet, match="balanced grid"):
        sleep.explore("slope(Days)", varying="include")


def test_a_query_that_names_no_group_is_about_the_population(sleep):
    asked = sleep.predict("Days@[0, 7]")
    np.testing.assert_allclose(asked.predictions["fitted"].to_numpy(), sleep.explore("Days@[0, 7]").effects["estimate"].to_numpy())
    assert "random effects left out" in repr(asked)


def test_simultaneous_tests_of_a_new_group_know_its_random_effects(sleep):
    """Three means of one new group: their correlation, and so the mvt correction, is that of J V Jᵀ + z Σ zᵀ."""
    asked = sleep.explore("treatment(Days@[0, 4, 8])", varying="include").infer(adjust="mvt")
    theta, sigma = sleep.fit_state.theta, sleep.fit_state.sigma
    slope = sleep.fit_state.vcov[1, 1] + sigma**2 * (theta[1] ** 2 + theta[2] ** 2)
    np.testing.assert_allclose(asked.focus_inference.vcov, slope * np.outer([4, 8], [4, 8]), rtol=1e-9)
    alone = sleep.explore("treatment(Days@[0, 4, 8])", varying="include").infer(adjust="none").effects
    np.testing.assert_allclose(asked.effects["p_value"].to_numpy(), alone["p_value"].to_numpy(), atol=1e-3)  # perfectly correlated


def test_weighted_counts_cannot_be_simulated():
    data = load_dataset("warpbreaks").with_columns(w=pl.Series([1.0, 2.0] * 27))
    with pytest.raises(Refused, match="prior weights make a poisson response"):
        model("breaks ~ wool", data, family="poisson", weights="w").fit().simulate(1, seed=1)
