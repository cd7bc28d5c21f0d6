"""how="boot": R's boot within Monte Carlo error, laws over schemes, the jackknife, the product of questions and models, calibration."""

import tracemalloc
import warnings
from contextlib import contextmanager

import numpy as np
import polars as pl
import pytest
from attrs import evolve

import bossa
from bossa import load_dataset, model
from bossa.errors import BossaWarning, OptionError, Refused
from bossa.estimate import many, registry
from bossa.infer import bootstrap
from bossa.infer.bootstrap import left_out_coef
from bossa.infer.clusters import cluster_codes
from bossa.infer.plan import SCHEMES, plan
from bossa.kernels import resample

# R 4.2.2, boot 1.3-28.1, B = 200000, seed 1: percentile and bca limits (acceleration by empinf(type = "jack")), sd of the replicates
R_BOOT = {
    ("mpg ~ wt + hp", "gaussian"): {
        "percentile": [(33.07761, 41.39498), (-5.340375, -2.523816), (-0.04939554, -0.01980829)],
        "bca": [(32.93149, 41.25478), (-5.294601, -2.480888), (-0.04617183, -0.01668634)],
        "basic": [(33.05956, 41.37693), (-5.231846, -2.415287), (-0.04373761, -0.01415036)],
        "se": [2.100953071, 0.705489497, 0.007721886],
    },
    ("carb ~ wt + hp", "poisson"): {
        "percentile": [(-0.3111184, 0.6042235), (-0.1495036, 0.1425075), (0.003058490, 0.007451359)],
        "bca": [(-0.2775442, 0.6487555), (-0.1986645, 0.1182491), (0.003306617, 0.008049092)],
        "basic": [(-0.3266469, 0.5886950), (-0.1335436, 0.1584674), (0.003523122, 0.007915991)],
        "se": [0.232417451, 0.072396017, 0.001126882],
    },
}
R_STUDENTIZED = [(32.95575, 42.52219), (-6.81618, -3.985125)]  # the same, lm(mpg ~ wt, weights = qsec), t by the model's own variance


def rows(n=80, seed=0):
    rng = np.random.default_rng(seed)
    x, g, s = rng.normal(size=n), rng.choice(["a", "b", "c"], n), np.arange(n) % 16
    eta = 0.3 + 0.5 * x + (g == "b") + 0.6 * rng.normal(size=16)[s]
    return pl.DataFrame(
        {
            "y": eta + rng.normal(size=n),
            "count": rng.poisson(np.exp(0.5 * eta)),
            "over": rng.negative_binomial(1.5, 1.5 / (1.5 + np.exp(0.5 * eta))),
            "hit": (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int),
            "x": x,
            "g": g,
            "s": s.astype(str),
            "w": rng.uniform(0.5, 2, n),
            "k": rng.integers(1, 4, n),
        }
    )


def limits(frame):
    return frame.select("ci_lower", "ci_upper").to_numpy()


@pytest.mark.parametrize("kind", ["percentile", "bca", "basic"])
@pytest.mark.parametrize("case", R_BOOT, ids=str)
def test_limits_are_those_of_r_within_monte_carlo_error(case, kind):
    """A 2.5 % quantile of B normal draws has standard error √(.025·.975/B)/φ(1.96): .006 se in R, .008 here; heavy tails: more."""
    formula, family = case
    expected = R_BOOT[case]
    m = model(formula, load_dataset("mtcars"), family=family).fit().infer(how="boot", n_boot=100_000, seed=1, ci_type=kind)
    se = np.array(expected["se"])
    np.testing.assert_allclose(m.params["se"], se, rtol=0.025)
    assert (np.abs(limits(m.params) - expected[kind]) / se[:, None]).max() < 0.12


