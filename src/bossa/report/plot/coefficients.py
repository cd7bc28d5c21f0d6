"""Coefficients with their intervals, and how much they are entangled."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from ...errors import Refused
from .. import table
from .figure import COLOURS, INK, Plot, canvas, dashed, finish, limits, styled, thin, uncertainty_said


@styled
def params(m: table.Readable, *, intercept: bool = False) -> Plot:
    """Each coefficient and its interval, in the order of the formula; the intercept where asked for."""
    frame = table.params_frame(m)
    only = frame.height == 1
    if not intercept and not only:
        frame = frame.filter(pl.col("term") != "Intercept")
    figure, axes = canvas(6.5, 1.5 + 0.32 * frame.height)
    null = 0.0 if m.inference is None or m.inference.null is None else float(np.asarray(m.inference.null).flat[0])
    forest(axes[0, 0], frame, frame["term"].to_list(), null=null)
    axes[0, 0].set_xlabel(f"coefficient, {scale_of(m)}")
    left_out = "" if intercept or only else "the intercept is left out (intercept=True shows it)"
    return finish(figure, frame, "params", f"Coefficients of {m.spec.formula}", [uncertainty_said(m.inference), left_out])


def scale_of(m: table.Readable) -> str:
    """The scale of the linear predictor: that of the response, or its link."""
    response, link = str(m.spec.response), m.spec.link.name
    return f"in units of {response}" if link == "identity" else f"on the {link} scale of {response}"


def forest(ax: Any, frame: pl.DataFrame, labels: list[str], *, null: float | None = 0.0, colour: str = COLOURS[0]) -> None:
    """One row per estimate, the first on top: a point on its interval, and a line at the null value."""
    x, lower, upper = limits(frame)
    at = np.arange(len(x))
    if null is not None:
        dashed(ax, null)
    ax.hlines(at, lower, upper, color=colour, linewidth=2.0, zorder=2)
    ax.plot(x, at, "o", color=colour, markersize=6, zorder=3)
    ax.set_yticks(at, labels)
    ax.set_ylim(len(x) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    thin(ax, "x")


@styled
def vif(m: table.Readable, frame: pl.DataFrame) -> Plot:
    """How much the other terms widen each term's interval: gvif_scaled² is a VIF whatever the term's number of columns."""
    if not frame.height:
        raise Refused("there are no terms to compare.", where="plot_vif()")
    frame = frame.with_columns(vif=pl.col("gvif_scaled") ** 2)
    figure, axes = canvas(6.5, 1.5 + 0.32 * frame.height)
    ax, at, values = axes[0, 0], np.arange(frame.height), frame["vif"].to_numpy()
    for line in (5, 10):
        dashed(ax, line)
    ax.hlines(at, 1, values, color=COLOURS[0], linewidth=2, zorder=2)
    ax.plot(values, at, "o", color=COLOURS[0], markersize=6, zorder=3)
    ax.set_yticks(at, frame["term"].to_list())
    ax.set_ylim(frame.height - 0.5, -0.5)
    ax.set_xlim(left=1, right=max(11.0, 1.08 * values.max()) if values.max() > 4 else max(5.5, values.max()))
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.spines["left"].set_visible(False)
    thin(ax, "x")
    ax.set_xlabel("variance inflation (1: none)")
    caption = ["GVIF^(1/df) of each term", "dashed lines at 5 and 10: intervals √5 and √10 times as wide as without the other terms"]
    return finish(figure, frame, "vif", f"Variance inflation in {m.spec.formula}", caption)
