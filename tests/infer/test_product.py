"""Every question × every how × every kind of model: finite numbers, or a refusal that says what to use instead."""

import numpy as np
import polars as pl
import pytest

from bossa import model
from bossa.errors import Refused


def rows(n=80, seed=0):
    rng = np.random.default_rng(seed)
    x, g, s = rng.normal(size=n), rng.choice(["a", "b", "c"], n), np.arange(n) % 16
    eta = 0.3 + 0.5 * x + (g == "b") + 0.8 * rng.normal(size=16)[s]
    return pl.DataFrame({"y": 4 + eta + rng.normal(size=n), "count": rng.poisson(np.exp(0.5 * eta)), "x": x, "g": g, "s": s.astype(str)})


MODELS = {
    "lm": ("y ~ x + g", {}),
    "glm": ("count ~ x + g", {"family": "poisson"}),
    "lmm": ("y ~ x + g + (1 | s)", {}),
    "glmm": ("count ~ x + g + (1 | s)", {"family": "poisson"}),
}
QUESTIONS = {
    "params": lambda m: m,
    "contrasts": lambda m: m.explore("pairwise(g)"),
    "slopes": lambda m: m.explore("slope(x)", scale="link"),
    "means": lambda m: m.explore("g", scale="response"),
    "ratios": lambda m: m.explore("pairwise(g)", compare="ratio"),
    "average slopes": lambda m: m.explore("slope(x)", average="observed", scale="response"),
    "predictions": lambda m: m.predict(varying="exclude"),
}
HOWS = {
    "boot": ({"n_boot": 20, "seed": 1}, ["se", "ci_lower", "ci_upper"]),
    "perm": ({"n_perm": 20, "seed": 1}, ["statistic", "p_value", "p_mc_se", "null_lower", "null_upper"]),
    "cv": ({"k": 4, "seed": 1}, []),
    "profile": ({"n_steps": 0}, ["ci_lower", "ci_upper"]),
}
# of which models a how has no answer to a question; "all", or those whose link makes the question nonlinear or shown on another scale
CURVED = ("glm", "glmm")
NONE = {
    **{("cv", q): "all" for q in ("contrasts", "slopes", "means", "ratios", "average slopes")},
    ("perm", "predictions"): "all",
    ("profile", "predictions"): "all",
    ("perm", "average slopes"): CURVED,
    ("profile", "average slopes"): CURVED,
    ("profile", "means"): CURVED,
    ("profile", "ratios"): "all",
    ("perm", "ratios"): ("lm", "lmm"),  # of means on the identity scale; log means of the others are linear
}


@pytest.mark.filterwarnings("ignore::bossa.errors.BoundaryWarning")
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("name", MODELS)
def test_numbers_or_a_refusal(name, question, how):
    formula, options = MODELS[name]
    m = QUESTIONS[question](model(formula, rows(), **options).fit())
    asked, columns = HOWS[how]
    refused = NONE.get((how, question), ())
    if refused == "all" or name in refused:
        with pytest.raises(Refused, match=r"(Use|Ask) "):
            m.infer(how=how, **asked)
        return
    found = m.infer(how=how, **asked)
    frame = found.params if question == "params" else found.predictions if question == "predictions" else found.effects
    if how == "cv":
        columns = ["cv_fitted", "cv_residual", "cv_fold"] if question == "predictions" else ["pre", "pre_sd"]
        frame = frame if question == "predictions" else frame[1:]
    numbers = frame.select(columns).cast(pl.Float64)
    assert numbers.null_count().sum_horizontal()[0] == 0
    assert np.isfinite(numbers.to_numpy()).all()
    if "ci_lower" in columns and question != "predictions":
        assert (frame["ci_lower"] < frame["ci_upper"]).all()
