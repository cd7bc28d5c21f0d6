"""Tests of whole terms: anova tables of types I, II and III, linear hypotheses in words.

car's type III under the coding in effect tests that a term's columns have no effect: a linear hypothesis on those columns (`m.test`) or,
for a likelihood ratio, a fit without them. Which columns are a term's is known from their count: they stand in the order of the terms.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl
from corpus import Case, Path_, number
from quantities import Number, reader, uncompared


def spans(case: Case) -> dict[str, list[int]]:
    """Columns of each term among the kept ones, by R's term name."""
    table = [row for row in case.at("anova", "typeI") if row["term"] not in ("NULL", "Residuals")]
    start = case.model.designmat.width - sum(int(row["df"]) for row in table)
    found = {"(Intercept)": list(range(start))}
    for row in table:
        found[row["term"]] = list(range(start, start + int(row["df"])))
        start += int(row["df"])
    return found


def compare_term(path: Path_, row: dict[str, Any], ours: dict[str, float | None], dispersion: float) -> Iterator[Number]:
    """One row of an anova table. bossa shows F or χ² as `statistic` with df1, df2; sums of squares and deviances follow from it."""
    F = ours["statistic"] if ours["df2"] != float("inf") else ours["statistic"] / ours["df1"]  # a χ² on df1 is df1·F
    made = {
        "F": F,
        "df": ours["df1"],
        "chisq": F * ours["df1"],
        "sumsq": F * ours["df1"] * dispersion,
        "meansq": F * dispersion,
        "deviance": F * ours["df1"] * dispersion,
    }
    for key, mine in made.items():
        if number(row.get(key)) is not None:
            yield Number((*path, key), mine)
    if number(row.get("p")) is not None:
        yield Number((*path, "p"), ours["p_value"], "p")


def dispersion(row: dict[str, Any]) -> float:
    """φ of m.diagnostics: a linear model has its root, sigma."""
    return row.get("dispersion", row["sigma"] ** 2)


def compare_terms(case: Case, kind: str, frame: pl.DataFrame) -> Iterator[Number]:
    """A whole table: term rows in order; the rows NULL and Residuals from m.diagnostics."""
    one = case.model.diagnostics.row(0, named=True)
    phi = dispersion(one)
    position, left, df_left = 0, one["null_deviance"], one.get("df_null", one["df_model"] + one["df_resid"])
    for i, row in enumerate(case.at("anova", kind)):
        path: Path_ = ("anova", kind, i)
        if row["term"] == "Residuals":
            phi_hat = {"df": one["df_resid"], "sumsq": one["deviance"], "meansq": one["sigma"] ** 2}
            yield from (Number((*path, key), mine) for key, mine in phi_hat.items() if number(row.get(key)) is not None)
            continue
        if row["term"] != "NULL":
            ours = frame.row(position, named=True)
            position += 1
            yield from compare_term(path, row, ours, phi)
            if "resid_dev" in row:
                F = ours["statistic"] if ours["df2"] != float("inf") else ours["statistic"] / ours["df1"]
                left, df_left = left - F * ours["df1"] * phi, df_left - ours["df1"]
        if number(row.get("resid_dev")) is not None:
            yield Number((*path, "resid_dev"), left)
            yield Number((*path, "resid_df"), df_left)
    if position != frame.height:
        raise AssertionError(f"bossa has {frame.height} terms, R {position}")


@reader(fits=("lm", "glm"), anova_I="anova.typeI.**")
def sequential(case: Case) -> Iterator[Number]:
    if case.has("anova", "typeI"):
        table = case.at("anova", "typeI")
        only = {row["term"] for row in table} <= {"NULL", "Residuals"}  # an intercept alone: no term to test
        frame = pl.DataFrame(schema=["term"]) if only else case.model.jointtest(type=1, **likelihood_ratio(case))
        yield from compare_terms(case, "typeI", frame)


def likelihood_ratio(case: Case) -> dict[str, str]:
    """Deviance tests of a glm; those of a linear model are its F tests."""
    return {"test": "lr"} if case.kind == "glm" and not case.linear else {}


def chi_square(case: Case) -> dict[str, str]:
    """car tests a glm against χ², even where the dispersion is estimated."""
    return {"df": "inf"} if case.kind == "glm" else {}


@reader(fits=("lm", "glm"), anova_II="anova.typeII.**")
def hierarchical(case: Case) -> Iterator[Number]:
    if case.has("anova", "typeII"):
        yield from compare_terms(case, "typeII", case.model.jointtest(type=2, **likelihood_ratio(case), **chi_square(case)))


