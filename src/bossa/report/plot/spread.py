"""How the groups of a mixed model differ: every group's random effect with its interval, largest on top."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from .. import table
from .figure import COLOURS, Plot, canvas, dashed, finish, styled, thin

NAMED = 60  # groups whose names can be read
WIDE = 1.959963984540054  # of a normal 95% interval, in standard deviations


@styled
def varying(m: table.Readable) -> Plot:
    """Conditional modes ± 1.96 conditional standard deviations, one panel per grouping factor and column, each in its own order."""
    offsets = table.varying_frame(m, "offsets", m.problem, m.fit_state)
    kinds = offsets.select("group", "term").unique(maintain_order=True).rows()
    parts = []
    for group, term in kinds:
        part = offsets.filter((pl.col("group") == group) & (pl.col("term") == term)).sort("estimate", maintain_order=True)
        half = WIDE * pl.col("se") if "se" in part.columns else pl.lit(None, dtype=pl.Float64)
        part = part.with_columns(ci_lower=pl.col("estimate") - half, ci_upper=pl.col("estimate") + half)
        parts.append(part.with_columns(position=np.arange(part.height)))
    frame = pl.concat(parts)
    across = min(len(kinds), 3)
    down = -(-len(kinds) // across)
    tallest = min(max(p.height for p in parts), NAMED)
    figure, axes = canvas(max(5.5, 3.4 * across), 1.3 + down * max(2.2, 0.17 * tallest), down, across)
    for i, ax in enumerate(axes.flat):
        ax.set_visible(i < len(kinds))
    for ax, (group, term), part in zip(axes.flat, kinds, parts):
        _caterpillar(ax, part)
        ax.set(title=f"{term} by {group}", xlabel="difference from the average group")
    caption = ["Conditional modes with 95% intervals (± 1.96 conditional sd, at the estimated variances)", "each panel in its own order"]
    return finish(figure, frame, "varying", f"Random effects of {m.spec.formula}", caption)


def _caterpillar(ax: Any, part: pl.DataFrame) -> None:
    at, few = part["position"].to_numpy(), part.height <= NAMED
    dashed(ax, 0)
    lower, upper = (part[c].fill_null(float("nan")).to_numpy() for c in ("ci_lower", "ci_upper"))
    ax.hlines(at, lower, upper, color=COLOURS[0], linewidth=1.6 if few else 0.6, alpha=1 if few else 0.5)
    ax.plot(part["estimate"].to_numpy(), at, "o", color=COLOURS[0], markersize=4 if few else 1.5)
    ax.set_yticks(at if few else [], part["level"].to_list() if few else [], fontsize=7)
    ax.set_ylim(-1, part.height)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    thin(ax, "x")
    if not few:
        ax.set_ylabel(f"{part.height} groups")
