"""Explored effects and predictions: points or lines with their intervals, one colour per group, one panel per condition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from attrs import frozen

from ...design.formula import data_names
from ...state.inference import InferenceState
from .. import display, table
from .coefficients import forest
from .figure import COLOURS, MARKERS, SOFT, Plot, canvas, dashed, finish, labelled, limits, styled, thin, uncertainty_said, wrapped

COLOURED = 7  # groups that colours and markers tell apart
PANELS = 12
MANY = 20_000  # points beyond which a cloud is drawn as counts


@frozen
class Roles:
    """Which column is along x, which is colour, and which make the panels; "" and () for none."""

    x: str
    colour: str = ""
    panels: tuple[str, ...] = ()


def roles(frame: pl.DataFrame, columns: list[str]) -> Roles:
    """A number with the most values goes along x, else the first column; then colour, then panels. Columns of one value have none.

    "row", the position in the frame, goes along x where there is nothing else, or where the rows are no grid.
    """
    varying = [c for c in columns if frame[c].n_unique() > 1] or columns[:1] or ["row"]
    if varying == ["row"]:
        return Roles("row")
    numbers = [c for c in varying if frame[c].dtype.is_numeric() and frame[c].n_unique() > 2]
    x = max(numbers, key=lambda c: frame[c].n_unique()) if numbers else varying[0]
    rest = [c for c in varying if c != x]
    if rest and (lines := frame.select(rest).n_unique()) > COLOURED and 2 * lines > frame.height:
        return Roles("row")  # no grid: every row has its own condition
    colour = next((c for c in rest if frame[c].n_unique() <= COLOURED), "")
    return Roles(x, colour, tuple(c for c in rest if c != colour))


def groups(frame: pl.DataFrame, columns: tuple[str, ...]) -> Iterator[tuple[str, pl.DataFrame]]:
    """(label, rows) of each combination of the columns, as they come; everything, unlabelled, for no columns."""
    if not columns:
        yield "", frame
        return
    for key, part in frame.group_by(list(columns), maintain_order=True):
        named = len(columns) > 1 or any(isinstance(v, (int, float)) for v in key)
        yield ", ".join(f"{c} = {v}" if named else v for c, v in zip(columns, labelled(key))), part


# ---------------------------------------------------------------- effects
@styled
def explore(m: Any) -> Plot:
    """What `.explore()` asked for: contrasts and single slopes as rows, means and slopes by group as points or lines."""
    target = m.focus.target
    state = m.focus_inference if isinstance(m.focus_inference, InferenceState) else None
    shown = table.effects_frame(m) if state is not None or m.focus_inference is None else _plain(m)
    frame = shown.filter(pl.col(_estimate(shown)).is_not_null())
    names = [c for c in target.labels.columns if c in frame.columns]
    words = _effect_words(m)
    caption = [uncertainty_said(state), *(n for n in target.notes if len(n) < 120)]
    title = m.focus.query
    rows = [c for c in names if c in ("contrast", "slope")]
    if target.kind == "contrasts" or not set(names) - set(rows):
        rows = rows or names
        by = tuple(c for c in names if c not in rows and frame[c].n_unique() > 1)
        return _rows(frame, rows, by, words, target.null, title, caption)
    made = _lines(frame, roles(frame, [c for c in names if c not in rows]), _estimate(frame), words, "explore", title, caption)
    for ax in made.axes if target.kind == "slopes" else ():
        dashed(ax, 0, "y")
    return made


def _plain(m: Any) -> pl.DataFrame:
    """Effects without inference: what was made of them was one test of all rows."""
    return table.beside(m.focus.target.labels, {"estimate": m.focus.estimate})


def _estimate(frame: pl.DataFrame) -> str:
    """`estimate`, or the name it got where a column of the data has that name."""
    return "estimate_bossa" if "estimate_bossa" in frame.columns else "estimate"


def _effect_words(m: Any) -> str:
    """What the numbers are, for the axis: mean, difference, ratio or slope, of what, on which scale."""
    target, response, link = m.focus.target, str(m.spec.response), m.spec.link.name
    scaled = response if target.scale == "response" or link == "identity" else f"{link} of {response}"
    if target.kind == "slopes":
        of = target.labels["slope"].unique().to_list() if "slope" in target.labels.columns else []
        return f"slope of {scaled}" + (f" per unit of {of[0]}" if len(of) == 1 else "")
    return f"mean of {scaled}" if target.kind == "means" else f"difference in {scaled}" if target.null == 0 else f"ratio of {scaled}"


def _rows(frame: pl.DataFrame, rows: list[str], by: tuple[str, ...], words: str, null: float, title: str, caption: list[str]) -> Plot:
    """A forest: one row per contrast, one panel per condition."""
    parts = list(groups(frame, by))
    if all(part.height == 1 for _, part in parts):  # one contrast: its conditions are the rows
        rows, parts = [*by, *(c for c in rows if frame[c].n_unique() > 1 or not by)], [("", frame)]
    across = min(len(parts), 3)
    down = -(-len(parts) // across)
    tallest = max(part.height for _, part in parts)
    figure, axes = canvas(max(6.5, 3.6 * across), 1.5 + down * (0.5 + 0.34 * tallest), down, across, sharex=True)
    for i, ax in enumerate(axes.flat):
        ax.set_visible(i < len(parts))
    for i, (ax, (label, part)) in enumerate(zip(axes.flat, parts)):
        names = [", ".join(labelled(v)) for v in part.select(rows).rows()]
        forest(ax, _as_estimate(part), names, null=null)
        ax.set_title(label)
        if null == 1:
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(lambda x, _: display.plain(float(x)))
        if i % across:
            ax.set_yticklabels([])
        if i + across >= len(parts):
            ax.set_xlabel(wrapped(words))
            ax.tick_params(labelbottom=True)
    return finish(figure, frame, "explore", title, caption)


def _as_estimate(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with its numbers under their usual names."""
    clash = {f"{c}_bossa": c for c in ("estimate", "ci_lower", "ci_upper") if f"{c}_bossa" in frame.columns}
    return frame.drop([c for c in clash.values() if c in frame.columns]).rename(clash)