@reader(fits=("glm",), anova_wald="anova.typeII_wald.**")
def wald(case: Case) -> Iterator[Number]:
    if case.has("anova", "typeII_wald"):
        yield from compare_terms(case, "typeII_wald", case.model.jointtest(type=2, test="wald", **chi_square(case)))


@reader(fits=("lm",), anova_III="anova.typeIII.**")
def under_the_coding(case: Case) -> Iterator[Number]:
    if case.has("anova", "typeIII"):
        names, columns = case.model.designmat.columns, spans(case)
        tested = [row["term"] for row in case.at("anova", "typeIII") if row["term"] != "Residuals"]
        frames = [case.model.test(*(f"`{names[j]}` = 0" for j in columns[term])) for term in tested]
        yield from compare_terms(case, "typeIII", pl.concat(frames))


@reader(fits=("glm",), anova_III="anova.typeIII.**")
def fits_without_the_columns(case: Case) -> Iterator[Number]:
    """Likelihood-ratio type III: the deviance that leaving a term's columns out costs, over the dispersion."""
    from bossa import compare

    if not case.has("anova", "typeIII"):
        return
    columns, full = spans(case), case.model.diagnostics.row(0, named=True)
    table = case.model.jointtest(type=3, **likelihood_ratio(case), **chi_square(case))
    for i, row in enumerate(case.at("anova", "typeIII")):
        path, parts = ("anova", "typeIII", i), set(row["term"].split(":"))
        if not any(parts < set(other["term"].split(":")) for other in case.at("anova", "typeIII")):  # in no other term: any coding
            yield from compare_term(path, row, table.row(i, named=True), dispersion(full))
            continue
        fit = without(case, columns[row["term"]])
        smaller = fit.diagnostics.row(0, named=True)
        yield Number((*path, "df"), smaller["df_resid"] - full["df_resid"])
        yield Number((*path, "chisq"), (smaller["deviance"] - full["deviance"]) / dispersion(full))
        if dispersion(full) == 1.0:  # else car refers to χ² what compare() refers to F
            yield Number((*path, "p"), compare(fit, case.model, how="lrt").frame["p_value"][1], "p")


def without(case: Case, columns: list[int]) -> Any:
    """The fit whose design lacks `columns`: the other columns of the design as numeric predictors."""
    from bossa import model

    r, X = case.record, case.model.designmat
    used = case.data.filter(case.model.metadata["used"])
    keep = [f"col_{j}" for j in range(X.width) if j not in columns]
    data = used.with_columns(X[:, int(name.removeprefix("col_"))].alias(name) for name in keep)
    response, right = (part.strip() for part in r["formula"].split("~"))
    offsets = [part.strip() for part in right.split("+") if part.strip().startswith("offset(")]
    formula = f"{response} ~ 0 + {' + '.join(keep + offsets)}"
    options = {k: r[k] for k in ("weights", "offset") if r.get(k)}
    return model(formula, data, family=r["family"], link=r["link"], **options).fit()


@reader(
    hypotheses=(
        "linear_hypotheses.*.df",
        "linear_hypotheses.*.statistic",
        "linear_hypotheses.*.p",
        "linear_hypotheses.*.F_hc3",
        "linear_hypotheses.*.p_hc3",
    )
)
def linear_hypotheses(case: Case) -> Iterator[Number]:
    for i, row in enumerate(case.results.get("linear_hypotheses", [])):
        path, test = ("linear_hypotheses", i), case.model.test(*row["hypothesis"])
        yield Number((*path, "df"), float(test["df1"][0]))
        yield Number((*path, "statistic"), statistic(test, row["test"]))
        yield Number((*path, "p"), float(test["p_value"][0]), "p")
        if "F_hc3" in row:
            robust = case.model.test(*row["hypothesis"], errors="HC3")
            yield Number((*path, "F_hc3"), statistic(robust, "F"))
            yield Number((*path, "p_hc3"), float(robust["p_value"][0]), "p")


def statistic(test: pl.DataFrame, kind: str) -> float:
    """F, or χ² = df1·F, whichever R shows; bossa shows χ² where df2 is infinite."""
    shown, df1 = float(test["statistic"][0]), float(test["df1"][0])
    chisq = shown if test["df2"][0] == float("inf") else shown * df1
    return chisq if kind == "Chisq" else chisq / df1


uncompared("anova.typeIII.*.p", "car refers this difference of quasi-deviances to χ², bossa's compare() to F; χ² and df are compared")
