"""How a number looks in a table: enough digits to be read, never so many that they hide.

Frames keep full float64; rounding happens here and nowhere else. One row speaks with one precision: where it has a standard error,
everything in its units is shown to the third digit of that error. A p-value is shown as it is, however small.

    cells(frame, formats)  →  one list of strings per column;  align(strings)  →  the same, decimal points under each other
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import polars as pl

NULL = "–"
_LARGE, _DECIMALS = 1e9, 7  # beyond these a plain decimal is hard to read


def place(x: float, digits: int) -> int:
    """Decimal exponent of x once rounded to `digits` significant digits: 0.0996, 2 → -1."""
    return int(f"{x:.{digits - 1}e}".partition("e")[2])


def rounded(x: float, decimals: int) -> str:
    """x to `decimals` places; scientific with the same last digit where plain notation would be long."""
    if decimals <= _DECIMALS and abs(x) < _LARGE:
        text = f"{x:.{max(decimals, 0)}f}"
        return text.lstrip("-") if float(text) == 0 else text
    if x == 0:
        return "0"
    return f"{x:.{min(max(place(x, 17) + decimals, 1), 16)}e}"


def significant(x: float, digits: int = 5) -> str:
    """x to `digits` significant digits; digits before the point are never lost."""
    return "0" if x == 0 else rounded(x, digits - 1 - place(x, digits))


def plain(x: float) -> str:
    """A value of the user's data: whole numbers as they are, others as short as they can be said in six digits."""
    if x.is_integer() and abs(x) < 1e15:
        return f"{x:.0f}" if x else "0"
    text = significant(x, 6)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def statistic(x: float) -> str:
    return rounded(x, 2) if abs(x) < 1e6 else f"{x:.2e}"


def degrees(x: float) -> str:
    return f"{x:.0f}" if float(x).is_integer() else f"{x:.1f}"


def probability(x: float) -> str:
    """0.0123, 3.2e-16: never clipped."""
    return f"{x:.4f}" if x >= 0.001 else "0" if x == 0 else f"{x:.1e}"


FORMATS = {"number": significant, "statistic": statistic, "df": degrees, "p": probability, "plain": plain}


def cell(value: Any, format: str = "number", decimals: int | None = None) -> str:
    """One value as text; null is –. `decimals` (of its row) overrides the digits of an "estimate"."""
    if value is None:
        return NULL
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if not isfinite(value):
        return str(float(value)).replace("nan", "NaN")
    if format == "estimate":
        return significant(value) if decimals is None else rounded(value, decimals)
    if isinstance(value, int) and format in ("plain", "number"):
        return str(value)
    return FORMATS[format](value)


def row_decimals(se: Any) -> int | None:
    """Decimal places that show three digits of a standard error."""
    if se is None or not isfinite(se) or se <= 0:
        return None
    return 2 - place(se, 3)


def cells(frame: pl.DataFrame, formats: Mapping[str, str]) -> dict[str, list[str]]:
    """Every column of `frame` as text. formats: column → "estimate" | "number" | "statistic" | "df" | "p" | "plain"."""
    errors = next((frame[c].to_list() for c in ("se", "std_error", "posterior_sd") if c in frame.columns), [None] * frame.height)
    decimals = [row_decimals(se) for se in errors]
    return {name: [cell(v, formats.get(name, "plain"), d) for v, d in zip(frame[name].to_list(), decimals)] for name in frame.columns}


def align(column: Sequence[str]) -> list[str]:
    """The strings of a numeric column padded so that their decimal points stand under each other."""
    cut = [_point(s) for s in column]
    left = max(cut, default=0)
    right = max((len(s) - c for s, c in zip(column, cut)), default=0)
    return [" " * (left - c) + s + " " * (right - len(s) + c) for s, c in zip(column, cut)]


def _point(text: str) -> int:
    """Index of the decimal point; the end of the integer digits where there is none."""
    ends = [i for i in (text.find("."), text.find("e")) if i >= 0 and text[:1] in "-(0123456789"]
    return min(ends, default=len(text))
