"""how="perm": exact enumeration, the null that is tested, blocks and whole groups, draws from the null model, calibration."""

from itertools import combinations, permutations, product

import joblib
import numpy as np
import polars as pl
import pytest

from bossa import load_dataset, model
from bossa.errors import ConvergenceWarning, OptionError, Refused
from bossa.infer import permutation
from bossa.infer.arrangements import Orders, Signs
from bossa.kernels.streams import stream


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
    exact = model("extra ~ group", d).fit().infer(how="perm", n_perm="all").params.row(1, named=True)
    assert exact["p_value"] == pytest.approx(0.08144796380090498, rel=1e-13)
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


def robust_t(X, y, j, kind, groups=None, null=0.0):
    """(β̂_j − null)/se by the textbook formulas of HC0 … HC3 and CR1S, written out."""
    n, p = X.shape
    B = np.linalg.inv(X.T @ X)
    r, h = y - X @ B @ X.T @ y, np.einsum("ij,jk,ik->i", X, B, X)
    scores = X * (r / {"HC2": np.sqrt(1 - h), "HC3": 1 - h}.get(kind, 1.0))[:, None]
    factor = n / (n - p) if kind == "HC1" else 1.0
    if groups is not None:
        G = groups.max() + 1
        scores, factor = np.array([scores[groups == g].sum(axis=0) for g in range(G)]), G / (G - 1) * (n - 1) / (n - p)
    return (B[j] @ X.T @ y - null) / np.sqrt(factor * (B @ scores.T @ scores @ B)[j, j])


SEVEN = {"y": [4.1, 5.3, 2.2, 7.9, 6.4, 3.8, 5.9], "x": [0.4, 1.9, -0.7, 2.2, 0.9, 1.1, -0.2], "z": [1.0, 0, 1, 1, 0, 0, 1]}


@pytest.mark.parametrize("kind", ["HC0", "HC1", "HC2", "HC3"])
@pytest.mark.parametrize("null", [0.0, 1.5])
def test_robust_statistics_against_all_orders(kind, null):
    """All 5040 orders of seven residuals, robust errors of every refit: p to the last digit, and the same with any number above."""
    d = pl.DataFrame(SEVEN)
    X, y = np.column_stack((np.ones(7), d["x"], d["z"])), d["y"].to_numpy()
    reduced = X[:, [0, 2]]
    fitted = reduced @ np.linalg.lstsq(reduced, y - null * X[:, 1], rcond=None)[0] + null * X[:, 1]
    e, t = y - fitted, robust_t(X, y, 1, kind, null=null)
    exact = [robust_t(X, fitted + e[list(order)], 1, kind, null=null) for order in permutations(range(7))]
    m = model("y ~ x + z", d).fit().infer(how="perm", n_perm="all", errors=kind, null=null)
    row = m.params.row(1, named=True)
    assert row["statistic"] == pytest.approx(t)
    assert row["p_value"] == pytest.approx(np.mean(np.abs(exact) >= abs(t) - 1e-9), rel=1e-12)
    assert row["p_mc_se"] == 0
    np.testing.assert_allclose(np.sort(m.inference.extra.values[:, 1]), np.sort(exact), rtol=1e-8, atol=1e-12)
    limits = np.quantile(exact, [0.025, 0.975])
    np.testing.assert_allclose([row["null_lower"], row["null_upper"]], limits, rtol=1e-9)


def test_all_orders_of_seven_rows_in_r():
    """R 4.2.2, sandwich 3.0.2: lm of fitted + permuted residuals in all 5040 orders, summary.lm and vcovHC(type = "HC3")."""
    m = model("y ~ x + z", pl.DataFrame(SEVEN)).fit()
    plain = m.infer(how="perm", n_perm="all").params.row(1, named=True)
    assert (plain["statistic"], plain["p_value"]) == pytest.approx((2.03290997700714, 0.108531746031746))
    robust = m.infer(how="perm", n_perm="all", errors="hetero").params.row(1, named=True)
    assert (robust["statistic"], robust["p_value"]) == pytest.approx((1.47165974001441, 0.119642857142857))
    greater = m.infer(how="perm", n_perm="all", errors="HC3", alternative="greater").params["p_value"][1]
    assert greater == pytest.approx(0.060515873015873)


SIX = {
    "g": [1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 5, 6, 6],
    "x": [0.3, 0.1, 1.2, 0.9, 1.5, -0.4, -0.2, 0.8, 0.6, 2.1, 1.7, 1.9, -0.9, -1.3],
    "y": [2.3, 1.9, 3.1, 2.2, 4.0, 0.7, 1.6, 1.1, 2.9, 3.7, 3.3, 4.9, 1.2, 0.1],
}


