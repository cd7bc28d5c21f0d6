"""Linear and generalized linear mixed models: variance components, conditional modes, degrees of freedom, tests of terms.

Grouping factors are matched by the factors they are made of (R writes cask:batch for batch/cask), levels by their labels, columns by
position.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import polars as pl
from corpus import Case, number
from quantities import Number, pending, reader, setting, uncompared

from readers.params import compare_row, compare_table, value
from readers.rows import first, used_rows
from readers.terms import statistic

FITS = ("lmer", "glmer")
ONE_NUMBER = {
    "sigma": "sigma",
    "loglik": "loglik",
    "npar": "npar",
    "aic": "aic",
    "bic": "bic",
    "df_resid": "df_resid",
    "nobs": "n",
    "REMLcrit": "reml_criterion",
}


@reader(
    fits=FITS,
    sigma="sigma",
    loglik="loglik",
    npar="npar",
    aic="aic",
    bic="bic",
    df_resid="df_resid",
    nobs="nobs",
    criterion=("criterion", "REMLcrit"),
    deviance=("deviance", "deviance_residual_sum"),
    loglik_full="loglik_full",
)
def diagnostics(case: Case) -> Iterator[Number]:
    row = case.model.diagnostics.row(0, named=True)
    if case.has("loglik_full"):  # for nAGQ > 1 lme4's log-likelihood and what follows from it leave the saturated model's out
        yield Number(("loglik_full",), row["loglik"])
        left_out = float(case.at("loglik_full")) - float(case.at("loglik"))
        row |= {"loglik": row["loglik"] - left_out, "aic": row["aic"] + 2 * left_out, "bic": row["bic"] + 2 * left_out}
    for key, column in ONE_NUMBER.items():
        if case.has(key) and number(case.at(key)) is not None:
            yield Number((key,), row[column])
    yield Number(("criterion",), -2 * row["loglik"])
    for key in ("deviance", "deviance_residual_sum"):  # by maximum likelihood: -2 log-likelihood (lmer), that given the modes (glmer)
        if case.has(key):
            yield Number((key,), row["deviance"])


@reader(fits=FITS, theta="theta.*")
def theta(case: Case) -> Iterator[Number]:
    """In lme4's order; the scale is the largest, at least 1e-3: a singular fit has zeros."""
    names = list(case.at("theta"))
    ours = case.model.fit_state.theta
    if len(ours) != len(names):
        raise AssertionError(f"bossa has {len(ours)} θ, R {len(names)}")
    scale = max(1e-3, *(abs(case.at("theta", name)) for name in names))
    for name, mine in zip(names, ours, strict=True):
        yield Number(("theta", name), float(mine), "scaled", scale)


def same_group(ours: str, theirs: str) -> bool:
    """The same factor: parts of a nesting in any order; lme4 numbers the bars on one factor (`Subject.1`), bossa has one block of them."""
    theirs = re.sub(r"\.\d+$", "", theirs)
    return sorted(ours.split(":")) == sorted(theirs.split(":"))


@reader(fits=FITS, varcorr=("varcorr.*.vcov", "varcorr.*.sdcor"))
def varcorr(case: Case) -> Iterator[Number]:
    """Variances and covariances, standard deviations and correlations, group by group; rows of each kind in the order of the columns."""
    table, seen = case.model.varying_spread, {}
    for i, row in enumerate(case.at("varcorr")):
        kind = "covariance" if row["term2"] else "variance"
        mine = table.filter(
            pl.col("group").map_elements(lambda g, row=row: same_group(g, row["group"]), return_dtype=pl.Boolean)
            & (pl.col("term2").is_null() if kind == "variance" else pl.col("term2").is_not_null())
        )
        base = re.sub(r"\.\d+$", "", row["group"])
        k = seen.get((base, kind), 0)
        seen[base, kind] = k + 1
        unit = max(abs(r["vcov"]) for r in case.at("varcorr"))
        yield Number(("varcorr", i, "vcov"), value(mine, k, "variance"), "scaled", unit)
        sdcor = value(mine, k, "sd" if kind == "variance" else "corr")
        if number(row["sdcor"]) is not None:
            yield Number(("varcorr", i, "sdcor"), sdcor, "scaled", math.sqrt(unit) if kind == "variance" else 1.0)


