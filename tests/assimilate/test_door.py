"""The estimates door: names, columns, parity with the established figures, and what bad input is told."""

from __future__ import annotations

import inspect
import math

import numpy as np
import polars as pl
import pytest
from attrs.exceptions import FrozenInstanceError

from bossa import model, normal
from bossa.assimilate import assimilative_causal, assimilative_causal_particle, batches, causal_kalman, estimates, particle_filter, resume
from bossa.errors import BossaError, DataError, NotYet, OptionError, Refused, UnknownOption

A = {"estimates": [0.45, 0.55, 0.50, 0.62, 0.38], "standard_errors": [0.10, 0.12, 0.08, 0.15, 0.20]}
B = {"estimates": [1.2, 0.9, 1.5, 1.1, 1.8, 2.0], "standard_errors": [0.3, 0.25, 0.4, 0.2, 0.35, 0.3]}
B_PRIOR = {"prior_mean": 0.5, "prior_var": 4.0, "process_var": 0.05}

# Figures of the specification (assimilation.md, cases A and B), base R's KalmanRun agreeing; ess by the median of the batches so far.
A_PATH = [
    (0.4455445545, 0.0995037190, 0.2505208488, 0.6405682601, 0.4500000000, 1.01),
    (0.4881029987, 0.0765964382, 0.3379767385, 0.6382292589, 0.1044554455, 2.0794222222),
    (0.4937930448, 0.0553259813, 0.3853561141, 0.6022299755, 0.0118970013, 3.2669444444),
    (0.5089065190, 0.0519076979, 0.4071693006, 0.6106437374, 0.1262069552, 4.5278944444),
    (0.5007713344, 0.0502430807, 0.4022967058, 0.5992459630, -0.1289065190, 5.7044),
]
B_PATH = [
    (1.1847826087, 0.2967212130, 0.7000000000, 1.0222222222, 1.1311792925, 0.2103359209),
    (0.9887533875, 0.2074166826, -0.2847826087, 1.7723622047, 1.1007379031, 0.1742518613),
    (1.1767096878, 0.2425343262, 0.5112466125, 1.5300163875, 1.2308868362, 0.1839674934),
    (1.1206177109, 0.1710232918, -0.0767096878, 2.6069297323, 1.2769379056, 0.1527478547),
    (1.3874857159, 0.2193608844, 0.6793822891, 1.8703553777, 1.5441613569, 0.1892372583),
    (1.7069608723, 0.2166614722, 0.6125142841, 1.9172516918, 1.7069608723, 0.2166614722),
]
TEN_DIGITS = 5e-11 * (1 + 1e-3)


