"""Comparing fits: the laws their tests obey, and what may not be compared. R's own tables are held by the parity runner (cmp_*, ranova)."""

from __future__ import annotations

from html import unescape

import numpy as np
import polars as pl
import pytest
from scipy import stats

from bossa import compare, load_dataset, model, normal
from bossa.errors import DataError, NotFitted, OptionError, Refused, UnknownColumn, UnknownOption
from bossa.report.table import COLUMNS


@pytest.fixture(scope="module")
def cars():
    return load_dataset("mtcars")


@pytest.fixture(scope="module")
def sleep():
    return load_dataset("sleepstudy")


def fits(data, *formulas, **options):
    return [model(f, data, **options).fit() for f in formulas]


def last(c, column):
    return c.frame[column][-1]


# ---------------------------------------------------------------- laws of the tests
def test_models_are_sorted_by_their_parameters(cars):
    ms = fits(cars, "mpg ~ wt * hp", "mpg ~ 1", "mpg ~ wt + hp")
    one, two = compare(*ms).frame, compare(*ms[::-1]).frame
    assert one["model"].to_list() == ["mpg ~ 1", "mpg ~ wt + hp", "mpg ~ wt * hp"]
    assert one.equals(two)


def test_f_of_one_term_is_its_joint_test(cars):
    small, large = fits(cars, "mpg ~ wt", "mpg ~ wt + factor(cyl)")
    row, test = compare(small, large).frame.row(1, named=True), large.jointtest().row(1, named=True)
    for ours, theirs in (("df1", "df1"), ("df2", "df2"), ("statistic", "statistic"), ("p_value", "p_value")):
        assert row[ours] == pytest.approx(test[theirs], rel=1e-10)
    assert row["pre"] == pytest.approx(1 - large.fit_state.deviance / small.fit_state.deviance, rel=1e-14)


def test_f_without_end_is_chi_square(cars):
    ms = fits(cars, "mpg ~ wt", "mpg ~ wt + hp")
    F, chi = compare(*ms), compare(*ms, df="inf")
    assert last(chi, "statistic") == pytest.approx(last(F, "statistic"), rel=1e-14)
    assert last(chi, "p_value") == pytest.approx(stats.chi2.sf(last(F, "statistic"), 1), rel=1e-10)
    assert "χ²" in repr(chi)


def test_likelihood_ratio_is_twice_the_difference_of_the_likelihoods(cars):
    small, large = fits(cars, "am ~ 1", "am ~ wt", family="binomial")
    row = compare(small, large).frame.row(1, named=True)
    W = 2 * (large.fit_state.loglik - small.fit_state.loglik)
    assert row["statistic"] == pytest.approx(W, rel=1e-14)
    assert row["p_value"] == pytest.approx(stats.chi2.sf(W, 1), rel=1e-10)


def test_a_fixed_part_is_its_column_space(cars):
    """poly(x, 2) and x + x² are one model, and each contains x."""
    line, poly, powers = fits(cars, "mpg ~ wt", "mpg ~ poly(wt, 2)", "mpg ~ wt + I(wt^2)")
    assert last(compare(line, poly), "statistic") == pytest.approx(last(compare(line, powers), "statistic"), rel=1e-9)
    assert compare(poly, powers).frame["p_value"].null_count() == 2


def test_an_offset_is_a_coefficient_of_one(cars):
    held, free = fits(cars, "mpg ~ wt + offset(qsec)", "mpg ~ wt + qsec")
    test = free.test("qsec = 1").row(0, named=True)
    assert last(compare(held, free), "statistic") == pytest.approx(test["statistic"], rel=1e-9)


def test_counts_are_rows_repeated():
    data = pl.DataFrame({"y": [1.0, 2.0, 2.5, 4.0, 3.0, 5.5], "x": [0.0, 1, 2, 3, 4, 5], "k": [1, 3, 2, 1, 2, 4]})
    long = data[np.repeat(np.arange(6), data["k"].to_numpy())]
    for how in ("f", "lrt", "rao", "aic"):
        counted = compare(*fits(data, "y ~ 1", "y ~ x", freq_weights="k"), how=how).frame
        repeated = compare(*fits(long, "y ~ 1", "y ~ x"), how=how).frame
        np.testing.assert_allclose(counted.drop("model").to_numpy(), repeated.drop("model").to_numpy(), rtol=1e-10)


