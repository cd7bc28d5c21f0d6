"""What does the fit say of new rows? Their linear predictor, offset included, or the mean it stands for.

A prediction is a Target of one Linear step, X β + offset, shown through the inverse link: tests and limits are made on the link scale,
so they never leave the range of the response. Rows with a missing value give a null row; rows are never lost. A prediction interval
needs the variance of a new response too: `Target.details["new"]` says for which rows (`Infer` adds it).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from ..errors import NotYet, OptionError, UnknownOption
from ..kernels.link import Link
from ..state.design import Problem
from ..state.fit import FitState
from ..state.inference import PredictionState
from ..state.target import Each, Linear, Target

TYPES = ("response", "link")
NEW_LEVELS = ("error", "population", "sample")
VARYING = ("include", "exclude")


def shown_through(link: Link) -> Each | None:
    """The map from the linear predictor to the mean; None for the identity."""
    if link.name == "identity":
        return None
    return Each(name=f"the inverse {link.name} link", function=link.inverse, slope=link.slope, inverse=link.link)


def predict(
    problem: Problem,
    fit: FitState,
    newdata: Any,
    *,
    type: str = "response",
    varying: str = "include",
    new_levels: str = "error",
    n_points: int = 50,
) -> PredictionState:
    """Predictions for the rows of a frame, or for the grid of a query.

    newdata     polars frame, or a query such as "wt ~ cyl@[4, 6]" (numeric focal without values: n_points over its range)
    type        "response" | "link"
    varying     "include" | "exclude" the random effects (mixed models)
    new_levels  groups the fit did not have: "error" | "population" | "sample"
    """
    for value, among, name in ((type, TYPES, "type"), (varying, VARYING, "varying"), (new_levels, NEW_LEVELS, "new_levels")):
        if value not in among:
            raise UnknownOption(value, among, where="predict()", kind=name)
    if isinstance(n_points, bool) or not isinstance(n_points, (int, np.integer)) or n_points < 1:
        raise OptionError(f"n_points={n_points!r} is not a whole number of at least 1.", where="predict()")
    if problem.design.random is not None and varying == "include":
        raise NotYet("predictions with random effects are not built yet.", where="predict()", do="Use varying='exclude'.")
    if isinstance(newdata, str):
        raise NotYet("predictions of a query are being built.", where="predict()", do="Give a frame of new rows.")
    return _of_rows(problem, fit, newdata, type)


def _of_rows(problem: Problem, fit: FitState, frame: pl.DataFrame, type: str) -> PredictionState:
    rows = problem.encoder.rows(frame)
    X = np.asarray(rows.X)[:, problem.design.kept]
    target = Target(
        labels=frame,
        steps=(Linear(matrix=X, offset=rows.offset, label="rows of the new data"),),
        kind="predictions",
        scale=type,
        back=shown_through(problem.link) if type == "response" else None,
    )
    value = target.value(fit.coef)
    shown = value if target.back is None else np.asarray(target.back.value(value))
    missing = int((~rows.ok).sum())
    notes = (f"{missing} row{'s have' if missing > 1 else ' has'} a missing value and no prediction.",) if missing else ()
    return PredictionState(newdata=frame, target=target, fitted=shown, type=type, varying="exclude", notes=notes)
