"""Joint tests of terms: invariance to coding, R's numbers where cells are empty or errors are robust, likelihood ratios."""

import numpy as np
import polars as pl
import pytest

from bossa import model
from bossa.errors import Refused
from bossa.infer.covariance import covariance
from bossa.infer.joint import Refits, wald
from bossa.infer.terms import hypotheses

CODINGS = [{}, {"g": "sum", "h": "helmert"}, {"g": "poly", "h": "treatment"}, {"g": "sequential", "h": "sum"}]


def rows(n=80, seed=0, empty=False):
    rng = np.random.default_rng(seed)
    g, h = rng.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2]), rng.choice(["u", "v", "w"], n, p=[0.2, 0.3, 0.5])
    x = rng.normal(5, 2, n)
    eta = 0.2 * x + (g == "b") - 0.7 * (h == "v") * (g == "c")
    data = pl.DataFrame({"y": eta + rng.normal(size=n), "hit": rng.random(n) < 1 / (1 + np.exp(1 - eta)), "x": x, "g": g, "h": h})
    return data.filter(~((pl.col("g") == "c") & (pl.col("h") == "u"))) if empty else data


def table(m, **options):
    return m.jointtest(**options).drop("term").to_numpy()


# ---------------------------------------------------------------- type 3
@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("formula", ["y ~ g * h", "y ~ g * h + x", "y ~ g * x + h", "y ~ g * h * x", "y ~ g + g:h"])
def test_type_3_does_not_depend_on_the_coding(formula, empty):
    data = rows(empty=empty)
    tables = [table(model(formula, data, contrasts=c).fit()) for c in CODINGS]
    for other in tables[1:]:
        np.testing.assert_allclose(other, tables[0], rtol=1e-7)


@pytest.mark.parametrize(("covariates", "x"), [("zero", "x"), ("mean", "center(x)")])
def test_type_3_is_a_terms_columns_under_sum_coding(covariates, x):
    """What car's type III, SAS and lmerTest test: with numeric variables as they are, or about their means."""
    data = rows()
    ours = model("y ~ g * h + g * x", data).fit().jointtest(covariates=covariates)
    coded = model(f"y ~ g * h + g * {x}", data, contrasts={"g": "sum", "h": "sum"}).fit()
    design, terms = coded.design, coded.design.terms
    for k, row in enumerate(ours.iter_rows(named=True)):
        columns = [f"`{name}` = 0" for name, t in zip(design.names, design.term_of) if t == k + 1]
        expected = coded.test(*columns)
        assert row["df1"] == expected["df1"][0], terms[k + 1]
        assert row["statistic"] == pytest.approx(expected["statistic"][0], rel=1e-9)


def test_type_3_with_empty_cells_equals_emmeans(golden):
    """R 4.2.2, emmeans 1.8.4.1: as.data.frame(joint_tests(lm(breaks ~ wool * tension, warpbreaks without wool B, tension H)))."""
    data = pl.read_csv(golden / "data" / "warpbreaks.csv").filter((pl.col("wool") != "B") | (pl.col("tension") != "H"))
    m = model("breaks ~ wool * tension", data, levels={"tension": ["L", "M", "H"]}).fit().infer("joint")
    assert m.effects["df1"].to_list() == [0, 1, 1]
    assert m.effects["p_value"].to_list()[1:] == pytest.approx([0.0148512193133712, 0.0104390106153058], rel=1e-11)
    assert any("wool: not estimable" in note for note in m.joint.notes)
    assert any("tension: 1 of 2 differences" in note for note in m.joint.notes)