def test_weights_of_evidence_sum_to_one(cars):
    frame = compare(*fits(cars, "mpg ~ wt", "mpg ~ hp", "mpg ~ qsec * disp"), how="aic").frame
    assert frame["aic_weight"].sum() == pytest.approx(1, abs=1e-14)
    assert frame["aic_delta"].min() == 0
    ratio = frame["aic_weight"][0] / frame["aic_weight"][1]
    assert ratio == pytest.approx(np.exp((frame["aic"][1] - frame["aic"][0]) / 2), rel=1e-12)
    assert "statistic" not in frame.columns


# ---------------------------------------------------------------- mixed models
def test_reml_is_refitted_where_fixed_effects_differ_and_said(sleep):
    reml = fits(sleep, "Reaction ~ 1 + (Days | Subject)", "Reaction ~ Days + (Days | Subject)")
    ml = fits(sleep, "Reaction ~ 1 + (Days | Subject)", "Reaction ~ Days + (Days | Subject)", method="ml")
    c = compare(*reml)
    assert last(c, "statistic") == pytest.approx(last(compare(*ml), "statistic"), rel=1e-7)
    assert any("maximum likelihood instead of REML" in n for n in c.notes)
    assert compare(*ml).notes == ()
    with pytest.raises(Refused, match="different fixed effects"):
        compare(*reml, refit=False)


def test_reml_stays_where_the_fixed_columns_are_the_same(sleep):
    small, large = fits(sleep, "Reaction ~ Days + (1 | Subject)", "Reaction ~ Days + (Days | Subject)")
    W = 2 * (large.fit_state.loglik - small.fit_state.loglik)
    assert last(compare(small, large), "statistic") == pytest.approx(W, rel=1e-12)
    (recoded,) = fits(sleep, "Reaction ~ I(2 * Days) + (1 | Subject)")  # the same space: a REML likelihood with another constant
    c = compare(recoded, large)
    assert last(c, "statistic") == pytest.approx(last(compare(small, large, refit=True), "statistic"), rel=1e-8)


def test_linear_against_mixed_by_one_kind_of_likelihood(sleep):
    """lme4 1.1-31: anova(lmer(Reaction ~ Days + (1 | Subject)), lm(Reaction ~ Days)): Chisq 106.21441 on 1 df."""
    plain, mixed = fits(sleep, "Reaction ~ Days", "Reaction ~ Days + (1 | Subject)")
    c = compare(mixed, plain)
    assert last(c, "statistic") == pytest.approx(106.21441, abs=5e-6)
    assert c.frame["loglik"][0] == pytest.approx(plain.fit_state.loglik, rel=1e-14)
    restricted = compare(mixed, plain, refit=False)
    assert last(restricted, "statistic") == pytest.approx(107.1985780771879, rel=1e-8)  # lmerTest 3.1-3, ranova


def test_a_variance_is_tested_against_half_and_half(sleep):
    c = compare(*fits(sleep, "Reaction ~ Days", "Reaction ~ Days + (1 | Subject)"))
    W = last(c, "statistic")
    assert last(c, "p_boundary") == pytest.approx(stats.chi2.sf(W, 1) / 2, rel=1e-10)
    c = compare(*fits(sleep, "Reaction ~ Days + (1 | Subject)", "Reaction ~ Days + (Days | Subject)"))
    W = last(c, "statistic")
    assert last(c, "p_boundary") == pytest.approx((stats.chi2.sf(W, 1) + stats.chi2.sf(W, 2)) / 2, rel=1e-10)
    assert any("cannot be negative" in n for n in c.notes)


def test_a_correlation_alone_is_no_boundary(sleep):
    c = compare(*fits(sleep, "Reaction ~ Days + (Days || Subject)", "Reaction ~ Days + (Days | Subject)"))
    assert last(c, "df1") == 1
    assert "p_boundary" not in c.frame.columns


def test_several_variances_at_once_are_said_to_have_no_such_mixture(sleep):
    c = compare(*fits(sleep, "Reaction ~ Days", "Reaction ~ Days + (Days || Subject)"))
    assert "p_boundary" not in c.frame.columns
    assert any("several variances" in n for n in c.notes)


def test_half_and_half_errs_on_the_safe_side_and_less_than_the_plain_p_value():
    """With few groups the ratio is 0 more often than half of the time (Crainiceanu & Ruppert 2004); 600 replicates, se about 0.01."""
    rng = np.random.default_rng(8)
    g = np.repeat(np.arange(15), 6)
    data = pl.DataFrame({"y": rng.normal(size=90) + 0.30 * rng.normal(size=15)[g], "g": g.astype(str)})
    ms = fits(data, "y ~ 1", "y ~ 1 + (1 | g)")
    asked, simulated = compare(*ms), compare(*ms, how="boot", n_boot=600, seed=5)
    p, se = last(simulated, "p_value"), last(simulated, "p_mc_se")
    assert 0.5 * last(asked, "p_boundary") < p < last(asked, "p_boundary") + 2 * se
    assert p < last(asked, "p_value") - 5 * se


