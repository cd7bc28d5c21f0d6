"""What all pictures share: the object that is returned, its look, and the words under it.

Colours are Okabe and Ito's, told apart with any colour vision; groups also differ by their marker. Figures are made without pyplot, so
no window, backend or list of open figures is involved.

Source: Okabe & Ito (2008).
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
import polars as pl
from attrs import frozen
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...state.inference import InferenceState
from .. import display

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, SOFT, LINE = "#222222", "#666666", "#D9D9D9"
STYLE: Any = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@frozen(eq=False, repr=False)
class Plot:
    """A matplotlib figure and the frame it draws; a notebook shows the figure.

    figure  matplotlib.figure.Figure;  axes: its axes, in reading order
    frame   polars: every number drawn
    """

    figure: Figure
    frame: pl.DataFrame
    kind: str

    @property
    def axes(self) -> list[Axes]:
        return list(self.figure.axes)

    def save(self, path: str | PathLike[str], dpi: int = 150) -> None:
        """Write the figure; the suffix says how: .png .pdf .svg …"""
        with rc_context(STYLE):
            self.figure.savefig(path, dpi=dpi)

    def __repr__(self) -> str:
        return f"Plot({self.kind}, {self.frame.height} rows in .frame): a notebook shows it; .save('{self.kind}.png') writes it"

    def _repr_png_(self) -> bytes:
        out = io.BytesIO()
        with rc_context(STYLE):
            self.figure.savefig(out, format="png", dpi=110)
        return out.getvalue()


styled = rc_context(STYLE)  # decorates a function that draws; the user's own settings are left alone


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **shared: Any) -> tuple[Figure, np.ndarray]:
    """A figure of so many inches and its axes (rows, columns)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, np.asarray(figure.subplots(rows, columns, squeeze=False, **shared))


def finish(figure: Figure, frame: pl.DataFrame, kind: str, title: str, caption: Sequence[str]) -> Plot:
    """Title above, what the picture shows below, both to the left."""
    width = figure.get_size_inches()[0]
    figure.suptitle(textwrap.fill(title, int(width * 11)), x=0.01, ha="left", fontsize=11, fontweight="bold")
    said = "; ".join(s.rstrip(".") for s in caption if s)
    figure.supxlabel(textwrap.fill(said, int(width * 15.5)), x=0.01, ha="left", fontsize=8, color=SOFT)
    return Plot(figure, frame, kind)


def uncertainty_said(state: InferenceState | None) -> str:
    """Which intervals these are: level, how, errors, adjustment."""
    if state is None or state.interval is None:
        return "No intervals: ask .infer() first"
    options = state.options
    details = [f"errors={options['errors']}"] if options.get("errors", "iid") != "iid" else []
    if options.get("adjust", "none") not in (None, "none"):
        details.append(f"adjusted: {options['adjust']}")
    details += [n for n in state.notes if n.startswith("interval:")]
    side = "" if state.side == "two-sided" else "one-sided "
    return f"{100 * (state.level or 0):.10g}% {side}intervals ({', '.join([state.how, *details])})"


def limits(frame: pl.DataFrame, estimate: str = "estimate") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimates and limits (K,) each, nan where there are none; an open side ends a little beyond all that is finite."""
    middle = frame[estimate].cast(pl.Float64).to_numpy(writable=True)
    if "ci_lower" not in frame.columns:
        return middle, np.full(len(middle), np.nan), np.full(len(middle), np.nan)
    lower, upper = (frame[c].cast(pl.Float64).to_numpy(writable=True) for c in ("ci_lower", "ci_upper"))
    known = np.concatenate((middle, lower, upper))
    known = known[np.isfinite(known)]
    if len(known):
        reach = 0.1 * (np.ptp(known) or 1.0)
        lower[np.isneginf(lower)], upper[np.isposinf(upper)] = known.min() - reach, known.max() + reach
    return middle, lower, upper


def wrapped(words: str) -> str:
    """An axis label in lines that fit beside a panel."""
    return textwrap.fill(words, 40)


def dashed(ax: Axes, value: float, which: str = "x") -> None:
    """A thin dashed line for comparison: at x = value, or at y = value."""
    (ax.axvline if which == "x" else ax.axhline)(value, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)


def labelled(values: Sequence[Any]) -> list[str]:
    """Values of a column as they are written: numbers short, null as –."""
    return [display.cell(v, "plain") for v in values]


def thin(axes: Axes, which: Any) -> None:
    """Grid lines along one axis."""
    axes.grid(True, axis=which)
