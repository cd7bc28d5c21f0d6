"""Which model predicts best what it has not seen? Every model left out of the same folds, and the difference of their errors row by row.

Source: Stone (1974); Vehtari, Gelman & Gabry (2017) §5 for the standard error of a paired difference.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import FitFailed
from ..infer.crossval import CrossValidation, assign, out_of_fold
from ..infer.scores import losses
from .nesting import WHERE, Candidate


def crossvalidated(models: list[Candidate], options: CrossValidation) -> tuple[dict[str, Any], list[str]]:
    """cv_rmse or cv_deviance of each model, cv_delta to the best with its standard error; and what must be said.

    Folds are those of the first model with random effects, else of the first: whole groups where there are any.
    """
    folds, _, said = assign(next((c for c in models if c.mixed), models[0]).problem, options)
    squared = models[0].problem.family.name == "gaussian" or any(c.fit.aux for c in models)
    notes, rows = [said], []
    if any(c.fit.aux for c in models):
        notes.append("errors are squared: deviances at shapes of their own cannot be compared")
    for c in models:
        fitted, told = out_of_fold(c.problem, c.fit, folds, options)
        notes += told
        design = c.problem.design
        rows.append(np.square(np.asarray(design.y) - fitted) if squared else losses(c.problem, fitted))
    L = np.array(rows)  # (models, n)
    known = np.isfinite(L).all(axis=0)
    if not known.any():
        raise FitFailed("no fold could be predicted by every model without it.", where=WHERE, do="Use fewer folds, or simpler models.")
    if not known.all():
        notes.append(f"{int((~known).sum())} rows that some model could not predict without their fold are left out of all errors")
    design = models[0].problem.design
    counts = (np.ones(design.n) if design.freq is None else np.asarray(design.freq))[known]
    error = L[:, known] @ counts / counts.sum()
    best = int(np.argmin(error))
    alone = folds.max() + 1 == design.n
    columns: dict[str, Any] = {"cv_rmse": np.sqrt(error)} if squared else {"cv_deviance": error}
    columns["cv_delta"] = error - error[best]
    columns["cv_delta_se"] = [_paired(d, counts, None if alone else folds[known]) for d in L[:, known] - L[best, known]]
    what = "squared error" if squared else "deviance"
    notes.append(f"cv_delta: mean {what} of a row beyond that of the best model")
    notes.append(f"cv_delta_se: from the scatter of the differences of {'rows' if alone else 'folds'}")
    return columns, list(dict.fromkeys(notes))


def _paired(difference: np.ndarray, counts: np.ndarray, folds: np.ndarray | None) -> float:
    """Standard error of the mean difference: units that are left out together are one draw."""
    total = difference * counts
    each = total if folds is None else np.bincount(folds, total)
    shares = counts if folds is None else np.bincount(folds, counts)
    each, shares = each[shares > 0], shares[shares > 0]
    K = len(each)
    if K < 2 or not difference.any():
        return math.nan
    mean = each.sum() / shares.sum()
    return float(math.sqrt(K / (K - 1) * np.square(each - mean * shares).sum()) / shares.sum())