@pytest.mark.parametrize("family", ["gaussian", "binomial", "gamma", "poisson"])
def test_bootstrap_agrees_with_theory_where_theory_holds(family):
    rng = np.random.default_rng(3)
    x, n = rng.normal(size=150), 150
    mu = 0.5 + 0.12 * x
    y = {
        "gaussian": mu + rng.normal(size=n),
        "binomial": (rng.random(n) < 1 / (1 + np.exp(-mu))).astype(float),
        "gamma": np.exp(mu) * rng.gamma(4, 1 / 4, n),
        "poisson": rng.poisson(np.exp(mu)).astype(float),
    }[family]
    link = {"gamma": "log"}.get(family)
    ms = fits(pl.DataFrame({"y": y, "x": x}), "y ~ 1", "y ~ x", family=family, link=link)
    simulated = compare(*ms, how="boot", n_boot=500, seed=1)
    exact = compare(*ms)
    assert abs(last(simulated, "p_value") - last(exact, "p_value")) < 4 * last(simulated, "p_mc_se")
    assert simulated.frame.equals(compare(*ms, how="boot", n_boot=500, seed=1, n_jobs=2).frame)


def test_f_of_one_coefficient_is_its_squared_t(sleep):
    ms = fits(sleep, "Reaction ~ 1 + (Days | Subject)", "Reaction ~ Days + (Days | Subject)")
    for df in ("kenward-roger", "satterthwaite"):
        row, t = compare(*ms, how="f", df=df).frame.row(1, named=True), ms[1].infer(df=df).params.row(1, named=True)
        assert row["statistic"] == pytest.approx(t["statistic"] ** 2, rel=1e-8)
        assert row["df2"] == pytest.approx(t["df"], rel=1e-8)
    held = model("Reaction ~ 1 + offset(10 * Days) + (Days | Subject)", sleep).fit()
    t = ms[1].infer(df="kenward-roger", null=10).params.row(1, named=True)
    assert last(compare(held, ms[1], how="f"), "statistic") == pytest.approx(t["statistic"] ** 2, rel=1e-8)


def test_random_effects_lie_within_each_other_as_they_should(sleep):
    data = sleep.with_columns(half=pl.col("Days") > 4)
    (one, nested, slope, both, full) = fits(
        data,
        "Reaction ~ Days + (1 | Subject)",
        "Reaction ~ Days + (1 | Subject / half)",
        "Reaction ~ Days + (0 + Days | Subject)",
        "Reaction ~ Days + (Days || Subject)",
        "Reaction ~ Days + (Days | Subject)",
    )
    assert last(compare(one, nested), "df1") == 1
    assert compare(slope, both, full).frame["df1"].to_list() == [None, 1, 1]
    with pytest.raises(Refused, match="random effects"):
        compare(slope, nested)
    with pytest.raises(Refused, match="random effects"):
        compare(nested, full)


def test_leaving_out_each_term(sleep):
    m = model("Reaction ~ Days + (Days | Subject)", sleep).fit()
    c = compare(m, drop="varying")
    small = model("Reaction ~ Days + (1 | Subject)", sleep).fit()
    assert c.frame["model"].to_list() == ["Reaction ~ Days + (Days | Subject)", "without Days in (1 + Days | Subject)"]
    assert last(c, "statistic") == pytest.approx(last(compare(small, m), "statistic"), rel=1e-8)
    assert "each against the full model" in repr(c)


def test_options_of_a_mixed_fit_do_not_follow_it_out_of_its_random_effects(sleep):
    m = model("Reaction ~ Days + (1 | Subject)", sleep).fit(max_iter=100)
    plain = compare(model("Reaction ~ Days", sleep).fit(), m, refit=False)
    assert last(compare(m, drop="varying"), "statistic") == pytest.approx(last(plain, "statistic"), rel=1e-10)


def test_leaving_out_terms_of_a_generalized_mixed_model():
    cbpp = load_dataset("cbpp")
    full, plain = (
        model(f"cbind(incidence, size - incidence) ~ period{bar}", cbpp, family="binomial").fit() for bar in (" + (1 | herd)", "")
    )
    dropped, direct = compare(full, drop="varying"), compare(plain, full)
    assert last(dropped, "statistic") == pytest.approx(2 * (full.fit_state.loglik - plain.fit_state.loglik), rel=1e-10)
    assert last(dropped, "p_boundary") == pytest.approx(last(direct, "p_boundary"), rel=1e-10)