@pytest.mark.parametrize("case", R_BOOT, ids=str)
def test_ten_thousand_replicates_scatter_about_the_numbers_of_r_by_their_monte_carlo_error(case):
    """Twelve runs of B = 10⁴: their means are R's within four of their standard errors (that of R's own 2·10⁵ replicates included).

    One run's standard deviation, in standard errors of the coefficient: under .02 for se, up to .15 for a BCa limit of the skewed one.
    """
    formula, family = case
    m = model(formula, load_dataset("mtcars"), family=family).fit()
    runs = [m.infer(how="boot", n_boot=10_000, seed=seed).params for seed in range(12)]
    found = np.array([np.column_stack((frame["se"], limits(frame))) for frame in runs])
    expected = np.column_stack((R_BOOT[case]["se"], R_BOOT[case]["bca"]))
    error = found.std(axis=0, ddof=1)
    assert (np.abs(found.mean(axis=0) - expected) < 4 * error * np.sqrt(1 / 12 + 1 / 20)).all()
    relative = error / np.array(R_BOOT[case]["se"])[:, None]
    assert relative[:, 0].max() < 0.03
    assert relative.max() < 0.2


def test_studentized_limits_of_a_weighted_model_are_those_of_r():
    m = model("mpg ~ wt", load_dataset("mtcars"), weights="qsec").fit().infer(how="boot", n_boot=20_000, seed=1, ci_type="studentized")
    assert (np.abs(limits(m.params) - R_STUDENTIZED) / m.params["se"].to_numpy()[:, None]).max() < 0.12


def test_wild_bootstrap_of_homoscedastic_errors_is_the_usual_standard_error():
    rng = np.random.default_rng(0)
    n = 400
    d = pl.DataFrame({"x": rng.normal(size=n), "z": rng.normal(size=n)}).with_columns(y=pl.col("x") + pl.Series(rng.normal(size=n)))
    m = model("y ~ x + z", d).fit()
    wild, usual = m.infer(how="boot", scheme="wild", n_boot=8000, seed=1).params, m.infer(errors="HC3").params
    np.testing.assert_allclose(wild["se"], usual["se"], rtol=0.04)
    np.testing.assert_allclose(wild["se"], m.infer().params["se"], rtol=0.12)


def test_wild_bootstrap_by_cluster_has_the_cluster_robust_standard_error():
    """The signs' variance is CR2 exactly (the residuals of a cluster are scaled as CR2 scales them): what differs is Monte Carlo error."""
    rng = np.random.default_rng(1)
    c = np.repeat(np.arange(40), 5)
    d = pl.DataFrame({"c": c, "z": rng.normal(size=40)[c], "y": rng.normal(size=40)[c] + rng.normal(size=200)})
    m = model("y ~ z", d).fit()
    wild = m.infer(how="boot", scheme="wild", cluster="c", n_boot=8000, seed=1).params["se"]
    np.testing.assert_allclose(wild, m.infer(errors="CR2", cluster="c").params["se"], rtol=0.04)
    size = SCHEMES["wild"].make(m.problem, m.fit_state, c).residual
    moved = np.linalg.pinv(m.problem.design.X) * size
    sums = np.stack([moved[:, c == g].sum(axis=1) for g in range(40)])
    np.testing.assert_allclose(np.sqrt((sums**2).sum(axis=0)), m.infer(errors="CR2", cluster="c").params["se"], rtol=1e-10)
    assert (wild > 1.3 * m.infer().params["se"]).all()


def contradicted(weight):
    """mtcars, and as many rows again that say the opposite with this weight."""
    d = load_dataset("mtcars").select("mpg", "wt").with_columns(w=pl.lit(1.0), k=pl.lit(1))
    return pl.concat([d, d.with_columns(mpg=-pl.col("mpg"), w=pl.lit(weight), k=pl.lit(0))])


@pytest.mark.parametrize("scheme", ["case", "bayes", "residual", "wild", "parametric"])
def test_rows_of_weight_zero_do_not_matter(scheme):
    """A resampler that forgets the weights is wrong by several standard errors here."""
    kept = model("mpg ~ wt", load_dataset("mtcars")).fit().infer(how="boot", scheme=scheme, n_boot=500, seed=1)
    for argument in ({"weights": "w"}, {"freq_weights": "k"}):
        padded = model("mpg ~ wt", contradicted(0.0), **argument).fit().infer(how="boot", scheme=scheme, n_boot=500, seed=1)
        other_draws = scheme in ("case", "bayes") and "freq_weights" in argument
        np.testing.assert_allclose(limits(padded.params), limits(kept.params), rtol=0.06 if other_draws else 1e-8)


