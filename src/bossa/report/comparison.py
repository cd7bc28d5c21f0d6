"""`compare(m1, m2, …)` and what it shows."""

from __future__ import annotations

from html import escape
from typing import Any

import polars as pl
from attrs import frozen

from ..comparison.compare import ComparisonState, Options, compare_fits
from ..comparison.nesting import WHERE, Candidate
from ..errors import NotFitted, OptionError
from . import html
from .text import grid, lay_out

TITLES = {
    "f": "{} tests",
    "lrt": "likelihood ratio tests, {}",
    "rao": "score tests, {}",
    "boot": "likelihood ratios, bootstrap p-values",
    "aic": "information criteria",
    "cv": "errors of predictions out of fold",
}
AGAINST = {False: "each model against the one above", True: "each against the full model"}


@frozen(repr=False, eq=False)
class Comparison:
    """Fits of the same data, one row each.

    frame  model, npar, deviance (not of mixed models), loglik, aic, aicc, bic, aic_delta, aic_weight, then df1, df2, statistic,
           p_value … of the tests, in the row of the larger model
    how    "f" | "lrt" | "rao" | "aic" | "boot" | "cv", as resolved;  notes: every choice that changed a number
    """

    frame: pl.DataFrame
    how: str
    title: str
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        lines = lay_out(grid(self.frame, self.title))
        return "\n".join([*lines, *(["", *(f"- {n}" for n in self.notes)] if self.notes else [])])

    def _repr_html_(self) -> str:
        notes = f"<ul>{''.join(f'<li>{escape(n)}</li>' for n in self.notes)}</ul>" if self.notes else ""
        return html.wrap(html.grid(grid(self.frame, self.title)) + notes)


def compare(
    *models: Any,
    how: str = "auto",
    refit: bool | None = None,
    df: str = "auto",
    drop: str | None = None,
    names: list[str] | None = None,
    n_boot: int | None = None,
    seed: Any = None,
    n_jobs: int | None = None,
    k: int | str | None = None,
    holdout_group: str | None = None,
) -> Comparison:
    """Fitted models of the same rows side by side, the smaller first: criteria, and tests of each within the next.

    how     "auto": "f" where a dispersion is estimated (linear, gamma, quasi …), else "lrt"; "f" also tests fixed effects of linear mixed
            models | "lrt" | "rao" (score test) | "aic" (criteria alone: no nesting needed) | "boot" (simulated likelihood ratio)
            | "cv" (errors of predictions out of the same folds: no nesting needed)
    refit   linear mixed models: None: by ML where the fixed parts differ; True: always; False: never (refused where that is wrong)
    df      of how="f": "residual" | "inf" (χ²); linear mixed models: "kenward-roger" (default) | "satterthwaite"
    drop    "varying": one mixed model against itself without each of its random-effects terms
    names   of the rows; None: the formulas
    n_boot, seed, n_jobs   of how="boot"; seed and n_jobs of how="cv" too
    k, holdout_group       of how="cv": folds (default 10) or "loo"; column whose groups are left out whole (mixed models: their own)

    >>> from bossa import compare, load_dataset, model
    >>> cars = load_dataset("mtcars")
    >>> compare(model("mpg ~ wt", cars).fit(), model("mpg ~ wt + hp", cars).fit()).frame["df1"].to_list()
    [None, 1.0]
    """
    options = Options(how=how, refit=refit, df=df, drop=drop, n_boot=n_boot, seed=seed, n_jobs=n_jobs, k=k, holdout_group=holdout_group)
    state = compare_fits(_candidates(models, names), options)
    return Comparison(state.frame, state.how, _title(state, drop is not None), state.notes)


def _title(state: ComparisonState, dropping: bool) -> str:
    title = TITLES[state.how].format(state.statistic_name)
    return title if state.how in ("aic", "cv") else f"{title}: {AGAINST[dropping]}"


def _candidates(models: tuple[Any, ...], names: list[str] | None) -> list[Candidate]:
    for m in models:
        if getattr(m, "spec", None) is None:
            raise OptionError(f"{type(m).__name__} is not a model.", where=WHERE, do="Give fitted models: compare(m1, m2).")
        if m.fit_state is None:
            raise NotFitted(
                f"model({m.spec.formula!r}) is not fitted yet.", where=WHERE, do="Verbs return new models: write m = m.fit() and give that."
            )
    made = _formulas(models) if names is None else list(names)
    if len(made) != len(models) or len(set(made)) < len(made):
        raise OptionError(f"names={names!r} does not name {len(models)} models apart.", where=WHERE)
    return [Candidate(name, m.problem, m.fit_state) for name, m in zip(made, models)]


def _formulas(models: tuple[Any, ...]) -> list[str]:
    """The formulas, numbered where two models share one."""
    formulas = [m.spec.formula for m in models]
    return [f if formulas.count(f) == 1 else f"({i}) {f}" for i, f in enumerate(formulas, 1)]