def test_signs_of_clusters_in_r():
    """R 4.2.2, sandwich 3.0.2: all 64 signs of six clusters' residuals, vcovCL(type = "HC0"), whose factor is G/(G − 1)."""
    m = model("y ~ x", pl.DataFrame(SIX)).fit()
    row = m.infer(how="perm", n_perm="all", scheme="sign-flip", cluster="g", errors="CR1").params.row(1, named=True)
    assert (row["statistic"], row["p_value"]) == pytest.approx((14.5273600858833, 0.125))


@pytest.mark.parametrize("errors", ["CR0", "CR1", "CR1S", "CR2", "cluster"])
def test_cluster_robust_statistics_are_those_of_refits(errors):
    """Every sign of six clusters, with weights: t* is that of a fit of fitted + flipped residuals by how="asymp"."""
    d = pl.DataFrame(SIX).with_columns(w=pl.Series(np.tile([1.0, 2.0, 0.5], 5)[:14]))
    m = model("y ~ x", d, weights="w").fit()
    found = m.infer(how="perm", n_perm="all", scheme="sign-flip", cluster="g", errors=errors)
    reduced = model("y ~ 1", d, weights="w").fit()
    fitted = float(reduced.params["estimate"][0])
    loop = []
    for signs in product([1, -1], repeat=6):
        moved = d.with_columns(y=fitted + (pl.col("y") - fitted) * np.array(signs)[d["g"] - 1])
        loop.append(model("y ~ x", moved, weights="w").fit().infer(errors=errors, cluster="g").params["statistic"][1])
    np.testing.assert_allclose(np.sort(found.inference.extra.values[:, 1]), np.sort(loop), rtol=1e-8)


@pytest.mark.parametrize(
    "options",
    [{}, {"errors": "HC3"}, {"errors": "HC2", "within": "g"}, {"cluster": "s"}, {"cluster": "s", "errors": "CR2"}, {"scheme": "sign-flip"}],
    ids=str,
)
@pytest.mark.parametrize("null", [0.0, 0.4])
def test_the_products_with_q_equal_a_loop_of_fits(options, null):
    """Weights, an offset, a test of one term beside another: each statistic is that of a model fitted to the rearranged data."""
    rng = np.random.default_rng(11)
    d = pl.DataFrame({"x": rng.normal(size=24), "z": rng.normal(size=24), "w": rng.uniform(0.5, 2, 24), "o": rng.normal(size=24)})
    d = d.with_columns(
        g=pl.Series(np.arange(24) % 3), s=pl.Series(np.repeat(np.arange(6), 4)), y=pl.col("x") + pl.Series(rng.normal(size=24))
    )

    def fit(frame, formula="y ~ x + z + offset(o)"):
        return model(formula, frame, weights="w").fit()

    found = fit(d).infer(how="perm", n_perm=30, seed=5, null=null, **options).inference
    shifted = d.with_columns(held=pl.col("o") + null * pl.col("x"))
    small = fit(shifted, "y ~ z + offset(held)")
    fitted, w = small.predict(shifted).predictions["fitted"].to_numpy(), np.sqrt(d["w"].to_numpy())
    e = (d["y"].to_numpy() - fitted) * w
    places = np.arange(24).reshape(6, 4) if "cluster" in options else None
    flip = options.get("scheme") == "sign-flip"
    within = d["g"].to_numpy() if "within" in options else None
    draw = Signs(24, None) if flip else Orders(24 if places is None else 6, within, places)
    drawn = draw(stream(5, 0), 0, 30)
    kind = options.get("errors", "iid")
    robust = {"cluster": "s"} if kind == "CR2" else {}
    for i in range(30):
        y = fitted + (e * drawn[i] if flip else e[drawn[i]]) / w
        row = fit(d.with_columns(y=pl.Series(y))).infer(errors=kind, null=null, **robust).params.row(1, named=True)
        assert found.extra.values[i, 1] == pytest.approx(row["statistic"], rel=1e-8)


