"""Averages over the rows used, on the response scale: m.explore(…, average="observed", scale="response")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from corpus import Case
from quantities import Number, pending, reader, setting

from readers.effects import rows_at
from readers.params import compare_row

SECTIONS = ("marginal_effects", "marginal_effects_robust")
OBSERVED = {"average": "observed", "scale": "response"}


def each(case: Case, part: str) -> Iterator[tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]]:
    """Path, reference row and infer options of every row of one part, plain and robust."""
    for section in SECTIONS:
        if case.has(section, part):
            errors = {} if section == SECTIONS[0] else {"errors": case.at(section, "vcov")}
            for i, row in enumerate(case.at(section, part)):
                yield (section, part, i), row, {"conf_level": case.level, "df": "inf", "adjust": "none", **errors}


@reader(**{f"avg_{what}": tuple(f"{section}.avg_{what}.*.*" for section in SECTIONS) for what in ("slopes", "comparisons", "lnratios")})
def averages(case: Case) -> Iterator[Number]:
    """Slopes, over all rows and over those of each level; differences and log ratios of factor levels from the first."""
    for path, row, options in each(case, "avg_slopes"):
        query = f"slope({row['variable']})" + "".join(f" ~ {name}" for name in row["by"])
        frame = case.model.explore(query, **OBSERVED).infer(**options).effects
        yield from compare_row(path, row, rows_at(frame, row["by"]), 0, row["se"])
    for part, compare in (("avg_comparisons", "difference"), ("avg_lnratios", "lift")):
        seen: dict[Any, int] = {}
        for path, row, options in each(case, part):
            if part == "avg_lnratios" or row["contrast"].startswith("(x"):
                continue  # no way to ask for a step of a number, or for the log of a ratio, is settled yet
            key = (path[0], row["variable"])
            k = seen.get(key, 0)
            seen[key] = k + 1
            frame = case.model.explore(f"treatment({row['variable']})", compare=compare, **OBSERVED).infer(**options).effects
            yield from compare_row(path, row, frame, k, row["se"])


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


pending(
    avg_predictions=tuple(f"{section}.avg_predictions.*.*" for section in SECTIONS),
    slopes_at_mean=tuple(f"{section}.slopes_at_mean.*.*" for section in SECTIONS),
    unit_slopes="marginal_effects.unit_slopes.*.*",
)
for section in SECTIONS:
    for part in ("avg_predictions", "avg_slopes"):
        setting(f"{section}.{part}.*.by.*", "values asked about")
    setting(f"{section}.slopes_at_mean.*.at.*", "values asked about")
setting("marginal_effects.unit_predictions.*.row", "a label")
