"""Predictions for new rows: m.predict(rows).infer(…)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
from corpus import Case, number
from quantities import Number, reader, setting


def new_rows(case: Case, rows: list[dict[str, Any]]) -> pl.DataFrame:
    """The corpus's new rows with the types of the data; a group that the data do not have stays text."""
    columns = []
    for name in rows[0]:
        values, dtype = [row[name] for row in rows], case.data.schema[name]
        if isinstance(dtype, pl.Enum):
            known = set(dtype.categories.to_list())
            dtype = dtype if {str(v) for v in values} <= known else pl.String()
            values = [None if v is None else str(v) for v in values]
        columns.append(pl.Series(name, values, dtype=pl.Float64 if dtype == pl.Int64 else dtype, strict=False))
    return pl.DataFrame(columns)


def compare_column(path: tuple[Any, ...], reference: list[Any], ours: pl.Series, scale: list[Any] | None) -> Iterator[Number]:
    """A column of predictions; fits and limits in units of their standard errors where R has those."""
    for i, expected in enumerate(reference):
        if number(expected) is not None:
            mine = None if ours[i] is None else float(ours[i])
            yield Number((*path, i), mine, *(("relative",) if scale is None else ("estimate", scale[i])))


@reader(fits=("lm",), predict=("predict.fit.*", "predict.se.*", "predict.confidence.*.*", "predict.prediction.*.*"))
def linear(case: Case) -> Iterator[Number]:
    if not case.has("predict"):
        return
    R = case.at("predict")
    asked = case.model.predict(new_rows(case, R["newdata"]))
    confidence = asked.infer(conf_level=case.level).predictions
    prediction = asked.infer(conf_level=case.level, interval="prediction").predictions
    yield from compare_column(("predict", "fit"), R["fit"], confidence["fitted"], R["se"])
    yield from compare_column(("predict", "se"), R["se"], confidence["se"], None)
    for kind, frame in (("confidence", confidence), ("prediction", prediction)):
        yield from compare_column(("predict", kind, "lower"), R[kind]["lower"], frame["ci_lower"], R["se"])
        yield from compare_column(("predict", kind, "upper"), R[kind]["upper"], frame["ci_upper"], R["se"])


@reader(fits=("glm",), predict=("predict.link.*.*", "predict.response.*.*"))
def generalized(case: Case) -> Iterator[Number]:
    """Limits on the response scale are those of the link scale, transformed back; normal, as R makes them."""
    if not case.has("predict"):
        return
    R = case.at("predict")
    for scale in ("link", "response"):
        frame = case.model.predict(new_rows(case, R["newdata"]), type=scale).infer(conf_level=case.level, df="inf").predictions
        se = R[scale]["se"]
        yield from compare_column(("predict", scale, "fit"), R[scale]["fit"], frame["fitted"], se)
        yield from compare_column(("predict", scale, "se"), se, frame["se"], None)
        if "lower" in R[scale]:
            yield from compare_column(("predict", scale, "lower"), R[scale]["lower"], frame["ci_lower"], se)
            yield from compare_column(("predict", scale, "upper"), R[scale]["upper"], frame["ci_upper"], se)


HOW = {
    "population": {"varying": "exclude"},
    "conditional": {"varying": "include"},
    "new_levels": {"varying": "include", "new_levels": "population"},
}


@reader(fits=("lmer", "glmer"), **{f"predict_{kind}": f"predict.{kind}.*.*.*" for kind in HOW})
def mixed(case: Case) -> Iterator[Number]:
    for kind, options in HOW.items():
        if not case.has("predict", kind):
            continue
        R = case.at("predict", kind)
        rows = new_rows(case, R["newdata"])
        for scale in ("link", "response"):
            if scale not in R:
                continue
            asked, path = case.model.predict(rows, type=scale, **options), ("predict", kind, scale)
            unit = R[scale].get("se") or [case.at("sigma") if case.kind == "lmer" else 1.0] * len(R[scale]["fit"])
            yield from compare_column((*path, "fit"), R[scale]["fit"], asked.predictions["fitted"], unit)
            if "se" in R[scale]:
                frame = asked.infer(conf_level=case.level, df="inf").predictions
                yield from compare_column((*path, "se"), R[scale]["se"], frame["se"], None)
                for key, column in (("lower", "ci_lower"), ("upper", "ci_upper")):
                    if key in R[scale]:
                        yield from compare_column((*path, key), R[scale][key], frame[column], unit)


setting("predict.newdata.*.*", "values asked about")
setting("predict.*.newdata.*.*", "values asked about")