def test_blocks_against_all_arrangements_inside_them():
    """Three pairs: 8 arrangements, each by hand; more are not drawn, and the notes say so."""
    y = np.array([1.2, 3.4, 0.3, 1.1, 2.2, 2.0])
    X = np.column_stack((np.ones(6), np.tile([0, 1], 3)))
    t, e = t_of(X, y, 1), y - y.mean()
    every = [t_of(X, e.reshape(3, 2)[np.arange(3)[:, None], np.array(order)].ravel(), 1) for order in product([(0, 1), (1, 0)], repeat=3)]
    exact = np.mean(np.abs(every) >= abs(t) - 1e-9)
    d = pl.DataFrame({"y": y, "x": ["a", "b"] * 3, "pair": np.repeat([1, 2, 3], 2)})
    for asked in ("all", 999):
        m = model("y ~ x", d).fit().infer(how="perm", n_perm=asked, within="pair")
        assert m.params["p_value"][1] == pytest.approx(exact)
        assert m.params["p_mc_se"][1] == 0
        assert "all 8 distinct arrangements, exact" in m.inference.notes[0]
        assert ("999 were asked" in m.inference.notes[0]) == (asked == 999)


def test_equal_responses_are_one_arrangement():
    """Five of twelve ones beside a covariate of twelve values: 792 arrangements of the response, not 12!."""
    x = np.arange(12) ** 1.5
    y = np.isin(np.arange(12), [0, 4, 5, 10, 11]).astype(float)
    X, every = np.column_stack((np.ones(12), x)), []
    for ones in combinations(range(12), 5):
        every.append(t_of(X, np.isin(np.arange(12), ones).astype(float), 1))
    exact = np.mean(np.abs(every) >= abs(t_of(X, y, 1)) - 1e-9)
    d = pl.DataFrame({"x": x, "y": y})
    m = model("y ~ x", d).fit().infer(how="perm", n_perm="all", scheme="response")
    assert m.params["p_value"][1] == pytest.approx(exact, rel=1e-12)
    assert m.inference.extra.values.shape[0] == 792
    counts = model("y ~ x", d, family="poisson").fit().infer(how="perm", n_perm="all", scheme="response")
    assert "all 792 distinct arrangements" in counts.inference.notes[0]


def test_whole_groups_against_all_their_orders():
    """Five groups of three change places in 120 ways."""
    rng = np.random.default_rng(12)
    s = np.repeat(np.arange(5), 3)
    y, x = rng.normal(size=5)[s] + rng.normal(size=15), rng.normal(size=5)[s] + 0.3 * rng.normal(size=15)
    X = np.column_stack((np.ones(15), x))
    t, e = robust_t(X, y, 1, "CR1S", s), y - y.mean()
    every = [robust_t(X, e.reshape(5, 3)[list(order)].ravel(), 1, "CR1S", s) for order in permutations(range(5))]
    m = model("y ~ x", pl.DataFrame({"y": y, "x": x, "s": s})).fit().infer(how="perm", n_perm="all", cluster="s", errors="CR1S")
    assert m.params["p_value"][1] == pytest.approx(np.mean(np.abs(every) >= abs(t) - 1e-9), rel=1e-12)
    assert "all 120 distinct arrangements, exact" in " ".join(m.inference.notes)


@pytest.mark.parametrize("errors", ["iid", "HC3"])
def test_random_arrangements_against_all_of_them(errors):
    """181,440 orders of nine residuals beside one tie: 10,000 random ones agree within 4 Monte Carlo errors."""
    m = model("mpg ~ wt", load_dataset("mtcars")[:9]).fit()
    exact = m.infer(how="perm", n_perm="all", errors=errors).params.row(1, named=True)
    some = m.infer(how="perm", n_perm=10_000, seed=2, errors=errors).params.row(1, named=True)
    assert some["p_value"] == pytest.approx(exact["p_value"], abs=4 * some["p_mc_se"])
    assert some["p_mc_se"] == pytest.approx(np.sqrt(some["p_value"] * (1 - some["p_value"]) / 10_000))
    assert exact["p_mc_se"] == 0
    np.testing.assert_allclose([some["null_lower"], some["null_upper"]], [exact["null_lower"], exact["null_upper"]], atol=0.15)


def test_too_many_arrangements_are_refused_with_their_number():
    d = load_dataset("mtcars")
    with pytest.raises(Refused, match="4,294,967,296 distinct sign flips for 1 row and 347,373,600 distinct arrangements for 1 row") as e:
        model("mpg ~ am", d).fit().infer(how="perm", n_perm="all")
    assert "n_perm=10_000" in str(e.value)
    with pytest.raises(Refused, match="no end of them"):
        model("am ~ wt", d, family="binomial").fit().infer(how="perm", n_perm="all")
    with pytest.raises(OptionError, match="nor 'all'"):
        model("mpg ~ am", d).fit().infer(how="perm", n_perm="every")
    some = model("mpg ~ am", d.sort("am")[8:32]).fit().infer(how="perm", n_perm="all", within="cyl")
    assert some.params["p_value"].is_not_nan().all()
    uneven = model("y ~ g", pl.DataFrame({"y": np.arange(22.0) ** 2, "g": ["a"] * 20 + ["b"] * 2})).fit().infer(how="perm", n_perm="all")
    assert uneven.params["p_value"].is_null().to_list() == [True, False]
    assert "4,194,304 distinct sign flips for 1 row" in " ".join(uneven.inference.notes)


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