def test_names_and_defaults_are_the_fixed_ones():
    defaults = {n: p.default for n, p in inspect.signature(causal_kalman).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert defaults == {"prior_mean": 0.0, "prior_var": 1.0, "process_var": 0.0, "alpha": 0.05}
    particle = {n: p.default for n, p in inspect.signature(particle_filter).parameters.items() if p.kind is p.KEYWORD_ONLY}
    fixed = {
        "prior_sampler": None,
        "prior_mean": 0.0,
        "prior_var": 1.0,
        "transition_sampler": None,
        "process_sd": 0.0,
        "observation_log_pdf": None,
        "n_particles": 2000,
        "ess_resample_threshold": 0.5,
        "alpha": 0.05,
        "seed": None,
    }
    assert fixed.items() <= particle.items()
    assert causal_kalman(**A).trajectory().columns[:7] == [
        "t",
        "posterior_mean",
        "posterior_sd",
        "ci_lower",
        "ci_upper",
        "innovation",
        "ess",
    ]


def test_static_case_to_ten_digits():
    r = causal_kalman(**A)
    found = r.trajectory().select("posterior_mean", "posterior_sd", "ci_lower", "ci_upper", "innovation", "ess").to_numpy()
    np.testing.assert_allclose(found, A_PATH, rtol=0, atol=TEN_DIGITS)
    assert r.log_evidence == pytest.approx(2.0328723524, abs=TEN_DIGITS)
    np.testing.assert_allclose(r.smoothed_mean, r.final_mean, rtol=1e-14)
    assert r.diagnostics["nis_sum"] == pytest.approx(1.6734, abs=5e-5)
    assert r.diagnostics["nis_p"] == pytest.approx(0.892, abs=5e-4)
    np.testing.assert_allclose(r.final_ci, A_PATH[-1][2:4], atol=TEN_DIGITS)


def test_drifting_case_to_ten_digits():
    r = causal_kalman(**B, **B_PRIOR)
    found = np.column_stack((r.posterior_mean, r.posterior_sd, r.innovations, r.ess, r.smoothed_mean, r.smoothed_sd))
    np.testing.assert_allclose(found, B_PATH, rtol=0, atol=TEN_DIGITS)
    assert r.log_evidence == pytest.approx(-5.0839955485, abs=TEN_DIGITS)
    np.testing.assert_allclose(r.final_ci, (1.2823121899, 2.1316095547), atol=TEN_DIGITS)
    assert r.diagnostics["nis_sum"] == pytest.approx(5.8774, abs=5e-5)
    assert r.diagnostics["nis_p"] == pytest.approx(0.437, abs=5e-4)


def test_static_stream_is_inverse_variance_pooling_with_the_prior():
    r = causal_kalman(**A)
    y, w = np.array(A["estimates"]), 1 / np.array(A["standard_errors"]) ** 2
    assert r.final_mean == pytest.approx((w @ y) / (w.sum() + 1), rel=1e-14)
    assert r.final_sd == pytest.approx((w.sum() + 1) ** -0.5, rel=1e-14)


def test_a_prior_that_knows_nothing_is_the_fixed_effect_meta_analysis():
    # statsmodels 0.14 combine_effects, fixed effect, case B: 1.3077065185 (0.1134932043)
    r = causal_kalman(**B, prior_var=math.inf)
    assert r.final_mean == pytest.approx(1.3077065185, abs=TEN_DIGITS)
    assert r.final_sd == pytest.approx(0.1134932043, abs=TEN_DIGITS)
    assert r.trajectory()["innovation_sd"][0] is None


@pytest.mark.parametrize("prior_var", [1e16, 1e20, 1e30, math.inf])
def test_a_vague_prior_does_not_wipe_out_the_data(prior_var):
    r = causal_kalman([1.0, 2.0, 3.0], [0.5] * 3, prior_var=prior_var)
    assert r.final_mean == pytest.approx(2.0, abs=1e-12)
    assert r.final_sd == pytest.approx(0.5 / math.sqrt(3), rel=1e-14)


def test_order_does_not_matter_when_nothing_drifts():
    forward, back = causal_kalman(**A), causal_kalman(A["estimates"][::-1], A["standard_errors"][::-1])
    assert forward.final_mean == pytest.approx(back.final_mean, rel=2.5e-15)
    assert forward.log_evidence == pytest.approx(back.log_evidence, abs=6e-14)


def test_an_estimator_over_batches_is_the_same_filter():
    batches = list(zip(A["estimates"], A["standard_errors"]))
    r = assimilative_causal(iter(batches), tuple)
    np.testing.assert_array_equal(r.posterior_mean, causal_kalman(**A).posterior_mean)
    once, again = (assimilative_causal_particle(batches, tuple, seed=3, process_var=0.01, n_particles=500) for _ in range(2))
    np.testing.assert_array_equal(once.posterior_mean, again.posterior_mean)
    other = particle_filter(**A, process_sd=0.1, seed=3, n_particles=500)
    np.testing.assert_array_equal(once.posterior_mean, other.posterior_mean)


@pytest.mark.parametrize("run", [causal_kalman, particle_filter])
def test_an_empty_stream_returns_its_prior_and_prints(run):
    r = run([], [], prior_mean=1.5, prior_var=4.0)
    assert (r.final_mean, r.final_sd) == (1.5, 2.0)
    np.testing.assert_allclose(r.final_ci, [1.5 - 2 * 1.959963984540054, 1.5 + 2 * 1.959963984540054], rtol=1e-14)
    assert r.trajectory().height == 0
    assert "prior" in r.summary()
    assert r.log_evidence == 0.0


def test_results_are_frozen():
    r = causal_kalman(**A)
    with pytest.raises(FrozenInstanceError):
        r.final_mean = 0.0
    with pytest.raises(ValueError):
        r.posterior_mean[0] = 0.0


@pytest.mark.parametrize("run", [causal_kalman, particle_filter])
@pytest.mark.parametrize(
    ("changes", "error", "word"),
    [
        ({"estimates": [0.1, math.nan, 0.2]}, DataError, "batch 1"),
        ({"estimates": [0.1, 0.3, math.inf]}, DataError, "batch 2"),
        ({"standard_errors": [0.1, 0.0, 0.2]}, DataError, "batch 1"),
        ({"standard_errors": [0.1, 0.1, -0.2]}, DataError, "batch 2"),
        ({"standard_errors": [math.inf, 0.1, 0.2]}, DataError, "batch 0"),
        ({"standard_errors": [0.1, 0.1]}, DataError, "3 estimates and 2"),
        ({"estimates": "abc"}, DataError, "not numbers"),
        ({"alpha": 0.0}, OptionError, "alpha"),
        ({"alpha": 1.0}, OptionError, "alpha"),
        ({"alpha": math.nan}, OptionError, "alpha"),
        ({"prior_var": -1.0}, OptionError, "prior_var"),
        ({"prior_mean": math.nan}, OptionError, "prior_mean"),
    ],
)
def test_bad_input_is_named(run, changes, error, word):
    with pytest.raises(error, match=word) as caught:
        run(**({"estimates": [0.1, 0.2, 0.3], "standard_errors": [0.1, 0.1, 0.1]} | changes))
    assert isinstance(caught.value, (BossaError, ValueError))
    assert caught.value.where


def test_negative_process_variance_and_unknown_names_are_named():
    with pytest.raises(OptionError, match="process_var"):
        causal_kalman(**A, process_var=-0.1)
    with pytest.raises(OptionError, match="process_sd"):
        particle_filter(**A, process_sd=-0.1)
    with pytest.raises(UnknownOption, match="'kalman'"):
        assimilative_causal([], tuple, backend="kalmn")
    with pytest.raises(UnknownOption, match="n_particles"):
        assimilative_causal([], tuple, backend="particle", n_particle=10)
    with pytest.raises(UnknownOption, match="seed"):
        assimilative_causal([], tuple, seed=1)
    with pytest.raises(DataError, match="batch 0"):
        assimilative_causal([1.0], float)


def test_a_prior_that_is_a_point_stays_where_it_is():
    r = causal_kalman(**A, prior_mean=0.3, prior_var=0.0)
    assert (r.posterior_mean == 0.3).all()
    assert (r.smoothed_mean == 0.3).all()
    assert (r.posterior_sd == 0).all()


@pytest.mark.parametrize("run", [causal_kalman, particle_filter])
def test_every_question_can_be_asked_of_an_empty_stream(run):
    r = run([], [])
    frames = [r.trajectory(), r.monitor(), *([] if run is particle_filter else [r.trajectory(smoothed=True), r.aci(), r.news()])]
    assert all(frame.height == 0 for frame in frames)
    assert r.alarms == ()
    assert r.params["estimate"][0] == 0.0
    assert "prior" in repr(r)


def weekly():
    rng = np.random.default_rng(0)
    return pl.DataFrame({"y": rng.normal(size=60), "x": rng.normal(size=60), "g": ["a", "b"] * 30, "week": np.repeat(np.arange(3), 20)})


def changed(column, value, rows=slice(4, 5)):
    """A later batch with one column, or some rows of it, spoilt."""
    values = weekly().head(20)[column].to_list()
    values[rows] = [value] * len(values[rows])
    return weekly().head(20).with_columns(pl.lit(9).alias("week")).with_columns(pl.Series(column, values, strict=False))


@pytest.mark.parametrize(
    ("batch", "error", "words"),
    [
        (changed("y", math.inf), DataError, "batch 9: a value is infinite"),
        (changed("x", math.inf), DataError, "batch 9: a value is infinite"),
        (changed("g", "z"), BossaError, "no level 'z'"),
        (changed("y", "a", slice(None)), DataError, "text here and was a number"),
        (changed("week", "x", slice(None)), DataError, "ids were numbers and this is text"),
        (changed("week", None, slice(0, 3)), DataError, "3 rows have no value"),
        (changed("week", math.nan, slice(0, 3)), DataError, "3 rows have no value"),
        (changed("week", 1, slice(None)), DataError, "taken in before, with other rows"),
        (changed("y", 1.0).drop("x"), BossaError, "'x'"),
        (changed("y", 1.0).drop("week"), BossaError, "the batch's id"),
        (3, DataError, "not a table"),
        (None, DataError, "not a table"),
        ((1.0, 2.0), DataError, "not a table"),
    ],
    ids=range(13),
)
@pytest.mark.parametrize("door", ["model", "batches", "resumed"])
def test_a_bad_batch_is_named_at_every_door(door, batch, error, words):
    r = batches("y ~ x + g", weekly(), by="week")
    act = {"model": model("y ~ x + g", weekly()).fit().infer(how="assim", by="week").assimilate, "batches": r.update}
    with pytest.raises(error, match=words):
        act.get(door, resume(r.to_json()).update)(batch)


def test_incomplete_rows_are_left_out_and_said_or_refused():
    r = batches("y ~ x", weekly(), by="week")
    assert not any("left out" in n for n in r.notes)
    later = r.update(changed("y", None, slice(0, 3)))
    assert later.n[-1] == 17
    assert "3 rows that were incomplete, or of weight 0, left out" in later.notes
    assert later.update(changed("y", None, slice(0, 3))).notes == later.notes  # the same batch again
    strict = batches("y ~ x", weekly(), by="week", missing="error")
    with pytest.raises(DataError, match="batch 9: a value is missing"):
        strict.update(changed("x", None))
    nothing = r.update(changed("y", None, slice(None)))
    assert nothing.n[-1] == 0
    np.testing.assert_allclose(nothing.final_mean, r.final_mean, rtol=1e-14)
    s = model("y ~ x", weekly()).fit().infer(how="assim", by="week").assimilate(changed("y", None, slice(0, 3)))
    assert "left out" in str(s)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"n": "ab"}, DataError, "n are not numbers"),
        ({"n": [-1, 2]}, DataError, "positive number"),
        ({"batch": ["a", 1]}, DataError, "ids were text and this is a number"),
        ({"batch": ["a", "a"]}, DataError, "'a'"),
        ({"time": [0, math.nan]}, OptionError, "time=nan"),
        ({"standard_errors": [0.1, math.inf]}, DataError, "batch 1"),
        ({"standard_errors": None, "vcovs": [[[1.0]], [[-1.0]]]}, DataError, "batch 1"),
        ({"between": -1}, OptionError, "negative"),
        ({"alpha": 1.5}, OptionError, "alpha"),
        ({"drift": -0.1}, OptionError, "negative"),
    ],
    ids=str,
)
def test_bad_options_of_estimates_are_named(options, error, words):
    with pytest.raises(error, match=words):
        estimates(**({"estimates": [1.0, 2.0], "standard_errors": [0.1, 0.1]} | options))


