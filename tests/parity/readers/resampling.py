"""Cross-validation, profiles, resampling: numbers of a how other than "asymp"."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
from corpus import Case
from quantities import Number, pending, reader, setting

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
    """Leave-one-out, and five fixed folds: row i of those used is in fold i mod 5."""
    if not case.has("cv"):
        return
    loo = case.model.infer(how="cv", k="loo").diagnostics.row(0, named=True)
    made = {"rmse": loo["cv_rmse"], "mse": loo["cv_rmse"] ** 2, "mae": loo["cv_mae"], "press": loo["cv_rmse"] ** 2 * loo["n"]}
    yield from (Number(("cv", "loo", key), mine) for key, mine in made.items())
    yield Number(("cv", "loo", "r2"), loo["cv_rsquared"], "scaled", 1.0)
    used = case.model.metadata["used"]
    fold = pl.Series("fold_", (used.cast(pl.Int64).cum_sum() - 1) % 5)
    m = case.model.update(". ~ .")._then(data=case.data.with_columns(fold)).fit().infer(how="cv", holdout_group="fold_")
    row = m.diagnostics.row(0, named=True)
    for key, mine in (("rmse", row["cv_rmse"]), ("mse", row["cv_rmse"] ** 2), ("mae", row["cv_mae"])):
        yield Number(("cv", "kfold5", key), mine)


pending(
    cv_glm=("cv.mse", "cv.rmse", "cv.mae", "cv.mean_deviance"),
    jackknife="jackknife.se.*.*",
    bootstrap=("bootstrap.case.*.*", "bootstrap.residual.*.*", "bootstrap.table.*.*"),
    permutation=("permutation_exact.t", "permutation_exact.p_two_sided", "permutation_exact.p_greater", "permutation_exact.p_less"),
)
setting("profile.mass.*.*", "R interpolates these; `exact` solves for them")
setting("permutation_exact.n_arrangements", "a count of the arrangements")
for key in ("R", "nsim", "mc_rel_se"):
    setting(f"bootstrap.{key}", "how many replicates R drew")