@pytest.mark.parametrize("scheme", ["case", "bayes", "residual", "wild", "parametric"])
def test_doubling_every_prior_weight_changes_no_interval(scheme):
    d = rows().with_columns(twice=2 * pl.col("w"))
    one, two = (model("y ~ x", d, weights=w).fit().infer(how="boot", scheme=scheme, n_boot=200, seed=1) for w in ("w", "twice"))
    np.testing.assert_allclose(limits(one.params), limits(two.params), rtol=1e-8)


@pytest.mark.parametrize("scheme", ["residual", "wild", "parametric", "jackknife"])
@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_counts_are_rows_repeated(family, scheme):
    """Exactly, where the scheme draws responses or leaves rows out; rows drawn with replacement agree in distribution (below)."""
    if family == "poisson" and scheme in ("residual", "wild"):
        pytest.skip("refused: see the product test")
    d = rows()
    long = d[np.repeat(np.arange(d.height), d["k"].to_numpy())]
    options = {"how": "boot", "scheme": scheme, **({} if scheme == "jackknife" else {"n_boot": 100, "seed": 1})}
    formula = "y ~ x + g" if family == "gaussian" else "count ~ x + g"
    counted = model(formula, d, family=family, freq_weights="k").fit().infer(**options).params
    repeated = model(formula, long, family=family).fit().infer(**options).params
    for column in ("se", "ci_lower", "ci_upper"):
        np.testing.assert_allclose(counted[column], repeated[column], rtol=1e-7)


@pytest.mark.parametrize("scheme", ["case", "bayes"])
def test_counts_are_rows_repeated_in_distribution(scheme):
    d = rows()
    long = d[np.repeat(np.arange(d.height), d["k"].to_numpy())]
    options = {"how": "boot", "scheme": scheme, "n_boot": 6000, "seed": 1}
    counted, repeated = (model("y ~ x", f, **o).fit().infer(**options).params for f, o in ((d, {"freq_weights": "k"}), (long, {})))
    np.testing.assert_allclose(counted["se"], repeated["se"], rtol=0.05)  # each has relative error 1/√(2B) = .009
    assert (np.abs(limits(counted) - limits(repeated)) < 0.2 * counted["se"].to_numpy()[:, None]).all()


@pytest.mark.parametrize("name", ["lm", "weighted", "counts", "clusters"])
def test_closed_form_jackknife_is_one_refit_for_each_row(name):
    options = {"weighted": {"weights": "w"}, "counts": {"freq_weights": "k"}}.get(name, {})
    m = model("y ~ x + g", rows(), **options).fit()
    groups = cluster_codes(m.problem, "s") if name == "clusters" else None
    units = m.problem.design.n if groups is None else 16
    refits = many.refit(m.problem, m.fit_state, plan(m.problem, m.fit_state, "jackknife", units, 0, groups))
    np.testing.assert_allclose(left_out_coef(m.problem, m.fit_state, groups), refits.coef, rtol=1e-9, atol=1e-12)


def test_one_step_without_a_row_is_close_to_the_refit_of_a_glm():
    """Pregibon's step: its error is of second order, here a few percent of the movement."""
    m = model("count ~ x + g", rows(), family="poisson").fit()
    refits = many.refit(m.problem, m.fit_state, plan(m.problem, m.fit_state, "jackknife", 80, 0))
    moved, step = refits.coef - m.fit_state.coef, left_out_coef(m.problem, m.fit_state) - m.fit_state.coef
    assert np.abs(moved - step).max() < 0.1 * np.abs(moved).max()


@pytest.mark.parametrize(
    ("formula", "family", "cluster", "error"),
    [
        ("y ~ x + g", "gaussian", None, 1e-8),
        ("y ~ x + g", "gaussian", "s", 1e-8),
        ("count ~ x + g", "poisson", None, 0.003),
        ("count ~ x + g", "poisson", "s", 0.008),
    ],
)
def test_the_acceleration_of_bca_is_that_of_refits_without_each_unit(formula, family, cluster, error):
    """Closed form for LM; one Newton step for GLM. An error of a moves a 95 % limit by a·1.96² se: .01 se, or .03 se for 16 clusters."""
    m = model(formula, rows(), family=family).fit()
    groups = None if cluster is None else cluster_codes(m.problem, cluster)
    units = 80 if groups is None else 16
    refits = many.refit(m.problem, m.fit_state, plan(m.problem, m.fit_state, "jackknife", units, 0, groups))
    closed = resample.acceleration(left_out_coef(m.problem, m.fit_state, groups))
    np.testing.assert_allclose(closed, resample.acceleration(refits.coef), atol=error)
    assert np.abs(closed).max() > 0.01


