"""Marginal means, contrasts, slopes and joint tests: m.explore(query).infer(…), against emmeans.

Rows of means and slopes are found through their factor columns, rows of contrasts by emmeans' order within each level of the condition;
names of contrasts are never read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
from corpus import Case
from quantities import Number, pending, reader, setting

from readers.params import compare_row

# emmeans' contrast → the query's word
WORDS = {"consec": "sequential", "trt.vs.ctrl": "treatment", "eff": "effect"}
# emmeans' adjustment → (kind of tolerance of p, of limits); the rest are elementary functions of one tail
INTEGRALS = {"tukey": ("multiplicity", "quantile"), "dunnettx": ("multiplicity", "rough_quantile"), "mvt": ("simulated", "simulated_limit")}
METHOD = {"t": {}, "asymptotic": {"df": "inf"}, "satterthwaite": {"df": "satterthwaite"}, "kenward-roger": {"df": "kenward-roger"}}


def written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def term(case: Case, name: str, entry: dict[str, Any]) -> str:
    """A factor by its name; a number with the values it is asked at."""
    is_number = case.data.schema[name].is_numeric() and f"factor({name})" not in case.record["contrasts_used"]
    values = entry["at"].get(name) or entry["grid"].get(name)
    if not is_number:
        return name
    values = values if isinstance(values, list) else [values]
    return f"{name}@[{', '.join(map(written, values))}]"


def condition(case: Case, entry: dict[str, Any], focal: str) -> str:
    names = entry["by"]
    return focal if not names else f"{focal} ~ {' + '.join(term(case, name, entry) for name in names)}"


def arguments(case: Case, entry: dict[str, Any], ratio: bool) -> dict[str, Any]:
    """Values held, averaging weights and scale of the question."""
    options: dict[str, Any] = {}
    held = {k: v for k, v in entry["at"].items() if k not in [*entry["spec"], *entry["by"]]}
    if "cov_reduce" in entry:  # the median of every covariate
        used = [c for c in case.data.columns if case.data.schema[c].is_numeric() and c in case.record["formula"].split("~")[1]]
        held |= {c: case.data[c].median() for c in used}
    if held:
        options["at"] = held
    if entry.get("weights", "equal") != "equal":
        options["weights"] = entry["weights"]
    name = entry["estimate_name"]
    options["scale"] = "response" if "regrid" in entry or name in ("prob", "rate", "response", "ratio", "odds.ratio") else "link"
    if ratio and name in ("ratio", "odds.ratio"):
        options["compare"] = name.replace(".", "_")
    return options


def infer_options(case: Case, entry: dict[str, Any], adjust: str) -> dict[str, Any]:
    errors = {"errors": entry["vcov"]} if "vcov" in entry else {}
    return {"conf_level": case.level, "adjust": adjust, **METHOD[entry["method"]], **errors}


def same(column: pl.Series, wanted: Any) -> pl.Series:
    if column.dtype.is_numeric():
        return (column.cast(pl.Float64) - float(wanted)).abs() < 1e-9 * max(1.0, abs(float(wanted)))
    return column.cast(pl.String) == written(wanted)


def rows_at(frame: pl.DataFrame, level: dict[str, Any]) -> pl.DataFrame:
    """The rows at these levels of these columns."""
    for name, wanted in level.items():
        frame = frame.filter(same(frame[name], wanted))
    return frame


@reader(emm="emm.*.table.*.*")
def means(case: Case) -> Iterator[Number]:
    for i, entry in enumerate(case.results.get("emm", [])):
        query = condition(case, entry, ":".join(term(case, name, entry) for name in entry["spec"]))
        m = case.model.explore(query, **arguments(case, entry, ratio=False)).infer(**infer_options(case, entry, "none"))
        for j, row in enumerate(entry["table"]):
            found = rows_at(m.effects, row["level"])
            if found.height != 1:
                raise AssertionError(f"{query} has {found.height} rows at {row['level']}")
            yield from compare_row(("emm", i, "table", j), row, found, 0, row["se"])


def contrast_query(case: Case, entry: dict[str, Any], emm: dict[str, Any]) -> str:
    """The question of one contrast entry in the grammar of explore()."""
    kind, spec = entry["contrast"], entry["spec"]
    entry = {**emm, **entry}
    terms = [term(case, name, entry) for name in spec]
    if kind == "interaction":
        names = [*spec, *(b for b in entry["by"] if b not in entry.get("contrast_by", entry["by"]))]
        parts = [f"{WORDS.get(word, word)}({name})" for word, name in zip(entry["interaction"], names, strict=True)]
        return ":".join(parts)
    if kind == "custom":
        levels = emm["grid"][spec[0]]
        return f"{spec[0]}[{', '.join(bracket(levels, weights) for weights in entry['coefs'].values())}]"
    reference = entry.get("args", {}).get("ref")
    extra = f", ref={written(emm['grid'][spec[0]][reference - 1])}" if reference else ""
    return condition(case, entry, f"{WORDS.get(kind, kind)}({':'.join(terms)}{extra})")


def bracket(levels: list[Any], weights: list[float]) -> str:
    """Mean of the levels with positive weight minus mean of those with negative weight."""
    sides = [[written(level) for level, w in zip(levels, weights, strict=True) if w * sign > 0] for sign in (1, -1)]
    return " - ".join(side[0] if len(side) == 1 else f"({' + '.join(side)})" for side in sides)


@reader(contrasts="contrasts.*.table.*.*")
def contrasts(case: Case) -> Iterator[Number]:
    for i, entry in enumerate(case.results.get("contrasts", [])):
        emm = case.at("emm", entry["index"] - 1)
        options = arguments(case, {**emm, **entry}, ratio=True)
        adjust = entry["adjust"]
        m = case.model.explore(contrast_query(case, entry, emm), **options).infer(**infer_options(case, emm, adjust))
        p, limits = INTEGRALS.get(adjust, ("p", "estimate"))
        groups: dict[Any, int] = {}
        for j, row in enumerate(entry["table"]):
            within = {k: v for k, v in row["level"].items() if k in entry["by"] and entry["contrast"] != "interaction"}
            found, k = rows_at(m.effects, within), groups.get(str(within), 0)
            groups[str(within)] = k + 1
            expected = sum({n: v for n, v in other["level"].items() if n in within} == within for other in entry["table"])
            if found.height != expected:
                raise AssertionError(f"{found.height} contrasts at {within}, R has {expected}")
            yield from compare_row(("contrasts", i, "table", j), row, found, k, row["se"], p, limits)


@reader(trends="trends.*.table.*.*")
def trends(case: Case) -> Iterator[Number]:
    for i, entry in enumerate(case.results.get("trends", [])):
        names = [*entry["spec"], *entry["by"]]
        query = f"slope({entry['var']})"
        if names:
            query += " ~ " + " + ".join(term(case, name, entry) for name in names)
        held = {k: v for k, v in entry["at"].items() if k not in names}
        m = case.model.explore(query, scale="link", **({"at": held} if held else {})).infer(**infer_options(case, entry, "none"))
        for j, row in enumerate(entry["table"]):
            found = rows_at(m.effects, row["level"])
            if found.height != 1:
                raise AssertionError(f"{query} has {found.height} rows at {row['level']}")
            yield from compare_row(("trends", i, "table", j), row, found, 0, row["se"])


@reader(joint_tests="joint_tests.*.table.*.*")
def joint_tests(case: Case) -> Iterator[Number]:
    """emmeans' joint_tests(): every term at the means of the covariates; `by` is compared when there is a way to ask."""
    for i, entry in enumerate(case.results.get("joint_tests", [])):
        if entry["by"]:
            continue
        normal = entry["method"] == "asymptotic" or entry["table"][0]["df2"] == "Inf"  # emmeans has z for some families with a dispersion
        df = {"df": "inf"} if normal else {} if entry["method"] == "model" else {"df": entry["method"]}
        table = case.model.jointtest(type=3, **df)
        if table.height != len(entry["table"]):
            raise AssertionError(f"bossa has {table.height} terms, R {len(entry['table'])}")
        for j in range(table.height):
            path, df2 = ("joint_tests", i, "table", j), float(table["df2"][j])
            F = float(table["statistic"][j]) / (float(table["df1"][j]) if df2 == float("inf") else 1.0)
            yield Number((*path, "df1"), float(table["df1"][j]))
            yield Number((*path, "df2"), df2, "digits7" if case.mixed else "relative")
            yield Number((*path, "F"), F)
            yield Number((*path, "p"), float(table["p_value"][j]), "p")


pending(trend_contrasts="trends.*.contrasts.*.table.*.**")
setting("trends.*.table_emtrends_default.*.**", "R's forward difference; `table` has the derivative")
setting("emm.*.table.*.level.*", "values asked about")
setting("contrasts.*.table.*.level.*", "values asked about")
setting("trends.*.table.*.level.*", "values asked about")
for section in ("emm", "contrasts", "trends"):
    setting(f"{section}.*.index", "a label")
    setting(f"{section}.*.at.**", "values asked about")
    setting(f"{section}.*.grid.**", "values asked about")
setting("contrasts.*.args.**", "values asked about")
setting("contrasts.*.coefs.**", "values asked about")
