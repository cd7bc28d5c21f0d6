"""Other covariances than the model's: heteroskedasticity-consistent, clustered, one variance per cell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
from corpus import Case
from quantities import Number, reader, setting

from readers.params import compare_matrix, compare_row, compare_table

FITS = ("lm", "glm")


def heteroskedastic(kind: str) -> None:
    @reader(fits=FITS, **{kind: (f"robust.{kind}.*.*", f"robust.vcov_{kind}.matrix.*.*")})
    def read(case: Case) -> Iterator[Number]:
        if not case.has("robust", kind):
            return
        normal = {"df": "inf"} if case.kind == "glm" else {}  # said, for the glm that is a linear model to bossa
        m = case.model.infer(errors=kind, conf_level=case.level, **normal)
        yield from compare_table(("robust", kind), case.at("robust", kind), m.params)
        if case.has("robust", f"vcov_{kind}"):
            path = ("robust", f"vcov_{kind}", "matrix")
            yield from compare_matrix(path, case.at(*path), m.vcov)


for name in ("HC0", "HC1", "HC2", "HC3", "HC4"):
    heteroskedastic(name)


def clustered(kind: str) -> None:
    @reader(fits=FITS, **{kind: f"robust.cluster.*.{kind}.*.*"})
    def read(case: Case) -> Iterator[Number]:
        for cluster, tables in case.results.get("robust", {}).get("cluster", {}).items():
            if kind in tables:
                m = case.model.infer(errors=kind, cluster=cluster, conf_level=case.level)
                yield from compare_table(("robust", "cluster", cluster, kind), tables[kind], m.params)


for name in ("CR0", "CR1", "CR1S", "CR2"):
    clustered(name)
setting("robust.cluster.*.n_clusters", "a count of the data")


@reader(fits=("lm",), welch=("unequal_variance.coef.*.*", "unequal_variance.vcov.matrix.*.*", "unequal_variance.t_test.*"))
def welch(case: Case) -> Iterator[Number]:
    """One variance per cell of the factors, Welch–Satterthwaite degrees of freedom; t.test() is first level minus second."""
    if not case.has("unequal_variance"):
        return
    section = "unequal_variance"
    m = case.model.infer(errors="unequal_var", conf_level=case.level)
    yield from compare_table((section, "coef"), case.at(section, "coef"), m.params)
    path = (section, "vcov", "matrix")
    yield from compare_matrix(path, case.at(*path), m.vcov)
    if case.has(section, "t_test"):
        flipped = m.params.select(
            pl.lit(0.0).alias("estimate"), pl.lit(0.0).alias("se"), -pl.col("statistic"), "df", "p_value",
            (-pl.col("ci_upper")).alias("ci_lower"), (-pl.col("ci_lower")).alias("ci_upper"),
        )  # fmt: skip
        yield from compare_row((section, "t_test"), case.at(section, "t_test"), flipped, 1, case.at(section, "coef", 1, "se"))


@reader(fits=("lm",), welch_pairwise="unequal_variance.pairwise.*.*")
def welch_pairwise(case: Case) -> Iterator[Number]:
    """Differences of cells: the same model in one factor of cells, every cell in turn the reference."""
    if not case.has("unequal_variance", "pairwise"):
        return
    pairs = case.at("unequal_variance", "pairwise")
    cells = [row["cell"] for row in case.at("unequal_variance", "cells")]
    tables = {b: cell_model(case, cells, b) for b in cells[1:]}
    position = 0
    for i, a in enumerate(cells):
        for b in cells[i + 1 :]:
            assert pairs[position]["term"] == f"{a} - {b}"
            frame = tables[b]
            row = 1 + [c for c in cells if c != b].index(a)
            yield from compare_row(("unequal_variance", "pairwise", position), pairs[position], frame, row, pairs[position]["se"])
            position += 1


def cell_model(case: Case, cells: list[str], reference: str) -> Any:
    """Coefficients of `y ~ cell` with unequal variances and `reference` as the first level."""
    from bossa import model

    response = case.record["formula"].split("~")[0].strip()
    factors = [name for name, coding in case.record["contrasts_used"].items() if coding and name in case.data.columns]
    data = case.data.with_columns(pl.concat_str([pl.col(f).cast(pl.String) for f in factors], separator=":").alias("cell"))
    order = [reference, *(c for c in cells if c != reference)]
    return model(f"{response} ~ cell", data, levels={"cell": order}).fit().infer(errors="unequal_var", conf_level=case.level).params


@reader(fits=("lm",), welch_oneway="unequal_variance.oneway.*")
def welch_oneway(case: Case) -> Iterator[Number]:
    """Welch's F test of one factor: oneway.test()."""
    if case.has("unequal_variance", "oneway"):
        row = case.model.jointtest(errors="unequal_var")
        for key, column, kind in (
            ("F", "statistic", "relative"),
            ("df1", "df1", "relative"),
            ("df2", "df2", "relative"),
            ("p", "p_value", "p"),
        ):
            yield Number(("unequal_variance", "oneway", key), float(row[column][0]), kind)


setting("unequal_variance.cells.*.*", "summaries of the data")
