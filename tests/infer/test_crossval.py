"""how="cv": refits written out, leverage against refits, groups held out whole, transforms learnt anew, importance of terms."""

import numpy as np
import polars as pl
import pytest

from bossa import load_dataset, model
from bossa.errors import BossaWarning, NotFitted, OptionError, Refused
from bossa.infer.scores import area_under_roc


def cars():
    return load_dataset("mtcars").with_columns(g=pl.col("cyl").cast(pl.String), k=pl.Series([1, 2, 3, 1] * 8))


def by_hand(formula, data, folds, **options):
    """Predictions of each fold by a model of the others, all through the public interface."""
    out = np.full(data.height, np.nan)
    for j in np.unique(folds):
        train, test = data.filter(pl.Series(folds != j)), data.filter(pl.Series(folds == j))
        predicted = model(formula, train, **options).fit().predict(test, **({"new_levels": "population"} if "|" in formula else {}))
        out[folds == j] = predicted.predictions["fitted"].to_numpy()
    return out


CASES = {
    "lm": ("mpg ~ wt + hp", {}),
    "weighted, offset": ("mpg ~ wt + offset(qsec)", {"weights": "qsec"}),
    "counts": ("mpg ~ wt", {"freq_weights": "k"}),
    "learnt": ("mpg ~ scale(wt) * poly(hp, 2) + ns(disp, 2)", {}),
    "poisson": ("carb ~ wt + offset(log(qsec))", {"family": "poisson"}),
    "gamma": ("mpg ~ wt + g", {"family": "gamma", "link": "log", "weights": "qsec"}),
    "negbinomial": ("carb ~ hp", {"family": "negbinomial"}),
}


@pytest.mark.filterwarnings("ignore::bossa.errors.BoundaryWarning")
@pytest.mark.parametrize("k", [4, "loo"])
@pytest.mark.parametrize("name", CASES)
def test_predictions_are_those_of_models_fitted_without_the_fold(name, k):
    formula, options = CASES[name]
    m = model(formula, cars(), **options).fit().predict().infer(how="cv", k=k, seed=1)
    frame = m.predictions
    folds = frame["cv_fold"].to_numpy()
    assert len(np.unique(folds)) == (32 if k == "loo" else 4)
    response = frame[formula.split()[0]].to_numpy()
    np.testing.assert_allclose(frame["cv_fitted"], by_hand(formula, cars(), folds, **options), rtol=1e-6)
    np.testing.assert_allclose(frame["cv_residual"], response - frame["cv_fitted"])
    counts = cars()["k"].to_numpy() if name == "counts" else np.ones(32)
    squared = np.average(frame["cv_residual"].to_numpy() ** 2, weights=counts)
    assert m.diagnostics["cv_rmse"][0] == pytest.approx(np.sqrt(squared))


def test_leverage_and_refits_say_the_same():
    """Rows in groups of one take the way of refits, leave-one-out that of 1/(1 − h)."""
    d = cars().with_row_index("row")
    m = model("mpg ~ wt * hp", d, weights="qsec").fit()
    one = m.infer(how="cv", k="loo")
    other = m.infer(how="cv", k=32, seed=1)
    by_fold = model("mpg ~ wt * hp", d, weights="qsec").fit().infer(how="cv", holdout_group="row", k="loo")
    for found in (other, by_fold):
        np.testing.assert_allclose(found.inference.extra.fitted, one.inference.extra.fitted, rtol=1e-10)
        np.testing.assert_allclose(found.params["pre"].to_numpy()[1:], one.params["pre"].to_numpy()[1:], rtol=1e-9)


def test_the_folds_depend_on_the_seed_alone_and_are_even():
    m = model("mpg ~ wt", cars()).fit()
    one, two = (m.infer(how="cv", seed=s, n_jobs=j).inference for s, j in ((1, None), (1, 2)))
    np.testing.assert_array_equal(one.extra.fold, two.extra.fold)
    np.testing.assert_array_equal(one.extra.fitted, two.extra.fitted)
    assert sorted(np.bincount(one.extra.fold)) == [3] * 8 + [4] * 2
    assert not (one.extra.fold == m.infer(how="cv", seed=2).inference.extra.fold).all()