# ---------------------------------------------------------------- what may not be compared
def test_rows_must_be_the_same(cars):
    holes = cars.with_columns(hp=pl.when(pl.col("hp") > 200).then(None).otherwise(pl.col("hp")))
    with pytest.raises(DataError, match=r"drop_nulls\(\['mpg', 'wt', 'hp'\]\)"):
        compare(*fits(holes, "mpg ~ wt", "mpg ~ wt + hp"))
    with pytest.raises(DataError, match="data of 32 rows"):
        compare(model("mpg ~ wt", cars).fit(), model("mpg ~ wt + hp", cars[:30]).fit())


def test_responses_must_be_the_same(cars):
    with pytest.raises(DataError, match=r"'mpg' and 'log\(mpg\)'"):
        compare(*fits(cars, "mpg ~ wt", "log(mpg) ~ wt + hp"), how="aic")


def test_weights_must_be_the_same(cars):
    with pytest.raises(DataError, match="weights="):
        compare(model("mpg ~ wt", cars).fit(), model("mpg ~ wt + hp", cars, weights="qsec").fit())


def test_only_nested_models_are_tested(cars):
    ms = fits(cars, "mpg ~ wt", "mpg ~ hp + disp")
    with pytest.raises(Refused, match=r"cannot make up 'wt'.*how='aic'"):
        compare(*ms)
    assert compare(*ms, how="aic").frame.height == 2


def bad(cars, sleep):
    """(call, error, what it says)"""
    a, b = fits(cars, "mpg ~ wt", "mpg ~ wt + hp")
    x, y = fits(sleep, "Reaction ~ Days + (1 | Subject)", "Reaction ~ Days + (Days | Subject)")
    p, q = fits(cars, "am ~ 1", "am ~ wt", family="binomial")
    quasi = fits(cars, "carb ~ 1", "carb ~ wt", family="quasipoisson")
    count, mean = model("carb ~ wt", cars, family="poisson").fit(), model("carb ~ wt + hp", cars).fit()
    mixed = model("am ~ wt + (1 | cyl)", cars, family="binomial")
    return [
        (lambda: compare(), OptionError, "nothing to compare"),
        (lambda: compare(a), OptionError, "nothing to compare"),
        (lambda: compare(a, 3), OptionError, "int is not a model"),
        (lambda: compare(a, model("mpg ~ wt + hp", cars)), NotFitted, "not fitted"),
        (lambda: compare(a, b, how="anova"), UnknownOption, "is not one of"),
        (lambda: compare(a, b, how="cv", n_boot=10), OptionError, "n_boot= has no use"),
        (lambda: compare(a, b, how="cv", k=1), OptionError, "k=1"),
        (lambda: compare(a, b, how="cv", holdout_group="cil"), UnknownColumn, "cyl"),
        (lambda: compare(a, b, k=5), OptionError, "k= has no use"),
        (lambda: compare(a, b, n_boot=100), OptionError, "n_boot= has no use"),
        (lambda: compare(a, b, seed=1), OptionError, "seed= has no use"),
        (lambda: compare(a, b, how="lrt", df="inf"), OptionError, "df= has no use"),
        (lambda: compare(a, b, df="satterthwaite"), Refused, "linear mixed models"),
        (lambda: compare(a, b, how="lrt", refit=True), OptionError, "refit="),
        (lambda: compare(a, b, refit=3), OptionError, "refit=3"),
        (lambda: compare(a, b, names=["one"]), OptionError, "does not name 2 models"),
        (lambda: compare(a, b, drop="varying"), OptionError, "one model"),
        (lambda: compare(x, drop="fixed"), UnknownOption, "varying"),
        (lambda: compare(a, drop="varying"), Refused, "no random effects"),
        (lambda: compare(a, model("mpg ~ wt + hp", cars, prior={"wt": normal(0, 1)}).fit()), Refused, "has a prior"),
        (lambda: compare(p, q, how="f"), Refused, "no dispersion"),
        (lambda: compare(x, y, how="f"), Refused, "random effects"),
        (lambda: compare(x, y, how="rao"), Refused, "how='rao'"),
        (lambda: compare(*quasi, how="aic"), Refused, "no likelihood"),
        (lambda: compare(*quasi, how="boot"), Refused, "no distribution"),
        (lambda: compare(count, mean, how="aic"), Refused, "discrete"),
        (lambda: compare(count, mean), OptionError, "neither is a special case"),
        (lambda: compare(mixed.fit(nagq=5), model("am ~ wt * hp + (1 | cyl)", cars, family="binomial").fit()), Refused, "nagq 1 and 5"),
    ]


