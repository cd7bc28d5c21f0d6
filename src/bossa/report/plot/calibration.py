"""Is a posterior calibrated? Ranks of the truth among its draws: their histogram, and their distribution less the uniform one."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from .figure import COLOURS, SOFT, Plot, canvas, finish, styled, thin

PANELS = 6
BARS = 20


@styled
def calibration(gate: Any) -> Plot:
    """Two panels for each quantity in each stratum: histogram with the range of chance, ECDF less its diagonal with Kolmogorov's band.

    gate  `GateResult` of sbc() or calibrated(): ranks, draws, strata, and the table with the simultaneous bands
    """
    rows = list(gate.table.iter_rows(named=True))[:PANELS]
    figure, axes = canvas(9.0, 1.2 + 1.7 * len(rows), len(rows), 2)
    strata = np.array([None if s is None else str(s) for s in gate.strata], dtype=object)
    frames = []
    for row, (left, right) in zip(rows, axes):
        ranks = gate.ranks[row["quantity"]][strata == row["stratum"]]
        title = row["quantity"] if row["stratum"] is None else f"{row['quantity']}, stratum {row['stratum']}"
        colour = COLOURS[0] if row["passed"] else COLOURS[1]
        _histogram(left, ranks, gate.draws, colour)
        left.set_title(f"{title}: p {row['p_value']:.3g}")
        frames.append(
            _distance(right, ranks, gate.draws, row["ecdf_band"], colour).with_columns(
                quantity=pl.lit(row["quantity"]), stratum=pl.lit(row["stratum"], dtype=pl.String)
            )
        )
        right.set_title(f"distance {row['ecdf_distance']:.3g}, limit {row['ecdf_band']:.3g}")
    axes[-1, 0].set_xlabel("rank of the truth")
    axes[-1, 1].set_xlabel("share of the draws below")
    said = ["Grey: 99 % of bars, and Kolmogorov's band for all curves together, if the posterior is right", "orange: it is not"]
    said += [f"the first {PANELS} of {gate.table.height}" if gate.table.height > PANELS else ""]
    return finish(figure, pl.concat(frames), "calibration", f"Ranks of {len(gate.strata)} simulated truths among {gate.draws} draws", said)


def _histogram(ax: Any, ranks: np.ndarray, draws: int, colour: str) -> None:
    bars = min(BARS, draws + 1)
    n, edges = len(ranks), np.linspace(-0.5, draws + 0.5, bars + 1)
    mean, sd = n / bars, np.sqrt(n / bars * (1 - 1 / bars))
    ax.axhspan(max(mean - 2.576 * sd, 0), mean + 2.576 * sd, color=SOFT, alpha=0.18, linewidth=0)
    ax.hist(ranks, bins=edges, color=colour, alpha=0.8, rwidth=0.9)
    thin(ax, "y")


def _distance(ax: Any, ranks: np.ndarray, draws: int, band: float, colour: str) -> pl.DataFrame:
    at = np.arange(draws + 1)
    below = np.searchsorted(np.sort(ranks), at, side="right") / len(ranks)
    share = (at + 1) / (draws + 1)
    ax.axhspan(-band, band, color=SOFT, alpha=0.18, linewidth=0)
    ax.step(share, below - share, where="post", color=colour, linewidth=1.4)
    thin(ax, "y")
    return pl.DataFrame({"rank": at, "share": share, "ecdf": below})
