"""Queries: what they mean, in bossa's and in R's words, and what is said of those that cannot be answered."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from bossa import model
from bossa.errors import BossaError, FormulaError
from bossa.explore.grammar import Bracket, Change, Contrast, Slope, parse


def values(text):
    return [x.value for x in parse(text).focal[0].variable.values.items]


def test_parts_of_a_query():
    assert parse("1").focal == ()
    assert parse("1 ~ g").conditions[0].variable.name == "g"
    g, h = parse("g:h").focal
    assert (g.variable.name, h.variable.name) == ("g", "h")
    assert isinstance(parse("slope(x) ~ h").focal[0], Slope)
    assert [type(p) for p in parse("pairwise(g):poly(h)").focal] == [Contrast, Contrast]
    assert parse("change(x, 5, centered)").focal[0] == Change("x", 7, 5.0, True)
    q = parse("c[a - (b + d)] ~ s[f - m]")
    assert isinstance(q.focal[0], Bracket)
    assert q.focal[0].items[0].text() == "a - (b + d)"
    assert q.conditions[0].variable.name == "s"
    assert [len(parse("g | h + x@[1, 2]").conditions)] == [2]


def test_levels_that_look_like_arithmetic_stand_in_parentheses():
    """As in emmeans' labels; the sign between the sides is the question's, never one inside a level."""
    item = parse("g['a - b' - (c + \"d/e\")]").focal[0].items[0]
    assert item.text() == "(a - b) - (c + (d/e))"
    assert item.text("/") == "(a - b) / (c + (d/e))"
    assert parse("g[* - a]").focal[0].items[0].text() == "* - a"


def test_values_of_every_kind():
    assert values("x@[1, 2.5, -3e-1, .5]") == [1, 2.5, -0.3, 0.5]
    assert values("x@c(1, 2)") == [1, 2]  # R's spelling
    assert values("g@[a, 'b c', \"0-5yrs\", TRUE, false, 7mg]") == ["a", "b c", "0-5yrs", True, False, "7mg"]
    assert values("g@'TRUE'") == ["TRUE"]  # quoted: text
    spread = parse("x@range(5)").focal[0].variable.values
    assert (spread.kind, spread.n) == ("range", 5)
    assert parse("x@mean").focal[0].variable.values.kind == "mean"
    assert parse("`odd name`@data:Sepal.Length").focal[0].variable.name == "odd name"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("sequential(g)", "consec(g)"),
        ("effect(g)", "eff(g)"),
        ("del_eff(g)", "del.eff(g)"),
        ("treatment(g)", "trt.vs.ctrl(g)"),
        ("treatment(g)", "dunnett(g)"),
        ("treatment(g)", "dummy(g)"),
        ("pairwise(g)", "tukey(g)"),
        ("sum(g)", "deviation(g)"),
        ("poly(g, degree=2)", "poly(g, max.degree=2)"),
        ("treatment(g, ref=b)", "treatment(g, b)"),
    ],
)
def test_spellings_mean_the_same(ours, theirs):
    a, b = parse(ours).focal[0], parse(theirs).focal[0]
    assert (a.method, [v.name for v in a.variables]) == (b.method, [v.name for v in b.variables])
    assert [(k, x.value) for k, x in a.options] == [(k, x.value) for k, x in b.options]


def test_a_slope_is_a_trend():
    assert parse("trend(x)").focal == (Slope("x", 6),)


rng = np.random.default_rng(3)
N = 48
DATA = pl.DataFrame(
    {
        "g": np.array(["a", "b", "c"])[np.arange(N) % 3],
        "h": np.array(["lo", "hi"])[np.arange(N) // 3 % 2],
        "on": np.arange(N) // 6 % 2 == 1,
        "k": np.arange(N) % 4,
        "dose": rng.uniform(1, 9, N),
        "age": rng.uniform(20, 60, N),
        "subject": np.arange(N) % 5,
        "y": rng.normal(size=N),
    }
)
M = model("y ~ g * h + on + factor(k) + log(dose) + age", DATA).fit()

BAD = [  # query, options, what the message says, column of the caret (None: it has none)
    ("", {}, "the query is empty", 0),
    ("~ g", {}, "what is asked should stand before it. | Write \"g\" for means", 0),
    ("pairwise ~ g", {}, "'pairwise' is a contrast, not a variable. | pairwise(g)", 0),
    ("age = 30", {}, "'=' cannot stand here. | Values follow '@': x@3", 4),
    ("age@nan", {}, "'age' is a number, not 'nan'.", 4),
    ("gg", {}, "'gg' is not a variable of the model. | Did you mean 'g'?", 0),
    ("treatmint(g)", {}, "'treatmint' is not a contrast. | Did you mean 'treatment'?", 0),
    ("pairwise(gender)", {}, "'gender' is not a variable of the model.", 9),
    ("pairwise(g", {}, "this '(' is never closed.", 8),
    ("pairwise g", {}, "an operator is missing before 'g'.", 9),
    ("pairwise(g))", {}, "this ')' closes nothing.", 11),
    ("pairwise()", {}, "the name of a variable should stand here, not ')'.", 9),
    ("pairwise(g, h)", {}, "pairwise takes nothing after its term. | Several factors are written g:h.", 12),
    ("pairwise(g, ref=a)", {}, "pairwise has no option 'ref'. | It has none.", 12),
    ("treatment(g, reff=a)", {}, "treatment has no option 'reff'. | Did you mean 'ref'?", 13),
    ("treatment(g, ref=a, ref=b)", {}, "the option 'ref' is given twice.", 20),
    ("treatment(g, ref=z)", {}, "'g' has no level 'z'.", 17),
    ("poly(g, degree=3)", {}, "degree=3 is not a whole number from 1 to 2.", 15),
    ("pairwise(age)", {}, "'age' is a number, so it has no levels. | Give values: age@[", 9),
    ("pairwise(g:g)", {}, "a variable is named twice in one contrast.", 0),
    ("pairwise(g@a)", {}, "g has one cell: there is nothing to compare.", 9),
    ("g@d", {}, "'g' has no level 'd'.", 2),
    ("h@[lo, high]", {}, "'h' has no level 'high'. | Did you mean 'hi'?", 7),
    ("g@[a, b", {}, "this '[' is never closed.", 2),
    ("g@", {}, "the query ends where a value should follow.", 2),
    ("g@[a; b]", {}, "';' has no meaning here.", 4),
    ("g@'a", {}, "the quote ' is never closed.", 2),
    ("g@mean", {}, "'g' is a factor, which has no mean. | Its levels are: a, b, c.", 2),
    ("age@range(0)", {}, "range() takes a whole number of values, at least 1.", 10),
    ("age@quantiles(3)", {}, "'quantiles' does not give values. | Did you mean 'quantile'?", 4),
    ("age@old", {}, "'age' is a number, not 'old'.", 4),
    ("k@5", {}, "'k' has no level 5.", 2),
    ("age@[-]", {}, "a number should follow this minus.", 5),
    ("g * h", {}, "'*' cannot stand here. | Combinations of levels are written g:h.", 2),
    ("g + h", {}, "'+' cannot stand here. | Combinations of levels are written g:h; conditions follow '~'.", 2),
    ("a - b", {}, "'-' cannot stand here. | Differences are written g[a - b] or pairwise(g).", 2),
    ("g ~ h ~ on", {}, "a query has one '~'; several conditions are joined by '+'.", 6),
    ("g ~", {}, "the query ends where a name should follow.", 3),
    ("g ~ slope(age)", {}, "a slope cannot be a condition. | Write it first: slope(x) ~ g.", 10),
    ("slope(g)", {}, "'g' is a factor, which has no slope. | Compare its levels: pairwise(g).", 6),
    ("slope(k)", {}, "'k' is a factor, which has no slope.", 6),
    ("slope(age):pairwise(g)", {}, "contrasts of slopes follow '~'. | Write slope(age) ~ pairwise(g).", None),
    ("slope(age):slope(dose)", {}, "a query has one slope.", 17),
    ("age:g", {}, "'age' is a number without values. | Give values: age@range(3), or ask slope(age) ~ g.", 0),
    ("g:g", {}, "'g' is used twice.", None),
    ("g[a]", {}, "a difference should stand in the brackets. | Write g[a - b] for a difference, g@a for a mean.", 2),
    ("g[a - b - c]", {}, "one difference has two sides. | Group levels by parentheses: g[a - (b + c)].", 8),
    ("g[a + b - c]", {}, "a sum of levels goes in parentheses. | Write g[(a + b) - c].", 4),
    ("g[a - a]", {}, "the level 'a' is on both sides.", 2),
    ("g[a - z]", {}, "'g' has no level 'z'.", 6),
    ("age[30 - *]", {}, "'age' is a number: it has no other levels.", 9),
    ("change(g)", {}, "'g' is a factor, which has no slope.", 7),
    ("change(age, big)", {}, "'big' is not a size.", 12),
    ("log(dose)", {}, "'log' is not a contrast. | Name the column itself: its transforms follow it.", 0),
    ("`log(dose)`", {}, "'log(dose)' is a term. | Name the column itself; transforms follow it.", 0),
    ("'g'", {}, "the name of a variable should stand here, not the text 'g'. | Odd names go between backticks: `g`.", 0),
    ("subject", {}, "'subject' is not a variable of the model.", 0),
    (3, {}, "a query is text, not int.", None),
    ("g", {"at": {"agee": 30}}, "variable 'agee' is not one of", None),
    ("g", {"at": {"h": "middle"}}, "'h' has no level 'middle'.", 0),
    ("g", {"at": [1, 2]}, "at=[1, 2] is not a dict.", None),
    ("g", {"at": {"age": []}}, "there are no values for 'age'.", None),
    ("age@30", {"at": {"age": 40}}, "values of 'age' are given here and in at=. | Keep one of them.", 0),
    ("g", {"by": 3}, "by=3 is not the name of a column", None),
    ("g", {"by": "hh"}, "'hh' is not a variable of the model.", None),
    ("g", {"by": "hh", "average": "observed"}, "'hh' is not a column of the data. | Did you mean 'h'?", None),
    ("g", {"average": "grids"}, "average 'grids' is not one of grid, observed. | Did you mean 'grid'?", None),
    ("g", {"weights": "equals"}, "Did you mean 'equal'?", None),
    ("g", {"scale": "links"}, "Did you mean 'link'?", None),
    ("pairwise(g)", {"compare": "rato"}, "Did you mean 'ratio'?", None),
    ("g", {"compare": "ratio"}, "it says how means are compared, and this query compares none. | Ask pairwise(g).", None),
    ("pairwise(g)", {"compare": "odds_ratio"}, "means of the gaussian family have no odds. | Use compare='ratio'.", None),
    ("pairwise(g)", {"compare": "ratio", "scale": "link"}, "it is about the response.", None),
    ("g", {"weights": "cells", "average": "observed"}, "weights='cells' is for the balanced grid.", None),
    ("g", {"varying": "include"}, "this model has no random effects to include.", None),
    ("g@a:k@[1, 2]", {"inverse_transforms": False, "at": {"age": 3}, "weights": "non"}, "weights 'non' is not one of", None),
    ("dose@1:h", {"inverse_transforms": False, "at": {"h": "low"}}, "'h' has no level 'low'. | Did you mean 'lo'?", 0),
]  # fmt: skip


@pytest.mark.parametrize(("query", "options", "said", "caret"), BAD, ids=[str(b[0]) + ("+" if b[1] else "") for b in BAD])
def test_bad_queries_say_what_is_wrong_and_what_to_do(query, options, said, caret):
    with pytest.raises(BossaError) as caught:
        M.explore(query, **options)
    message = str(caught.value)
    for part in said.split(" | "):
        assert part in message
    assert ("explore(" in message) or caught.value.where.startswith("explore")
    lines = message.split("\n")
    if caret is None:
        return
    assert isinstance(caught.value, FormulaError)
    assert lines[2].index("^") - 2 == caret, message


def test_there_are_enough_bad_queries():
    assert len(BAD) > 60


PREDICT_BAD = [
    ("pairwise(g)", "predictions are of values, not of contrasts or slopes."),
    ("g[a - b]", "predictions are of values"),
    ("g ~ g", "'g' is used twice."),
    ("agee", "Did you mean 'age'?"),
    ("g@z", "'g' has no level 'z'."),
]


@pytest.mark.parametrize(("query", "said"), PREDICT_BAD)
def test_bad_queries_of_predictions(query, said):
    with pytest.raises(FormulaError, match="predict") as caught:
        M.predict(query)
    assert said in str(caught.value)


def test_booleans_are_written_as_in_the_names_of_coefficients():
    assert M.explore("pairwise(on)").effects["contrast"].to_list() == ["FALSE - TRUE"]  # emmeans' label
    assert "on[TRUE]" in M.params["term"].to_list()
    assert M.explore("on[TRUE - FALSE]").effects["contrast"].to_list() == ["TRUE - FALSE"]


def test_levels_are_found_by_value_label_and_spelling():
    for level in ("TRUE", "true", "True", '"True"'):
        assert M.explore(f"on@{level}").effects["on"].to_list() == [True]
    assert M.explore("k@[2, '3']").effects["k"].to_list() == [2, 3]
    assert M.explore("g@['a', b]").effects["g"].to_list() == ["a", "b"]
    numeric = M.explore("pairwise(k)").effects["contrast"][0]
    assert numeric == "k0 - k1"  # numbers carry the name of their variable, as in emmeans
