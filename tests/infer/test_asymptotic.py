"""how="asymp": laws over every kind of errors, other nulls and sides, maps back to another scale, and what is refused."""

import numpy as np
import polars as pl
import pytest

from bossa import load_dataset, model
from bossa.errors import Refused
from bossa.infer import infer
from bossa.state.target import Each, Linear, Target

ROBUST = ["HC0", "HC1", "HC2", "HC3", "HC4", "CR0", "CR1", "CR1S", "CR2"]
COLUMNS = ["estimate", "se", "ci_lower", "ci_upper", "statistic", "df", "p_value"]


def rows(n=60, seed=0):
    rng = np.random.default_rng(seed)
    x, g, c = rng.normal(size=n), rng.choice(["a", "b", "c"], n), rng.integers(0, 9, n)
    eta = 0.3 + 0.5 * x + (g == "b") + 0.5 * rng.normal(size=9)[c]
    return pl.DataFrame(
        {
            "y": eta + rng.normal(size=n) * (1 + (g == "c")),
            "count": rng.poisson(np.exp(0.5 * eta)),
            "hit": rng.random(n) < 1 / (1 + np.exp(-eta)),
            "wait": rng.gamma(2.0, np.exp(0.3 * eta)),
            "x": x,
            "g": g,
            "c": c,
            "w": rng.uniform(0.3, 3, n),
            "k": rng.integers(1, 4, n),
        }
    )


MODELS = {
    "lm": ("y ~ x * g", {}),
    "weighted lm": ("y ~ x * g", {"weights": "w"}),
    "poisson": ("count ~ x + g", {"family": "poisson"}),
    "logit": ("hit ~ x", {"family": "binomial"}),
    "probit": ("hit ~ x", {"family": "binomial", "link": "probit"}),
    "gamma": ("wait ~ x + g", {"family": "gamma", "link": "log"}),
}
# what a maximum likelihood fit stopped at 1e-9 standard errors leaves in its second derivatives
PRECISION = {"lm": 1e-9, "weighted lm": 1e-9}


def fit(name, data, **more):
    formula, options = MODELS[name]
    return model(formula, data, **options, **more).fit()


def inferred(m, errors):
    cluster = {"cluster": "c"} if errors.startswith("CR") else {}
    return m.infer(errors=errors, **cluster).params.select(COLUMNS).to_numpy()


@pytest.mark.parametrize("errors", ["iid", *ROBUST])
@pytest.mark.parametrize("name", MODELS)
def test_counts_are_rows_repeated(name, errors):
    data = rows()
    counted = inferred(fit(name, data, freq_weights="k"), errors)
    repeated = inferred(fit(name, data.select(pl.all().repeat_by("k").explode())), errors)
    np.testing.assert_allclose(counted, repeated, rtol=PRECISION.get(name, 1e-6))


@pytest.mark.parametrize("errors", ["iid", *ROBUST])
@pytest.mark.parametrize("name", ["weighted lm", "gamma"])
def test_scale_of_prior_weights_changes_no_interval(name, errors):
    """Where the dispersion is estimated; the CR2 of a linear model included, whose working variance does not know the weights."""
    data = rows()
    formula, options = MODELS[name]
    options = options | {"weights": "w"}
    one, ten = (inferred(model(formula, d, **options).fit(), errors) for d in (data, data.with_columns(pl.col("w") * 10)))
    np.testing.assert_allclose(ten, one, rtol=PRECISION.get(name, 1e-6))


@pytest.mark.parametrize("errors", ["iid", *ROBUST])
@pytest.mark.parametrize("name", MODELS)
def test_order_of_rows_and_units_do_not_matter(name, errors):
    data = rows()
    shuffled = data.sample(fraction=1.0, shuffle=True, seed=3).with_columns(pl.col("x") * 2.0**20)
    one, other = inferred(fit(name, data), errors), inferred(fit(name, shuffled), errors)
    np.testing.assert_allclose(other[:, 4:], one[:, 4:], rtol=PRECISION.get(name, 1e-6))  # statistic, df, p


@pytest.mark.parametrize("errors", ["HC0", "CR0"])
@pytest.mark.parametrize("name", MODELS)
def test_sandwich_is_the_variance_of_one_step_leave_outs(name, errors):
    """HC0 and CR0 are Σ (B s)(B s)ᵀ with s the numerical gradient of each row's log-likelihood: no formula for scores is trusted."""
    data = rows()
    m = fit(name, data)
    problem, state = m.problem, m.fit_state
    design, family, link = problem.design, problem.family, problem.link

    def loglik(coef):
        d = family.deviance(design.y, link.inverse(design.X @ coef))
        return -0.5 * d * (1.0 if design.weights is None else design.weights) / state.dispersion

    step = np.cbrt(np.finfo(float).eps)
    scores = np.stack([(loglik(state.coef + step * e) - loglik(state.coef - step * e)) / (2 * step) for e in np.eye(len(state.coef))], 1)
    if errors == "CR0":
        scores = np.stack([scores[data["c"].to_numpy() == c].sum(axis=0) for c in range(9)])
    expected = np.sqrt(np.diag(state.vcov @ scores.T @ scores @ state.vcov))
    np.testing.assert_allclose(inferred(m, errors)[:, 1], expected, rtol=1e-6)