def _lines(frame: pl.DataFrame, plan: Roles, value: str, words: str, kind: str, title: str, caption: list[str]) -> Plot:
    """Numbers along x as lines with ribbons, levels along x as points with bars."""
    if plan.x == "row" and "row" not in frame.columns:
        frame = frame.with_columns(row=np.arange(frame.height))
    parts = list(groups(frame, plan.panels))
    if len(parts) > PANELS:
        caption = [*caption, f"the first {PANELS} of {len(parts)} panels"]
        frame = pl.concat(part for _, part in parts[:PANELS])
        parts = parts[:PANELS]
    across = min(len(parts), 3 if len(parts) > 4 else 2)
    down = -(-len(parts) // across)
    figure, axes = canvas(max(6.5, 3.4 * across), 1.2 + 3.0 * down, down, across, sharex=True, sharey=True)
    for i, ax in enumerate(axes.flat):
        ax.set_visible(i < len(parts))
    for i, (ax, (label, part)) in enumerate(zip(axes.flat, parts)):
        _panel(ax, frame, part, plan, value)
        ax.set_title(label)
        thin(ax, "y")
        if i % across == 0:
            ax.set_ylabel(wrapped(words))
        if i + across >= len(parts):
            ax.set_xlabel(plan.x)
            ax.tick_params(labelbottom=True)
    if plan.colour:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), title=plan.colour, loc="outside right center")
    return finish(figure, frame, kind, title, caption)