def test_type_3_with_empty_cells_and_a_covariate_equals_emmeans(golden):
    """R 4.2.2, emmeans 1.8.4.1: joint_tests(lm(mpg ~ cyl * gear + wt * cyl, mtcars)), cyl and gear as factors."""
    data = pl.read_csv(golden / "data" / "mtcars.csv").with_columns(pl.col("cyl", "gear").cast(pl.String))
    frame = model("mpg ~ cyl * gear + wt * cyl", data).fit().jointtest()
    assert frame["df1"].to_list() == [1, 1, 1, 3, 2]
    expected = [8.21868479598802e-01, 8.75195372193725e-01, 3.61869497556317e-03, 3.98977366347947e-01, 1.61551315203232e-01]
    assert frame["p_value"].to_list() == pytest.approx(expected, rel=1e-10)


def test_terms_without_their_margins_are_tested_whole():
    """b within a: type 3 of a:b in y ~ a + a:b has the degrees of freedom of b and a:b; means of y ~ 0 + a are compared, not set to 0."""
    data = rows()
    assert model("y ~ g + g:h", data).fit().jointtest()["df1"].to_list() == [2, 6]
    assert model("y ~ g * h", data).fit().jointtest()["df1"].to_list() == [2, 2, 4]
    one, other = model("y ~ 0 + g", data).fit().jointtest(), model("y ~ g", data).fit().jointtest()
    np.testing.assert_allclose(one.drop("term").to_numpy(), other.drop("term").to_numpy(), rtol=1e-10)


# ---------------------------------------------------------------- types 1 and 2
def test_type_2_with_robust_errors_equals_car(golden):
    """R 4.2.2, car 3.1.1: Anova(lm(mpg ~ cyl * am + hp, mtcars), type = 2, white.adjust = "hc3"), cyl and am as factors."""
    data = pl.read_csv(golden / "data" / "mtcars.csv").with_columns(pl.col("cyl", "am").cast(pl.String))
    m = model("mpg ~ cyl * am + hp", data).fit()
    expected = [5.68471809238793, 16.29972966461089, 7.31968637611334, 1.31291941503187]
    assert m.jointtest(type=2, errors="HC3")["statistic"].to_list() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("coding", CODINGS[1:])
@pytest.mark.parametrize("kind", [1, 2])
def test_types_1_and_2_do_not_depend_on_the_coding(kind, coding):
    data = rows()
    one, other = (model("y ~ x + g * h", data, contrasts=c).fit() for c in ({}, coding))
    for errors in ("iid", "HC3"):
        np.testing.assert_allclose(table(other, type=kind, errors=errors), table(one, type=kind, errors=errors), rtol=1e-9)


@pytest.mark.parametrize("empty", [False, True])
def test_sequential_sums_of_squares_add_up_to_the_whole(empty):
    m = model("y ~ x + g * h", rows(empty=empty)).fit()
    frame, one = m.jointtest(type=1), m.diagnostics.row(0, named=True)
    assert (frame["statistic"] * frame["df1"]).sum() == pytest.approx(one["fstat"] * one["fstat_df1"], rel=1e-10)


def test_sequential_tests_are_differences_of_nested_fits():
    data = rows()
    full = model("y ~ x + g + h", data).fit()
    deviance = [model(f, data).fit().fit_state.deviance for f in ("y ~ 1", "y ~ x", "y ~ x + g", "y ~ x + g + h")]
    ours = full.jointtest(type=1)
    expected = -np.diff(deviance) / ours["df1"].to_numpy() / full.fit_state.dispersion
    np.testing.assert_allclose(ours["statistic"], expected, rtol=1e-10)


# ---------------------------------------------------------------- likelihood ratio
@pytest.mark.parametrize("coding", CODINGS)
def test_likelihood_ratios_of_all_types_do_not_depend_on_the_coding(coding):
    data = rows(300)
    one, other = (model("hit ~ x + g * h", data, family="binomial", contrasts=c).fit() for c in ({}, coding))
    for kind in (1, 2, 3):
        np.testing.assert_allclose(table(other, type=kind, test="lr"), table(one, type=kind, test="lr"), rtol=1e-6)


