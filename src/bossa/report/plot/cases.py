"""The rows behind a model: their residuals, the design matrix they became, and how the variables go together."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import polars as pl

from ...design.formula import data_names
from ...errors import NotFitted
from .. import table
from .estimates import cloud
from .figure import COLOURS, INK, SOFT, Plot, canvas, dashed, finish, labelled, styled, thin

ROWS_SHOWN = 400  # of a design matrix
VARIABLES = 6  # of a matrix of scatter plots
BINS = 12  # of a trend


@styled
def resid(m: table.Readable, casewise: dict[str, np.ndarray]) -> Plot:
    """Residuals against fitted values, their normal quantiles, their size, and leverage.   casewise: name → (n,)"""
    from scipy.special import ndtri

    linear = "deviance_resid" not in casewise
    residual, name = (casewise["resid"], "residual") if linear else (casewise["deviance_resid"], "deviance residual")
    standard, scaled = casewise.get("std_resid"), f"standardised {name}"
    if standard is None:  # mixed models
        standard, scaled = residual / m.fit_state.sigma, f"{name} / σ" if linear else name
    known = np.isfinite(standard)
    rank = np.full(len(standard), np.nan)
    rank[known] = np.argsort(np.argsort(standard[known], kind="stable")) + 1.0
    numbers = {"fitted": casewise["fitted"], "residual": residual, "std_resid": standard}
    numbers["normal_quantile"] = ndtri((rank - 0.5) / known.sum())
    numbers |= {c: casewise[c] for c in ("hat", "cooksd") if c in casewise}
    frame = table.beside(pl.DataFrame({"row": m.problem.design.rows}), numbers)
    figure, axes = canvas(9.0, 7.2, 2, 2)
    (a, b, c, d), fitted = axes.flat, casewise["fitted"]
    trend = _against(a, fitted, residual, "fitted value", name, "Is anything left?")
    dashed(a, 0, "y")
    cloud(b, numbers["normal_quantile"][known], standard[known])
    b.axline((0, 0), slope=1, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
    b.set(xlabel="normal quantile", ylabel=scaled, title="Are they normal?")
    _against(c, fitted, np.sqrt(np.abs(standard)), "fitted value", f"√|{scaled}|", "Is the spread even?")
    if "hat" in numbers:
        cloud(d, numbers["hat"], standard)
        dashed(d, 0, "y")
        d.set(xlabel="leverage", ylabel=scaled, title="Does a row decide alone?")
    else:
        d.hist(standard[known], bins=30, color=COLOURS[0], alpha=0.75)
        d.set(xlabel=scaled, ylabel="rows", title="How are they spread?")
    for ax in axes.flat:
        thin(ax, "both")
    caption = ["orange: medians of consecutive rows" if trend else ""]
    if "cooksd" in numbers and _name_largest(d, frame):
        caption.append("numbers: rows of the data with the largest Cook's distances, from 0")
    if m.problem.family.discrete:
        caption.append(f"residuals of a {m.problem.family.name} response lie on curves and need not be normal")
    return finish(figure, frame, "resid", f"Residuals of {m.spec.formula}", caption)


def _against(ax: Any, x: np.ndarray, y: np.ndarray, xlabel: str, ylabel: str, title: str) -> bool:
    """A cloud and its trend, medians of y in bins of equal counts along x; True where there are enough rows for one."""
    cloud(ax, x, y)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    use = np.isfinite(x) & np.isfinite(y)
    bins = min(BINS, int(use.sum()) // 15)
    if bins < 4 or len(np.unique(x[use])) < bins:
        return False
    parts = np.array_split(np.argsort(x[use], kind="stable"), bins)
    ax.plot([np.median(x[use][p]) for p in parts], [np.median(y[use][p]) for p in parts], color=COLOURS[1], linewidth=1.8)
    return True


def _name_largest(ax: Any, frame: pl.DataFrame) -> int:
    """The rows with the three largest Cook's distances, if they stand out; how many were named."""
    named = frame.filter(pl.col("cooksd") > 4 / frame.height).top_k(3, by="cooksd")
    for row in named.iter_rows(named=True):
        ax.annotate(str(row["row"]), (row["hat"], row["std_resid"]), xytext=(4, 4), textcoords="offset points", fontsize=8, color=INK)
    return named.height


@styled
def design(m: table.Readable) -> Plot:
    """The design matrix as a picture: rows used down, columns across, each scaled to its largest absolute value."""
    from matplotlib.colors import LinearSegmentedColormap

    whole = table.designmat_frame(m)
    n = whole.height
    shown = np.unique(np.linspace(0, n - 1, min(n, ROWS_SHOWN)).astype(int))
    frame = whole[shown]
    X = frame.to_numpy()
    size = np.abs(X).max(axis=0)
    figure, axes = canvas(max(4.5, 1.8 + 0.55 * frame.width), 6.0)
    ax = axes[0, 0]
    colours = LinearSegmentedColormap.from_list("blue to vermillion", [COLOURS[0], "white", COLOURS[1]])
    image = ax.imshow(X / np.where(size > 0, size, 1), aspect="auto", cmap=colours, vmin=-1, vmax=1, interpolation="nearest")
    ax.set_xticks(range(frame.width), frame.columns, rotation=90)
    ax.xaxis.tick_top()
    ticks = np.unique(np.linspace(0, len(shown) - 1, 6).astype(int))
    ax.set_yticks(ticks, [str(r) for r in m.problem.design.rows[shown[ticks]]])
    ax.set_ylabel("row of the data, from 0")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    figure.colorbar(image, ax=ax, shrink=0.4, label="value / largest in its column", ticks=[-1, 0, 1])
    caption = ["colours are the sign and size of each number, column by column"]
    caption += [] if len(shown) == n else [f"{len(shown)} of {n} rows, evenly spaced"]
    return finish(figure, frame, "design", f"Design of {m.spec.formula}", caption)


