"""Cross-validation, profiles, resampling: numbers of a how other than "asymp"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import polars as pl
from corpus import Case
from quantities import Number, reader, setting, uncompared

from readers.params import compare_row


@reader(fits=("glm",), profile="profile.exact.*.*")
def profile(case: Case) -> Iterator[Number]:
    """Profile-likelihood limits of the coefficients; a gaussian glm is a linear model to bossa, with t in place of R's normal quantile."""
    if case.has("profile") and not case.linear:
        frame = case.model.infer(how="profile", conf_level=case.level).params
        for i, row in enumerate(case.at("profile", "exact")):
            yield from compare_row(("profile", "exact", i), row, frame, i, case.at("coef", i, "se"), limits="estimate7")


@reader(fits=("lm",), cv=("cv.loo.*", "cv.kfold5.*"))
def cross_validation(case: Case) -> Iterator[Number]:
    """Leave-one-out, and five fixed folds: row i of those used is in fold i mod 5. Splines keep the knots of all rows, as in R."""
    if not case.has("cv"):
        return
    model = knots_given(case)
    loo = model.infer(how="cv", k="loo").diagnostics.row(0, named=True)
    made = {"rmse": loo["cv_rmse"], "mse": loo["cv_rmse"] ** 2, "mae": loo["cv_mae"], "press": loo["cv_rmse"] ** 2 * loo["n"]}
    yield from (Number(("cv", "loo", key), mine) for key, mine in made.items())
    yield Number(("cv", "loo", "r2"), loo["cv_rsquared"], "scaled", 1.0)
    if case.id == "lm_sleep_paired":
        return  # see `uncompared`
    used = model.metadata["used"]
    fold = pl.Series("fold_", (used.cast(pl.Int64).cum_sum() - 1) % 5)
    m = model.update(". ~ .")._then(data=case.data.with_columns(fold)).fit().infer(how="cv", holdout_group="fold_")
    row = m.diagnostics.row(0, named=True)
    for key, mine in (("rmse", row["cv_rmse"]), ("mse", row["cv_rmse"] ** 2), ("mae", row["cv_mae"])):
        yield Number(("cv", "kfold5", key), mine)


def knots_given(case: Case) -> Any:
    """The fitted model with the knots of `bs(x, df = k)` and `ns(x, df = k)` written out: quantiles of the rows used."""
    found = re.search(r"\b(bs|ns)\((\w+), df = (\d+)\)", case.record["formula"])
    if found is None:
        return case.model
    spline, name, df = found.groups()
    x = case.data.filter(case.model.metadata["used"])[name]
    inner = int(df) - (3 if spline == "bs" else 1)
    knots = ", ".join(f"{x.quantile((i + 1) / (inner + 1), 'linear')!r}" for i in range(inner))
    given = f"{spline}({name}, knots = c({knots}), Boundary.knots = c({float(x.min())!r}, {float(x.max())!r}))"
    return case.model.update(case.record["formula"].replace(found.group(), given)).fit()


@reader(fits=("glm",), cv_glm=("cv.mse", "cv.rmse", "cv.mae", "cv.mean_deviance"))
def leave_one_out(case: Case) -> Iterator[Number]:
    """Each row left out of a generalized linear model, by refits; the deviance of a linear model is its squared error."""
    if case.has("cv"):
        row = case.model.infer(how="cv", k="loo").diagnostics.row(0, named=True)
        yield Number(("cv", "mse"), row["cv_rmse"] ** 2)
        yield Number(("cv", "rmse"), row["cv_rmse"])
        yield Number(("cv", "mae"), row["cv_mae"])
        if not (case.linear and case.record.get("weights")):
            yield Number(("cv", "mean_deviance"), row.get("cv_deviance", row["cv_rmse"] ** 2))


@reader(fits=("lm",), jackknife="jackknife.se.*.*")
def jackknife(case: Case) -> Iterator[Number]:
    """Standard errors by leaving out each row, and the acceleration Σd³/(6 (Σd²)^1.5) of the values without it."""
    if case.has("jackknife"):
        m = case.model.infer(how="boot", scheme="jackknife")
        rows = m.params.filter(pl.col("estimate").is_not_null())
        for i, (term, se) in enumerate(rows.select("term", "se").rows()):
            values = m.resamples.filter(pl.col("term") == term)["estimate"]
            d = values.mean() - values
            yield Number(("jackknife", "se", i, "se"), se)
            yield Number(("jackknife", "se", i, "bca_acceleration"), (d**3).sum() / (6 * (d**2).sum() ** 1.5), "scaled", 1.0)


