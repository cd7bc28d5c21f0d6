"""One number per row of the data: m.designmat, m.augment(), m.vif()."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import polars as pl
from corpus import Case
from quantities import Number, reader


def used_rows(case: Case) -> pl.DataFrame:
    """m.augment() without the rows that the fit did not use."""
    m = case.model
    return m.augment().filter(m.metadata["used"])


def first(case: Case, section: tuple[str, ...], values: pl.Series, scale: float | None = None) -> Iterator[Number]:
    """The first rows of a column, as the corpus keeps them; scale: as given, else the larger of the value and 1e-3 of the column's."""
    spread = float(values.abs().max()) * 1e-3
    for i, expected in enumerate(case.at(*section)):
        if expected is not None:
            yield Number((*section, i), values[i], "scaled", scale or max(abs(float(expected)), spread))


@reader(fits=("lm", "glm", "lmer", "glmer"), design="design.**")
def design(case: Case) -> Iterator[Number]:
    """Columns of the model matrix, each in units of its norm: first rows, sums, sums of squares, products with cos(1), cos(2), …"""
    X = case.model.designmat.to_numpy()
    R = case.at("design")
    if X.shape != (R["nrow"], len(R["columns"])):
        raise AssertionError(f"bossa's design is {X.shape}, R's {(R['nrow'], len(R['columns']))}")
    n = len(X)
    yield Number(("design", "nrow"), float(n))
    singular = np.linalg.svd(X, compute_uv=False)
    yield Number(("design", "condition_number"), singular[0] / singular[-1], "scaled", R["condition_number"] ** 2)
    for j, squares in enumerate(R["colsumsq"]):
        norm = math.sqrt(squares)
        for i, row in enumerate(R["head"]):
            yield Number(("design", "head", i, j), X[i, j], "scaled", max(norm / math.sqrt(n), abs(row[j])))
        yield Number(("design", "colsums", j), X[:, j].sum(), "scaled", norm * math.sqrt(n))
        yield Number(("design", "colsumsq", j), (X[:, j] ** 2).sum())
        yield Number(("design", "colsum_cos", j), X[:, j] @ np.cos(np.arange(1, n + 1)), "scaled", norm * math.sqrt(n))


@reader(fits=("lm", "glm"), fitted=("fitted.*", "linear_predictor.*"))
def fitted(case: Case) -> Iterator[Number]:
    rows = used_rows(case)
    yield from first(case, ("fitted",), rows["fitted"])
    if case.has("linear_predictor"):
        link = case.model.predict(type="link").predictions.filter(case.model.metadata["used"])
        yield from first(case, ("linear_predictor",), link["fitted"])


@reader(fits=("lm",), residuals="residuals.*")
def residuals(case: Case) -> Iterator[Number]:
    yield from first(case, ("residuals",), used_rows(case)["resid"], case.at("sigma"))


@reader(fits=("glm",), residuals=("residuals.response.*", "residuals.pearson.*", "residuals.deviance.*", "residuals.working.*"))
def glm_residuals(case: Case) -> Iterator[Number]:
    rows, unit = used_rows(case), math.sqrt(case.at("dispersion"))
    if case.linear:
        for kind in case.at("residuals"):
            yield from first(case, ("residuals", kind), rows["resid"], unit)
        return
    yield from first(case, ("residuals", "response"), rows["resid"])
    yield from first(case, ("residuals", "pearson"), rows["pearson_resid"], unit)
    yield from first(case, ("residuals", "deviance"), rows["deviance_resid"], unit)
    yield from first(case, ("residuals", "working"), rows["working_resid"])


@reader(fits=("lm", "glm"), hat=("diagnostics.hatvalues.*", "diagnostics.hat_sum", "diagnostics.hat_max"))
def leverage(case: Case) -> Iterator[Number]:
    if case.has("diagnostics", "hatvalues"):
        hat = used_rows(case)["hat"]
        yield from first(case, ("diagnostics", "hatvalues"), hat)
        yield Number(("diagnostics", "hat_sum"), hat.sum())
        yield Number(("diagnostics", "hat_max"), hat.max())


@reader(fits=("lm", "glm"), cook=("diagnostics.cooks_distance.*", "diagnostics.cooks_max"))
def cooks_distance(case: Case) -> Iterator[Number]:
    if case.has("diagnostics", "cooks_distance"):
        cook = used_rows(case)["cooksd"]
        yield from first(case, ("diagnostics", "cooks_distance"), cook)
        yield Number(("diagnostics", "cooks_max"), cook.max())


@reader(fits=("lm", "glm"), rstandard="diagnostics.rstandard.*", rstudent="diagnostics.rstudent.*", dffits="diagnostics.dffits.*")
def scaled_residuals(case: Case) -> Iterator[Number]:
    rows = used_rows(case)
    for key, column in (("rstandard", "std_resid"), ("rstudent", "student_resid"), ("dffits", "dffits")):
        if case.has("diagnostics", key):
            yield from first(case, ("diagnostics", key), rows[column], 1.0)


@reader(vif=("diagnostics.vif.*.gvif", "diagnostics.vif.*.df", "diagnostics.vif.*.gvif_adj", "diagnostics.vif.*.vif"))
def variance_inflation(case: Case) -> Iterator[Number]:
    if not case.has("diagnostics", "vif"):
        return
    table, reference = case.model.vif(), case.at("diagnostics", "vif")
    if table.height != len(reference):
        raise AssertionError(f"bossa has {table.height} terms, R {len(reference)}")
    for i, row in enumerate(reference):
        for key, column in (("vif", "gvif"), ("gvif", "gvif"), ("df", "df"), ("gvif_adj", "gvif_scaled")):
            if key in row:
                yield Number(("diagnostics", "vif", i, key), float(table[column][i]))
