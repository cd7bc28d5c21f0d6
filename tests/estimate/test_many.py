"""Refits over a plan: a block at once equals one fit after another, whoever runs the blocks, and nothing of the model is lost."""

import os
import signal
import warnings

import joblib
import numpy as np
import polars as pl
import pytest
from attrs import evolve

from bossa import model
from bossa.errors import BossaWarning, ConvergenceWarning
from bossa.estimate import many, registry
from bossa.infer.plan import SCHEMES, expanded, plan
from bossa.state.plan import Plan, Replicates

MODELS = {
    "lm": ("y ~ x + g", {}),
    "lm weighted, offset": ("y ~ x + g", {"weights": "w", "offset": "o"}),
    "lm counts": ("y ~ x + g", {"freq_weights": "k"}),
    "logit": ("hit ~ x", {"family": "binomial"}),
    "poisson weighted, offset": ("count ~ x + g", {"family": "poisson", "weights": "w", "offset": "o"}),
    "poisson counts": ("count ~ x", {"family": "poisson", "freq_weights": "k"}),
    "gamma": ("wait ~ x + g", {"family": "gamma", "link": "log"}),
    "negbinomial": ("count ~ x", {"family": "negbinomial"}),
    "lmm": ("y ~ x + (1 | s)", {}),
    "lmm weighted, offset": ("y ~ x + (1 | s)", {"weights": "w", "offset": "o"}),
    "glmm": ("count ~ x + (1 | s)", {"family": "poisson"}),
}


def rows(n=60, seed=0):
    rng = np.random.default_rng(seed)
    x, g, s = rng.normal(size=n), rng.choice(["a", "b", "c"], n), np.arange(n) % 12
    eta = 0.5 + 0.5 * x + (g == "b") + 0.7 * rng.normal(size=12)[s]
    return pl.DataFrame(
        {
            "y": eta + rng.normal(size=n),
            "count": rng.poisson(np.exp(0.6 * eta)),
            "hit": (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int),
            "wait": rng.gamma(2.0, np.exp(0.3 * eta)),
            "x": x,
            "g": g,
            "s": s.astype(str),
            "w": rng.uniform(0.3, 3, n),
            "o": rng.normal(size=n) * 0.3,
            "k": rng.integers(1, 4, n),
        }
    )


def fitted(name, data=None):
    formula, options = MODELS[name]
    m = model(formula, rows() if data is None else data, **options).fit()
    return m.problem, m.fit_state


def schemes_of(name):
    if "|" in MODELS[name][0]:
        return ["group", "bayes", "parametric", "jackknife"]
    return ["case", "bayes", "parametric", "jackknife", *(["residual", "wild"] if name.startswith("lm") else [])]


CASES = [(name, scheme) for name in MODELS for scheme in schemes_of(name) if (name, scheme) != ("poisson weighted, offset", "parametric")]


def replicates(name, scheme, n=6):
    problem, fit = fitted(name)
    if SCHEMES[scheme].unit == "response":
        problem, fit, _ = expanded(problem, fit, None)
    return problem, fit, plan(problem, fit, scheme, n, seed=1)


@pytest.mark.parametrize(("name", "scheme"), CASES)
def test_a_block_at_once_equals_the_data_of_each_replicate_fitted_alone(name, scheme):
    """The replicate's data are written out and fitted by the estimator without a start: the batch may differ by its stopping rule alone."""
    problem, fit, chosen = replicates(name, scheme)
    draws = many.refit(problem, fit, chosen)
    block, design = chosen.block(0), problem.design
    for i in range(chosen.n):
        if block.y is not None:
            alone = evolve(design, y=block.y[i])
        else:
            counts = block.freq[i] * (1 if design.freq is None else design.freq)
            alone = design.take(counts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BossaWarning)  # a variance of 0 in a replicate
            state = registry.named(fit.estimator).fit(evolve(problem, design=alone))
        se = np.sqrt(np.diag(fit.vcov))
        assert np.abs(draws.coef[i] - state.coef).max() < 2e-5 * se.max()
        np.testing.assert_allclose(draws.se[i], np.sqrt(np.diag(state.vcov)), rtol=1e-3 if fit.theta is not None else 1e-6)
        np.testing.assert_allclose(draws.sigma[i], state.sigma, rtol=1e-4)