@reader(fits=FITS, ranef=("ranef.*.matrix.*.*", "ranef.*.colsumsq.*"), condSD="ranef.*.condSD.*.*")
def conditional_modes(case: Case) -> Iterator[Number]:
    table = case.model.varying_offsets
    for group, R in case.at("ranef").items():
        mine = table.filter(pl.col("group").map_elements(lambda g, group=group: same_group(g, group), return_dtype=pl.Boolean))
        flip = mine["group"][0] != group
        terms = mine["term"].unique(maintain_order=True).to_list()
        found = {(row["level"], row["term"]): row for row in mine.iter_rows(named=True)}
        for i, level in enumerate(R["levels"]):
            label = ":".join(reversed(level.split(":"))) if flip else level
            for j, term in enumerate(terms):
                row, sd = found[label, term], number(R["condSD"][i][j])
                yield Number(("ranef", group, "matrix", i, j), row["estimate"], "scaled", sd or case.at("sigma"))
                if sd is not None:
                    yield Number(("ranef", group, "condSD", i, j), row["se"], "scaled", max(sd, 1e-3 * case.at("sigma")))
        for j, total in enumerate(R.get("colsumsq", [])):
            yield Number(
                ("ranef", group, "colsumsq", j), float((mine.filter(pl.col("term") == terms[j])["estimate"] ** 2).sum()), "scaled", total
            )


@reader(
    fits=("lmer",),
    satterthwaite="coef_satterthwaite.*.*",
    kenward_roger="coef_kenward_roger.*.*",
)
def degrees_of_freedom(case: Case) -> Iterator[Number]:
    for section, df in (("coef_satterthwaite", "satterthwaite"), ("coef_kenward_roger", "kenward-roger")):
        if case.has(section):
            m = case.model.infer(df=df, conf_level=case.level)
            for found in compare_table((section,), case.at(section), m.params):
                yield Number(found.path, found.ours, "digits7", None) if found.path[-1] == "df" else found


def anova(section: str, kind: int, df: str, **names: str) -> None:
    """Tables of lmerTest and car; their type III holds covariates at 0, emmeans' (bossa's default) at the mean."""
    zero = {"covariates": "zero"} if kind == 3 else {}

    @reader(fits=FITS, **names)
    def read(case: Case) -> Iterator[Number]:
        if not case.has("anova", section):
            return
        table = case.model.jointtest(type=kind, df=df, **zero)
        reference = case.at("anova", section)
        if table.height != len(reference):
            raise AssertionError(f"bossa has {table.height} terms, R {len(reference)}")
        for i, row in enumerate(reference):
            yield from compare_test(("anova", section, i), row, table[i], case)


def compare_test(path: tuple[Any, ...], row: dict[str, Any], ours: pl.DataFrame, case: Case) -> Iterator[Number]:
    """One row of an F or χ² table; sums of squares are F in units of the residual variance."""
    F, df1, df2 = statistic(ours, "F"), float(ours["df1"][0]), float(ours["df2"][0])
    sigma2 = case.at("sigma") ** 2
    made = {"F": F, "chisq": F * df1, "df": df1, "df1": df1, "meansq": F * sigma2, "sumsq": F * df1 * sigma2}
    for key, mine in made.items():
        if number(row.get(key)) is not None:
            yield Number((*path, key), mine)
    if number(row.get("df2")) is not None:
        yield Number((*path, "df2"), df2, "digits7")
    if number(row.get("p")) is not None:
        yield Number((*path, "p"), float(ours["p_value"][0]), "p")


anova("typeI_satterthwaite", 1, "satterthwaite", anova_I="anova.typeI_satterthwaite.**")
anova("typeII_satterthwaite", 2, "satterthwaite", anova_II="anova.typeII_satterthwaite.**")
anova("typeIII_satterthwaite", 3, "satterthwaite", anova_III="anova.typeIII_satterthwaite.**")
anova("typeII_kenward_roger", 2, "kenward-roger", anova_kenward_roger="anova.typeII_kenward_roger.**")
anova("typeIII_kenward_roger", 3, "kenward-roger", anova_III_kenward_roger="anova.typeIII_kenward_roger.**")
anova("car_typeII_chisq", 2, "inf", anova_wald="anova.car_typeII_chisq.**")


@reader(fits=FITS, anova_wald_III="anova.car_typeIII_chisq.**")
def wald_under_the_coding(case: Case) -> Iterator[Number]:
    """car's type III: the columns of a term, in the coding in effect, have no effect."""
    if not case.has("anova", "car_typeIII_chisq"):
        return
    names, start = case.model.designmat.columns, 0
    for i, row in enumerate(case.at("anova", "car_typeIII_chisq")):
        columns = names[start : start + int(row["df"])]
        start += int(row["df"])
        yield from compare_test(
            ("anova", "car_typeIII_chisq", i), row, case.model.test(*(f"`{name}` = 0" for name in columns), df="inf"), case
        )


@reader(fits=FITS, fitted=("fitted.*", "linear_predictor.*"))
def fitted(case: Case) -> Iterator[Number]:
    m = case.model
    yield from first(case, ("fitted",), used_rows(case)["fitted"])
    if case.has("linear_predictor"):
        yield from first(case, ("linear_predictor",), m.predict(type="link").predictions.filter(m.metadata["used"])["fitted"])