def test_robust_errors_are_refused_where_residuals_do_not_move():
    d = load_dataset("mtcars")
    m = model("mpg ~ wt", d).fit()
    with pytest.raises(OptionError, match="has no use here"):
        m.infer(how="perm", errors="HC3", cluster="cyl")
    with pytest.raises(OptionError, match="column of the clusters"):
        m.infer(how="perm", errors="cluster")
    with pytest.raises(OptionError, match="whatever block"):
        m.infer(how="perm", scheme="sign-flip", within="cyl")
    with pytest.raises(Refused, match="rearranged residuals of linear models"):
        m.infer(how="perm", scheme="parametric", errors="HC3")
    for other in (model("am ~ wt", d, family="binomial").fit(), model("mpg ~ wt + (1 | gear)", d).fit()):
        with pytest.raises(Refused, match="rearranged residuals of linear models"):
            other.infer(how="perm", errors="hetero")
    single = model("mpg ~ g", d.with_columns(g=pl.Series(["a"] + ["b"] * 31))).fit()
    with pytest.raises(Refused, match="leverage 1"):
        single.infer(how="perm", errors="HC3")


def test_what_no_arrangement_moves_is_said():
    """Days has the same values in every subject, so whole subjects that change places leave its slope where it was."""
    sleep = load_dataset("sleepstudy")
    for formula in ("Reaction ~ Days", "Reaction ~ Days + (1 | Subject)"):
        m = model(formula, sleep).fit().infer(how="perm", n_perm=20, seed=1, cluster="Subject")
        assert m.params["p_value"][1] == 1
        assert "Days: p = 1 says nothing" in " ".join(m.inference.notes)
    inside = model("Reaction ~ Days + (1 | Subject)", sleep).fit().infer(how="perm", n_perm=20, seed=1, within="Subject")
    assert "Intercept: little power" in " ".join(inside.inference.notes)


def test_groups_that_are_built_differently_do_not_change_places():
    """Two classes in each of four schools, of 2 + 2 rows here and 3 + 1 there; rows of unlike weight inside a block."""
    rng = np.random.default_rng(13)
    classes = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 6, 7])
    school = np.repeat(np.arange(4), 4)
    y = 3 * rng.normal(size=4)[school] + 3 * rng.normal(size=8)[classes] + rng.normal(size=16)
    d = pl.DataFrame({"y": y, "x": rng.normal(size=16), "school": school, "c": classes})
    m = model("y ~ x + (1 | school) + (1 | c)", d).fit()
    with pytest.raises(Refused, match="its own levels of 'c'"):
        m.infer(how="perm", n_perm=5, cluster="school")
    assert "signs of residuals flipped as whole groups" in m.infer(how="perm", cluster="school", scheme="sign-flip").inference.notes[0]
    with pytest.raises(Refused, match="levels in more than one group"):
        m.infer(how="perm", n_perm=5, cluster="c", scheme="sign-flip")
    weighted = model("y ~ x + (1 | school)", d.with_columns(w=pl.Series(rng.uniform(1, 2, 16))), weights="w").fit()
    for options in ({"cluster": "school"}, {"within": "school"}):
        with pytest.raises(Refused, match="differ in their weights"):
            weighted.infer(how="perm", n_perm=5, **options)


def test_a_perfect_fit_and_a_constant_response():
    """The two arrangements of 20 that fit as well as the data; no residual, no test."""
    g = ["a"] * 3 + ["b"] * 3
    perfect = model("y ~ g", pl.DataFrame({"y": [1.0] * 3 + [2.0] * 3, "g": g})).fit().infer(how="perm", n_perm="all")
    assert perfect.params["p_value"][1] == pytest.approx(0.1)
    constant = model("y ~ g", pl.DataFrame({"y": [1.0] * 6, "g": g})).fit().infer(how="perm", n_perm="all")
    assert constant.params["p_value"].is_null().to_list() == [False, True]
    assert "g[b]: no p" in " ".join(constant.inference.notes)
    with pytest.raises(Refused, match="no residual is left"):
        model("y ~ g", pl.DataFrame({"y": [1.0, 2.0], "g": ["a", "b"]})).fit().infer(how="perm", n_perm="all")