def test_groups_of_a_mixed_model_are_held_out_together_and_predicted_by_the_fixed_part():
    """Leave-one-subject-out of sleepstudy; lme4's loop gives the same MSE (design/engine.md, W14c, to 7 digits)."""
    sleep = load_dataset("sleepstudy")
    m = model("Reaction ~ Days + (Days | Subject)", sleep).fit().predict().infer(how="cv", k="loo")
    frame = m.predictions
    assert (frame.group_by("Subject").agg(pl.col("cv_fold").n_unique())["cv_fold"] == 1).all()
    expected = by_hand("Reaction ~ Days + (Days | Subject)", sleep, frame["cv_fold"].to_numpy())
    np.testing.assert_allclose(frame["cv_fitted"], expected, rtol=1e-5)
    assert "groups of Subject" in m.focus_inference.notes[0]


def test_known_groups_are_predicted_with_their_random_effects():
    rng = np.random.default_rng(0)
    s, h = np.repeat(np.arange(12), 8), np.tile(np.arange(8), 12)
    d = pl.DataFrame({"s": s, "h": h, "x": rng.normal(size=96), "f": np.arange(96) % 4})
    d = d.with_columns(y=pl.col("x") + pl.Series(2 * rng.normal(size=12)[s] + rng.normal(size=8)[h] + rng.normal(size=96)))
    one = model("y ~ x + (1 | s)", d).fit().infer(how="cv", holdout_group="f")
    np.testing.assert_allclose(one.inference.extra.fitted, by_hand("y ~ x + (1 | s)", d, d["f"].to_numpy()), rtol=1e-5)
    assert one.diagnostics["cv_rmse"][0] < 0.75 * model("y ~ x + (1 | s)", d).fit().infer(how="cv").diagnostics["cv_rmse"][0]
    crossed = model("y ~ x + (1 | s) + (1 | h)", d).fit().infer(how="cv", k="loo")
    np.testing.assert_allclose(crossed.inference.extra.fitted, by_hand("y ~ x + (1 | s) + (1 | h)", d, s), rtol=1e-4)


def test_importance_is_the_error_that_goes_when_a_term_comes_in():
    """A term is taken out with the terms that contain it, and out-of-fold error is compared fold by fold."""
    d = cars()
    m = model("mpg ~ wt * g + hp", d).fit().infer(how="cv", k=5, seed=1)
    folds = m.inference.extra.fold
    y = d["mpg"].to_numpy()

    def errors(formula):
        return (y - by_hand(formula, d, folds)) ** 2

    full = errors("mpg ~ wt * g + hp")
    rows = {r["term"]: r for r in m.params.to_dicts()}
    without = (("wt", "mpg ~ g + hp"), ("g[6]", "mpg ~ wt + hp"), ("hp", "mpg ~ wt * g"), ("wt:g[8]", "mpg ~ wt + g + hp"))
    for term, formula in without:
        reduced = errors(formula)
        assert rows[term]["pre"] == pytest.approx(1 - full.sum() / reduced.sum(), rel=1e-9)
        each = [1 - full[folds == j].sum() / reduced[folds == j].sum() for j in range(5)]
        assert rows[term]["pre_sd"] == pytest.approx(np.std(each, ddof=1), rel=1e-9)
    assert rows["g[6]"]["pre"] == rows["g[8]"]["pre"]
    assert rows["Intercept"]["pre"] is None


def test_numbers_of_a_binary_response():
    m = model("am ~ wt", cars(), family="binomial").fit().infer(how="cv", k="loo")
    state, y = m.inference.extra, cars()["am"].to_numpy()
    row = m.diagnostics.row(0, named=True)
    p = state.fitted
    assert row["cv_accuracy"] == ((p > 0.5) == y).mean()
    assert row["cv_deviance"] == pytest.approx(-2 * np.mean(y * np.log(p) + (1 - y) * np.log1p(-p)))
    pairs = (p[y == 1][:, None] > p[y == 0]) + 0.5 * (p[y == 1][:, None] == p[y == 0])
    assert row["cv_auc"] == pytest.approx(pairs.mean())
    tied = area_under_roc(np.array([True, False, True, False]), np.array([0.5, 0.5, 0.9, 0.1]), np.ones(4))
    assert tied == pytest.approx(0.875)