def test_jackknife_leaves_out_groups_of_a_mixed_model():
    m = model("y ~ x + (1 | s)", rows()).fit().infer(how="boot", scheme="jackknife")
    d = rows()
    left = np.array([model("y ~ x + (1 | s)", d.filter(pl.col("s") != s)).fit().fit_state.coef for s in d["s"].unique()])
    np.testing.assert_allclose(m.params["se"], np.sqrt(15 / 16 * ((left - left.mean(axis=0)) ** 2).sum(axis=0)), rtol=1e-4)


def test_numbers_are_shown_on_the_scale_of_the_question():
    """Percentile and BCa limits move with a monotone transform; an odds ratio's are the exponentials of the log odds ratio's."""
    m = model("hit ~ x + g", rows(120), family="binomial").fit()
    link = m.explore("pairwise(g)").infer(how="boot", n_boot=300, seed=1)
    ratio = m.explore("pairwise(g)", compare="odds_ratio").infer(how="boot", n_boot=300, seed=1)
    np.testing.assert_allclose(limits(ratio.effects), np.exp(limits(link.effects)), rtol=1e-10)
    np.testing.assert_allclose(ratio.effects["p_value"], link.effects["p_value"])
    means = m.explore("g", scale="response").infer(how="boot", n_boot=300, seed=1).effects
    assert (means["ci_lower"] > 0).all()
    assert (means["ci_upper"] < 1).all()
    assert (means["ci_lower"] < means["estimate"]).all()
    assert (means["estimate"] < means["ci_upper"]).all()
    predicted = m.predict(rows().head(5)).infer(how="boot", n_boot=300, seed=1).predictions
    assert predicted["ci_lower"].min() > 0
    assert predicted["ci_upper"].max() < 1


def test_the_p_value_and_the_interval_speak_of_the_same_null():
    """p < .05 exactly where the 95 % interval leaves the null out, for nulls on both sides of the estimate, and p is never 0."""
    m = model("mpg ~ wt", load_dataset("mtcars")).fit()
    for kind in ("percentile", "bca", "basic"):
        inside = m.infer(how="boot", n_boot=2000, seed=1, ci_type=kind).params.row(1, named=True)
        for null in np.linspace(inside["ci_lower"] - 0.5, inside["ci_upper"] + 0.5, 9):
            row = m.infer(how="boot", n_boot=2000, seed=1, ci_type=kind, null=float(null)).params.row(1, named=True)
            covered = inside["ci_lower"] < null < inside["ci_upper"]
            assert (row["p_value"] > 0.05) == covered
            assert row["p_value"] >= 1 / 2001
    far = m.infer(how="boot", n_boot=30, seed=1, null=100.0).params.row(1, named=True)
    assert far["p_value"] == pytest.approx(2 / 31)
    greater = m.infer(how="boot", n_boot=2000, seed=1, alternative="less").params.row(1, named=True)
    assert greater["ci_lower"] == -np.inf
    assert 1 / 2001 <= greater["p_value"] < 0.005


def test_a_seed_replays_and_is_kept():
    m = model("mpg ~ wt", load_dataset("mtcars")).fit()
    one = m.infer(how="boot", n_boot=50)
    again = m.infer(how="boot", n_boot=50, seed=one.inference.options["seed"])
    assert one.resamples.equals(again.resamples)
    assert not one.resamples.equals(m.infer(how="boot", n_boot=50).resamples)
    few = m.infer(how="boot", n_boot=50, seed=1, save_resamples=False)
    assert few.inference.extra.values is None
    assert few.params.equals(m.infer(how="boot", n_boot=50, seed=1).params)


