"""Comparisons of models: information criteria of each, tests between them (compare)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from corpus import Case, number
from quantities import Number, reader, uncompared

from readers.mixed import same_group

# R's name of a test → how bossa is asked for it
ASKED: dict[str, dict[str, Any]] = {
    "F": {"how": "f"},
    "Chisq": {"how": "lrt"},
    "LRT": {"how": "lrt"},
    "Rao": {"how": "rao"},
    "lrtest": {"how": "lrt"},
    "refitML": {"how": "lrt", "refit": True},
    "noRefit": {"how": "lrt", "refit": False},
    "KR": {"how": "f", "df": "kenward-roger"},
    "SAT": {"how": "f", "df": "satterthwaite"},
}
# R's column → bossa's
COLUMNS = {
    "npar": "npar",
    "#Df": "npar",
    "aic": "aic",
    "bic": "bic",
    "loglik": "loglik",
    "LogLik": "loglik",
    "rss": "deviance",
    "resid_dev": "deviance",
    "df": "df1",
    "ndf": "df1",
    "ddf": "df2",
    "chisq": "statistic",
    "F": "statistic",
    "stat": "statistic",
    "statistic": "statistic",
    "rao": "statistic",
    "p": "p_value",
}


@reader(fits=("compare",), compare_ic=("ic.aic.*", "ic.bic.*", "ic.akaike_weights.*"), compare_aicc="ic.aicc.*")
def criteria(case: Case) -> Iterator[Number]:
    """AIC, AICc and BIC of each model as fitted, and the weights that AIC gives them."""
    rows = [m.diagnostics.row(0, named=True) for m in fits(case)]
    best = min(row["aic"] for row in rows)
    weights = [math.exp(-(row["aic"] - best) / 2) for row in rows]
    for i, row in enumerate(rows):
        for key in ("aic", "aicc", "bic"):
            if case.reference(("ic", key, i)) is not None:
                yield Number(("ic", key, i), row[key])
        if case.reference(("ic", "akaike_weights", i)) is not None:
            yield Number(("ic", "akaike_weights", i), weights[i] / sum(weights))


def fits(case: Case) -> list[Any]:
    return [case.fit({**record, "contrasts_used": {}}) for record in case.record["models"]]


@reader(fits=("compare",), compare_tests="tests.*.table.*.*")
def tests(case: Case) -> Iterator[Number]:
    """Every table of R's anova(), lmtest's lrtest() and waldtest(), pbkrtest's KRmodcomp() and SATmodcomp()."""
    from bossa import compare

    models = fits(case)
    for t, test in enumerate(case.at("tests")):
        path, table = ("tests", t, "table"), test["table"]
        linear = case.record["models"][0]["fit"] == "lm"
        if test["test"] == "waldtest":  # each pair with the dispersion of its own larger model
            for i in range(1, len(models)):
                row = compare(models[i - 1], models[i], how="f").frame.row(1, named=True) | {"df_resid": models[i].fit_state.df_resid}
                yield from compare_row((*path, i), table[i], row, case)
            continue
        asked = {"how": "f", "df": "inf"} if linear and test["test"] in ("Chisq", "Cp") else ASKED[test["test"]]
        rows = list(compare(*models, **asked).frame.iter_rows(named=True))
        if test["test"] in ("KR", "SAT"):  # the second row of KR is F before Kenward and Roger's scaling, which bossa does not show
            yield from compare_row((*path, 0), table[0], rows[1], case)
            continue
        for i, row in enumerate(table):
            yield from compare_row((*path, i), row, rows[i] | derived(models, rows, i), case)


def derived(models: list[Any], rows: list[dict[str, Any]], i: int) -> dict[str, float]:
    """What R shows beside: residual df, drop of the deviance, Mallows' Cp (models in the order of the table)."""
    fit = models[i].fit_state
    out = {"df_resid": fit.df_resid, "cp": fit.deviance + 2 * models[-1].fit_state.dispersion * len(fit.coef)}
    return out | ({"drop": rows[i - 1]["deviance"] - rows[i]["deviance"]} if i and "deviance" in rows[i] else {})


def compare_row(path: tuple, reference: dict[str, Any], ours: dict[str, Any], case: Case) -> Iterator[Number]:
    names = COLUMNS | {"res_df": "df_resid", "resid_df": "df_resid", "sumsq": "drop", "cp": "cp", "deviance": "drop"}
    for key, expected in reference.items():
        if number(expected) is None or key == "F.scaling":
            continue
        if key == "deviance" and "loglik" in reference:  # anova.merMod's is −2 log-likelihood
            yield Number((*path, key), -2 * ours["loglik"])
        else:
            yield Number((*path, key), ours[names[key]], "p" if key == "p" else "relative")


@reader(fits=("lmer", "glmer"), ranova="ranova.*.*")
def ranova(case: Case) -> Iterator[Number]:
    """lmerTest's ranova: the model without each random-effects term, matched by its label."""
    from bossa import compare

    if not case.has("ranova"):
        return
    rows = list(compare(case.model, drop="varying").frame.iter_rows(named=True))
    for i, reference in enumerate(case.at("ranova")):
        found = [rows[0]] if i == 0 else [r for r in rows[1:] if same_term(r["model"].removeprefix("without "), reference["term"])]
        if len(found) != 1:
            raise AssertionError(f"{reference['term']} is {len(found)} of {[r['model'] for r in rows[1:]]}")
        yield from compare_row(("ranova", i), {k: v for k, v in reference.items() if k != "term"}, found[0], case)


def same_term(ours: str, theirs: str) -> bool:
    """(1 | g), x in (x | g): the same column of the same factor, however the bar is written."""

    def parts(label: str) -> tuple[str, str]:
        bar = label.partition(" in ")[2] or label
        columns, _, group = bar.strip("()").partition(" | ")
        return label.partition(" in ")[0] if " in " in label else columns.removeprefix("0 + "), group

    (column, group), (other, there) = parts(ours), parts(theirs)
    return column == other and same_group(group, there)


uncompared("tests.*.table.*.res_df", "of the first model of a Wald test, which stands for no test")
uncompared("tests.*.table.*.*", "KRmodcomp's scaling and its F before it; bossa's F is the scaled one, which is compared")