def test_robust_defaults_and_references():
    lm, glm = fit("lm", rows()), fit("poisson", rows())
    assert lm.infer(errors="hetero").inference.options["errors"] == "HC3"
    assert glm.infer(errors="hetero").inference.options["errors"] == "HC0"
    assert lm.infer(errors="cluster", cluster="c").inference.options["errors"] == "CR2"
    assert glm.infer(errors="cluster", cluster="c").inference.options["errors"] == "CR1"
    assert lm.infer(errors="HC3").inference.df.tolist() == [54.0] * 6
    assert lm.infer(errors="CR1", cluster="c").inference.df.tolist() == [8.0] * 6
    assert np.isinf(glm.infer(errors="HC3").inference.df).all()
    assert glm.infer().inference.statistic_name == "z"
    assert fit("gamma", rows()).infer().inference.statistic_name == "t"
    assert np.isinf(lm.infer(df="inf").inference.df).all()
    assert "reference: t with 54 df (residual)" in lm.infer().inference.notes


def test_the_reference_distribution_is_said_once():
    """lmerTest gives 16.99973 and 16.99998 for sleepstudy: one number to four digits. Without coefficients there is nothing to test."""
    sleep = load_dataset("sleepstudy")
    assert "reference: t with 17 df (Satterthwaite)" in model("Reaction ~ Days + (Days | Subject)", sleep).fit().infer().inference.notes
    assert "reference: none, there is nothing to test" in model("Reaction ~ 0", sleep).fit().infer().inference.notes


@pytest.mark.parametrize("side", ["two-sided", "less", "greater"])
def test_null_and_side_are_dual_to_the_interval(side):
    """Testing a limit gives p = 1 − level."""
    m = fit("lm", rows())
    for limit in m.infer(alternative=side, conf_level=0.9).inference.interval[:, 1]:
        if np.isfinite(limit):
            assert m.infer(alternative=side, null=limit).inference.p_value[1] == pytest.approx(0.1, rel=1e-9)