MODELS = {
    "lm": ("y ~ x + g", {}),
    "glm": ("count ~ x + g", {"family": "poisson"}),
    "negbinomial": ("over ~ x", {"family": "negbinomial"}),
    "quasi": ("count ~ x", {"family": "quasipoisson"}),
    "lmm": ("y ~ x + g + (1 | s)", {}),
    "glmm": ("count ~ x + (1 | s)", {"family": "poisson"}),
}
ROWS_ALONE = {"case", "residual", "wild"}
REFUSED = {
    *(("glm", s) for s in ("residual", "wild")),
    *(("negbinomial", s) for s in ("residual", "wild")),
    *(("quasi", s) for s in ("residual", "wild", "parametric")),
    *((m, s) for m in ("lmm", "glmm") for s in ROWS_ALONE),
    *((m, "group") for m in ("lm", "glm", "negbinomial", "quasi")),
}


@pytest.mark.parametrize("scheme", ["auto", "case", "group", "bayes", "residual", "wild", "parametric", "jackknife"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_numbers_or_a_refusal_that_says_what_to_do(name, scheme):
    formula, options = MODELS[name]
    m = model(formula, rows(), **options).fit()
    asked = {"how": "boot", "scheme": scheme, **({} if scheme == "jackknife" else {"n_boot": 20, "seed": 1})}
    if (name, scheme) in REFUSED:
        with pytest.raises(Refused, match=r"(Use|Name) "):
            m.infer(**asked)
        return
    frame = m.infer(**asked).params
    numbers = frame.select("se", "ci_lower", "ci_upper", "p_value").to_numpy()
    assert np.isfinite(numbers).all()
    assert (frame["ci_lower"] < frame["estimate"]).all() or scheme != "jackknife"


def test_the_spread_of_random_effects_has_limits_after_the_bootstrap():
    """bootMer of lme4 1.1-31 with 500 draws (tests/golden, lmm_sleepstudy_slope): percentile limits of the sds, σ and the correlation."""
    sleep = load_dataset("sleepstudy")
    m = model("Reaction ~ Days + (Days | Subject)", sleep).fit().infer(how="boot", n_boot=2000, seed=1)
    spread = m.varying_spread
    r = {"lower": [11.918900831995032, 3.5207496679715504, -0.4842553260051141, 22.63142500521297]}
    r["upper"] = [34.64491265246072, 8.307150386725269, 0.854304399805335, 28.408521935491788]
    se = np.array([6.0886248892143575, 1.2199262987739588, 0.3408791954505449, 1.463441423176753])
    assert (
        np.abs(spread["ci_lower"].to_numpy() - r["lower"]) / se
    ).max() < 0.6  # 3.5 se √(1/500 + 1/2000) is one Monte Carlo error: .18 se
    assert (np.abs(spread["ci_upper"].to_numpy() - r["upper"]) / se).max() < 0.6
    assert (spread["method"] == "boot (parametric, percentile)").all()
    assert (spread["ci_lower"] < spread["sd"].fill_null(spread["corr"])).all()


def test_ten_thousand_parametric_replicates_are_those_of_bootmer():
    """lme4 1.1-31, R 4.2.2, bootMer(nsim = 10000, seed = 1), sleepstudy: sd and type 6 quantiles of each number.

    Monte Carlo error of the difference: 1 % of an sd (here within 4 %), √2·.027 se of a limit (within .15).
    """
    r = np.array(
        [  # intercept, slope; sd of each, σ; their correlation
            [6.8258749, 237.8776823, 264.7330565],
            [1.54629797, 7.41716651, 13.54630116],
            [5.95806718, 12.27822473, 35.86973930],
            [1.26056895, 3.37617680, 8.30775060],
            [1.50270794, 22.67020430, 28.47671545],
            [0.353802088, -0.507598644, 0.916970137],
        ]
    )
    m = model("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy")).fit().infer(how="boot", n_boot=10_000, seed=1)
    fixed, spread = (f.select("se", "ci_lower", "ci_upper").to_numpy() for f in (m.params, m.varying_spread))
    ours = np.vstack((fixed, spread[[0, 1, 3, 2]]))
    np.testing.assert_allclose(ours[:, 0], r[:, 0], rtol=0.04)
    assert (np.abs(ours[:, 1:] - r[:, 1:]) / r[:, :1]).max() < 0.15


@pytest.mark.parametrize("boundary", [False, True])
def test_new_responses_side_by_side_are_fits_of_their_own(boundary):
    """Never less likely than the fit of the replicate alone, and as far as rounding lets it the same; most at a boundary in the second."""
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(8), 5)
    d = pl.DataFrame({"g": g, "x": rng.normal(size=40), "w": rng.uniform(0.5, 2, 40)})
    size = 0.3 if boundary else 1.5
    d = d.with_columns(
        y=pl.Series(size * rng.normal(size=8)[g] + 0.5 * size * rng.normal(size=8)[g] * d["x"].to_numpy() + rng.normal(size=40))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BossaWarning)
        m = model("y ~ x + (1 + x | g)", d, weights="w").fit()
        problem, fit = m.problem, m.fit_state
        chosen = plan(problem, fit, "parametric", 40, seed=2)
        draws = many.refit(problem, fit, chosen)
        alone = [registry.named("lmm").fit(evolve(problem, design=evolve(problem.design, y=y))) for y in chosen.block(0).y]
    assert (draws.loglik - [a.loglik for a in alone]).min() > -1e-7
    np.testing.assert_allclose(draws.coef, [a.coef for a in alone], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(draws.sigma, [a.sigma for a in alone], rtol=1e-4)


def test_what_cannot_be_answered_is_refused():
    m = model("mpg ~ wt", load_dataset("mtcars")).fit()
    for options in ({"n_boot": 5}, {"seed": 1}, {"ci_type": "bca"}):
        with pytest.raises(OptionError, match="has no use for scheme='jackknife'"):
            m.infer(how="boot", scheme="jackknife", **options)
    with pytest.raises(Refused, match=r"not defined for scheme='wild'.*percentile"):
        m.infer(how="boot", scheme="wild", ci_type="bca")
    mixed = model("y ~ x + (1 | s)", rows()).fit()
    with pytest.raises(Refused, match="varying='exclude'"):
        mixed.predict().infer(how="boot", scheme="group", n_boot=10)
    assert mixed.predict(rows().head(2), varying="exclude").infer(how="boot", n_boot=10, seed=1).predictions["se"].min() > 0


def test_an_interrupted_run_gives_what_is_done_and_says_so(monkeypatch):
    """Ctrl-C while the second block is reported: 256 or 512 of 5000 replicates, and a note."""

    @contextmanager
    def interrupted(progress, total, what):
        done = []

        def tick(k):
            done.append(k)
            if len(done) == 2:
                raise KeyboardInterrupt

        yield tick

    m = model("mpg ~ wt", load_dataset("mtcars")).fit()
    monkeypatch.setattr(bootstrap, "progress_bar", interrupted)
    part = m.infer(how="boot", n_boot=5000, seed=1)
    state = part.inference.extra
    assert state.partial
    assert len(state.code) == 512
    assert "partial: interrupted after 512 of 5000 replicates" in part.inference.notes
    monkeypatch.undo()
    whole = m.infer(how="boot", n_boot=5000, seed=1)
    np.testing.assert_array_equal(state.values, whole.inference.extra.values[:512])


def test_a_ratio_that_some_replicates_do_not_have_has_no_limits_and_that_is_said():
    """Means near 0: in some replicates one is negative, and the ratio's logarithm does not exist."""
    d = rows().with_columns(y=pl.Series(0.25 + np.random.default_rng(2).normal(size=80)))
    m = model("y ~ g", d).fit()
    assert (m.explore("g").effects["estimate"] > 0).all()
    ratio = m.explore("pairwise(g)", compare="ratio").infer(how="boot", n_boot=200, seed=1)
    assert ratio.effects["ci_lower"].null_count() == 3
    assert any("no value in up to" in note for note in ratio.focus_inference.notes)


def test_a_prior_is_not_lost_in_the_replicates():
    """A strong prior on the slope keeps it near 0 in every replicate; without it the slope is −5.3."""
    d = load_dataset("mtcars")
    m = model("mpg ~ wt", d, prior={"wt": bossa.normal(0, 0.01)}).fit()
    row = m.infer(how="boot", n_boot=60, seed=1).params.row(1, named=True)
    assert -0.5 < row["ci_lower"] < row["ci_upper"] < 0.5
    assert m.infer(how="boot", n_boot=60, seed=1).inference.options["ci_type"] == "percentile"
    assert m.infer(how="cv", k=4, seed=1).diagnostics["cv_rmse"][0] > 5  # the spread of mpg is 6


def test_what_is_no_distribution_is_not_drawn_from():
    d = rows()
    with pytest.raises(Refused, match="nor anything else"):
        model("count ~ x", d, family="poisson", weights="w").fit().infer(how="boot", scheme="parametric")
    with pytest.raises(Refused, match="under the null"):
        model("count ~ x", d, family="quasipoisson").fit().infer(how="perm")


def traced_peak(work):
    """(what work() returns, bytes it keeps, bytes it had at its height)"""
    tracemalloc.start()
    try:
        result = work()
        return result, *tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


def test_memory_is_that_of_a_block_however_many_replicates():
    """300,000 rows, counts of a byte: 32 MB a block, 8 bytes for a chunk of rows at a time. 240 replicates need what 120 need."""
    rng = np.random.default_rng(0)
    n = 300_000
    d = pl.DataFrame({"x": rng.normal(size=n), "z": rng.normal(size=n), "y": rng.normal(size=n)})
    m = model("y ~ x + z", d).fit()
    peaks = [traced_peak(lambda b=b: m.infer(how="boot", n_boot=b, seed=1, ci_type="percentile"))[2] for b in (120, 240)]
    assert peaks[1] < 1.1 * peaks[0]
    assert peaks[1] < 32e6 + 2 * 9 * 8 * n  # X and what its columns are stacked into


def test_replicates_that_are_not_kept_are_not_held():
    """1000 replicates of 15,000 predictions are 120 MB: never in memory at once unless they are to be kept. The numbers are the same."""
    m = model("mpg ~ wt", load_dataset("mtcars")).fit().predict(pl.DataFrame({"wt": np.linspace(2, 5, 15_000)}))
    asked = {"how": "boot", "n_boot": 1000, "seed": 1, "ci_type": "percentile"}
    lean, left, peak = traced_peak(lambda: m.infer(**asked, save_resamples=False))
    assert left < 10e6
    assert peak < 80e6
    full, held, _ = traced_peak(lambda: m.infer(**asked))
    assert held > 120e6
    assert lean.predictions.equals(full.predictions)
    assert full.focus_inference.extra.values.shape == (1000, 15_000)


def test_a_question_in_pieces_has_the_answers_of_the_whole(monkeypatch):
    """Odds ratios and predictions, by BCa, piece by piece of two rows: what they are at once."""
    d = rows()
    m = model("hit ~ x + g", d, family="binomial").fit()
    questions = m.explore("pairwise(g)", compare="ratio"), m.predict(d.head(7))
    whole = [q.infer(how="boot", n_boot=200, seed=1, ci_type="bca") for q in questions]
    monkeypatch.setattr(bootstrap, "VALUES", 400)
    pieces = [q.infer(how="boot", n_boot=200, seed=1, ci_type="bca") for q in questions]
    for a, b in zip(whole, pieces):
        one, two = a.focus_inference, b.focus_inference
        for name in ("interval", "se", "p_value"):
            np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-12)
        np.testing.assert_allclose(one.extra.values, two.extra.values, rtol=1e-12)


