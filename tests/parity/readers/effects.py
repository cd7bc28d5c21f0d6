"""Marginal means, contrasts, slopes and joint tests: m.explore(query).infer(…), against emmeans.

Rows of means and slopes are found through their factor columns, rows of contrasts by emmeans' order within each level of the condition;
names of contrasts are never read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import polars as pl
from corpus import Case
from quantities import Number, reader, setting

from readers.params import compare_row

# emmeans' contrast → the query's word
WORDS = {"consec": "sequential", "trt.vs.ctrl": "treatment", "eff": "effect"}
# emmeans' adjustment → (kind of tolerance of p, of limits); the rest multiply one tail
INTEGRALS = {
    "tukey": ("multiplicity", "quantile"),
    "dunnettx": ("multiplicity", "rough_quantile"),
    "mvt": ("simulated", "simulated_limit"),
    "sidak": ("multiplicity", "estimate"),
}
METHOD = {"t": {}, "asymptotic": {"df": "inf"}, "satterthwaite": {"df": "satterthwaite"}, "kenward-roger": {"df": "kenward-roger"}}


def written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def is_factor(case: Case, name: str) -> bool:
    return f"factor({name})" in case.record["contrasts_used"]


def term(case: Case, name: str, entry: dict[str, Any]) -> str:
    """A factor by its name; a number with the values it is asked at."""
    values = entry["at"].get(name) or entry["grid"].get(name)
    if not case.data.schema[name].is_numeric() or is_factor(case, name):
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
    back = name in ("prob", "rate", "response", "ratio", "odds.ratio")
    options["scale"] = "regrid" if "regrid" in entry else "response" if back else "link"
    if ratio and name in ("ratio", "odds.ratio"):
        options["compare"] = name.replace(".", "_")
    return options


def infer_options(case: Case, entry: dict[str, Any], adjust: str) -> dict[str, Any]:
    errors = {"errors": entry["vcov"]} if "vcov" in entry else {}
    return {"conf_level": case.level, "adjust": adjust, **METHOD[entry["method"]], **errors}


def same(column: pl.Series, wanted: Any) -> pl.Series:
    if column.dtype.is_numeric():
        return (column.cast(pl.Float64) - float(wanted)).abs() < 1e-9 * max(1.0, abs(float(wanted)))
    if column.dtype == pl.Boolean:
        return column == (str(wanted).lower() == "true")
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


@reader(trend_contrasts="trends.*.contrasts.*.table.*.*")
def trend_contrasts(case: Case) -> Iterator[Number]:
    """Differences of slopes between levels, in emmeans' order."""
    for i, entry in enumerate(case.results.get("trends", [])):
        (name,) = entry["spec"] if "contrasts" in entry else (None,)
        held = {k: v for k, v in entry["at"].items() if k != name}
        for j, asked in enumerate(entry.get("contrasts", [])):
            query = f"slope({entry['var']}) ~ {WORDS.get(asked['contrast'], asked['contrast'])}({term(case, name, entry)})"
            m = case.model.explore(query, scale="link", **({"at": held} if held else {}))
            frame = m.infer(**infer_options(case, entry, asked["adjust"])).effects
            if frame.height != len(asked["table"]):
                raise AssertionError(f"{frame.height} contrasts of slopes, R has {len(asked['table'])}")
            p, limits = INTEGRALS.get(asked["adjust"], ("p", "estimate"))
            for k, row in enumerate(asked["table"]):
                yield from compare_row(("trends", i, "contrasts", j, "table", k), row, frame, k, row["se"], p, limits)


def two_values(case: Case, name: str) -> list[float]:
    """Where emmeans' joint_tests() compares a covariate: a unit either side of its mean; its values where it has two."""
    values = case.data.filter(case.model.metadata["used"])[name]
    if values.n_unique() == 2:
        return sorted(values.unique().to_list())
    return [values.mean() - 1, values.mean() + 1]


def joint_by_contrasts(case: Case, entry: dict[str, Any], row: dict[str, Any], df: dict[str, str]) -> pl.DataFrame:
    """One term as emmeans tests it: contrasts of its cells, its covariates compared at two values, the others averaged over theirs."""
    names = row["term"].split(":")
    known = {name for other in entry["table"] for name in other["term"].split(":")}
    numbers = {name: two_values(case, name) for name in known if case.data.schema[name].is_numeric() and not is_factor(case, name)}
    query = ":".join(f"pairwise({name}@{numbers[name]})" if name in numbers else f"pairwise({name})" for name in names)
    held = {name: pair for name, pair in numbers.items() if name not in names} | {name: row[name] for name in entry["by"]}
    return case.model.explore(query, scale="link", **({"at": held} if held else {})).infer(how="joint", **df).effects


def curved(case: Case) -> bool:
    """Some covariate enters through a function: its term then is more than a slope."""
    without_offset = re.sub(r"offset\([^()]*(\([^()]*\))?[^()]*\)", "", case.record["formula"].split("~", 1)[1])
    return bool(re.search(r"\b(poly|log|sqrt|exp|bs|ns|I)\(", without_offset))


@reader(joint_tests="joint_tests.*.table.*.*")
def joint_tests(case: Case) -> Iterator[Number]:
    """emmeans' joint_tests(). Every term by m.jointtest(); within levels, and where covariates are curved, by contrasts of cells."""
    for i, entry in enumerate(case.results.get("joint_tests", [])):
        normal = entry["method"] == "asymptotic" or entry["table"][0]["df2"] == "Inf"  # emmeans has z for some families with a dispersion
        df = {"df": "inf"} if normal else {} if entry["method"] == "model" else {"df": entry["method"]}
        if entry["by"] or curved(case):
            table = pl.concat([joint_by_contrasts(case, entry, row, df) for row in entry["table"]])
        else:
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


setting("trends.*.table_emtrends_default.*.**", "R's forward difference; `table` has the derivative")
setting("emm.*.table.*.level.*", "values asked about")
setting("contrasts.*.table.*.level.*", "values asked about")
setting("trends.*.table.*.level.*", "values asked about")
setting("trends.*.contrasts.*.table.*.level.*", "values asked about")
for section in ("emm", "contrasts"):
    setting(f"{section}.*.table.*.null", "the null value asked about: 0, or 1 for ratios")
for by in ("nutrient", "vs"):
    setting(f"joint_tests.*.table.*.{by}", "values asked about")
for section in ("emm", "contrasts", "trends"):
    setting(f"{section}.*.index", "a label")
    setting(f"{section}.*.at.**", "values asked about")
    setting(f"{section}.*.grid.**", "values asked about")
setting("contrasts.*.args.**", "values asked about")
setting("contrasts.*.coefs.**", "values asked about")
