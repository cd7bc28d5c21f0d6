"""Averages over the rows used, and the same for single rows, on the response scale: m.explore(…, average="observed", scale="regrid").

"Response" is the scale of the left side of the formula: a linear model of log(y) is asked on its own scale. Single rows are asked by
holding every predictor at its value (`at=`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import polars as pl
from corpus import Case, Path_
from quantities import Number, reader, setting

from readers.effects import rows_at
from readers.params import compare_row

SECTIONS = ("marginal_effects", "marginal_effects_robust")


class Asked:
    """explore() and infer() of one case, each question once."""

    def __init__(self, case: Case):
        self.case = case
        self.scale = "link" if case.kind in ("lm", "lmer") else "regrid"
        self.known: dict[str, pl.DataFrame] = {}

    def frame(self, section: str, query: str, **options: Any) -> pl.DataFrame:
        key = f"{section} {query} {options}"
        if key not in self.known:
            errors = {} if section == SECTIONS[0] else {"errors": self.case.at(section, "vcov")}
            m = self.case.model.explore(query, **{"scale": self.scale, **options})
            self.known[key] = m.infer(conf_level=self.case.level, df="inf", adjust="none", **errors).effects
        return self.known[key]

    def observed(self, section: str, query: str, **options: Any) -> pl.DataFrame:
        return self.frame(section, query, average="observed", **options)


def each(case: Case, part: str) -> Iterator[tuple[Path_, str, dict[str, Any]]]:
    """Path, section and reference row of every row of one part, plain and robust."""
    for section in SECTIONS:
        if case.has(section, part):
            for i, row in enumerate(case.at(section, part)):
                yield (section, part, i), section, row


def named(part: str) -> tuple[str, ...]:
    return tuple(f"{section}.{part}.*.*" for section in SECTIONS)


@reader(avg_predictions=named("avg_predictions"), avg_slopes=named("avg_slopes"))
def averages(case: Case) -> Iterator[Number]:
    """Predictions and slopes, over all rows and over those of each level."""
    asked = Asked(case)
    for part in ("avg_predictions", "avg_slopes"):
        for path, section, row in each(case, part):
            query = "1" if part == "avg_predictions" else f"slope({row['variable']})"
            frame = asked.observed(section, query, **({"by": list(row["by"])} if row["by"] else {}))
            found = rows_at(frame, row["by"])
            if found.height != 1:
                raise AssertionError(f"{query} has {found.height} rows at {row['by']}")
            yield from compare_row(path, row, found, 0, row["se"])


@reader(avg_comparisons=named("avg_comparisons"), avg_lnratios=named("avg_lnratios"))
def comparisons(case: Case) -> Iterator[Number]:
    """A step of a number, forward or centred; factor levels against the first, by differences or logs of ratios of averages."""
    asked = Asked(case)
    for part in ("avg_comparisons", "avg_lnratios"):
        seen: dict[Any, int] = {}
        for path, section, row in each(case, part):
            name, steps = row["variable"], {"(x + 1) - x": "1", "(x + 1/2) - (x - 1/2)": "1, centered"}
            if row["contrast"] in steps:
                frame, k = asked.observed(section, f"change({name}, {steps[row['contrast']]})"), 0
            else:
                ratio = part == "avg_lnratios"
                frame = asked.observed(section, f"treatment({name})", **({"compare": "ratio", "scale": "auto"} if ratio else {}))
                frame = logs(frame) if ratio else frame
                k = seen.get((section, name), 0)
                seen[section, name] = k + 1
            yield from compare_row(path, row, frame, k, row["se"])


def logs(ratios: pl.DataFrame) -> pl.DataFrame:
    """Ratios with delta-method standard errors as logs."""
    return ratios.with_columns(pl.col("estimate", "ci_lower", "ci_upper").log(), pl.col("se") / pl.col("estimate"))


@reader(unit_predictions="marginal_effects.unit_predictions.*.*")
def unit_predictions(case: Case) -> Iterator[Number]:
    """The first rows used, without random effects."""
    if case.has("marginal_effects", "unit_predictions"):
        rows = case.at("marginal_effects", "unit_predictions")
        data = case.data.filter(case.model.metadata["used"]).head(len(rows))
        varying = {"varying": "exclude"} if case.mixed else {}
        frame = case.model.predict(data, **varying).infer(conf_level=case.level, df="inf").predictions.rename({"fitted": "estimate"})
        for i, row in enumerate(rows):
            yield from compare_row(("marginal_effects", "unit_predictions", i), row, frame, i, row["se"])


def predictors(case: Case) -> list[str]:
    """The columns that the fixed part of the formula speaks of."""
    fixed = re.sub(r"\([^()]*\|[^()]*\)", "", case.record["formula"].split("~", 1)[1])
    words = set(re.findall(r"[\w.]+", fixed)) | {case.record.get("offset")}
    return [name for name in case.data.columns if name in words]


@reader(slopes_at_mean=named("slopes_at_mean"), unit_slopes="marginal_effects.unit_slopes.*.*")
def slopes_at_points(case: Case) -> Iterator[Number]:
    """Slopes where every predictor is held: numbers at their mean and factors at the first level; as in one row of the data."""
    asked = Asked(case)
    for path, section, row in each(case, "slopes_at_mean"):
        frame = asked.frame(section, f"slope({row['variable']})", at=row["at"])
        yield from compare_row(path, row, frame, 0, row["se"])
    if case.has("marginal_effects", "unit_slopes"):
        data = case.data.filter(case.model.metadata["used"]).select(predictors(case))
        for i, row in enumerate(case.at("marginal_effects", "unit_slopes")):
            frame = asked.frame(SECTIONS[0], f"slope({row['variable']})", at=data.row(row["row"] - 1, named=True))
            yield from compare_row(("marginal_effects", "unit_slopes", i), row, frame, 0, row["se"])


for section in SECTIONS:
    for part in ("avg_predictions", "avg_slopes"):
        setting(f"{section}.{part}.*.by.*", "values asked about")
    setting(f"{section}.slopes_at_mean.*.at.*", "values asked about")
for part in ("unit_predictions", "unit_slopes"):
    setting(f"marginal_effects.{part}.*.row", "a label")
