"""how="perm": exact enumeration, the null that is tested, blocks and whole groups, draws from the null model, calibration."""

from itertools import combinations, permutations

import numpy as np
import polars as pl
import pytest

from bossa import load_dataset, model
from bossa.errors import OptionError, Refused
from bossa.infer.arrangements import Orders


def t_of(X, y, j, null=0.0):
    beta = np.linalg.lstsq(X, y, rcond=None)[0]
    s2 = ((y - X @ beta) ** 2).sum() / (len(y) - X.shape[1])
    return (beta[j] - null) / np.sqrt(s2 * np.linalg.inv(X.T @ X)[j, j])


def close(row, exact, m):
    """Within 4 Monte Carlo standard errors of the exact p-value."""
    assert row["p_value"] == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / m) + 1 / m)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_two_groups_against_all_arrangements(alternative):
    """All 12!/(6! 6!) = 924 ways to choose the first group, by the t statistic."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=12) + 0.8 * (np.arange(12) >= 6)
    statistics = []
    for chosen in combinations(range(12), 6):
        first = np.isin(np.arange(12), chosen)
        statistics.append(t_of(np.column_stack((np.ones(12), ~first)), y, 1))
    t = t_of(np.column_stack((np.ones(12), np.arange(12) >= 6)), y, 1)
    extreme = {"two-sided": np.abs(statistics) >= abs(t) - 1e-9, "greater": statistics >= t - 1e-9, "less": statistics <= t + 1e-9}
    d = pl.DataFrame({"y": y, "g": ["a"] * 6 + ["b"] * 6})
    for scheme in ("auto", "response"):
        row = model("y ~ g", d).fit().infer(how="perm", n_perm=20_000, seed=1, scheme=scheme, alternative=alternative).params
        assert row["statistic"][1] == pytest.approx(t)
        close(row.row(1, named=True), extreme[alternative].mean(), 20_000)


@pytest.mark.parametrize("null", [0.0, 0.7])
def test_freedman_lane_against_all_orders_of_the_residuals(null):
    """Seven rows, all 5040 orders; the reduced model is fitted under slope = null, written out here."""
    rng = np.random.default_rng(1)
    x, z = rng.normal(size=7), rng.normal(size=7)
    y = 0.7 * x + z + 0.6 * rng.normal(size=7)
    X, reduced = np.column_stack((np.ones(7), x, z)), np.column_stack((np.ones(7), z))
    fitted = reduced @ np.linalg.lstsq(reduced, y - null * x, rcond=None)[0] + null * x
    e, t = y - fitted, t_of(X, y, 1, null)
    exact = np.mean([abs(t_of(X, fitted + e[list(order)], 1, null)) >= abs(t) - 1e-9 for order in permutations(range(7))])
    m = model("y ~ x + z", pl.DataFrame({"x": x, "z": z, "y": y})).fit()
    row = m.infer(how="perm", n_perm=20_000, seed=1, null=null).params.row(1, named=True)
    assert row["statistic"] == pytest.approx(t)
    close(row, exact, 20_000)


def test_signs_against_all_flips():
    """The mean of nine symmetric differences: all 512 signs."""
    y = np.random.default_rng(2).normal(size=9) + 0.5
    t = t_of(np.ones((9, 1)), y, 0)
    signs = 1 - 2 * ((np.arange(512)[:, None] >> np.arange(9)) & 1)
    exact = np.mean([abs(t_of(np.ones((9, 1)), y * s, 0)) >= abs(t) - 1e-9 for s in signs])
    m = model("y ~ 1", pl.DataFrame({"y": y})).fit().infer(how="perm", n_perm=20_000, seed=1)
    close(m.params.row(0, named=True), exact, 20_000)
    assert "signs flipped" in m.inference.notes[0]


def test_the_sleep_data_of_r():
    """R 4.2.2: all 184,756 arrangements of t.test(extra ~ group, var.equal = TRUE): p = .08144796 (tests/golden, permutation_exact)."""
    extra = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0, 1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    d = pl.DataFrame({"extra": extra, "group": ["1"] * 10 + ["2"] * 10})
    row = model("extra ~ group", d).fit().infer(how="perm", n_perm=20_000, seed=1).params.row(1, named=True)
    assert row["statistic"] == pytest.approx(1.860813467486853)
    close(row, 0.08144796380090498, 20_000)
    assert row["p_mc_se"] == pytest.approx(np.sqrt(row["p_value"] * (1 - row["p_value"]) / 20_000))


def test_a_partial_effect_keeps_the_power_that_permuting_the_response_loses():
    """x matters beside a much stronger z: the t-test finds it, Freedman–Lane too, and permuting y is refused."""
    rng = np.random.default_rng(3)
    d = pl.DataFrame({"x": rng.normal(size=40), "z": rng.normal(size=40)}).with_columns(y=0.6 * pl.col("x") + 20 * pl.col("z"))
    m = model("y ~ x + z", d.with_columns(y=pl.col("y") + pl.Series(rng.normal(size=40)))).fit()
    assert m.infer(how="perm", seed=1).params["p_value"][1] < 0.01
    with pytest.raises(Refused, match="Use scheme='freedman-lane'"):
        m.infer(how="perm", scheme="response")


@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_counts_are_rows_repeated(family):
    d = load_dataset("mtcars").with_columns(k=pl.Series([1, 2, 3, 1] * 8))
    long = d[np.repeat(np.arange(32), d["k"].to_numpy())]
    one = model("carb ~ wt + hp", d, family=family, freq_weights="k").fit().infer(how="perm", n_perm=100, seed=1).params
    two = model("carb ~ wt + hp", long, family=family).fit().infer(how="perm", n_perm=100, seed=1).params
    np.testing.assert_allclose(one["statistic"], two["statistic"], rtol=1e-7)
    np.testing.assert_array_equal(one["p_value"], two["p_value"])


def test_a_question_about_contrasts_is_that_of_the_recoded_model():
    """b − a of a factor is the coefficient g[b]; c − b that of the model whose reference is b: same arrangements, same p."""
    d = load_dataset("mtcars").with_columns(g=pl.col("cyl").cast(pl.String))
    m = model("mpg ~ g + wt", d).fit()
    contrasts = m.explore("revpairwise(g)").infer(how="perm", n_perm=200, seed=1).effects
    direct = m.infer(how="perm", n_perm=200, seed=1).params
    recoded = model("mpg ~ g + wt", d, levels={"g": ["6", "4", "8"]}).fit().infer(how="perm", n_perm=200, seed=1).params
    np.testing.assert_allclose(contrasts["statistic"], [direct["statistic"][1], direct["statistic"][2], recoded["statistic"][2]])
    np.testing.assert_array_equal(contrasts["p_value"], [direct["p_value"][1], direct["p_value"][2], recoded["p_value"][2]])


def test_rows_move_inside_blocks_and_groups_move_whole():
    part = np.arange(12.0)
    within, groups = np.arange(12) % 3, np.repeat(np.arange(4), 3)
    inside = part[Orders(12, within, None)(np.random.default_rng(0), 0, 50)]
    assert (np.sort(inside.reshape(50, 4, 3), axis=1) == np.arange(12.0).reshape(4, 3)).all()
    assert len(np.unique(inside[:, ::3], axis=0)) > 15
    whole = part[Orders(4, None, np.argsort(groups, kind="stable").reshape(4, 3))(np.random.default_rng(0), 0, 50)].reshape(50, 4, 3)
    assert (np.diff(whole, axis=2) == 1).all()
    assert (np.sort(whole[:, :, 0], axis=1) == [0, 3, 6, 9]).all()


def clustered(rng, slope=0.0):
    s = np.repeat(np.arange(12), 5)
    z = rng.normal(size=12)[s]
    x = rng.normal(size=60)
    return pl.DataFrame({"s": s, "x": x, "z": z, "y": 1.5 * rng.normal(size=12)[s] + slope * z + rng.normal(size=60)})


def test_mixed_models_say_what_they_do():
    m = model("y ~ x + z + (1 | s)", clustered(np.random.default_rng(5))).fit()
    drawn = m.infer(how="perm", n_perm=20, seed=1)
    assert "parametric bootstrap of the null" in drawn.inference.notes[0]
    inside = m.infer(how="perm", n_perm=20, seed=1, within="s")
    assert "inside blocks" in " ".join(inside.inference.notes)
    whole = m.infer(how="perm", n_perm=20, seed=1, cluster="s")
    assert "as whole groups" in " ".join(whole.inference.notes)
    for frame in (drawn.params, inside.params, whole.params):
        assert np.isfinite(frame.select("statistic", "p_value", "p_mc_se", "null_lower", "null_upper").to_numpy()).all()
    for options in ({"scheme": "freedman-lane"}, {"scheme": "sign-flip"}):
        with pytest.raises(Refused, match="scheme='parametric'"):
            m.infer(how="perm", **options)
    with pytest.raises(Refused, match="random intercept alone"):
        model("y ~ x + (1 + x | s)", clustered(np.random.default_rng(6))).fit().infer(how="perm", within="s")


def test_what_has_no_null_is_refused():
    d = load_dataset("mtcars")
    m = model("mpg ~ wt", d).fit()
    with pytest.raises(Refused, match="how='boot'"):
        m.predict().infer(how="perm")
    with pytest.raises(Refused, match="null= is 0"):
        m.infer(how="perm", scheme="response", null=1)
    with pytest.raises(OptionError, match="exclude each other"):
        m.infer(how="perm", within="cyl", cluster="gear")
    logit = model("am ~ wt", d, family="binomial").fit()
    with pytest.raises(Refused, match="spread moves with the mean"):
        logit.infer(how="perm", scheme="freedman-lane")
    with pytest.raises(Refused, match="not linear in the coefficients"):
        logit.explore("slope(wt)", average="observed", scale="response").infer(how="perm")
    with pytest.raises(Refused, match="differ in size"):
        m.infer(how="perm", cluster="cyl")


@pytest.mark.slow
@pytest.mark.parametrize("errors", ["normal", "skewed"])
def test_freedman_lane_holds_its_level(errors):
    """400 null data sets with a correlated nuisance, n = 30: 5 % ± 2.2 % (2 Monte Carlo standard errors)."""
    rng = np.random.default_rng(7)
    rejected = 0
    for i in range(400):
        z = rng.normal(size=30)
        x = z + rng.normal(size=30)
        e = rng.normal(size=30) if errors == "normal" else rng.exponential(size=30)
        d = pl.DataFrame({"x": x, "z": z, "y": 2 * z + e})
        rejected += model("y ~ x + z", d).fit().infer(how="perm", n_perm=199, seed=i).params["p_value"][1] <= 0.05
    assert 0.028 < rejected / 400 < 0.072


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"cluster": "s"}])
def test_a_null_between_clusters_holds_its_level(options):
    """Rows permuted as if independent reject such nulls more than half of the time."""
    rng = np.random.default_rng(8)
    rejected = plain = 0
    for i in range(150):
        d = clustered(rng)
        rejected += model("y ~ z + (1 | s)", d).fit().infer(how="perm", n_perm=99, seed=i, **options).params["p_value"][1] <= 0.05
        plain += model("y ~ z", d).fit().infer(how="perm", n_perm=99, seed=i).params["p_value"][1] <= 0.05
    assert rejected / 150 < 0.105
    assert plain / 150 > 0.3


@pytest.mark.slow
def test_draws_from_the_null_of_a_logistic_model_hold_their_level():
    rng = np.random.default_rng(9)
    rejected = 0
    for i in range(300):
        x, z = rng.normal(size=40), rng.normal(size=40)
        d = pl.DataFrame({"x": x, "z": z, "y": (rng.random(40) < 1 / (1 + np.exp(-z))).astype(int)})
        rejected += model("y ~ x + z", d, family="binomial").fit().infer(how="perm", n_perm=199, seed=i).params["p_value"][1] <= 0.05
    assert 0.02 < rejected / 300 < 0.085