def simulated(path: tuple, ours: float | None, se: float, replicates: int, mine: int, tail: bool) -> Number:
    """A number from replicates on both sides, on the scale of its Monte Carlo error.

    A standard deviation of B normal draws has error se/√(2B); their 2.5 % quantile se √(.025·.975/B)/φ(1.96) = 2.67 se/√B, here 3.5 for
    tails that are heavier.
    """
    unit = (3.5 if tail else 0.71) * se * (1 / replicates + 1 / mine) ** 0.5
    return Number(path, ours, "resampled", unit)


@reader(fits=("lm",), bootstrap_case="bootstrap.case.*.*")
def bootstrap_rows(case: Case) -> Iterator[Number]:
    if not case.has("bootstrap", "case"):
        return
    R, mine = int(case.at("bootstrap", "R")), 20_000
    made = {k: case.model.infer(how="boot", n_boot=mine, seed=1, ci_type=t).params for k, t in (("perc", "percentile"), ("bca", "bca"))}
    for i, row in enumerate(case.at("bootstrap", "case")):
        path = ("bootstrap", "case", i)
        yield simulated((*path, "se"), made["bca"]["se"][i], row["se"], R, mine, tail=False)
        for kind, frame in made.items():
            for end in ("lower", "upper"):
                yield simulated((*path, f"{kind}_{end}"), frame[f"ci_{end}"][i], row["se"], R, mine, tail=True)


@reader(fits=("lmer",), bootstrap_parametric="bootstrap.table.*.*")
def bootstrap_mixed(case: Case) -> Iterator[Number]:
    """Standard errors of bootMer and its percentile limits: of the coefficients, and of the spread where `varying_spread` has them."""
    if not case.has("bootstrap", "table"):
        return
    R, mine = int(case.at("bootstrap", "nsim")), 4000
    m = case.model.infer(how="boot", n_boot=mine, seed=1, conf_level=case.level)
    spread = m.varying_spread
    for i, row in enumerate(case.at("bootstrap", "table")):
        path, found = ("bootstrap", "table", i), m.params.filter(pl.col("term") == row["term"].replace("(Intercept)", "Intercept"))
        if row["term"] == "sigma":
            found = spread.filter(pl.col("group") == "Residual").with_columns(estimate=pl.col("sd"))
        elif found.height == 0:  # vcK, the K-th row of varcorr: standard deviations, correlations, the residual
            found = spread[int(row["term"][2:]) - 1].with_columns(estimate=pl.col("sd").fill_null(pl.col("corr")))
        yield Number((*path, "estimate"), found["estimate"][0], "estimate", row["se"])
        if "se" in found.columns:
            yield simulated((*path, "se"), found["se"][0], row["se"], R, mine, tail=False)
        for end in ("lower", "upper"):
            yield simulated((*path, end), found[f"ci_{end}"][0], row["se"], R, mine, tail=True)


@reader(permutation=("permutation_exact.t", "permutation_exact.p_two_sided", "permutation_exact.p_greater", "permutation_exact.p_less"))
def permutation(case: Case) -> Iterator[Number]:
    """The difference of two groups, first minus second as in R, against all arrangements."""
    if not case.has("permutation_exact"):
        return
    sides = {"two_sided": "two-sided", "greater": "greater", "less": "less"}
    flip = -1.0 if case.model.infer().params["statistic"][1] * case.at("permutation_exact", "t") < 0 else 1.0
    for name, side in sides.items():
        if flip < 0 and side != "two-sided":
            side = "less" if side == "greater" else "greater"
        row = case.model.infer(how="perm", n_perm="all", alternative=side).params.row(1, named=True)
        if name == "two_sided":
            yield Number(("permutation_exact", "t"), flip * row["statistic"])
        yield Number(("permutation_exact", f"p_{name}"), row["p_value"], "p")


setting("bootstrap.residual.*.*", "R resamples raw residuals; bossa's are divided by √(1 − leverage), as Davison & Hinkley (1997) §6.2.3")
setting("profile.mass.*.*", "R interpolates these; `exact` solves for them")
setting("permutation_exact.n_arrangements", "a count of the arrangements")
for key in ("R", "nsim", "mc_rel_se"):
    setting(f"bootstrap.{key}", "how many replicates R drew")
uncompared("profile.exact.*.*", "a gaussian glm is a linear model to bossa, with a t quantile in place of R's normal one")
uncompared(
    "cv.kfold5.*", "every fold holds all rows of some subjects: R predicts these with a coefficient of 0, bossa does not predict them"
)
uncompared("cv.*", "the mean deviance of a weighted linear model")