def test_results_do_not_outlive_a_refit_and_unused_rows_stay_in_the_frame():
    d = cars().with_columns(wt=pl.when(pl.col("wt") > 5.3).then(None).otherwise(pl.col("wt")))
    m = model("mpg ~ wt", d).fit().predict().infer(how="cv", seed=1)
    assert m.predictions.height == 32
    assert m.predictions["cv_fitted"].null_count() == d["wt"].null_count() > 0
    assert "cv_rmse" in m.diagnostics.columns
    assert "cv_rmse" not in m.fit().diagnostics.columns
    with pytest.raises(NotFitted):
        m.fit().predictions  # noqa: B018


def test_a_level_that_only_the_fold_has_is_not_predicted_and_said():
    d = pl.DataFrame({"y": [1.0, 2, 3, 4, 5, 7, 8], "g": ["a", "a", "a", "b", "b", "b", "c"]})
    m = model("y ~ g", d).fit().predict().infer(how="cv", k="loo")
    assert m.predictions["cv_fitted"].null_count() == 1
    assert any("could not be predicted" in note for note in m.focus_inference.notes)


def test_what_has_no_error_out_of_sample_is_refused():
    m = model("mpg ~ wt + g", cars()).fit()
    with pytest.raises(Refused, match="no out-of-sample error"):
        m.explore("g").infer(how="cv")
    with pytest.raises(Refused, match=r"m\.predict"):
        m.predict(cars().head(3)).infer(how="cv")
    for k in (1, 0.5, "all", True):
        with pytest.raises(OptionError, match="number of folds"):
            m.infer(how="cv", k=k)


def test_one_step_is_newtons_step_from_the_full_fit(monkeypatch):
    """β̂ − (XᵀWX)⁻¹ xᵢ(yᵢ − μ̂ᵢ)/(1 − hᵢ), written out; close to the refits, and what "auto" takes beyond many rows."""
    m = model("carb ~ wt + hp", cars(), family="poisson").fit()
    exact = m.infer(how="cv", k="loo")
    step = m.infer(how="cv", k="loo", refits="one-step")
    assert (exact.inference.options["refits"], step.inference.options["refits"]) == ("exact", "one-step")
    assert any("one Newton step" in note for note in step.inference.notes)
    X, mu = m.designmat.to_numpy(), m.fit_state.mu
    inverse = np.linalg.inv(X.T @ (mu[:, None] * X))
    h = mu * np.einsum("ij,jk,ik->i", X, inverse, X)
    beta = m.fit_state.coef - (X * ((m.design.y - mu) / (1 - h))[:, None]) @ inverse
    np.testing.assert_allclose(step.inference.extra.fitted, np.exp((X * beta).sum(axis=1)), rtol=1e-10)
    assert step.diagnostics["cv_rmse"][0] == pytest.approx(exact.diagnostics["cv_rmse"][0], rel=0.02)
    from bossa.infer import crossval

    monkeypatch.setattr(crossval, "MANY_ROWS", 10)
    np.testing.assert_array_equal(m.infer(how="cv", k="loo").inference.extra.fitted, step.inference.extra.fitted)
    np.testing.assert_array_equal(m.infer(how="cv", k="loo", refits="exact").inference.extra.fitted, exact.inference.extra.fitted)


def test_one_step_is_refused_where_it_is_not_the_way():
    for formula, options, k in (
        ("mpg ~ wt", {}, "loo"),
        ("am ~ wt", {"family": "binomial"}, 5),
        ("am ~ scale(wt)", {"family": "binomial"}, "loo"),
    ):
        with pytest.raises(OptionError, match="one-step"):
            model(formula, cars(), **options).fit().infer(how="cv", k=k, refits="one-step", seed=1)


@pytest.mark.parametrize("formula", ["mpg ~ scale(wt) + poly(hp, 2)", "mpg ~ wt + (1 | g)"])
def test_workers_change_no_number(formula):
    """Folds that are encoded anew, and folds of a mixed model whose groups are known."""
    m = model(formula, cars()).fit()
    one, two = (m.infer(how="cv", k=3, seed=1, holdout_group=None if "poly" in formula else "k", n_jobs=j).inference for j in (None, 2))
    np.testing.assert_array_equal(one.extra.fitted, two.extra.fitted)
    np.testing.assert_array_equal(one.columns["pre"], two.columns["pre"])


