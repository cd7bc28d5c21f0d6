"""What a formula says, what it may not say, and how a mistake is shown."""

from __future__ import annotations

import contextlib
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bossa.design.encode import encode
from bossa.design.formula import make_spec, resolve, update_formula
from bossa.design.parse import parse
from bossa.design.terms import read
from bossa.errors import BossaError, FormulaError, NotYet, OptionError, UnknownColumn, UnknownOption
from bossa.state.spec import Call, Name, Number, Operation, written


def terms(formula, columns=None):
    return [str(t) for t in read(formula, columns).fixed]


# ---------------------------------------------------------------- algebra (columns against R: test_columns_of_r)
@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("y ~ a*b*c - a:b:c", ["1", "a", "b", "c", "a:b", "a:c", "b:c"]),
        ("y ~ (a + b + c)**2", ["1", "a", "b", "c", "a:b", "a:c", "b:c"]),
        ("y ~ a:b + a", ["1", "a", "a:b"]),
        ("y ~ b:a + a:b", ["1", "b:a"]),
        ("y ~ a/b/c", ["1", "a", "a:b", "a:b:c"]),
        ("y ~ a %in% b", ["1", "a:b"]),
        ("y ~ 0 + a + 1", ["1", "a"]),
        ("y ~ a - 1 - 0", ["1", "a"]),
        ("y ~ -1 + a", ["a"]),
        ("y ~ a + a + a:a", ["1", "a"]),
        ("y ~ (a - 1):b", ["a:b"]),
        ("y ~ a + c - (a + b - b)", ["1", "c"]),
        ("y ~ log(a + 1) * I(b^2)", ["1", "log(a + 1)", "I(b^2)", "log(a + 1):I(b^2)"]),
    ],
)
def test_algebra(formula, expected):
    assert terms(formula) == expected


def test_dot():
    columns = ("y", "a", "b", "c")
    assert terms("log(y) ~ .", columns) == ["1", "a", "b", "c"]
    assert terms("y ~ .^2 - a:b", columns) == ["1", "a", "b", "c", "a:c", "b:c"]
    assert terms("y ~ . - b + log(b)", columns) == ["1", "a", "c", "log(b)"]
    frame = pl.DataFrame({c: [1.0, 2.0] for c in columns})
    assert [str(t) for t in resolve(make_spec("y ~ . - a"), frame).fixed] == ["1", "b", "c"]


@pytest.mark.parametrize(
    ("bars", "expected"),
    [
        ("(1 | g)", [(["1"], "g", True)]),
        ("(x | g)", [(["1", "x"], "g", True)]),
        ("(0 + x || g)", [(["x"], "g", False)]),
        ("(x - 1 | a:b)", [(["x"], "a:b", True)]),
        ("(x*z | a/b/c)", [(["1", "x", "z", "x:z"], g, True) for g in ("a", "b:a", "c:b:a")]),
        ("(1 | a/(b)) + (0 + x | a)", [(["1"], "a", True), (["1"], "b:a", True), (["x"], "a", True)]),
        ("((log(x) | factor(g)))", [(["1", "log(x)"], "factor(g)", True)]),
    ],
)
def test_bars(bars, expected):
    assert [([str(t) for t in b.lhs], b.group, b.correlated) for b in read(f"y ~ x + {bars}").bars] == expected


def test_offsets_and_response():
    sides = read("cbind(a, n - a) ~ x + offset(log(t)) + offset(2 * u)")
    assert written(sides.response) == "cbind(a, n - a)"
    assert [written(o) for o in sides.offsets] == ["offset(log(t))", "offset(2 * u)"]
    assert read("~ x").response is None


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("y ~ x + (x | g)", ". ~ . - (x | g)", "y ~ x"),
        ("y ~ x + (1 | g)", ". ~ . + (1 | h)", "y ~ x + (1 | g) + (1 | h)"),
        ("y ~ x + (0 + x || a/b)", ". ~ . + z", "y ~ x + z + (0 + x || a) + (0 + x || b:a)"),
        ("y ~ x + offset(z)", ". ~ . - offset(z)", "y ~ x"),
        ("y ~ 0 + x", ". ~ . - x", "y ~ 0"),
        ("y ~ .", ". ~ . - x", "y ~ . - x"),
        ("y ~ `a b` + `1`", ". ~ . - `1`", "y ~ `a b`"),
        ("y ~ I((a - b) - (c - a)/2)", ". ~ . + x", "y ~ I(a - b - (c - a)/2) + x"),
    ],
)
def test_update(old, new, expected):
    assert update_formula(old, new) == expected