ONE_FACTOR = {
    "intercept": ("y ~ x + (1 | s)", {}),
    "slope, weighted, offset": ("y ~ x + (x | s)", {"weights": "w", "offset": "o"}),
    "ml": ("y ~ x + g + (1 | s)", {"method": "ml", "weights": "w"}),
    "apart": ("y ~ x + (1 | s) + (0 + x | s)", {}),
    "counted groups": ("y ~ x + (1 | s)", {"freq_weights": "m"}),
    "balanced": ("z ~ day + (day | s)", {}),
    "balanced, counted groups": ("y ~ day + (1 | s)", {"freq_weights": "m", "method": "ml"}),
}


def counted_rows():
    """30 groups of 6 rows, each on the same six days; m counts whole groups."""
    data = rows(180).with_columns(s=pl.int_range(180) % 30)
    noise = np.random.default_rng(5).normal(size=(3, 30))
    s = data["s"].to_numpy()
    y = data["y"] + 1.2 * noise[0][s] + 0.8 * noise[1][s] * data["x"]
    day = pl.Series(np.arange(180) // 30)
    return data.with_columns(y=y, day=day, z=y + 0.5 * noise[2][s] * (day - 2.5), m=1 + data["s"] % 2, s=data["s"].cast(pl.String))


@pytest.mark.parametrize("name", ONE_FACTOR)
@pytest.mark.parametrize("scheme", ["group", "bayes", "jackknife", "parametric"])
def test_groups_counted_at_once_are_groups_counted_one_by_one(name, scheme):
    """Counts of whole groups (and new responses) go through the cross-products of the groups: θ, σ, se and likelihood are the loop's."""
    formula, options = ONE_FACTOR[name]
    m = model(formula, counted_rows(), **options).fit()
    problem, fit = m.problem, m.fit_state
    block = plan(problem, fit, scheme, 25, seed=2).block(0)
    at_once = registry.named("lmm").many(problem, fit, block)
    alone = many._one_by_one(problem, fit, block)
    here = at_once.code == 0
    assert here.sum() > 20
    assert (alone.code[here] == 0).all()
    se = np.sqrt(np.diag(fit.vcov))
    assert (np.abs(at_once.coef - alone.coef)[here] < 2e-5 * se).all()
    np.testing.assert_allclose(at_once.loglik[here], alone.loglik[here], atol=1e-7)
    np.testing.assert_allclose(at_once.sigma[here], alone.sigma[here], rtol=2e-5)
    np.testing.assert_allclose(at_once.se[here], alone.se[here], rtol=1e-4)
    np.testing.assert_allclose(at_once.theta[here], alone.theta[here], atol=2e-4)


def test_too_few_groups_are_left_to_a_fit_of_their_own_which_says_why():
    """One group drawn every time, and groups that never meet a level of g: the batch does not answer for them."""
    data = counted_rows().with_columns(g=pl.when(pl.col("s").cast(int) < 25).then(pl.lit("a")).otherwise(pl.lit("b")))
    m = model("y ~ x + g + (1 | s)", data).fit()
    counts = np.ones((3, 30))
    counts[0, 1:] = 0
    counts[1, 25:] = 0
    block = Replicates(freq=counts[:, np.arange(180) % 30])
    assert registry.named("lmm").many(m.problem, m.fit_state, block).code.tolist() == [2, 2, 0]
    chosen = Plan(scheme="x", unit="group", n=3, rows=180, seed=1, draw=Given(block.freq))
    assert many.refit(m.problem, m.fit_state, chosen).code.tolist() == [4, 1, 0]


class Given:
    """Frequencies as they are."""

    def __init__(self, freq):
        self.freq = freq

    def __call__(self, rng, start, b):
        return self.freq[start : start + b]


def test_crossed_groups_and_rows_within_groups_are_fitted_one_by_one():
    problem, fit = fitted("lmm")
    halves = np.ones((2, 60))
    halves[:, :3] = 2.0
    assert registry.named("lmm").many(problem, fit, Replicates(freq=halves)) is None
    crossed = model("y ~ x + (1 | s) + (1 | g)", rows()).fit()
    assert registry.named("lmm").many(crossed.problem, crossed.fit_state, Replicates(freq=np.ones((2, 60)))) is None


@pytest.mark.parametrize("name", ["lm", "logit", "lmm"])
def test_the_number_of_workers_changes_no_number(name):
    problem, fit, _ = replicates(name, "parametric")
    chosen = plan(problem, fit, "parametric", 12, seed=3)
    small = Plan(scheme="x", unit="response", n=12, rows=problem.design.n, seed=3, draw=chosen.draw, block_size=5)
    one, two = many.refit(problem, fit, small, n_jobs=1), many.refit(problem, fit, small, n_jobs=2)
    np.testing.assert_array_equal(one.coef, two.coef)
    with joblib.parallel_config(backend="threading", n_jobs=3):
        np.testing.assert_array_equal(many.refit(problem, fit, small).coef, one.coef)


def test_workers_share_the_cores_between_them(monkeypatch):
    """Each of two workers may use half of the cores for linear algebra, not all of them."""
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    found = [*many.each(os.getenv, ["OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], n_jobs=2)]
    assert found == [str(max(1, joblib.cpu_count() // 2))] * 2


def test_blocks_do_not_grow_with_the_number_of_replicates():
    """Memory is block × n × the bytes of what is drawn: 32 MB at a million rows, 32 replicates of counts or 4 of responses."""
    draw = SCHEMES["case"].make(*fitted("lm"), None)
    for cell, rows, size in ((8, 1_000_000, 4), (1, 1_000_000, 32), (1, 100, 256), (8, 100, 256), (8, 100_000_000, 1)):
        assert Plan(scheme="case", unit="row", n=10_000, rows=rows, seed=1, draw=draw, cell=cell).block_size == size


def test_what_is_refitted_one_by_one_has_short_blocks():
    """So that workers share a few hundred of them, and Ctrl-C loses sixteen."""
    for name, size in (("lm", 256), ("poisson counts", 256), ("lmm", 256), ("negbinomial", 16)):
        assert plan(*fitted(name), "parametric", 1000, seed=1).block_size == size


def test_a_replicate_without_a_level_is_counted_not_returned():
    """20 rows, one of level c: about 36 % of the replicates have no c, and no number stands for them."""
    data = rows(20).with_columns(g=pl.Series(["a", "b"] * 9 + ["a", "c"]))
    problem, fit = fitted("lm", data)
    draws = many.refit(problem, fit, plan(problem, fit, "case", 400, seed=1))
    assert 0.25 < (draws.code == 1).mean() < 0.47
    assert np.isnan(draws.coef[draws.code == 1]).all()
    assert np.isfinite(draws.coef[draws.code == 0]).all()
    assert many.failures(draws.code) == {"rank deficient in the replicate": int((draws.code == 1).sum())}


def test_separated_replicates_are_counted_and_said():
    """12 rows of a logistic regression: many resamples are separated, where the maximum likelihood estimate is infinite."""
    data = pl.DataFrame({"hit": [0, 0, 0, 0, 1, 0, 1, 0, 1, 1, 1, 1], "x": np.arange(12.0)})
    m = model("hit ~ x", data, family="binomial").fit()
    with pytest.warns(ConvergenceWarning, match="has no maximum.*too narrow"):
        boot = m.infer(how="boot", n_boot=200, seed=1)
    codes = boot.inference.extra.code
    assert (codes == 2).sum() > 20
    assert np.abs(boot.resamples.filter(pl.col("code") == 0)["estimate"].to_numpy()).max() < 1e3


def test_interrupting_returns_what_is_done():
    """Ctrl-C in the third block: two blocks of replicates come back, marked partial."""
    problem, fit = fitted("lm")
    done = []

    def tick(k):
        done.append(k)
        if len(done) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    chosen = plan(problem, fit, "case", 5000, seed=1)
    draws = many.refit(problem, fit, chosen, tick=tick)
    whole = many.refit(problem, fit, chosen)
    assert len(draws.code) < 5000 == draws.planned
    np.testing.assert_array_equal(draws.coef, whole.coef[: len(draws.code)])


def test_drawn_groups_are_groups_of_their_own():
    """A group drawn twice is two groups: the refit equals that of data in which its second copy has another name."""
    data = rows()
    problem, fit = fitted("lmm", data)
    chosen = plan(problem, fit, "group", 3, seed=5)
    draws = many.refit(problem, fit, chosen)
    for i, counts in enumerate(chosen.block(0).freq):
        parts = [
            data.with_row_index().filter(pl.Series(counts) > c).with_columns(s=pl.col("s") + f".{c}") for c in range(int(counts.max()))
        ]
        again = model("y ~ x + (1 | s)", pl.concat(parts)).fit().fit_state
        np.testing.assert_allclose(draws.coef[i], again.coef, rtol=1e-5)
        np.testing.assert_allclose(draws.theta[i], again.theta, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lm", "logit", "glmm"])
def test_counts_are_rows_repeated_in_the_design_that_is_written_out(name):
    data = rows()
    formula, options = MODELS[name]
    counted = (
        data.group_by("s", maintain_order=True)
        .agg(pl.all().exclude("k"))
        .join(pl.DataFrame({"s": data["s"].unique(maintain_order=True), "k": [1, 2, 3] * 4}), on="s")
        .explode(pl.all().exclude("s", "k"))
    )
    m = model(formula, counted, freq_weights="k", **options).fit()
    problem, fit, _ = expanded(m.problem, m.fit_state, None)
    again = registry.named(fit.estimator).fit(problem)
    np.testing.assert_allclose(again.coef, m.fit_state.coef, rtol=1e-5)
    np.testing.assert_allclose(again.vcov, m.fit_state.vcov, rtol=1e-3)
    assert problem.design.n == counted["k"].sum()


@pytest.mark.parametrize(("formula", "options"), [("y ~ poly(year, 4, raw=TRUE)", {}), ("hit ~ year + I(year^2)", {"family": "binomial"})])
def test_nearly_collinear_columns_are_refitted_as_well_as_they_are_fitted(formula, options):
    """Powers of a year: the condition number of XᵀX is beyond 1e16, and every replicate of the fit is still usable."""
    data = rows().with_columns(year=2000.0 + pl.int_range(60) % 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BossaWarning)
        m = model(formula, data, **options).fit()
    problem, fit = m.problem, m.fit_state
    draws = many.refit(problem, fit, plan(problem, fit, "parametric", 50, seed=1))
    assert (draws.code == 0).all()
    spread = draws.coef.std(axis=0) / np.sqrt(np.diag(fit.vcov))
    assert (spread > 0.7).all()
    assert (spread < 1.5).all()


@pytest.mark.parametrize("scheme", ["parametric", "group"])
def test_a_fit_without_variance_between_groups_is_refitted_like_any_other(scheme):
    """θ = 0 exactly, where the information about θ is 0 too: the replicates are those of one fit after another."""
    rng = np.random.default_rng(4)
    d = pl.DataFrame({"s": np.repeat(np.arange(8), 4), "x": rng.normal(size=32), "y": rng.normal(size=32)})
    d = d.with_columns(y=pl.col("y") - pl.col("y").mean().over("s"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BossaWarning)
        m = model("y ~ x + (1 | s)", d).fit()
        assert m.fit_state.theta[0] == 0
        chosen = plan(m.problem, m.fit_state, scheme, 40, 1)
        block = many.refit(m.problem, m.fit_state, chosen)
        alone = many._one_by_one(m.problem, m.fit_state, chosen.block(0))
    assert (block.code == 0).all()
    np.testing.assert_allclose(block.coef, alone.coef, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(block.loglik, alone.loglik, rtol=1e-8)
