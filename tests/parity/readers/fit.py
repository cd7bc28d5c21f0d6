"""One number per model: m.diagnostics."""

from __future__ import annotations

import math
from collections.abc import Iterator

from corpus import Case
from quantities import Number, reader, setting

NUMBERS = ("loglik", "npar", "aic", "bic", "deviance", "null_deviance", "df_resid")


@reader(
    sigma="sigma",
    loglik="loglik",
    npar="npar",
    aic="aic",
    bic="bic",
    deviance="deviance",
    null_deviance="null_deviance",
    df_resid=("df_resid", "df_null"),
    dispersion="dispersion",
    pearson_chisq="pearson_chisq",
    fits=("lm", "glm"),
)
def diagnostics(case: Case) -> Iterator[Number]:
    """The row of m.diagnostics; a glm that is a linear model has a sigma instead of a dispersion, and R's sigma() of a glm is √(D/df)."""
    row = case.model.diagnostics.row(0, named=True)
    if case.linear:
        row |= {"dispersion": row["sigma"] ** 2, "pearson_chisq": row["deviance"], "df_null": row["df_model"] + row["df_resid"]}
    if case.kind == "glm":
        row["sigma"] = math.sqrt(row["deviance"] / row["df_resid"])
    for key in ("sigma", *NUMBERS, "dispersion", "pearson_chisq", "df_null"):
        if case.has(key) and case.at(key) is not None:
            yield Number((key,), row[key])


@reader(fits=("lm", "glm"), rank="rank")
def rank(case: Case) -> Iterator[Number]:
    """Coefficients that are estimated."""
    yield Number(("rank",), float(case.model.params["estimate"].is_not_null().sum()))


@reader(fits=("lm",), r2="r2", adj_r2="adj_r2", fstat=("fstat.value", "fstat.df1", "fstat.df2", "fstat.p"))
def r_squared(case: Case) -> Iterator[Number]:
    yield Number(("r2",), float(case.model.diagnostics["rsquared"][0]), "scaled", 1.0)
    yield Number(("adj_r2",), float(case.model.diagnostics["rsquared_adj"][0]), "scaled", 1.0)
    if case.has("fstat"):
        row = case.model.diagnostics
        yield Number(("fstat", "value"), float(row["fstat"][0]))
        yield Number(("fstat", "df1"), float(row["fstat_df1"][0]))
        yield Number(("fstat", "df2"), float(row["fstat_df2"][0]))
        yield Number(("fstat", "p"), float(row["fstat_p_value"][0]), "p")


setting("iterations", "how many steps R's own algorithm took")