# a tree written and read again is the same tree, whatever its operators
_NAMES = st.sampled_from(["x", "a.b", "yield", "α", "_u"]).map(Name)
_EXPRESSIONS = st.recursive(
    _NAMES | st.integers(0, 99).map(lambda v: Number(float(v))),
    lambda inner: st.one_of(
        st.builds(
            lambda op, a, b: Operation(op, (a, b)), st.sampled_from(["+", "-", "*", "/", "^", ":", "%%", "%in%", "<", "=="]), inner, inner
        ),
        st.builds(lambda a: Operation("-", (a,)), inner),
        st.builds(
            lambda f, a: Call(f, tuple(a), (("base", Number(2.0)),)), st.sampled_from(["log", "I"]), st.lists(inner, min_size=1, max_size=2)
        ),
    ),
    max_leaves=12,
)


@given(_EXPRESSIONS)
def test_what_is_written_reads_back(expr):
    assert parse(written(expr)) == expr


def test_columns_agree_with_formulae():
    """formulae (an independent parser and encoder) gives the same columns under the same names where both have them."""
    from formulae import design_matrices

    r = np.random.default_rng(3)
    frame = pl.DataFrame(
        {"y": r.standard_normal(30), "x": r.standard_normal(30), "z": r.standard_normal(30), "g": list("abc") * 10, "h": list("uuvvw") * 6}
    )
    formulas = [
        "y ~ x",
        "y ~ g + h",
        "y ~ 0 + g",
        "y ~ x*g",
        "y ~ x*g*h",
        "y ~ 0 + g:h",
        "y ~ x:g",
        "y ~ x + x:g + h",
        "y ~ (x + g + h)**2",
        "y ~ scale(x)*z",
    ]
    for formula in formulas:
        theirs = design_matrices(formula, frame.to_pandas()).common
        theirs = theirs.as_dataframe()
        design = encode(make_spec(formula), frame)[1]
        assert set(theirs.columns) == set(design.names), formula
        if "scale" not in formula:  # formulae divides by n, R by n − 1
            np.testing.assert_allclose(design.X, theirs[list(design.names)].to_numpy(), atol=1e-12)


def test_a_long_sum_is_read():
    formula = "y ~ " + " + ".join(f"x{i}" for i in range(3000))
    assert len(read(formula).fixed) == 3001


# ---------------------------------------------------------------- mistakes
@pytest.mark.parametrize(
    ("formula", "caret", "message"),
    [
        ("y x", 2, "an operator is missing before 'x'"),
        ("y ~", 3, "ends where a term should follow"),
        ("", 0, "ends where a term should follow"),
        ("x", None, "no '~'"),
        ("y ~ x ~ z", 6, "more than one '~'"),
        ("y ~ (x", 4, "never closed"),
        ("y ~ log(x", 7, "never closed"),
        ("y ~ x)", 5, "closes nothing"),
        ("y ~ x + * z", 8, "cannot stand here"),
        ("y ~ lg(x)", 4, "Did you mean 'log'"),
        ("y ~ x[1]", 5, "no subscripts"),
        ("y ~ d$x", 5, "write x, not data"),
        ("y ~ x = 3", 6, "belongs inside the arguments"),
        ("y ~ 2*x", 4, r"Write I\(2 \* x\)"),
        ("y ~ 'x'", 4, "stand without quotes"),
        ('y ~ "x', 4, "never closed"),
        ("y ~ `x", 4, "never closed"),
        ("y ~ x & z", 6, "'&' has no meaning"),
        ("y ~ x %o% z", 6, "%o% is not known"),
        ("y ~ (a + b)^1.5", 12, "whole number"),
        ("y ~ 1:g", 5, "needs a term on both sides"),
        ("y ~ x - z", 8, "no term z to take away. *\n"),
        ("y ~ x | g", 6, r"Write \(x \| g\)"),
        ("y ~ x*(1 | g)", 5, "can only be added"),
        ("y ~ (1 + (1 | g) | h)", 12, "cannot stand inside another"),
        ("y ~ (0 | g)", 7, "nothing stands left"),
        ("y ~ (1 | g + h)", 11, "not a grouping factor"),
        ("y ~ (. | g)", 5, "not allowed"),
        ("y ~ (x + offset(z) | g)", 9, "offset cannot vary"),
        ("y ~ I(x | g)", 8, "no meaning in arithmetic"),
        ("y ~ I(.)", 6, "stands for a sum"),
        (". ~ x", 0, "cannot be the response"),
        ("1 ~ x", 0, "cannot be the response"),
        ("y ~ x + y", None, "is the response and a term"),
        ("y ~ (1 | g) + (x | g)", None, "random intercept of g is there twice"),
        ("y ~ (1 | a:b) + (1 | b:a)", None, "is there twice"),
        ("y ~ poly(x, degre=2)", 4, "Did you mean 'degree'"),
        ("y ~ poly()", 4, "it takes"),
        ("y ~ log(x, base=2, base=3)", 19, "given twice"),
        ("y ~ 3(x)", 5, "only a name can be called"),
        ("y ~ x(3)", 4, "'x' is not a function"),
        ("y ~ " + "(" * 200 + "x" + ")" * 200, 103, "nested more than"),
        ("y ~ " + "-" * 300 + "x", 103, "nested more than"),
        ("y ~ I(" + "x + " * 300 + "x)", None, "nested more than"),
        ("y ~ (a+b+c+d+e+f+g+h+i+j+k+l+m+n+o+p)^16", None, "more than"),
    ],
)
def test_a_mistake_is_shown_where_it_is(formula, caret, message):
    with pytest.raises(FormulaError, match=message) as caught:
        make_spec(formula)
    lines = str(caught.value).split("\n")
    if caret is not None:
        assert lines[1][2:] == formula
        assert lines[2].index("^") - 2 == caret


