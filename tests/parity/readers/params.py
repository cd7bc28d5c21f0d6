"""The coefficient table and its covariance: m.params, m.vcov, null values and one-sided tests.

R's coefficients and bossa's are matched by position, never by name: the order is R's by contract, and the count is checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import polars as pl
from corpus import Case, Path_, number
from quantities import Number, reader, setting

# R's name of a column in the corpus → bossa's
COLUMNS = {
    "estimate": "estimate",
    "se": "se",
    "statistic": "statistic",
    "df": "df",
    "p": "p_value",
    "ci_lower": "ci_lower",
    "ci_upper": "ci_upper",
    "lower": "ci_lower",
    "upper": "ci_upper",
}
LIMITS = ("ci_lower", "ci_upper", "lower", "upper")


def value(frame: pl.DataFrame, row: int, column: str) -> float | None:
    """One number of a bossa frame; null is None."""
    found = frame[column][row]
    return None if found is None else float(found)


def compare_row(
    path: Path_, reference: dict[str, Any], frame: pl.DataFrame, row: int, se: Any, p: str = "p", limits: str = "estimate"
) -> Iterator[Number]:
    """Every number of one reference row against one row of a bossa table; `p` and `limits` name their kinds of tolerance."""
    for key, column in COLUMNS.items():
        expected = number(reference.get(key))
        if expected is None:
            continue
        here, ours = (*path, key), value(frame, row, column)
        if key == "estimate":
            yield Number(here, ours, "estimate", number(se))
        elif key in LIMITS:
            yield Number(here, ours, limits, number(se))
        elif key == "statistic":
            yield Number(here, ours, "scaled", max(1.0, abs(expected)))
        elif key == "p":
            yield Number(here, ours, p)
        else:
            yield Number(here, ours)


def kept(frame: pl.DataFrame, n: int) -> pl.DataFrame:
    """The table with as many rows as R's, dropped (null) coefficients left out if R lists only the kept ones."""
    if frame.height != n:
        frame = frame.filter(pl.col("estimate").is_not_null())
    if frame.height != n:
        raise AssertionError(f"bossa has {frame.height} coefficients, R has {n}")
    return frame


def compare_table(path: Path_, reference: list[dict[str, Any]], frame: pl.DataFrame) -> Iterator[Number]:
    """A table of coefficients, row by row in order."""
    frame = kept(frame, len(reference))
    for i, row in enumerate(reference):
        aliased = row.get("estimate", 0.0) is None
        if aliased != (frame["estimate"][i] is None):
            raise AssertionError(f"coefficient {i} ({row['term']}) is dropped by one side only")
        if not aliased:
            yield from compare_row((*path, i), row, frame, i, row.get("se"))


def compare_matrix(path: Path_, matrix: list[list[Any]], frame: pl.DataFrame) -> Iterator[Number]:
    """A covariance matrix, entry by entry, each in units of √(Vᵢᵢ Vⱼⱼ); dropped coefficients are null on our side."""
    frame = frame.drop("term")
    there = [i for i in range(frame.height) if frame[frame.columns[i]][i] is not None]
    if len(there) != len(matrix):
        raise AssertionError(f"bossa's covariance has {len(there)} coefficients, R's {len(matrix)}")
    for i, row in enumerate(matrix):
        for j in range(len(row)):
            scale = math.sqrt(matrix[i][i] * matrix[j][j])
            yield Number((*path, i, j), value(frame, there[i], frame.columns[there[j]]), "scaled", scale)


@reader(
    estimate="coef.*.estimate",
    se="coef.*.se",
    statistic="coef.*.statistic",
    df="coef.*.df",
    p="coef.*.p",
    interval=("coef.*.ci_lower", "coef.*.ci_upper"),
)
def coefficients(case: Case) -> Iterator[Number]:
    m = case.model.infer(conf_level=case.level, df="inf") if case.mixed else case.inferred
    yield from compare_table(("coef",), case.at("coef"), m.params)


@reader(fits=("glm",), interval_normal=("ci_normal.*.ci_lower", "ci_normal.*.ci_upper"))
def normal_limits(case: Case) -> Iterator[Number]:
    """R's confint.default: normal limits where the test is a t test."""
    if case.has("ci_normal"):
        m = case.model.infer(conf_level=case.level, df="inf")
        for i, row in enumerate(case.at("ci_normal")):
            yield from compare_row(("ci_normal", i), row, m.params, i, case.at("coef", i, "se"))


@reader(vcov="vcov.matrix.*.*")
def covariance(case: Case) -> Iterator[Number]:
    yield from compare_matrix(("vcov", "matrix"), case.at("vcov", "matrix"), case.model.vcov)


@reader(
    null_tests=("null_tests.*.statistic", "null_tests.*.df", "null_tests.*.p_two_sided", "null_tests.*.p_greater", "null_tests.*.p_less"),
    one_sided_bounds=("null_tests.*.lower_bound_greater", "null_tests.*.upper_bound_less"),
)
def null_values(case: Case) -> Iterator[Number]:
    """Other null values, one-sided p values and bounds."""
    if not case.has("null_tests"):
        return
    terms = [row["term"] for row in case.at("coef")]
    for i, test in enumerate(case.at("null_tests")):
        k, path = terms.index(test["term"]), ("null_tests", i)
        df = {"df": "inf"} if case.mixed else {}
        for side, key in (("two-sided", "p_two_sided"), ("greater", "p_greater"), ("less", "p_less")):
            params = case.model.infer(conf_level=case.level, null=test["null"], alternative=side, **df).params
            yield Number((*path, key), value(params, k, "p_value"), "p")
            if side == "two-sided":
                yield Number((*path, "statistic"), value(params, k, "statistic"), "scaled", max(1.0, abs(test["statistic"])))
                yield Number((*path, "df"), value(params, k, "df"))
            elif side == "greater":
                yield Number((*path, "lower_bound_greater"), value(params, k, "ci_lower"), "estimate", case.at("coef", k, "se"))
            else:
                yield Number((*path, "upper_bound_less"), value(params, k, "ci_upper"), "estimate", case.at("coef", k, "se"))


setting("null_tests.*.null", "the value asked about")
