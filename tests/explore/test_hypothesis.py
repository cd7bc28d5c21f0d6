"""Linear hypotheses in words: what each means, against car's linearHypothesis, and what is said of those that mean nothing."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from bossa import load_dataset, model
from bossa.errors import BossaError, FormulaError
from bossa.explore.hypothesis import parse_hypotheses

NAMES = ("Intercept", "x", "x1", "g[b]", "g[a - b]", "x:g[b]", "poly(x, 2)[1]", "I(x^2)", "odd name")


def row(text):
    L, null = parse_hypotheses([text], NAMES)
    return {name: value for name, value in zip(NAMES, L[0]) if value}, float(null[0])


@pytest.mark.parametrize(
    ("text", "weights", "null"),
    [
        ("x = 1", {"x": 1}, 1),
        ("x", {"x": 1}, 0),
        ("x - x1 = 0", {"x": 1, "x1": -1}, 0),
        ("x == x1", {"x": 1, "x1": -1}, 0),
        ("2*x + 3 = 4*g[b] - 1", {"x": 2, "g[b]": -4}, -4),
        ("(x + x1)/2 = -3e-1", {"x": 0.5, "x1": 0.5}, -0.3),
        ("-(x - g[b]) * 2 = 1", {"x": -2, "g[b]": 2}, 1),
        ("x:g[b] = g[a - b]", {"x:g[b]": 1, "g[a - b]": -1}, 0),
        ("poly(x, 2)[1] - I(x^2)", {"poly(x, 2)[1]": 1, "I(x^2)": -1}, 0),
        ("(Intercept) = 5", {"Intercept": 1}, 5),
        ("`odd name` + odd name = 2", {"odd name": 2}, 2),
        ("x*3/4 = .5", {"x": 0.75}, 0.5),
    ],
)
def test_what_a_hypothesis_means(text, weights, null):
    assert row(text) == (weights, null)


@pytest.mark.parametrize(
    ("texts", "said", "caret"),
    [
        (["y = 0"], "'y' is not a coefficient.", 0),
        (["x + g[c] = 0"], "Did you mean 'g[b]'?", 4),
        (["x2 = 0"], "'x2' is not a coefficient.", 0),
        (["x * x1 = 0"], "two coefficients are multiplied; hypotheses are linear.", 2),
        (["1 / x = 0"], "only a number other than 0 can divide.", 2),
        (["x / 0 = 0"], "only a number other than 0 can divide.", 2),
        (["x - x = 0"], "no coefficient is left in this hypothesis.", 0),
        (["1 = 1"], "no coefficient is left", 0),
        (["x = "], "the hypothesis ends where a coefficient should follow.", 4),
        ([""], "the hypothesis ends", 0),
        (["(x + x1 = 0"], "this parenthesis is never closed.", 0),
        (["x = 1 = 2"], "this cannot be read.", 6),
        (["x x1 = 0"], "this cannot be read.", 2),
        (["`x = 0"], "this quote is never closed.", 0),
        (["`zz` = 0"], "'zz' is not a coefficient.", 0),
        (["x > 0"], "this cannot be read.", 2),
        (["x = 0", "2*x = 0"], "the hypotheses repeat or contradict each other.", None),
        ([], "no hypothesis is given.", None),
        ([3], "3 is not text.", None),
    ],
)
def test_hypotheses_that_mean_nothing(texts, said, caret):
    with pytest.raises(BossaError, match=r"^test\(\)") as caught:
        parse_hypotheses(texts, NAMES)
    assert said in str(caught.value)
    if caret is not None:
        assert isinstance(caught.value, FormulaError)
        assert str(caught.value).split("\n")[2].index("^") - 2 == caret


def test_linear_hypotheses_of_car():
    """car 3.1-1: linearHypothesis(lm(mpg ~ wt + hp, mtcars), …) (golden case lm_mtcars_two_numeric)."""
    m = model("mpg ~ wt + hp", load_dataset("mtcars")).fit()
    for texts, F, p in [
        (("wt = 0", "hp = 0"), 69.21121339177766, 9.109054385222056e-12),
        (("wt = -4",), 0.03728054217546979, 0.8482409060969879),
        (("wt - 100*hp = 0",), 0.24930868696473812, 0.621329290257638),
    ]:
        found = m.test(*texts)
        assert found["df1"][0] == len(texts)
        np.testing.assert_allclose([found["statistic"][0], found["p_value"][0]], [F, p], rtol=1e-9)
    assert isinstance(found, pl.DataFrame)