def test_the_scheme_that_auto_stands_for_is_shown():
    d = rows()
    for formula, options, scheme, said in [
        ("y ~ x", {}, "case", "draws rows with replacement"),
        ("y ~ x", {"cluster": "s"}, "group", "draws whole groups with replacement"),
        ("y ~ x", {"cluster": "s", "scheme": "case"}, "group", "draws whole groups with replacement"),
        ("y ~ x", {"cluster": "s", "scheme": "bayes"}, "bayes", "weighs whole groups by"),
        ("y ~ x + (1 | s)", {}, "parametric", "draws every response from the fitted distribution"),
    ]:
        m = model(formula, d).fit().infer(how="boot", n_boot=20, seed=1, **options)
        assert m.inference.options["scheme"] == scheme
        assert said in m.inference.notes[0]
        assert f"scheme={scheme}" in str(m.summary())


def test_clusters_that_are_named_widen_what_rows_on_their_own_would_give():
    """A predictor that is constant in each of 16 clusters: drawn whole, by weight or by sign, its error is larger than of rows drawn."""
    d = rows(160).with_columns(between=pl.col("s").cast(int).sin())
    d = d.with_columns(y=pl.Series(2 * np.random.default_rng(3).normal(size=16))[d["s"].cast(int)] + 0.5 * pl.col("y"))
    m = model("y ~ between", d).fit()

    def se(**options):
        return m.infer(how="boot", n_boot=400, seed=1, **options).params["se"][1]

    for scheme in ("case", "group", "bayes", "wild"):
        assert se(scheme=scheme, cluster="s") > 1.8 * se()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "errors"), [("case", "hetero"), ("wild", "hetero"), ("bayes", "hetero"), ("residual", "skewed"), ("case", "skewed")]
)
def test_intervals_cover(scheme, errors):
    """95 % intervals of a slope, n = 80, 400 data sets: between .91 and .98 (Monte Carlo error .011)."""
    rng = np.random.default_rng(3)
    hits = 0
    for i in range(400):
        x = rng.normal(size=80)
        e = rng.normal(size=80) * (0.5 + np.abs(x)) if errors == "hetero" else rng.exponential(size=80) - 1
        d = pl.DataFrame({"x": x, "y": x + e})
        row = model("y ~ x", d).fit().infer(how="boot", scheme=scheme, n_boot=499, seed=i).params.row(1, named=True)
        hits += row["ci_lower"] < 1 < row["ci_upper"]
    assert 0.91 < hits / 400 < 0.98