def test_batches_that_are_none_are_named():
    with pytest.raises(DataError, match="series of batches"):
        assimilative_causal(3, tuple)


def test_the_forms_of_the_kalman_filter_are_one_answer():
    data = weekly()
    auto = batches("y ~ x", data, by="week")
    for backend in ("kalman", "sqrt", "information"):
        np.testing.assert_array_equal(batches("y ~ x", data, by="week", backend=backend).posterior_mean, auto.posterior_mean)
    glm = {"by": "week", "family": "binomial", "prior": normal(0, 2)}
    yes = data.with_columns(y=pl.col("y") > 0)
    found = [batches("y ~ x", yes, backend=b, **glm).posterior_mean for b in ("laplace", "auto")]
    np.testing.assert_array_equal(*found)
    for options, error, words in (
        ({"backend": "laplace"}, OptionError, "no approximation"),
        ({"backend": "iekf"}, Refused, "sweeps=3"),
        ({"backend": "particle"}, NotYet, "backend='ibis'"),
        ({"backend": "kalmn"}, UnknownOption, "'kalman'"),
    ):
        with pytest.raises(error, match=words):
            batches("y ~ x", data, by="week", **options)
    with pytest.raises(OptionError, match="for linear models"):
        batches("y ~ x", yes, backend="sqrt", **glm)
