"""What a stream has taught, batch by batch: the band of the posterior, and where the stream disagreed."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from .figure import COLOURS, MARKERS, Plot, canvas, finish, styled, thin

PANELS = 12


@styled
def trajectory(stream: pl.DataFrame, formula: str, level: float, smoothed: bool) -> Plot:
    """One panel per number: posterior mean and interval after each batch; alarms marked.

    stream  frame of `.trajectory()`: batch, term (or contrast …), posterior_mean, ci_lower, ci_upper, and alarm where there is one
    """
    names = [c for c in stream.columns[: stream.columns.index("posterior_mean")] if c not in ("batch", "time", "n", "t")]
    panels = stream.select(names).unique(maintain_order=True).rows() if names else [()]
    shown = panels[:PANELS]
    across = min(len(shown), 2)
    down = -(-len(shown) // across)
    figure, axes = canvas(max(6.0, 4.2 * across), 1.3 + 2.4 * down, down, across)
    for i, ax in enumerate(axes.flat):
        ax.set_visible(i < len(shown))
    for panel, ax in zip(shown, axes.flat):
        own = stream if not names else stream.filter(*(pl.col(n).eq_missing(v) for n, v in zip(names, panel)))
        _band(ax, own)
        ax.set_title(", ".join(str(v) for v in panel))
    axes.flat[0].set_ylabel("posterior mean")
    said = [f"Band: {100 * level:.6g} % interval" + (" given all batches" if smoothed else " given the batches so far")]
    said += ["triangle: an alarm" if "alarm" in stream.columns and stream["alarm"].is_not_null().any() else ""]
    said += [f"the first {PANELS} of {len(panels)} numbers" if len(shown) < len(panels) else ""]
    return finish(figure, stream, "trajectory", f"Batch by batch: {formula}", said)


def _band(ax: Any, own: pl.DataFrame) -> None:
    at = np.arange(own.height)
    mean, low, high = (own[c].cast(pl.Float64).fill_null(np.nan).to_numpy() for c in ("posterior_mean", "ci_lower", "ci_upper"))
    bounded = np.isfinite(low) & np.isfinite(high)
    ax.fill_between(at, low, high, where=bounded, color=COLOURS[0], alpha=0.15, linewidth=0)
    ax.plot(at, np.where(bounded, mean, np.nan), color=COLOURS[0], marker=MARKERS[0], markersize=3, linewidth=1.4)
    if "alarm" in own.columns:
        raised = own["alarm"].is_not_null().to_numpy() & bounded
        ax.plot(at[raised], mean[raised], linestyle="none", marker="^", markersize=8, color=COLOURS[1])
    step = max(1, own.height // 8)
    ax.set_xticks(at[::step], [str(b) for b in own["batch"].to_list()[::step]])
    ax.set_xlabel("batch")
    thin(ax, "y")