@pytest.mark.parametrize("name", ["ar1", "cs", "diag", "us"])
def test_reserved_structures_are_refused_by_name(name):
    with pytest.raises(NotYet, match=rf"{name}\(\) is reserved"):
        make_spec(f"y ~ x + {name}(x | g)")
    assert terms(f"y ~ {name}") == ["1", name]  # as a column it is an ordinary name


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"formula": 3}, OptionError, "not a string"),
        ({"weights": [1, 2]}, OptionError, "name of a column, not list"),
        ({"offset": 3.0}, OptionError, "name of a column"),
        ({"missing": "omit"}, UnknownOption, "not one of drop, error"),
        ({"contrasts": "sum"}, OptionError, "takes a dict"),
        ({"contrasts": {"g": "contr.sumn"}}, UnknownOption, "'contr.sumn' is not one of"),
        ({"contrasts": {"g": "summ"}}, UnknownOption, "Did you mean 'sum'"),
        ({"contrasts": {"g": [["a"]]}}, OptionError, "neither a coding's name nor an array"),
        ({"contrasts": {3: "sum"}}, OptionError, "not the name of a column"),
        ({"levels": ["a"]}, OptionError, "takes a dict"),
        ({"levels": {"g": "ab"}}, OptionError, "must be a list"),
        ({"levels": {"g": ["a", "a"]}}, OptionError, "name one twice"),
        ({"levels": {"g": [["a"]]}}, OptionError, "strings, numbers or booleans"),
        ({"levels": {"g": []}}, OptionError, "are empty"),
        ({"env": 3}, OptionError, "takes a dict"),
        ({"env": {"os": sys}}, OptionError, "neither a function"),
        ({"env": {"log": abs}}, OptionError, "already a function"),
        ({"env": {3: abs}}, OptionError, "not a string"),
    ],
)
def test_arguments_are_checked_at_the_door(arguments, error, message):
    with pytest.raises(error, match=message):
        make_spec(**{"formula": "y ~ g"} | arguments)


# ---------------------------------------------------------------- a formula is data, never code
ATTACKS = [
    "y ~ __import__('os').system('true')",
    "y ~ __import__('os')",
    "y ~ x.__class__.__mro__",
    "y ~ ().__class__",
    "y ~ (lambda: x)()",
    "y ~ lambda x: x",
    "y ~ eval('1')",
    "y ~ exec('1')",
    "y ~ I(eval('1'))",
    "y ~ I(open('file'))",
    "y ~ log(x, base=__import__('os'))",
    "y ~ poly(x, eval('2'))",
    "y ~ C(g, eval('sum'))",
    "y ~ [c for c in x]",
    "y ~ x if x else x",
    "y ~ x; import os",
    "y ~ f'{x}'",
    "y ~ `__class__`",
    "y ~ np.log(x)",
    "y ~ I(x.real)",
    "y ~ half.__globals__",
    "y ~ half(x).__class__",
    "y ~ getattr(x, 'shape')",
    "y ~ x['a']",
    "y ~ x := 3",
    "y ~ @x",
    "y ~ I(x)(x)",
]


@pytest.mark.parametrize("formula", ATTACKS)
def test_a_formula_is_never_code(formula):
    frame = pl.DataFrame({"y": [1.0, 2, 3], "x": [1.0, 2, 4], "g": list("aba")})
    with pytest.raises(BossaError):
        encode(make_spec(formula, env={"half": np.sqrt}), frame)


@given(st.text(alphabet="xyg~+-*/^:%()|,=<>!.'\"`[]{}@$ 01e_inlog\\\n", max_size=25))
def test_any_text_is_read_or_refused(text):
    """Whatever stands there, the answer is a design or an error of ours."""
    frame = pl.DataFrame({"y": [1.0, 2, 3, 4], "x": [1.0, 2, 4, 3], "g": list("abab")})
    with contextlib.suppress(BossaError):
        encode(make_spec("y ~ " + text), frame)


def test_functions_do_not_hide_columns_nor_columns_functions():
    frame = pl.DataFrame({"y": [1.0, 2, 3], "log": [1.0, 5, 2], "scale": [2.0, 1, 4]})
    X = encode(make_spec("y ~ 0 + log + log(log) + exp(scale)"), frame)[1].X
    np.testing.assert_allclose(X, np.column_stack([frame["log"], np.log(frame["log"]), np.exp(frame["scale"])]))
    with pytest.raises(UnknownColumn):
        encode(make_spec("y ~ poly"), frame)
