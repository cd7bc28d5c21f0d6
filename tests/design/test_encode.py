"""Which rows are used, what is said about the others, and what the Encoder makes of new rows."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import attrs
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bossa.design.encode import encode
from bossa.design.formula import make_spec
from bossa.errors import BossaError, DataError, OptionError, UnknownColumn, UnknownLevel

BINOMIAL, GAUSSIAN = SimpleNamespace(name="binomial"), SimpleNamespace(name="gaussian")


def design_of(formula, data, family=None, **arguments):
    spec = attrs.evolve(make_spec(formula, **arguments), family=family)
    return encode(spec, data if isinstance(data, pl.DataFrame) else pl.DataFrame(data))


def sample(n=24, seed=1):
    r = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "y": r.standard_normal(n),
            "x": r.uniform(1, 9, n),
            "k": r.integers(1, 4, n),
            "b": np.arange(n) % 3 == 0,
            "g": np.array(["b", "c", "a"])[np.arange(n) % 3],
            "h": np.array(["u", "v"])[np.arange(n) // 2 % 2],
            "s": np.arange(n) // 4 + 100,
        }
    )


# ---------------------------------------------------------------- names
@pytest.mark.parametrize(
    ("formula", "names"),
    [
        ("y ~ x", ["Intercept", "x"]),
        ("y ~ g", ["Intercept", "g[b]", "g[c]"]),
        ("y ~ 0 + g", ["g[a]", "g[b]", "g[c]"]),
        ("y ~ x:g", ["Intercept", "x:g[a]", "x:g[b]", "x:g[c]"]),
        ("y ~ b", ["Intercept", "b[TRUE]"]),
        ("y ~ factor(k)", ["Intercept", "factor(k)[2]", "factor(k)[3]"]),
        ("y ~ poly(x, 2)", ["Intercept", "poly(x, 2)[1]", "poly(x, 2)[2]"]),
        ("y ~ I(x**2)", ["Intercept", "I(x^2)"]),
        ("y ~ C(g, sum)", ["Intercept", "C(g, sum)[a]", "C(g, sum)[b]"]),
        ("y ~ sum(g, omit=a)", ["Intercept", "sum(g, omit=a)[b]", "sum(g, omit=a)[c]"]),
        ("y ~ treatment(g, ref='c')", ["Intercept", 'treatment(g, ref="c")[a]', 'treatment(g, ref="c")[b]']),
        ("y ~ helmert(g)", ["Intercept", "helmert(g)[1]", "helmert(g)[2]"]),
        ("y ~ poly(g)", ["Intercept", "poly(g)[.L]", "poly(g)[.Q]"]),
        ("y ~ sequential(g)", ["Intercept", "sequential(g)[b-a]", "sequential(g)[c-b]"]),
    ],
)
def test_coefficient_names(formula, names):
    assert list(design_of(formula, sample())[1].names) == names


def test_levels_may_hold_anything():
    """Nothing ever parses a column name: levels with brackets, colons, spaces and quotes keep their rows apart."""
    levels = ["a[b]", "a:b", "a b", '"', "", "Intercept", "g[a[b]]"]
    data = {"y": np.arange(14.0), "g": levels * 2, "x": np.arange(14.0) ** 2}
    encoder, design, _ = design_of("y ~ g*x", data, levels={"g": levels})
    assert design.names[1:7] == tuple(f"g[{v}]" for v in levels[1:])
    rows = encoder.rows(pl.DataFrame({"g": levels, "x": [0.0] * 7}))
    np.testing.assert_array_equal(rows.X[:, :7], np.column_stack([np.ones(7), np.eye(7)[:, 1:]]))


def test_columns_may_have_any_name():
    """Dots, words that Python or R reserve, other alphabets, names of functions, names that are operators."""
    names = [
        "Solar.R",
        "yield",
        "lambda",
        "if",
        "TRUE",
        "größe",
        "身長",
        "a b",
        "x-1",
        "log",
        "sum",
        "I",
        "C",
        "1st",
        "`",
        "~",
        "a:b",
        "_u",
        ".hidden",
    ]
    data = {"y": np.arange(30.0)} | {name: np.random.default_rng(i).standard_normal(30) for i, name in enumerate(names)}
    plain = {"Solar.R", "yield", "lambda", "if", "größe", "身長", "log", "sum", "I", "C", "_u", ".hidden"}
    text = " + ".join(name if name in plain else "`" + name.replace("`", "\\`") + "`" for name in names)
    _, design, _ = design_of(f"y ~ {text} + exp(log) + abs(sum)", data)
    assert list(design.names) == ["Intercept", *names, "exp(log)", "abs(sum)"]
    np.testing.assert_array_equal(design.X[:, 10], data["log"])
    np.testing.assert_array_equal(design.X[:, -2], np.exp(data["log"]))


# ---------------------------------------------------------------- levels
def test_order_of_levels():
    text = ["b", "B", "a", "ä", "Z"]
    data = pl.DataFrame(
        {
            "y": range(5),
            "s": text,
            "c": pl.Series(text, dtype=pl.Categorical),
            "e": pl.Series(text, dtype=pl.Enum(["Z", "b", "ä", "B", "a"])),
        }
    )
    level_names = {f: design_of(f"y ~ 0 + {f}", data)[0].variables[f].levels for f in ("s", "c", "e")}
    assert level_names["s"] == level_names["c"] == ("B", "Z", "a", "b", "ä")  # bytewise, whatever the locale
    assert level_names["e"] == ("Z", "b", "ä", "B", "a")
    assert design_of("y ~ s", data, levels={"s": ["ä", "Z", "a", "b", "B"]})[1].names[1] == "s[Z]"


def test_unused_levels_are_dropped_and_said():
    data = sample().with_columns(pl.col("g").cast(pl.Enum(["z", "a", "b", "c", "q"])))
    encoder, design, _ = design_of("y ~ g", data)
    assert design.names == ("Intercept", "g[b]", "g[c]")
    assert "Levels of g without rows are left out: z, q." in design.notes
    with pytest.raises(UnknownLevel, match="'g' has no level 'z'"):
        encoder.rows(pl.DataFrame({"g": ["a", "z"]}))


def test_a_level_that_only_incomplete_rows_have_is_dropped():
    data = {"y": [1.0, 2, None, None, 5, 6], "g": ["a", "b", "c", "c", "a", "b"]}
    _, design, _ = design_of("y ~ g", data)
    assert design.names == ("Intercept", "g[b]")
    assert any("Levels of g" in note and "c" in note for note in design.notes)


def test_a_bool_keeps_both_levels():
    assert design_of("y ~ b", {"y": [1.0, 2, 3], "b": [True, True, True]})[1].names == ("Intercept", "b[TRUE]")


@pytest.mark.parametrize("kind", ["text", "Enum", "Categorical"])
def test_types_of_text_encode_alike(kind):
    """Short and long columns take different ways through the code; both give the same columns."""
    g = np.array(["b", "c", "a"])[np.random.default_rng(0).integers(0, 3, 5000)]
    dtype = {"text": pl.String, "Enum": pl.Enum(["a", "b", "c"]), "Categorical": pl.Categorical}[kind]
    for n in (50, 5000):
        data = pl.DataFrame({"y": np.arange(float(n)), "g": pl.Series(g[:n], dtype=dtype)})
        encoder, design, _ = design_of("y ~ g", data)
        np.testing.assert_array_equal(design.X, np.column_stack([np.ones(n), g[:n] == "b", g[:n] == "c"]))
        new = encoder.rows(pl.DataFrame({"g": ["c", None, "zz", "a"] * (n // 4)}), unseen="null")
        np.testing.assert_array_equal(new.ok[:4], [True, False, False, True])
        np.testing.assert_array_equal(new.X[:4], [[1, 0, 1], [np.nan] * 3, [np.nan] * 3, [1, 0, 0]])


@pytest.mark.parametrize("values", [[1, 2, 3], [0.5, 2.0, 1e6], [-3, 10**9, 4], [2, 1, 7]])
def test_numbers_as_factor(values):
    x = np.array(values)[np.arange(12) % 3]
    encoder, design, _ = design_of("y ~ 0 + factor(x)", {"y": np.arange(12.0), "x": x})
    np.testing.assert_array_equal(design.X, x[:, None] == np.unique(x))
    new = encoder.rows(pl.DataFrame({"x": [float(values[0]), 1.25, None, float("nan"), float("inf")]}), unseen="null")
    assert list(new.ok) == [True, False, False, False, False]


def test_arguments_for_columns_that_the_formula_does_not_have_are_said():
    """So that `.update(". ~ . - g")` keeps them for later and nobody thinks that they act."""
    design = design_of("y ~ x", sample(), contrasts={"g": "sum", "factor(k)": "helmert"}, levels={"h": ["v", "u"]})[1]
    assert [note.split(":")[0] for note in design.notes] == [
        "contrasts= of g has no use",
        "contrasts= of factor(k) has no use",
        "levels= of h has no use",
    ]


# ---------------------------------------------------------------- rows
def test_one_joint_mask():
    """null and NaN alike, over response, terms, weights, offset, groups and bars."""
    data = sample(20).with_columns(w=pl.lit(2.0), o=pl.lit(0.5), z=pl.lit(1.0))
    where = {"y": 0, "x": 1, "g": 2, "w": 3, "o": 4, "s": 5, "z": 6}
    for name, row in where.items():
        gone = pl.Series([i == row for i in range(20)])
        value = float("nan") if name in ("x", "w") else None
        data = data.with_columns(pl.when(gone).then(pl.lit(value)).otherwise(pl.col(name)).alias(name))
    _, design, used = design_of("y ~ log(x) + g + (z | s)", data, weights="w", offset="o")
    np.testing.assert_array_equal(design.rows, np.arange(7, 20))
    assert used.equals(data[7:])
    assert design.n_data == 20
    note = design.notes[0]
    assert note.startswith("Left out: a value is missing in 7 of 20 rows (")
    assert all(f"{name} 1" in note for name in where)
    assert all(np.isfinite(a).all() for a in (design.X, design.y, design.weights, design.offset, design.random.terms[0].Z))
    with pytest.raises(DataError, match="a value is missing in 7 of 20 rows"):
        design_of("y ~ log(x) + g + (z | s)", data, weights="w", offset="o", missing="error")


def test_values_that_a_function_cannot_take_are_missing_and_said():
    _, design, _ = design_of("y ~ log(x)", {"y": [1.0, 2, 3, 4], "x": [1.0, -1, 2, None]})
    assert design.notes == ("Left out: a value is missing in 2 of 4 rows (x 1, log(x) not a number 1).",)


def test_all_rows_used_is_the_same_frame():
    data = sample()
    assert design_of("y ~ x + g", data)[2] is data


def test_data_are_never_changed():
    data = sample().with_columns(x=pl.Series([None, *range(23)], dtype=pl.Float64))
    before = data.clone()
    design_of("y ~ scale(x)*g + (x || s)", data, weights="k")
    assert data.equals(before)
    assert data.schema == before.schema


def test_rows_of_weight_zero_leave_n():
    data = sample().with_columns(w=pl.Series([0.0, 1.0, 2.0] * 8))
    _, design, used = design_of("y ~ x", data, weights="w")
    assert design.n == used.height == 16
    assert (design.weights > 0).all()
    assert "8 rows of weight 0: not counted." in design.notes


def test_rows_of_weight_zero_still_teach():
    """As in R: a level that only they have keeps its column (of zeros), and they count in a learnt mean."""
    data = {"y": [1.0, 2, 3, 4], "x": [1.0, 2, 3, 10], "g": list("abac"), "w": [1.0, 1, 1, 0]}
    _, design, _ = design_of("y ~ g + center(x)", data, weights="w")
    assert design.names == ("Intercept", "g[b]", "g[c]", "center(x)")
    np.testing.assert_array_equal(design.X[:, 2:], [[0, -3], [0, -2], [0, -1]])


def test_counts_of_zero_are_rows_that_are_not_there():
    """A transform learns nothing from them, and counts of k teach as k rows do."""
    data = sample().with_columns(f=pl.Series([0, 1, 3] * 8))
    encoder, design, used = design_of("y ~ scale(x) + poly(x, 2) + ns(x, df=3) + rank(x) + gelman(x)", data, freq_weights="f")
    long = data[np.repeat(np.arange(24), data["f"].to_numpy())]
    _, repeated, _ = design_of("y ~ scale(x) + poly(x, 2) + ns(x, df=3) + rank(x) + gelman(x)", long)
    np.testing.assert_allclose(np.repeat(design.X, design.freq.astype(int), axis=0), repeated.X, rtol=1e-11, atol=1e-13)
    assert used.height == 16
    assert design.n_obs == long.height
    assert encoder.rows(data).X.shape == (24, 9)


@pytest.mark.parametrize("argument", ["weights", "freq_weights"])
@pytest.mark.parametrize(
    ("values", "message"),
    [([-1.0, 1, 1], "negative|at least 0"), ([0.0, 0, 0], "is 0"), ([np.inf, 1, 1], "infinite|whole"), (["a", "b", "c"], "not numeric")],
)
def test_bad_weights(argument, values, message):
    with pytest.raises(DataError, match=message):
        design_of("y ~ 1", {"y": [1.0, 2, 3], "w": values}, **{argument: "w"})


def test_offsets_add_up():
    data = sample()
    encoder, design, _ = design_of("y ~ g + offset(log(x)) + offset(2 * k)", data, offset="x")
    expected = np.log(data["x"].to_numpy()) + 2 * data["k"].to_numpy() + data["x"].to_numpy()
    np.testing.assert_allclose(design.offset, expected, rtol=1e-15)
    np.testing.assert_allclose(encoder.rows(data).offset, expected, rtol=1e-15)
    assert encoder.rows(data.select("g"), offset=False).offset is None
    with pytest.raises(UnknownColumn, match="new rows: 'x'"):
        encoder.rows(data.select("g"))


# ---------------------------------------------------------------- response
def test_response_of_two_levels():
    data = {"y": ["no", "yes", "no", "yes"], "x": [1.0, 2, 3, 5]}
    encoder, design, _ = design_of("y ~ x", data, BINOMIAL)
    assert list(design.y) == [0, 1, 0, 1]
    assert "Response y: yes is success (1), no is 0." in design.notes
    assert list(encoder.response(pl.DataFrame({"y": ["yes", None]}))[:1]) == [1.0]
    _, design, _ = design_of("y ~ x", data, BINOMIAL, levels={"y": ["yes", "no"]})
    assert list(design.y) == [1, 0, 1, 0]


def test_response_true_and_false():
    for family in (BINOMIAL, GAUSSIAN):
        assert list(design_of("y ~ x", {"y": [True, False, True], "x": [1.0, 2, 4]}, family)[1].y) == [1, 0, 1]


def test_response_successes_and_failures():
    data = {"s": [1, 2, 0, 0], "f": [3, 0, 5, 0], "x": [1.0, 2, 3, 4], "w": [1.0, 2, 1, 1]}
    encoder, design, _ = design_of("cbind(s, f) ~ x", data, BINOMIAL, weights="w")
    np.testing.assert_array_equal(design.y, [0.25, 1, 0])
    np.testing.assert_array_equal(design.weights, [4, 4, 5])  # trials times prior weights; no trials is weight 0
    np.testing.assert_array_equal(encoder.prior_weights(pl.DataFrame(data)), [4, 4, 5, 0])


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("log(y) ~ 1", np.log),
        ("I(y/2) ~ 1", lambda y: y / 2),
        ("y^2 ~ 1", np.square),
        ("scale(y) ~ 1", lambda y: (y - y.mean()) / y.std(ddof=1)),
    ],
)
def test_response_may_be_transformed(formula, expected):
    y = np.array([1.0, 2, 4, 8.5])
    np.testing.assert_allclose(design_of(formula, {"y": y})[1].y, expected(y), rtol=1e-14)


@pytest.mark.parametrize(
    ("formula", "family", "message"),
    [
        ("g ~ x", GAUSSIAN, "is text"),
        ("g ~ x", BINOMIAL, "3 levels"),
        ("cbind(x, k) ~ 1", GAUSSIAN, "successes and failures"),
        ("cbind(x, k, y) ~ 1", BINOMIAL, "several columns"),
        ("cbind(y, x) ~ 1", BINOMIAL, "negative"),
    ],
)
def test_bad_responses(formula, family, message):
    with pytest.raises(DataError, match=message):
        design_of(formula, sample(), family)


def test_no_response():
    assert design_of("~ x", sample())[1].y is None


# ---------------------------------------------------------------- env
def test_names_passed_in_env():
    data = sample(6)
    values = np.arange(6.0)
    env = {"half": lambda x: x / 2, "z": values, "two": 2.0, "knots": [3.0, 5.0], "is_b": lambda g: np.array([v == "b" for v in g])}
    _, design, _ = design_of("y ~ half(x) + z + I(two * x) + is_b(g) - 1", data, env=env)
    x = data["x"].to_numpy()
    np.testing.assert_allclose(design.X, np.column_stack([x / 2, values, 2 * x, data["g"].to_numpy() != "b", data["g"].to_numpy() == "b"]))
    assert design_of("y ~ bs(x, knots=knots)", sample(), env=env)[1].X.shape[1] == 6
    with pytest.raises(DataError, match="'z' has 6 values for 24 rows"):
        design_of("y ~ z", sample(), env=env)


def test_a_column_goes_before_a_name_in_env():
    assert design_of("y ~ 0 + x", {"y": [1.0, 2], "x": [3.0, 4]}, env={"x": np.array([7.0, 8])})[1].X[0, 0] == 3


# ---------------------------------------------------------------- new rows
FORMULAS = [
    "y ~ x*g + h",
    "y ~ scale(x) + center(k):g",
    "y ~ poly(x, 3)*h",
    "y ~ bs(x, df=5) + ns(k, df=2)",
    "y ~ 0 + factor(k):h + log(x)",
    "y ~ rank(x) + signed_rank(y) + norm(x) + gelman(x)",
    "y ~ C(g, helmert)*b + I(x > 4)",
    "y ~ g/h + offset(x) + unclass(g)",
    "y ~ poly(log(x), 2) + I(scale(x)^2)",
    "y ~ C(g, sum):C(h, sum) + I(g == 'a')",
]


@pytest.mark.parametrize("formula", FORMULAS)
def test_new_rows_are_the_fitted_rows(formula):
    """Encoding the data again gives X bit for bit; a piece of the data gives that piece; the encoder travels by pickle, without rows."""
    data = sample(60)
    encoder, design, _ = design_of(formula, data)
    again = pickle.loads(pickle.dumps(encoder))
    for piece in (slice(0, 60), slice(7, 8), slice(20, 41), slice(0, 0)):
        rows = again.rows(data[piece])
        np.testing.assert_array_equal(rows.X, design.X[piece])
        assert rows.ok.all()
        assert rows.X.shape[1] == len(encoder.columns)
        assert (rows.offset is None) == (design.offset is None)
    if "rank" not in formula:
        assert len(pickle.dumps(encode(encoder.spec, pl.concat([data] * 40))[0])) < 1.2 * len(pickle.dumps(encoder)) + 200


@given(order=st.permutations(range(24)), formula=st.sampled_from(FORMULAS))
@settings(max_examples=40, deadline=None)
def test_order_of_rows_only_orders_rows(order, formula):
    data = sample()
    _, design, _ = design_of(formula, data)
    _, shuffled, _ = design_of(formula, data[list(order)])
    assert shuffled.names == design.names
    np.testing.assert_allclose(shuffled.X, design.X[list(order)], rtol=1e-11, atol=1e-12)


@given(
    gone=st.sets(st.integers(0, 23), max_size=12),
    column=st.sampled_from(["y", "x", "g", "k", "h"]),
    missing=st.sampled_from([None, float("nan")]),
)
@settings(max_examples=60, deadline=None)
def test_a_missing_value_is_a_row_left_out(gone, column, missing):
    """Where nothing is learnt but levels, dropping the rows first gives the same design."""
    data = sample()
    value = None if column in ("g", "h", "k") else missing
    holes = data.with_columns(
        pl.when(pl.Series([i in gone for i in range(24)])).then(pl.lit(value)).otherwise(pl.col(column)).alias(column)
    )
    kept = [i for i in range(24) if i not in gone]
    _, design, used = design_of("y ~ x*g + factor(k) + h", holes)
    _, expected, _ = design_of("y ~ x*g + factor(k) + h", data[kept])
    assert design.names == expected.names
    np.testing.assert_array_equal(design.X, expected.X)
    np.testing.assert_array_equal(design.rows, kept)
    assert used.equals(data[kept])


def test_new_rows_with_gaps_are_kept():
    encoder, _, _ = design_of("y ~ x + g + offset(k)", sample())
    rows = encoder.rows(pl.DataFrame({"x": [1.0, None, 2.0, 3.0], "g": ["a", "b", None, "c"], "k": [1, 2, 3, None]}))
    np.testing.assert_array_equal(rows.ok, [True, False, False, False])
    assert np.isnan(rows.X[1:]).all()
    assert np.isfinite(rows.X[0]).all()


@pytest.mark.parametrize(
    ("new", "error", "message"),
    [
        ({"g": ["a"]}, UnknownColumn, "'x' is not a column"),
        ({"X": [1.0], "g": ["a"]}, UnknownColumn, "Did you mean 'X'"),
        ({"x": [1.0], "g": ["A"]}, UnknownLevel, "no level 'A'. Did you mean 'a'"),
        ({"x": ["1"], "g": ["a"]}, DataError, "'x' is text here and was a number"),
        ({"x": [1.0], "g": [1]}, DataError, "'g' is number here and was text"),
    ],
)
def test_new_rows_that_do_not_fit(new, error, message):
    encoder, _, _ = design_of("y ~ x + g", sample())
    with pytest.raises(error, match=message):
        encoder.rows(pl.DataFrame(new))


def test_new_rows_may_be_all_missing():
    encoder, _, _ = design_of("y ~ x + g", sample())
    rows = encoder.rows(pl.DataFrame({"x": [None, None], "g": [None, None]}))
    assert not rows.ok.any()
    assert rows.X.shape == (2, 4)


def test_groups_of_new_rows():
    data = sample()
    encoder, design, _ = design_of("y ~ x + (x | s) + (1 | g:h)", data)
    for (codes, Z), term in zip(encoder.random(data), design.random.terms):
        np.testing.assert_array_equal(codes, term.group)
        np.testing.assert_array_equal(Z, term.Z)
    new = pl.DataFrame({"x": [2.0, 2.0, None], "s": [100, 7, None], "g": ["a", "zz", None], "h": ["u", "u", "u"]})
    (s_codes, Z), (gh_codes, _) = encoder.random(new)
    assert list(s_codes) == [0, -1, -2]
    assert list(gh_codes[1:]) == [-1, -2]
    np.testing.assert_array_equal(Z, [[1, 2], [1, 2], [np.nan, np.nan]])


# ---------------------------------------------------------------- what the encoder says of the variables
def test_an_encoder_of_every_type_of_column_travels():
    data = sample().with_columns(
        e=pl.col("g").cast(pl.Enum(["c", "b", "a"])), c=pl.col("h").cast(pl.Categorical), d=pl.col("x").cast(pl.Decimal(10, 2))
    )
    encoder, design, _ = design_of("y ~ e*c + d + (e | s)", data)
    again = pickle.loads(pickle.dumps(encoder))
    assert again.variables["e"].dtype == data.schema["e"]
    np.testing.assert_array_equal(again.rows(data).X, design.X)


def test_variables():
    encoder, _, _ = design_of("y ~ x + factor(k) + g*b + log(x) + (1 | s)", sample())
    v = encoder.variables
    assert list(v) == ["x", "k", "g", "b", "s"]
    x = sample()["x"].to_numpy()
    assert (v["x"].kind, v["x"].mean, v["x"].minimum, v["x"].maximum, v["x"].n_unique) == (
        "numeric",
        pytest.approx(x.mean()),
        x.min(),
        x.max(),
        3,
    )
    assert v["x"].sd == pytest.approx(x.std(ddof=1))
    assert (v["k"].kind, v["k"].values) == ("numeric", (1, 2, 3))
    assert (v["g"].kind, v["g"].levels) == ("factor", ("a", "b", "c"))
    assert (v["b"].kind, v["b"].levels, v["b"].labels) == ("bool", (False, True), ("FALSE", "TRUE"))
    assert (v["s"].kind, v["s"].levels) == ("factor", (100, 101, 102, 103, 104, 105))


def test_a_number_with_two_values_says_them():
    encoder, _, _ = design_of("y ~ d", {"y": [1.0, 2, 3, 4], "d": [0, 1, 1, 0]})
    assert (encoder.variables["d"].values, encoder.variables["d"].n_unique) == ((0.0, 1.0), 2)


def test_terms_know_their_columns_and_variables():
    encoder, _, _ = design_of("y ~ x*g + log(x):h", sample())
    assert [t.label for t in encoder.terms] == ["Intercept", "x", "g", "x:g", "log(x):h"]
    assert [t.variables for t in encoder.terms] == [(), ("x",), ("g",), ("x", "g"), ("x", "h")]
    assert [encoder.columns[t.columns] for t in encoder.terms][3] == ("x:g[b]", "x:g[c]")


# ---------------------------------------------------------------- random terms
def test_nesting_written_side_by_side_is_said():
    data = sample().with_columns(part=pl.col("s") * 10 + pl.Series([0, 1] * 12))
    assert any("Every level of part lies within one level of s" in n for n in design_of("y ~ 1 + (1 | s) + (1 | part)", data)[1].notes)
    assert not design_of("y ~ 1 + (1 | s) + (1 | g)", data)[1].notes


def test_uncorrelated_terms_leave_factors_whole():
    term = design_of("y ~ 1 + (x + g || s)", sample())[1].random.terms[0]
    assert term.names == ("Intercept", "x", "g[a]", "g[b]", "g[c]")
    blocks = np.zeros((5, 5), bool)
    blocks[0, 0] = blocks[1, 1] = True
    blocks[2:, 2:] = np.tril(np.ones((3, 3), bool))
    np.testing.assert_array_equal(term.mask, blocks)


def test_codings_asked_for_leave_random_terms_alone():
    """lme4: contrasts= codes the fixed part only."""
    _, design, _ = design_of("y ~ g + (g | s)", sample(), contrasts={"g": "sum"})
    assert set(design.random.terms[0].Z[:, 1]) == {0.0, 1.0}
    assert -1.0 in design.X[:, 1]


# ---------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("formula", "arguments", "error", "message"),
    [
        ("y ~ xx", {}, UnknownColumn, "'xx' is not a column of the data. Did you mean 'x'"),
        ("y ~ x", {"weights": "ww"}, UnknownColumn, "weights='ww'"),
        ("y ~ x", {"offset": "Y"}, UnknownColumn, "Did you mean 'y'"),
        ("y ~ x", {"levels": {"gg": ["a"]}}, UnknownColumn, "Did you mean 'g'"),
        ("y ~ g", {"levels": {"g": ["a", "b"]}}, DataError, "the levels of 'g' leave out 'c'. Name every level of the data"),
        ("y ~ g", {"contrasts": {"gg": "sum"}}, OptionError, "Did you mean 'g'"),
        ("y ~ x", {"contrasts": {"x": "sum"}}, OptionError, r"Write factor\(x\)"),
        ("y ~ x", {"levels": {"x": [2, 1]}}, OptionError, r"Write factor\(x\)"),
        ("y ~ C(g, sum)", {"contrasts": {"C(g, sum)": "helmert"}}, OptionError, "Keep one of them"),
        ("y ~ g", {"contrasts": {"g": np.eye(2)}}, OptionError, "Give 3 rows and at most 2 columns"),
        ("y ~ one", {}, DataError, "has only the level 'k'"),
        ("y ~ 1 + (1 | one)", {}, DataError, "has only the level|one level only"),
        ("y ~ inf", {}, DataError, r"inf is infinite in 1 row\."),
        ("y ~ x + offset(inf)", {}, DataError, "infinite"),
        ("inf ~ x", {}, DataError, "the response is infinite"),
        ("y ~ date", {}, DataError, "type Date"),
        ("y ~ none", {}, DataError, "no row is complete"),
        ("y ~ scale(const)", {}, DataError, "all the same"),
        ("y ~ ns(const)", {}, DataError, "all the same"),
        ("y ~ poly(k, 3)", {}, DataError, "needs more than 3 different values; there are 3"),
        ("y ~ bs(x, df=2)", {}, DataError, "df=2 is not a whole number of at least 3"),
        ("y ~ bs(x, knots=c(0, 3))", {}, DataError, "strictly between"),
        ("y ~ log(g)", {}, DataError, "g is a factor, not a number"),
        ("y ~ treatment(g, ref=z)", {}, UnknownLevel, "has no level 'z'"),
        ("y ~ C(g, sun)", {}, OptionError, "Did you mean 'sum'"),
        ("y ~ C(g, helmert, ref=a)", {}, OptionError, "has no meaning"),
        ("y ~ offset(g)", {}, DataError, "one number for each row"),
    ],
)
def test_bad_input(formula, arguments, error, message):
    n = 24
    data = sample().with_columns(
        one=pl.lit("k"),
        inf=pl.Series([np.inf] + [1.0] * (n - 1)),
        date=pl.Series(range(n)).cast(pl.Date),
        none=pl.lit(None),
        const=pl.lit(3.0),
    )
    with pytest.raises(error, match=message) as caught:
        design_of(formula, data, **arguments)
    assert isinstance(caught.value, BossaError)


def test_data_without_rows():
    with pytest.raises(DataError, match="no rows"):
        design_of("y ~ x", pl.DataFrame({"y": [], "x": []}))


def test_dot_is_every_other_column_and_said():
    data = sample().select("y", "x", "g", "k")
    _, design, _ = design_of("log(y + 9) ~ . - k", data)
    assert design.terms == ("Intercept", "x", "g")
    assert design.notes[0] == "'.' stands for x, g, k."