def groups():
    """Twenty groups of eight: a yes, a count, a positive number, successes of a few trials, that differ between groups."""
    rng = np.random.default_rng(4)
    s, x = np.repeat(np.arange(20), 8), rng.normal(size=160)
    eta = 0.2 + 0.8 * x + 0.7 * rng.normal(size=20)[s]
    trials = rng.integers(3, 9, size=160)
    won = rng.binomial(trials, 1 / (1 + np.exp(-eta)))
    columns = {"yes": rng.binomial(1, 1 / (1 + np.exp(-eta))), "count": rng.poisson(np.exp(eta)), "size": rng.gamma(3, np.exp(eta) / 3)}
    columns |= {"trials": trials, "share": won / trials, "num": eta + rng.normal(size=160)}
    return pl.DataFrame({"s": s, "x": x, "f": np.arange(160) % 5, **columns})


def _xlogy(y, ratio):
    return np.where(y > 0, y * np.log(np.where(y > 0, ratio, 1.0)), 0.0)


DEVIANCES = {
    "binomial": lambda y, m: 2 * (_xlogy(y, y / m) + _xlogy(1 - y, (1 - y) / (1 - m))),
    "poisson": lambda y, m: 2 * (_xlogy(y, y / m) - (y - m)),
    "gamma": lambda y, m: 2 * ((y - m) / m - np.log(y / m)),
}
FAMILIES = {
    "lm": ("num ~ x", {}, "f"),
    "yes": ("yes ~ x", {"family": "binomial"}, "s"),
    "share": ("share ~ x", {"family": "binomial", "weights": "trials"}, "s"),
    "count": ("count ~ x", {"family": "poisson"}, "f"),
    "size": ("size ~ x", {"family": "gamma", "link": "log"}, "s"),
    "lmm": ("num ~ x + (1 | s)", {}, "s"),
    "lmm, groups known": ("num ~ x + (1 | s)", {}, "f"),
    "glmm": ("count ~ x + (1 | s)", {"family": "poisson"}, "s"),
    "glmm, groups known": ("yes ~ x + (1 | s)", {"family": "binomial"}, "f"),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_groups_held_out_and_every_number_by_hand(name):
    """Fits without each group, predictions of it, and from them error, importance and their spread, all written out."""
    formula, options, held = FAMILIES[name]
    d, family = groups(), options.get("family", "gaussian")
    m = model(formula, d, **options).fit().infer(how="cv", k="loo", holdout_group=held)
    fold, y = d[held].to_numpy(), d[formula.split()[0]].to_numpy().astype(float)
    mu = by_hand(formula, d, fold, **options)
    np.testing.assert_allclose(m.inference.extra.fitted, mu, rtol=1e-5)
    w = d["trials"].to_numpy() if "weights" in options else np.ones(d.height)
    loss = (lambda f: (y - f) ** 2) if family == "gaussian" else lambda f: w * DEVIANCES[family](y, f)
    expected = {"cv_rmse": np.sqrt(np.mean((y - mu) ** 2)), "cv_mae": np.mean(np.abs(y - mu))}
    if family == "gaussian":
        expected["cv_rsquared"] = 1 - np.sum((y - mu) ** 2) / np.sum((y - y.mean()) ** 2)
    else:
        expected["cv_deviance"] = loss(mu).mean()
    if name.startswith("yes") or name == "glmm, groups known":
        expected["cv_accuracy"] = np.mean((mu > 0.5) == (y == 1))
    row = m.diagnostics.row(0, named=True)
    assert {k for k in row if k.startswith("cv_")} - {"cv_auc"} == set(expected)
    for number, value in expected.items():
        assert row[number] == pytest.approx(value, rel=1e-5)
    without = by_hand(formula.replace("~ x", "~ 1"), d, fold, **options)
    pre = m.params.row(1, named=True)
    assert pre["pre"] == pytest.approx(1 - loss(mu).sum() / loss(without).sum(), rel=1e-4)
    each = [1 - loss(mu)[fold == j].sum() / loss(without)[fold == j].sum() for j in np.unique(fold)]
    assert pre["pre_sd"] == pytest.approx(np.std(each, ddof=1), rel=1e-4)


def test_a_separated_fold_is_predicted_at_its_limit():
    d = pl.DataFrame({"y": [0, 0, 0, 1, 0, 1, 1, 1], "x": [1.0, 2, 3, 3.5, 5, 6, 7, 8]})
    m = model("y ~ x", d, family="binomial").fit().predict().infer(how="cv", k="loo")
    assert m.predictions["cv_fitted"].null_count() == 0
    with pytest.warns(BossaWarning):
        model("y ~ x", d.filter(pl.col("x") != 5), family="binomial").fit()