def _panel(ax: Any, frame: pl.DataFrame, part: pl.DataFrame, plan: Roles, value: str) -> None:
    levels = frame[plan.x].unique(maintain_order=True).to_list()
    numeric = frame[plan.x].dtype.is_numeric() and len(levels) > 2
    inside = frame[plan.colour].unique(maintain_order=True).to_list() if plan.colour else [None]
    for i, level in enumerate(inside):
        rows = part if level is None else part.filter(pl.col(plan.colour).eq_missing(pl.lit(level)))
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        label = labelled([level])[0]
        y, lower, upper = limits(_as_estimate(rows) if value.startswith("estimate") else rows, value.removesuffix("_bossa"))
        if numeric and plan.x != "row":
            order = np.argsort(rows[plan.x].to_numpy(), kind="stable")
            x = rows[plan.x].to_numpy()[order]
            if len(x) == 1:
                ax.vlines(x, lower, upper, color=colour, linewidth=2)
            ax.fill_between(x, lower[order], upper[order], color=colour, alpha=0.18, linewidth=0)
            ax.plot(x, y[order], color=colour, linewidth=1.8, marker=marker if len(x) <= 12 else None, markersize=5, label=label)
            continue
        shift = 0.0 if len(inside) == 1 else 0.5 * (i / (len(inside) - 1) - 0.5)
        place = {v: k for k, v in enumerate(levels)}
        x = np.array([place[v] for v in rows[plan.x].to_list()]) + shift
        ax.vlines(x, lower, upper, color=colour, linewidth=2)
        ax.plot(x, y, marker, color=colour, markersize=6, label=label)
    if plan.x == "row":
        ax.locator_params(axis="x", integer=True)
    elif not numeric:
        ax.set_xticks(range(len(levels)), labelled(levels))
        ax.set_xlim(-0.6, len(levels) - 0.4)


# ---------------------------------------------------------------- predictions
@styled
def predict(m: Any) -> Plot:
    """Predicted values over what varies in the new rows; for the rows of the data, against what was observed."""
    frame = table.predictions_frame(m)
    value = "fitted_bossa" if "fitted_bossa" in frame.columns else "fitted"
    state = m.focus_inference if isinstance(m.focus_inference, InferenceState) else None
    caption = [uncertainty_said(state), *m.focus.notes]
    response = str(m.spec.response)
    words = f"predicted {response}" if m.focus.type == "response" else f"predicted {response} ({m.focus.type})"
    if m.data is not None and m.focus.newdata.height == m.data.height and m.focus.newdata.equals(m.data):
        return _against_observed(m, frame, value, words)
    used = dict.fromkeys(name for e in _expressions(m.spec) for name in data_names(e))
    names = [c for c in m.focus.newdata.columns if c in used and c != response] or m.focus.newdata.columns
    frame = frame.filter(pl.col(value).is_not_null())
    return _lines(frame, roles(frame, names), value, words, "predict", f"Predictions of {m.spec.formula}", caption)


def _expressions(spec: Any) -> list[Any]:
    bars = [f for bar in spec.bars for f in (*bar.factor, *(g for t in bar.lhs for g in t.factors))]
    return [*(f for t in spec.fixed for f in t.factors), *bars, *spec.offsets]


def _against_observed(m: Any, frame: pl.DataFrame, value: str, words: str) -> Plot:
    """Observed responses against predictions, with the line on which they agree."""
    design = m.problem.design
    frame = pl.DataFrame({"predicted": frame[value].gather(design.rows), "observed": design.y})
    figure, axes = canvas(5.5, 5.5)
    ax = axes[0, 0]
    cloud(ax, frame["predicted"].to_numpy(), frame["observed"].to_numpy())
    ax.axline((design.y[0], design.y[0]), slope=1, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
    ax.set_xlabel(words)
    ax.set_ylabel(f"observed {m.spec.response}")
    return finish(figure, frame, "predict", f"Observed and predicted, {m.spec.formula}", ["One point per row used; on the line they agree"])


def cloud(ax: Any, x: np.ndarray, y: np.ndarray) -> None:
    """A scatter of rows; counts in hexagons where there are more points than can be told apart."""
    if len(x) > MANY:
        ax.hexbin(x, y, gridsize=60, mincnt=1, bins="log", cmap="Blues", linewidths=0)
    else:
        ax.plot(x, y, "o", color=COLOURS[0], markersize=4.5, alpha=0.9 if len(x) < 200 else 0.4, markeredgewidth=0)