def test_refits_that_fail_count_against_the_data():
    """Two of the ten arrangements of two successes among five rows separate: without a maximum they cannot be called less extreme."""
    m = model("y ~ x", pl.DataFrame({"x": [1.0, 2.0, 3.0, 4.0, 5.5], "y": [0, 1, 0, 1, 0]}), family="binomial").fit()
    with pytest.warns(ConvergenceWarning, match="rather too large"):
        found = m.infer(how="perm", n_perm="all", scheme="response")
    t, every = found.params["statistic"][1], found.inference.extra.values[:, 1]
    assert np.isnan(every).sum() == 2
    assert found.params["p_value"][1] == pytest.approx(((np.abs(every) >= abs(t) - 1e-9).sum() + 2) / 10)


def test_p_is_never_0_and_no_worker_changes_it():
    d = pl.DataFrame({"x": np.arange(40.0), "y": np.arange(40.0) + np.random.default_rng(15).normal(size=40)})
    m = model("y ~ x", d).fit()
    one = m.infer(how="perm", n_perm=600, seed=1, errors="hetero")
    assert one.params["p_value"].to_list()[1] == pytest.approx(1 / 601)
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert m.infer(how="perm", n_perm=600, seed=1, errors="hetero").params.equals(one.params)


@pytest.mark.parametrize("n_perm", ["all", 2_000])
def test_ctrl_c_leaves_what_is_done(n_perm, monkeypatch):
    """Part of the random arrangements is a sample, part of all of them, in order, is none."""

    def interrupted(function, items, n_jobs):
        yield function(0)
        raise KeyboardInterrupt

    monkeypatch.setattr(permutation, "each", interrupted)
    m = model("mpg ~ wt", load_dataset("mtcars")[:9]).fit().infer(how="perm", n_perm=n_perm, seed=1)
    assert "partial: interrupted" in " ".join(m.inference.notes)
    assert m.resamples.height < 2 * 181_440
    row = m.params.row(1 if n_perm == 2_000 else 0, named=True)
    assert row["p_value"] is not None
    if n_perm == "all":
        assert m.params["p_value"][1] is None
        assert "no p of the interrupted rows" in " ".join(m.inference.notes)


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


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "n"), [("freedman-lane", 150), ("sign-flip", 50)])
def test_robust_statistics_hold_their_level_under_unequal_spread(scheme, n):
    """600 null data sets whose errors spread with |x|: HC3 within 5 % ± 1.8 % (2 Monte Carlo errors), classical ones far above.

    Orders need more rows than signs, which leave each error its spread (0.086 of 1000 at n = 50).
    """
    rng = np.random.default_rng(10)
    robust = plain = 0
    for i in range(600):
        x, z = rng.normal(size=n), rng.normal(size=n)
        m = model("y ~ x + z", pl.DataFrame({"x": x, "z": z, "y": z + np.abs(x) * rng.normal(size=n)})).fit()
        robust += m.infer(how="perm", n_perm=199, seed=i, errors="hetero", scheme=scheme).params["p_value"][1] <= 0.05
        plain += m.infer(how="perm", n_perm=199, seed=i).params["p_value"][1] <= 0.05
    assert 0.032 < robust / 600 < 0.068
    assert plain / 600 > 0.15


@pytest.mark.slow
def test_signs_of_clusters_hold_their_level_when_these_differ():
    """300 null data sets, 14 clusters of 3 to 9 rows and unequal spread, x constant inside: CR2 signs hold, rows that move alone do not."""
    rng = np.random.default_rng(14)
    s = np.repeat(np.arange(14), np.tile([3, 9], 7))
    robust = plain = 0
    for i in range(300):
        x = rng.normal(size=14)
        y = (0.5 + np.abs(x))[s] * rng.normal(size=14)[s] + rng.normal(size=len(s))
        m = model("y ~ x", pl.DataFrame({"s": s, "x": x[s], "y": y})).fit()
        options = {"scheme": "sign-flip", "cluster": "s", "errors": "cluster"}
        robust += m.infer(how="perm", n_perm=199, seed=i, **options).params["p_value"][1] <= 0.05
        plain += m.infer(how="perm", n_perm=199, seed=i).params["p_value"][1] <= 0.05
    assert robust / 300 < 0.09
    assert plain / 300 > 0.3