def test_p_values_are_not_clipped():
    """About 1e-260, by the leading terms of the t tail's expansion (Soms 1976): log p to 1e-5."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=3000)
    m = model("y ~ x", {"y": 0.7 * x + rng.normal(size=3000), "x": x}).fit().infer()
    t, p, df = m.inference.statistic[1], m.inference.p_value[1], 2998.0
    assert 1e-300 < p < 1e-200
    log_density = -0.5 * (df + 1) * np.log1p(t**2 / df) - 0.5 * np.log(2 * np.pi) - 0.25 / df
    mills = (1 + t**2 / df) / t * (1 - df / ((df + 2) * t**2))
    assert np.log(p) == pytest.approx(np.log(2) + log_density + np.log(mills), rel=1e-5)


# ---------------------------------------------------------------- any target
def asked(m, target, **options):
    return infer(m.problem, m.fit_state, target, "asymp", options)


def labels(k):
    return pl.DataFrame({"row": list(range(k))})


def test_nonlinear_targets_have_delta_method_errors():
    m = fit("lm", rows())
    ratio = Target(
        labels=labels(1),
        steps=(
            Linear(matrix=np.eye(6)[[1, 2]]),
            Each(name="log", function=np.log, slope=np.reciprocal),
            Linear(matrix=np.array([[1.0, -1.0]])),
        ),
        kind="contrasts",
    )
    b, V = m.fit_state.coef, m.fit_state.vcov
    gradient = np.array([0, 1 / b[1], -1 / b[2], 0, 0, 0])
    assert b[1] > 0
    assert b[2] > 0
    assert asked(m, ratio).se[0] == pytest.approx(np.sqrt(gradient @ V @ gradient), rel=1e-10)


def expit(x):
    return 1 / (1 + np.exp(-x))


def logit(p):
    return np.log(p / (1 - p))


def expit_slope(x):
    return expit(x) * (1 - expit(x))


EXPIT = Each(name="expit", function=expit, slope=expit_slope, inverse=logit)
FALLING = Each(name="1 − expit", function=lambda x: expit(-x), slope=lambda x: -expit_slope(x), inverse=lambda p: -logit(p))


def test_limits_go_back_through_the_map_and_errors_by_its_slope():
    m = fit("logit", rows())
    X = np.array([[1.0, 0.0], [1.0, 2.0]])
    link = asked(m, Target(labels=labels(2), steps=(Linear(matrix=X),), kind="means"))
    shown = asked(m, Target(labels=labels(2), steps=(Linear(matrix=X),), kind="means", back=EXPIT))
    np.testing.assert_allclose(shown.interval, expit(link.interval), rtol=1e-14)
    np.testing.assert_allclose(shown.se, link.se * expit_slope(X @ m.fit_state.coef), rtol=1e-12)
    np.testing.assert_allclose(shown.p_value, link.p_value, rtol=1e-14)
    assert shown.null.tolist() == [0.5, 0.5]


def test_a_falling_map_swaps_limits_and_sides():
    m = fit("logit", rows())
    X = np.array([[1.0, 0.7]])
    up = Target(labels=labels(1), steps=(Linear(matrix=X),), kind="means", back=EXPIT)
    down = Target(labels=labels(1), steps=(Linear(matrix=X),), kind="means", back=FALLING)
    for side, other in (("less", "greater"), ("greater", "less"), ("two-sided", "two-sided")):
        a, b = asked(m, up, alternative=side, null=0.3), asked(m, down, alternative=other, null=0.7)
        np.testing.assert_allclose(b.interval, 1 - a.interval[::-1], rtol=1e-12)
        np.testing.assert_allclose(b.p_value, a.p_value, rtol=1e-12)
        assert b.se[0] == pytest.approx(a.se[0], rel=1e-12)


def test_a_null_on_the_shown_scale_is_carried_back():
    m = fit("logit", rows())
    X = np.array([[1.0, 0.0]])
    target = Target(labels=labels(1), steps=(Linear(matrix=X),), kind="means", back=EXPIT)
    expected = asked(m, Target(labels=labels(1), steps=(Linear(matrix=X),)), null=logit(0.6))
    assert asked(m, target, null=0.6).p_value[0] == pytest.approx(expected.p_value[0], rel=1e-12)


def test_rows_that_are_not_estimable_have_no_numbers():
    m = fit("lm", rows())
    target = Target(labels=labels(2), steps=(Linear(matrix=np.eye(6)[:2]),), estimable=np.array([False, True]))
    state = asked(m, target)
    for values in (state.se, state.statistic, state.p_value, state.interval[0], state.vcov[0]):
        assert np.isnan(np.atleast_1d(values)[0])
    assert np.isfinite(state.p_value[1])


def test_pairwise_contrasts_are_adjusted_and_say_so():
    """Tukey's method by default; its numbers are held to R in tests/kernels."""
    m = fit("lm", rows())
    L = np.zeros((3, 6))
    L[[0, 1, 2], [2, 3, 3]], L[2, 2] = -1, 1
    L[2] = L[1] - L[0]
    target = Target(labels=labels(3), steps=(Linear(matrix=L),), kind="contrasts", contrast="pairwise")
    state, plain = asked(m, target), asked(m, target, adjust="none")
    assert state.options["adjust"] == "tukey"
    assert any("Tukey" in note for note in state.notes)
    assert (state.p_value >= plain.p_value).all()
    assert (state.interval[1] - state.interval[0] > plain.interval[1] - plain.interval[0]).all()


# ---------------------------------------------------------------- unequal variances, exact rows
def test_one_variance_per_cell_whatever_the_coding():
    data = rows()
    one, other = (
        model("y ~ g * hit", data, contrasts=c).fit().infer(errors="unequal_var").jointtest(errors="unequal_var")
        for c in ({}, {"g": "helmert", "hit": "sum"})
    )
    np.testing.assert_allclose(one.drop("term").to_numpy(), other.drop("term").to_numpy(), rtol=1e-9)


def test_cells_of_one_row_have_no_variance():
    data = {"y": [1.0, 2, 3, 4, 6], "g": ["a", "a", "b", "b", "c"]}
    with pytest.raises(Refused, match="1 of 3 cells have a single observation"):
        model("y ~ g", data).fit().infer(errors="unequal_var")


def test_hc3_of_a_row_fitted_exactly_is_refused_by_name():
    data = {"y": [1.0, 2, 3, 4, 6, 5], "x": [1.0, 2, 3, 5, 4, 1], "g": ["a", "a", "a", "a", "a", "c"]}
    with pytest.raises(Refused, match="row 5 of the data is fitted exactly"):
        model("y ~ x + g", data).fit().infer(errors="HC3")
    assert model("y ~ x + g", data).fit().infer(errors="HC1").params["se"].is_finite().all()


def test_linear_mixed_models_bring_their_own_degrees_of_freedom():
    """One row asked by t and by F: the same test, by Satterthwaite (default) and by Kenward and Roger; balanced data: 17 df (lmerTest)."""
    m = model("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy")).fit()
    for df in ("auto", "satterthwaite", "kenward-roger"):
        t, row = m.infer(df=df).inference, m.jointtest(df=df).row(0, named=True)
        assert t.df[1] == pytest.approx(17, rel=1e-5)
        assert (row["statistic"], row["df2"]) == pytest.approx((t.statistic[1] ** 2, t.df[1]), rel=1e-8)
    assert np.isinf(m.infer(df="inf").inference.df).all()
    with pytest.raises(Refused, match="without random effects"):
        m.infer(errors="HC3")