@pytest.mark.filterwarnings("ignore::bossa.errors.BossaWarning")
def test_bad_comparisons_say_what_is_wrong(cars, sleep):
    for call, error, says in bad(cars, sleep):
        with pytest.raises(error, match=says):
            call()


# ---------------------------------------------------------------- what is shown
def test_the_printout_says_everything(sleep):
    c = compare(*fits(sleep, "Reaction ~ Days", "Reaction ~ Days + (1 | Subject)"), names=["pooled", "by subject"])
    plain, page = repr(c), unescape(c._repr_html_())
    for word in (*c.frame.columns, "pooled", "by subject", *c.notes, c.title):
        assert word in plain
        assert word in page
    assert set(c.frame.columns) <= set(COLUMNS)


def test_models_of_one_formula_are_numbered(cars):
    c = compare(*(model("am ~ wt", cars, family="binomial", link=link).fit() for link in ("logit", "probit")), how="aic")
    assert c.frame["model"].to_list() == ["(1) am ~ wt", "(2) am ~ wt"]


# ------------------------------------------------------------------------------------------------------------ cross-validation
def test_models_left_out_of_the_same_folds(cars):
    """Numbers of each model's own cross-validation with that seed; the standard error of the difference written out fold by fold."""
    models = [m.fit() for m in (model("mpg ~ wt", cars), model("mpg ~ wt + hp", cars), model("mpg ~ poly(wt, 2)", cars))]
    frame = compare(*models, how="cv", k=8, seed=3).frame
    own = [m.predict().infer(how="cv", k=8, seed=3) for m in models]
    np.testing.assert_allclose(
        frame["cv_rmse"], [m.diagnostics["cv_rmse"][0] for m in sorted(own, key=lambda m: m.fit_state.npar)], rtol=1e-12
    )
    by_name = dict(zip(frame["model"], frame.iter_rows(named=True)))
    errors = {str(m.spec.formula): m.predictions["cv_residual"].to_numpy() ** 2 for m in own}
    best = min(errors, key=lambda name: errors[name].mean())
    folds = own[0].predictions["cv_fold"].to_numpy()
    for name, error in errors.items():
        d = error - errors[best]
        assert by_name[name]["cv_delta"] == pytest.approx(d.mean(), abs=1e-12)
        if name != best:
            sums, sizes = (np.array([x[folds == f].sum() for f in np.unique(folds)]) for x in (d, np.ones(len(d))))
            se = np.sqrt(8 / 7 * ((sums - d.mean() * sizes) ** 2).sum()) / len(d)
            assert by_name[name]["cv_delta_se"] == pytest.approx(se, rel=1e-10)


def test_rows_left_out_alone_and_groups_left_out_whole(cars, sleep):
    a, b = model("am ~ wt", cars, family="binomial").fit(), model("am ~ hp", cars, family="binomial").fit()
    loo = compare(a, b, how="cv", k="loo")
    assert loo.frame["cv_deviance"][0] == pytest.approx(a.infer(how="cv", k="loo").diagnostics["cv_deviance"][0], rel=1e-12)
    assert "each row is left out alone" in loo.notes[0]
    flat, sloped = model("Reaction ~ Days", sleep).fit(), model("Reaction ~ Days + (Days | Subject)", sleep).fit()
    both = compare(flat, sloped, how="cv", seed=1)
    assert "whole groups of Subject" in both.notes[0]  # the linear model too: the same folds
    told = flat.infer(how="cv", holdout_group="Subject", seed=1).diagnostics["cv_rmse"][0]
    assert both.frame["cv_rmse"][0] == pytest.approx(told, rel=1e-12)


def test_families_with_a_shape_are_compared_by_squared_errors(cars):
    a, b = (model(f, cars, family="negbinomial").fit() for f in ("hp ~ wt", "hp ~ wt + cyl"))
    both = compare(a, b, how="cv", k=4, seed=2)
    np.testing.assert_allclose(
        both.frame["cv_rmse"], [m.infer(how="cv", k=4, seed=2).diagnostics["cv_rmse"][0] for m in (a, b)], rtol=1e-12
    )
    assert any("squared" in n for n in both.notes)
    assert not any("deviances at the" in n for n in both.notes)
    assert any("deviances at the theta" in n for n in a.infer(how="cv", k=4, seed=2).inference.notes)