@styled
def relationships(m: table.Readable) -> Plot:
    """The response and the variables of the formula, two by two."""
    if m.data is None:
        raise NotFitted("there are no data to draw.", where="plot_relationships()", do="Give model(formula, data).")
    names = _variables(m)
    shown = names[:VARIABLES]
    frame = m.data.select(shown)
    if m.fit_state is not None:
        frame = frame[m.problem.design.rows]
    frame = frame.drop_nulls()
    k = len(shown)
    figure, axes = canvas(1.5 + 1.75 * k, 1.2 + 1.75 * k, k, k)
    for (i, down), (j, across) in product(enumerate(shown), enumerate(shown)):
        ax = axes[i, j]
        if j > i:
            _strength(ax, frame[across], frame[down])
        elif i == j:
            _distribution(ax, frame[down])
        else:
            _pair(ax, frame[across], frame[down])
        ax.tick_params(labelsize=7, length=2)
        if i == k - 1:
            ax.set_xlabel(across)
        elif j <= i:
            ax.set_xticklabels([])
        if j == 0:
            ax.set_ylabel(down if i else f"{down}\n(count)")
        elif j < i:
            ax.set_yticklabels([])
    left_out = f"left out: {', '.join(names[VARIABLES:])}" if len(names) > VARIABLES else ""
    caption = ["Above the diagonal: correlation of two numbers (Pearson), share of variance between the levels of a factor (η²)", left_out]
    return finish(figure, frame, "relationships", f"Variables of {m.spec.formula}", [f"{frame.height} rows", *caption])


def _variables(m: table.Readable) -> list[str]:
    """Columns of the data that the formula reads, the response first."""
    spec = m.spec
    exprs = [spec.response, *(f for t in spec.fixed for f in t.factors), *(f for bar in spec.bars for f in bar.factor)]
    exprs += [f for bar in spec.bars for t in bar.lhs for f in t.factors]
    return [n for n in dict.fromkeys(name for e in exprs if e is not None for name in data_names(e)) if n in m.data.columns]


def _codes(values: pl.Series) -> tuple[np.ndarray, list[str] | None]:
    """Numbers as they are; levels as 0, 1, … with their labels."""
    if values.dtype.is_numeric():
        return values.to_numpy(), None
    levels = values.unique().sort().to_list()
    place = {v: i for i, v in enumerate(levels)}
    return np.array([place[v] for v in values.to_list()], dtype=float), labelled(levels)


def _distribution(ax: Any, values: pl.Series) -> None:
    x, labels = _codes(values)
    bins = 20 if labels is None else np.arange(len(labels) + 1) - 0.5
    ax.hist(x, bins=bins, color=COLOURS[0], alpha=0.75, rwidth=0.9 if labels else None)
    _name_levels(ax, "x", labels)


def _pair(ax: Any, across: pl.Series, down: pl.Series) -> None:
    (x, columns), (y, rows) = _codes(across), _codes(down)
    spread = np.random.default_rng(0)  # a little sideways, so that points of one level do not hide each other
    x = x if columns is None else x + spread.uniform(-0.18, 0.18, len(x))
    y = y if rows is None else y + spread.uniform(-0.18, 0.18, len(y))
    cloud(ax, x, y)
    for line in ax.lines:
        line.set_markersize(3)
    _name_levels(ax, "x", columns)
    _name_levels(ax, "y", rows)


def _name_levels(ax: Any, axis: str, labels: list[str] | None) -> None:
    if labels is not None and len(labels) <= 6:
        (ax.set_xticks if axis == "x" else ax.set_yticks)(range(len(labels)), [s[:9] for s in labels])


def _strength(ax: Any, one: pl.Series, two: pl.Series) -> None:
    """Correlation of numbers, or how much of a number's variance lies between the levels of a factor."""
    ax.set_axis_off()
    (x, levels), (y, other) = _codes(one), _codes(two)
    if levels is not None and other is not None:
        return
    if levels is None and other is None:
        value = np.corrcoef(x, y)[0, 1] if np.ptp(x) and np.ptp(y) else np.nan
        text, size = f"r = {value:.2f}", abs(value)
    else:
        group, number = (x, y) if levels is not None else (y, x)
        means = np.bincount(group.astype(int), number) / np.maximum(np.bincount(group.astype(int)), 1)
        total = ((number - number.mean()) ** 2).sum()
        value = ((means[group.astype(int)] - number.mean()) ** 2).sum() / total if total else np.nan
        text, size = f"η² = {value:.2f}", np.sqrt(value)
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", fontsize=9 + 3 * np.nan_to_num(size), color=INK)