@reader(fits=("lmer",), residuals=("residuals.*", "pearson_residuals.*"))
def residuals(case: Case) -> Iterator[Number]:
    """y − μ; lme4's Pearson residuals are these times √w over σ."""
    rows, weights = used_rows(case), case.record.get("weights")
    yield from first(case, ("residuals",), rows["resid"], case.at("sigma"))
    scaled = rows["resid"] / case.at("sigma")
    yield from first(case, ("pearson_residuals",), scaled if weights is None else scaled * rows[weights].sqrt(), 1.0)


@reader(fits=("lmer",), hat=("diagnostics.hatvalues.*", "diagnostics.hat_sum"))
def leverage(case: Case) -> Iterator[Number]:
    hat = used_rows(case)["hat"]
    yield from first(case, ("diagnostics", "hatvalues"), hat)
    yield Number(("diagnostics", "hat_sum"), hat.sum())


@reader(fits=("glmer",), residuals=("residuals.response.*", "residuals.pearson.*", "residuals.deviance.*"))
def glmer_residuals(case: Case) -> Iterator[Number]:
    rows = used_rows(case)
    for key, column, unit in (("response", "resid", None), ("pearson", "pearson_resid", 1.0), ("deviance", "deviance_resid", 1.0)):
        yield from first(case, ("residuals", key), rows[column], unit)


@reader(
    fits=("lmer",),
    r2_nakagawa=("r2_nakagawa.marginal", "r2_nakagawa.conditional", "r2_nakagawa.icc_adjusted"),
    variance_shares=("r2_nakagawa.var_fixed", "r2_nakagawa.var_random", "r2_nakagawa.var_residual"),
)
def nakagawa(case: Case) -> Iterator[Number]:
    row = case.model.diagnostics.row(0, named=True)
    for key, column in (("marginal", "rsquared_marginal"), ("conditional", "rsquared_conditional"), ("icc_adjusted", "icc")):
        if case.has("r2_nakagawa", key) and number(case.at("r2_nakagawa", key)) is not None:
            yield Number(("r2_nakagawa", key), row[column], "scaled", 1.0)
    residual = row["sigma"] ** 2
    total = residual / (1 - row["rsquared_conditional"])
    parts = {"fixed": row["rsquared_marginal"], "random": row["rsquared_conditional"] - row["rsquared_marginal"]}
    yield Number(("r2_nakagawa", "var_residual"), residual)
    yield from (Number(("r2_nakagawa", f"var_{part}"), share * total, "scaled", total) for part, share in parts.items())


@reader(fits=FITS, profile="profile.exact.*.*")
def profile(case: Case) -> Iterator[Number]:
    """Limits of the fixed effects and of the standard deviations and correlations, in R's order: variance parameters, σ, coefficients."""
    if not case.has("profile", "exact"):
        return
    m = case.model.infer(how="profile", conf_level=case.level)
    rows, fixed = case.at("profile", "exact"), m.params
    spread = m.varying_spread
    for i, row in enumerate(rows[: len(rows) - fixed.height]):
        kind, _, rest = row["term"].partition("_")
        name, _, factor = rest.partition("|")
        if kind == "sigma":
            found = spread.filter(pl.col("group") == "Residual")
        else:
            second, _, first = (
                name.replace("(Intercept)", "Intercept").partition(".")
                if kind == "cor"
                else ("", "", name.replace("(", "").replace(")", ""))
            )
            at = spread.filter(pl.col("group").str.split(":").list.sort() == sorted(factor.split(":")))
            found = at.filter((pl.col("term1") == first) & (pl.col("term2") == second if second else pl.col("term2").is_null()))
        if found.height != 1:
            raise AssertionError(f"varying_spread has {found.height} rows for {row['term']}")
        width = row["upper"] - row["lower"] if None not in (row["lower"], row["upper"]) else None
        yield from compare_row(("profile", "exact", i), row, found, 0, width, limits="estimate7")
    for i, row in enumerate(rows[len(rows) - fixed.height :]):
        path = ("profile", "exact", len(rows) - fixed.height + i)
        se = case.at("coef", i, "se")
        yield from compare_row(path, row, fixed, i, se, limits="estimate7")


pending(vcov_rx="vcov_rx.matrix.*.*")
uncompared("vcov_rx.matrix.*.*", "bossa shows no covariance that takes θ as known")
setting("profile.lme4.*.*", "R interpolates these; `exact` solves for them")
setting("r2_nakagawa.performance.*", "the same by another package")
setting("glmmTMB.**", "a second program's fit, which vouches for the reference")
setting("ngrps.*", "a count of the data")
setting("ranef.*.n_levels", "a count of the data")