def test_likelihood_ratio_of_an_estimated_dispersion_is_f_unless_asked():
    data = rows(300).with_columns(pl.col("y").exp().alias("wait"))
    m = model("wait ~ x + g", data, family="gamma", link="log").fit()
    f, chi = m.jointtest(test="lr", type=2), m.jointtest(test="lr", type=2, df="inf")
    assert f["df2"].to_list() == [296.0, 296.0]
    assert chi["df2"].is_infinite().all()
    np.testing.assert_allclose(chi["statistic"], f["statistic"] * f["df1"], rtol=1e-12)
    smaller = model("wait ~ g", data, family="gamma", link="log").fit()
    expected = (smaller.fit_state.deviance - m.fit_state.deviance) / m.fit_state.dispersion
    assert f["statistic"][0] == pytest.approx(expected, rel=1e-7)


def test_likelihood_ratio_of_a_free_shape_refits_it():
    """Twice the log-likelihood lost, θ estimated under both models."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    data = {"y": rng.poisson(np.exp(1 + 0.3 * x) * rng.gamma(2, 0.5, 300)), "x": x}
    m, null = (model(f, data, family="negbinomial").fit() for f in ("y ~ x", "y ~ 1"))
    expected = 2 * (m.fit_state.loglik - null.fit_state.loglik)
    assert m.jointtest(test="lr")["statistic"][0] == pytest.approx(expected, rel=1e-7)


def test_the_full_fit_is_not_refitted():
    m = model("hit ~ x", rows(), family="binomial").fit()
    assert Refits(m.problem, m.fit_state).under(np.empty((0, 2))) is m.fit_state


# ---------------------------------------------------------------- the statistic itself
def test_repeated_rows_of_a_hypothesis_count_once():
    m = model("y ~ x + g", rows()).fit()
    c = covariance(m.problem, m.fit_state, "iid")
    L = np.array([[0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 2.0, 0, 0], [0, 1e3, 1e3, 0]])
    distance = L @ m.fit_state.coef
    all_rows, two = wald(c, L, distance), wald(c, L[:2], distance[:2])
    assert (all_rows.df1, all_rows.statistic) == pytest.approx((2, two.statistic), rel=1e-10)


def test_one_row_is_the_square_of_its_t():
    m = model("y ~ x + g", rows().with_columns(c=pl.int_range(pl.len()) % 11)).fit()
    for errors in ("iid", "HC3", "CR1", "CR2"):
        options = {"errors": errors} | ({"cluster": "c"} if errors[:2] == "CR" else {})
        t = m.infer(**options).inference
        row = m.jointtest(type=2, **options).row(0, named=True)
        assert (row["statistic"], row["df2"], row["p_value"]) == pytest.approx((t.statistic[1] ** 2, t.df[1], t.p_value[1]), rel=1e-9)


def test_df2_of_cr2_is_fai_and_cornelius():
    """As lmerTest combines the df of independent contrasts: 2E/(E − q) with E = Σ ν/(ν − 2)."""
    data = rows().with_columns(c=pl.int_range(pl.len()) % 11)
    m = model("y ~ x + g", data).fit()
    c = covariance(m.problem, m.fit_state, "CR2", "c")
    L = np.eye(4)[2:]
    _, vectors = np.linalg.eigh(L @ c.vcov @ L.T)
    nu = c.parts.df(vectors.T @ L)
    E = np.sum(nu / (nu - 2))
    assert wald(c, L, L @ m.fit_state.coef).df2 == pytest.approx(2 * E / (E - 2), rel=1e-9)


def test_more_coefficients_than_clusters_are_refused():
    data = rows().with_columns(c=pl.int_range(pl.len()) % 3)
    with pytest.raises(Refused, match="lower rank"):
        model("y ~ g * h", data).fit().jointtest(errors="CR1", cluster="c")


def test_hypotheses_have_the_columns_of_the_fit():
    m = model("y ~ g * h", rows(empty=True)).fit()
    for kind in (1, 2, 3):
        for h in hypotheses(m.problem, kind):
            assert h.L is None or h.L.shape[1] == m.problem.design.X.shape[1]