@pytest.mark.slow
def test_parametric_intervals_of_a_mixed_model_cover():
    """Slope and group standard deviation, 15 groups of 5, 200 data sets: between .90 and .985 (Monte Carlo error .015)."""
    rng = np.random.default_rng(5)
    slope = sd = 0
    for i in range(200):
        g, x = np.repeat(np.arange(15), 5), rng.normal(size=75)
        d = pl.DataFrame({"g": g, "x": x, "y": x + rng.normal(size=15)[g] + rng.normal(size=75)})
        m = model("y ~ x + (1 | g)", d).fit().infer(how="boot", n_boot=399, seed=i)
        row, spread = m.params.row(1, named=True), m.varying_spread.row(0, named=True)
        slope += row["ci_lower"] < 1 < row["ci_upper"]
        sd += spread["ci_lower"] < 1 < spread["ci_upper"]
    assert 0.90 < slope / 200 < 0.985
    assert 0.86 < sd / 200 < 0.985  # percentile limits of a standard deviation are a little low: its estimate is


@pytest.mark.slow
def test_group_bootstrap_covers_a_predictor_between_clusters_where_rows_do_not():
    rng = np.random.default_rng(4)
    hits = {"group": 0, "case": 0}
    for i in range(200):
        c = np.repeat(np.arange(30), 5)
        d = pl.DataFrame({"c": c, "z": rng.normal(size=30)[c], "y": rng.normal(size=30)[c] + 0.5 * rng.normal(size=150)})
        for scheme, cluster in (("group", "c"), ("case", None)):
            row = model("y ~ z", d).fit().infer(how="boot", scheme=scheme, cluster=cluster, n_boot=299, seed=i).params.row(1, named=True)
            hits[scheme] += row["ci_lower"] < 0 < row["ci_upper"]
    assert hits["group"] / 200 > 0.88
    assert hits["case"] / 200 < 0.75


@pytest.mark.parametrize(("alternative", "least"), [("two-sided", 2), ("greater", 1)])
def test_the_least_p_value_is_the_one_that_is_said(alternative, least):
    x = np.arange(40.0)
    m = model("y ~ x", {"x": x, "y": 3 * x + np.sin(x)}).fit()
    r = m.infer(how="boot", n_boot=99, seed=1, ci_type="percentile", alternative=alternative)
    assert r.params["p_value"][1] == pytest.approx(least / 100, rel=1e-12)
    assert any(n.endswith(f"at least {least}/100") for n in r.inference.notes)
    shown = m.predict().infer(how="boot", n_boot=99, seed=1)
    assert not any("p-value" in n for n in shown.focus_inference.notes)
