"""How large are the errors of predictions by fits that have not seen the row, and how much smaller does each term make them?

    error = Σ (y − μ̂₍fold₎)²  (gaussian),  or the deviance;      pre of a term = 1 − error / error without the term

Source: Judd, McClelland & Ryan (2017) for proportional reduction in error; Hanley & McNeil (1982) for the area under the ROC curve.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import FitFailed
from ..state.design import Problem
from ..state.inference import CVState
from ..types import Floats, Ints


def losses(problem: Problem, fitted: Floats) -> Floats:
    """Squared error of each row, or its deviance, prior weights included (n,)."""
    design, family = problem.design, problem.family
    with np.errstate(all="ignore"):
        each = (
            np.square(np.asarray(design.y) - fitted)
            if family.name == "gaussian"
            else np.asarray(family.deviance(np.asarray(design.y), fitted))
        )
    return each if design.weights is None else each * design.weights


def importance(problem: Problem, folds: Ints, fitted: list[Floats], removed: list[tuple[str, ...]]) -> dict[str, Floats]:
    """pre and pre_sd on every row of its term; nan for the intercept."""
    design = problem.design
    counts = np.ones(design.n) if design.freq is None else design.freq
    K = len(design.names)
    pre, sd = np.full(K, np.nan), np.full(K, np.nan)
    full = losses(problem, fitted[0]) * counts
    k = int(folds.max()) + 1
    for labels, other in zip(removed[1:], fitted[1:]):
        reduced = losses(problem, other) * counts
        both = np.isfinite(full) & np.isfinite(reduced)
        rows = np.array([design.terms[t] == labels[0] for t in design.term_of])
        total = reduced[both].sum()
        pre[rows] = 1 - full[both].sum() / total if total > 0 else np.nan
        if k < design.n and both.any():
            with np.errstate(divide="ignore", invalid="ignore"):
                each = 1 - np.bincount(folds[both], full[both], k) / np.bincount(folds[both], reduced[both], k)
            sd[rows] = each[np.isfinite(each)].std(ddof=1) if np.isfinite(each).sum() > 1 else np.nan
    return {"pre": pre, "pre_sd": sd}


def columns_of_rows(problem: Problem, state: CVState) -> dict[str, Any]:
    """cv_fitted, cv_residual, cv_fold on every row of the data; null in those not used."""
    design = problem.design
    columns = {"cv_fitted": state.fitted, "cv_residual": state.residual, "cv_fold": state.fold + 1.0}
    if design.n == design.n_data:
        return columns
    for name, values in columns.items():
        columns[name] = np.full(design.n_data, np.nan)
        columns[name][design.rows] = values
    return columns


def unpredicted(state: CVState) -> Iterator[str]:
    lost = int(np.isnan(state.fitted).sum())
    if lost:
        yield f"{lost} rows could not be predicted: the fit without their fold does not determine them; they are left out of the numbers"


def scored(problem: Problem, folds: Ints, fitted: Floats) -> CVState:
    """Predictions and the numbers of `diagnostics`, each row by its count: squared and absolute errors without prior weights."""
    design = problem.design
    some: Any = np.isfinite(fitted)
    if not some.any():
        raise FitFailed(
            "no fold could be predicted by a fit without it.", where="infer(how='cv')", do="Use fewer folds, or a simpler model."
        )
    if some.all():
        some = slice(None)
    w = (np.ones(design.n) if design.freq is None else design.freq)[some]
    residual = np.asarray(design.y) - fitted
    y, mu, e, total = design.y[some], fitted[some], residual[some], w.sum()  # type: ignore[index]
    squared = float(w @ (e * e) / total)
    numbers = {"cv_rmse": math.sqrt(squared), "cv_mae": float(w @ np.abs(e) / total)}
    if problem.family.name == "gaussian":
        about = y - w @ y / total
        spread = float(w @ (about * about) / total)
        numbers["cv_rsquared"] = 1 - squared / spread if spread > 0 else math.nan
    else:
        numbers["cv_deviance"] = float(w @ losses(problem, fitted)[some] / total)
    if problem.family.name == "binomial" and np.isin(y, (0, 1)).all():
        numbers["cv_accuracy"] = float(w @ ((mu > 0.5) == (y == 1)) / total)
        numbers["cv_auc"] = area_under_roc(y == 1, mu, w)
    return CVState(fitted=fitted, residual=residual, fold=folds, numbers=numbers)


def area_under_roc(positive: np.ndarray, score: Floats, weight: Floats) -> float:
    """P(score of a positive row > that of a negative one), ties half.   positive (n,) bool, score (n,), weight (n,) counts"""
    values, place = np.unique(score, return_inverse=True)
    up = np.bincount(place, weight * positive, len(values))
    down = np.bincount(place, weight * ~positive, len(values))
    if up.sum() == 0 or down.sum() == 0:
        return float("nan")
    below = np.cumsum(down) - down
    return float((up * (below + 0.5 * down)).sum() / (up.sum() * down.sum()))
