"""how="boot" of predictions with random effects: the error of prediction, held against fits written out one by one."""

import numpy as np
import polars as pl
import pytest

from bossa import load_dataset, model
from bossa.errors import NotYet, Refused
from bossa.infer.plan import plan
from bossa.kernels.streams import stream


def crossed():
    rng = np.random.default_rng(2)
    s, h, x = np.repeat(np.arange(10), 6), np.tile(np.arange(6), 10), rng.normal(size=60)
    y = 1 + x + rng.normal(size=10)[s] + 0.7 * rng.normal(size=6)[h] + rng.normal(size=60)
    return pl.DataFrame({"y": y, "x": x, "s": s, "h": h, "count": rng.poisson(np.exp(0.3 * y)), "size": rng.gamma(4, np.exp(0.3 * y) / 4)})


CASES = {
    "slope": ("Reaction ~ Days + (Days | Subject)", {}, {"Days": [0, 9, 4], "Subject": ["308", "309", "308"]}),
    "weighted": ("y ~ x + offset(h) + (x || s)", {"weights": "size"}, {"x": [0.5, -1.0], "s": [3, 7], "h": [0, 5]}),
    "crossed": ("y ~ x + (1 | s) + (1 | h)", {}, {"x": [0.5, -1.0], "s": [3, 7], "h": [0, 5]}),
    "poisson": ("count ~ x + (1 | s)", {"family": "poisson"}, {"x": [0.5, -1.0], "s": [3, 7]}),
    "crossed poisson": ("count ~ x + (1 | s) + (1 | h)", {"family": "poisson"}, {"x": [0.5, -1.0], "s": [3, 7], "h": [0, 5]}),
    "gamma": ("size ~ x + (1 | s)", {"family": "gamma", "link": "log"}, {"x": [0.5, -1.0], "s": [3, 7]}),
}


@pytest.mark.filterwarnings("ignore::bossa.errors.BoundaryWarning")
@pytest.mark.parametrize("name", CASES)
def test_a_replicate_is_the_error_of_a_fit_to_what_was_drawn(name):
    """y* and b* of the scheme; a model of y* fitted and asked on its own; η̂ − (η̂* − η*), η* with the b* that made y*."""
    formula, options, new = CASES[name]
    data, new, B = load_dataset("sleepstudy") if name == "slope" else crossed(), pl.DataFrame(new), 6
    m = model(formula, data, **options).fit()
    asked = m.predict(new, type="link")
    found = asked.infer(how="boot", n_boot=B, seed=3, ci_type="basic")
    eta, fixed = (m.predict(new, type="link", varying=v).predictions["fitted"].to_numpy() for v in ("include", "exclude"))
    response, terms = formula.split(" ~ ")[0], m.design.random.terms
    for i, (y, drawn) in enumerate(plan(m.problem, m.fit_state, "parametric", B, 3).draw.each(stream(3, 0), B)):
        again = model(formula, data.with_columns(pl.Series(response, y)), **options).fit()
        refitted = again.predict(new, type="link").predictions["fitted"].to_numpy()
        truth = fixed.copy()
        for (codes, Z), b, term in zip(m.encoder.random(new), drawn, terms):
            truth += (Z * b[codes]).sum(axis=1)
            assert term.levels[codes[0]] == str(new[term.factor][0])
        np.testing.assert_allclose(found.focus_inference.extra.values[i], eta - (refitted - truth), atol=2e-4 * np.abs(eta).max())
    assert any("drawn anew" in note for note in found.focus_inference.notes)
    np.testing.assert_allclose(found.predictions["se"], found.focus_inference.extra.values.std(axis=0, ddof=1))


def test_its_errors_are_those_of_the_normal_theory():
    """Var(xβ̂ + z(b̂ − b)) of known groups, of one that the fit does not know, and of a new one: beside it, a little more for θ."""
    m = model("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy")).fit()
    new = pl.DataFrame({"Days": [0, 9, 5, 9], "Subject": ["308", "308", "370", "a new one"]})
    asked = m.predict(new, new_levels="population")
    ratio = (asked.infer(how="boot", n_boot=2000, seed=1).predictions["se"] / asked.infer().predictions["se"]).to_numpy()
    assert ((ratio > 0.93) & (ratio < 1.1)).all()  # 4 standard errors of a standard deviation of 2000 are 0.063
    mean = m.explore("Days@[0, 9]", varying="include")
    ratio = (mean.infer(how="boot", n_boot=2000, seed=1).effects["se"] / mean.infer().effects["se"]).to_numpy()
    assert ((ratio > 0.93) & (ratio < 1.1)).all()


def test_means_stay_in_range_and_workers_change_no_number():
    m = model("count ~ x + (1 | s)", crossed(), family="poisson").fit()
    asked = m.predict(pl.DataFrame({"x": [0.0, 1.0], "s": [1, 99]}), new_levels="population")
    one, two = (asked.infer(how="boot", n_boot=300, seed=5, n_jobs=j) for j in (None, 2))
    assert one.predictions.equals(two.predictions)
    frame = one.predictions
    assert (frame["ci_lower"] > 0).all()
    assert (frame["ci_lower"] < frame["fitted"]).all()
    assert (frame["fitted"] < frame["ci_upper"]).all()


def test_what_does_not_draw_random_effects_is_refused():
    d = crossed().with_columns(k=pl.col("s") % 2 + 1)
    m = model("y ~ x + (1 | s)", d).fit().predict()
    for scheme in ("group", "bayes", "jackknife"):
        with pytest.raises(Refused, match="does not draw random effects"):
            m.infer(how="boot", scheme=scheme, n_boot=None if scheme == "jackknife" else 10)
    with pytest.raises(NotYet, match="counted"):
        model("y ~ x + (1 | s)", d, freq_weights="k").fit().predict().infer(how="boot", n_boot=10)
    with pytest.raises(NotYet, match="negbinomial"):
        model("count ~ x + (1 | s)", d, family="negbinomial").fit().predict().infer(how="boot", n_boot=10)
