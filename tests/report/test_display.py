"""Numbers as text: rounding only, never hiding."""

from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bossa.report import display

FINITE = st.floats(-1e308, 1e308)


@given(FINITE, st.integers(2, 8))
def test_significant_digits_are_right(x, digits):
    """The text is x rounded to its digits: the error is at most half a unit of the last one."""
    assert float(display.significant(x, digits)) == pytest.approx(x, rel=0.51 * 10 ** (1 - digits), abs=5e-324)


@given(st.floats(1e-300, 1e300), st.floats(-1e12, 1e12))
def test_a_row_shows_three_digits_of_its_error(se, ratio):
    estimate = ratio * se
    if not math.isfinite(estimate):
        return
    text = display.cell(estimate, "estimate", display.row_decimals(se))
    assert abs(float(text) - estimate) <= 0.006 * se + 1e-15 * abs(estimate)


@given(st.floats(0, 1))
def test_p_values_are_never_clipped(p):
    text = display.probability(p)
    assert float(text) == pytest.approx(p, rel=0.051, abs=5e-324)
    assert (p == 0) == (text == "0")


def test_no_negative_zero():
    assert display.rounded(-0.001, 2) == "0.00"
    assert display.significant(-0.0) == "0"


@pytest.mark.parametrize(
    ("value", "format", "text"),
    [
        (None, "number", "–"), (math.nan, "number", "NaN"), (math.inf, "df", "inf"), (-math.inf, "estimate", "-inf"),
        (True, "plain", "True"), ("a", "estimate", "a"), (336.0, "df", "336"), (12.34, "df", "12.3"), (0.99999999, "number", "1.0000"),
        (4.0, "plain", "4"), (0.5, "plain", "0.5"), (13872900.0, "plain", "13872900"),
        (12345678, "plain", "12345678"), (1234567890.0, "number", "1.2346e+09"), (1e-320, "p", "1.0e-320"),
    ],
)  # fmt: skip
def test_cells(value, format, text):
    assert display.cell(value, format) == text


@given(st.lists(st.one_of(FINITE, st.none()), min_size=1, max_size=8))
def test_aligned_columns_have_one_width_and_one_point(values):
    column = display.cells(pl.DataFrame({"estimate": pl.Series(values, dtype=pl.Float64)}), {"estimate": "estimate"})["estimate"]
    padded = display.align(column)
    assert len({len(s) for s in padded}) == 1
    assert [s.strip() for s in padded] == column
    assert len({s.index(".") for s in padded if "." in s}) <= 1
