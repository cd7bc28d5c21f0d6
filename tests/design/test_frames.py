"""Any table becomes the same polars frame: values, missing values, order of categories; nothing is changed on the way."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

from bossa.design.data import as_frame
from bossa.design.encode import encode
from bossa.design.formula import make_spec
from bossa.errors import DataError

EXPECTED = pl.DataFrame(
    {
        "x": [1.5, None, 3.0],
        "i": [1, 2, 3],
        "s": ["b", None, "a"],
        "b": [True, False, True],
        "c": pl.Series(["lo", "hi", None], dtype=pl.Enum(["hi", "lo", "never"])),
    }
)


def pandas_frame():
    return pd.DataFrame(
        {
            "x": [1.5, np.nan, 3.0],
            "i": [1, 2, 3],
            "s": ["b", None, "a"],
            "b": [True, False, True],
            "c": pd.Categorical(["lo", "hi", None], categories=["hi", "lo", "never"]),
        },
        index=[7, 7, 2],
    )


def arrow_table():
    indices = pa.array([1, 0, None])
    return pa.table({**{n: EXPECTED[n].to_list() for n in "xisb"}, "c": pa.DictionaryArray.from_arrays(indices, ["hi", "lo", "never"])})


@pytest.mark.parametrize(
    "make",
    [EXPECTED.clone, EXPECTED.lazy, pandas_frame, arrow_table, lambda: {n: EXPECTED[n] for n in EXPECTED.columns}],
    ids=["polars", "lazy", "pandas", "arrow", "dict"],
)
def test_tables_of_all_kinds(make):
    assert_frame_equal(as_frame(make()), EXPECTED)


def test_a_polars_frame_is_itself():
    assert as_frame(EXPECTED) is EXPECTED


def test_nullable_and_object_columns_of_pandas():
    frame = pd.DataFrame(
        {
            "I": pd.array([1, None, 3], dtype="Int64"),
            "F": pd.array([1.5, None, 2], dtype="Float64"),
            "B": pd.array([True, None, False], dtype="boolean"),
            "S": pd.array(["a", None, "c"], dtype="string"),
            "o": pd.Series(["a", None, "b"], dtype=object),
            "n": pd.Series([True, np.nan, False], dtype=object),
            "ci": pd.Categorical([3, 1, 3], categories=[3, 1], ordered=True),
        }
    )
    before = frame.copy()
    ours = as_frame(frame)
    assert ours.to_dict(as_series=False) == {
        "I": [1, None, 3],
        "F": [1.5, None, 2.0],
        "B": [True, None, False],
        "S": ["a", None, "c"],
        "o": ["a", None, "b"],
        "n": [True, None, False],
        "ci": ["3", "1", "3"],
    }
    assert ours["ci"].dtype.categories.to_list() == ["3", "1"]
    pd.testing.assert_frame_equal(frame, before)


def test_the_order_of_categories_reaches_the_design():
    frame = pd.DataFrame({"y": [1.0, 2, 3, 4], "g": pd.Categorical(["a", "z", "a", "z"], categories=["z", "a"])})
    assert encode(make_spec("y ~ g"), as_frame(frame))[1].names == ("Intercept", "g[a]")


def test_a_dict_takes_lists_arrays_and_series():
    ours = as_frame(
        {
            "l": [1, 2],
            "t": (1.0, 2.0),
            "r": range(2),
            "a": np.array(["x", "y"]),
            "p": pd.Series([1, 2], index=[5, 3]),
            "s": pl.Series([True, False]),
        }
    )
    assert ours.height == 2
    assert ours.columns == ["l", "t", "r", "a", "p", "s"]
    array = np.arange(3.0)
    encode(make_spec("~ scale(x)"), as_frame({"x": array}))
    np.testing.assert_array_equal(array, [0, 1, 2])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "data: None is not a table"),
        ("file.csv", "a str is not a table"),
        ([1, 2], "a list is not a table"),
        (np.zeros((2, 2)), "an ndarray is not a table"),
        (pd.Series([1, 2]), "a Series is not a table"),
        (pl.LazyFrame({"a": [1]}).select("b"), "cannot be collected: .*b"),
        ({"a": [1, 2], "b": [1]}, "different lengths: a 2, b 1"),
        ({"a": 1}, "an int is not a column"),
        ({"a": "xy"}, "a str is not a column"),
        ({"a": None}, "None is not a column"),
        ({1: [1]}, "must be a string"),
        ({"a": np.zeros((2, 2))}, "2 axes"),
        ({"a": [1, "x"]}, "mixed or unknown types"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "'a' is there twice. Rename"),
        (pd.DataFrame([[1, 2]], columns=[1, "1"]), "'1' is there twice"),
        (pd.DataFrame({"m": [1, "x"]}), "mixed or unknown types"),
    ],
    ids=lambda v: type(v).__name__ if not isinstance(v, str) else None,
)
def test_what_is_no_table(data, message):
    with pytest.raises(DataError, match=message):
        as_frame(data)


@pytest.mark.parametrize("values", [[1, 2.5, None], [1.5, 2, None], (np.float64(1.5), 2, None), [np.int64(1), 2.5, None]], ids=str)
def test_whole_numbers_and_fractions_mix_in_a_list(values):
    assert as_frame({"x": values})["x"].to_list() == [None if v is None else float(v) for v in values]


@pytest.mark.parametrize("values", [[[1], [2]], [{"a": 1}, {"a": 2}], [object(), object()], [b"a", b"b"]])
def test_nested_types_are_refused_only_where_used(values):
    frame = as_frame({"y": [1.0, 2.0], "v": pl.Series(values, dtype=pl.Object) if type(values[0]) is object else values})
    assert encode(make_spec("y ~ 1"), frame)[1].n == 2
    with pytest.raises(DataError, match="no term can use"):
        encode(make_spec("y ~ v"), frame)


def test_pandas_without_pyarrow():
    """pyarrow is not a dependency: strings, nullable columns and categories come through without it."""
    code = """
import sys
sys.modules["pyarrow"] = None
import pandas as pd
from bossa.design.data import as_frame
c = pd.Categorical(["b", "a"], categories=["b", "a"])
s = pd.Series(["a", None], dtype=object)
frame = pd.DataFrame({"s": s, "I": pd.array([1, None], dtype="Int64"), "c": c, "x": [1.0, None], "b": [True, False]})
print(as_frame(frame).to_dict(as_series=False))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "{'s': ['a', None], 'I': [1, None], 'c': ['b', 'a'], 'x': [1.0, None], 'b': [True, False]}", done.stderr


def test_polars_data_need_no_other_library():
    look = "print([m for m in ('narwhals', 'pandas', 'pyarrow', 'scipy') if m in sys.modules])"
    code = f"import sys; from bossa.design.data import as_frame; as_frame({{'x': [1.0]}}); {look}"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
