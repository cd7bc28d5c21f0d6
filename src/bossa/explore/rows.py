"""How are rows of the design averaged without holding more than a block of them?

A source of rows has `blocks()`, yielding `RowBlock`s the same every time, and `present(cells)`. `HeldRows` is a grid in memory;
`ObservedRows` encodes the data anew, block by block, with some variables set: memory stays at a block, time is O(n p).
`mean_rows` adds them up to one linear map; `null_space` and `beyond_cells` say what the data cannot determine.

Source: Searle (1971) §5.4 on estimable functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
from attrs import evolve, frozen

from ..design.encoder import Encoder
from ..errors import NotYet
from ..state.design import Problem
from ..state.spec import Expr
from ..state.target import RowBlock, add_by_cell
from ..types import Floats
from .derivative import rates
from .grid import Population, blocks, series


@frozen(kw_only=True, eq=False)
class HeldRows:
    """Rows of a grid, in memory."""

    block: RowBlock
    null: Floats | None = None

    def blocks(self) -> Iterator[RowBlock]:
        yield self.block

    def present(self, cells: int) -> np.ndarray:
        """(cells,) whether any row has weight in the cell."""
        return np.bincount(self.block.cell, self.block.weight, cells) > 0


@frozen(kw_only=True, eq=False)
class ObservedRows:
    """Rows of the data, encoded block by block each time they are read.

    X, offset  the design's own rows, where nothing is set;  null (P, d) directions that the data cannot estimate, or None
    slope      variable whose slope is asked, per unit of `unit` (None: its own)
    """

    encoder: Encoder
    people: Population
    kept: np.ndarray
    slope: str | None = None
    unit: Expr | None = None
    null: Floats | None = None
    X: Any = None
    offset: Any = None

    def blocks(self) -> Iterator[RowBlock]:
        people = self.people
        for code, values, shifts in people.settings:
            untouched = not values and not shifts and self.null is None and self.X is not None
            for rows in blocks(len(people.group)):
                frame = None if untouched and self.slope is None else self.changed(people.frame[rows], values, shifts)
                cell = people.group[rows] + code
                weight = None if people.weight is None else people.weight[rows]
                yield self.block(frame, people.index[rows] if untouched else None, cell, weight)

    def present(self, cells: int) -> np.ndarray:
        """(cells,) whether any row of the data counts for the cell."""
        out, groups = np.zeros(cells, dtype=bool), np.flatnonzero(np.bincount(self.people.group))
        for code, _, _ in self.people.settings:
            out[groups + code] = True
        return out

    def changed(self, frame: pl.DataFrame, values: Mapping[str, Any], shifts: Mapping[str, float]) -> pl.DataFrame:
        known = self.encoder.variables
        new = [series(known[n], [v]).new_from_index(0, frame.height) for n, v in values.items()]
        frame = frame.with_columns(new) if new else frame
        return frame.with_columns(pl.col(n).cast(pl.Float64) + amount for n, amount in shifts.items()) if shifts else frame

    def block(self, frame: pl.DataFrame | None, own: np.ndarray | None, cell: np.ndarray, weight: np.ndarray | None) -> RowBlock:
        if own is not None:
            whole = len(own) == own[-1] - own[0] + 1 if len(own) else True
            rows: Any = slice(own[0], own[-1] + 1) if whole and len(own) else own
            X, offset, full = self.X[rows], None if self.offset is None else self.offset[rows], None
        else:
            full, offset = finite_rows(self.encoder, frame)  # type: ignore[arg-type]
            X = full if self.kept.all() else full[:, self.kept]
        return completed(self, RowBlock(cell=cell, X=X, offset=offset, weight=weight), frame, full)


def finite_rows(encoder: Encoder, frame: pl.DataFrame, offset: bool = True) -> tuple[Floats, Floats | None]:
    """Columns (n, P) and offset of rows; NaN where a transform has no finite value (the log of 0)."""
    with np.errstate(all="ignore"):
        encoded = encoder.rows(frame, offset=offset)
        X = np.asarray(encoded.X)
        if not np.isfinite(X.sum()):
            X = np.where(np.isfinite(X).all(axis=1)[:, None], X, np.nan)
    return X, encoded.offset


def completed(source: ObservedRows, block: RowBlock, frame: pl.DataFrame | None, full: Floats | None) -> RowBlock:
    """A block with its rates, if a slope is asked, and what lies beyond the data.   full (b, P), all columns of the formula"""
    beyond = None if source.null is None else full @ source.null  # type: ignore[operator]
    if source.slope is None:
        return block if beyond is None else evolve(block, beyond=beyond)
    places, rate, rate_offset = rates(source.encoder, frame, source.slope, source.unit)  # type: ignore[arg-type]
    if beyond is not None:
        beyond = np.hstack((beyond, rate @ source.null[places]))  # type: ignore[index]
    there = source.kept[places]
    moving = (np.cumsum(source.kept) - 1)[places[there]]
    return evolve(block, rate=rate[:, there], moving=moving, rate_offset=rate_offset, beyond=beyond)


def null_space(problem: Problem) -> Floats | None:
    """Orthonormal directions (P, d) of the coefficients that the data say nothing about; None: the design has full rank."""
    kept = np.asarray(problem.design.kept)
    if kept.all():
        return None
    if problem.data is None:
        raise NotYet("which effects are estimable needs the rows of the data here.", where="explore()", do="Fit the model again.")
    X = np.asarray(problem.encoder.rows(problem.data).X)
    share = np.linalg.lstsq(X[:, kept], X[:, ~kept], rcond=None)[0]
    out = np.zeros((len(kept), int((~kept).sum())))
    out[kept], out[~kept] = -share, np.eye(out.shape[1])
    return np.linalg.qr(out)[0]


def beyond_cells(source: Any, cells: int, linear: bool) -> Floats:
    """How far the mean row of each cell reaches beyond the data, relative to the size of the rows, (d, cells); with `linear` False no row
    of the cell may."""
    total, size, weight, width = np.zeros((0, cells)), 1e-300, np.zeros(cells), source.null.shape[1]
    for block in source.blocks():
        part = block.beyond[:, -width:] if linear else np.abs(block.beyond)
        total = total if len(total) else np.zeros((part.shape[1], cells))
        add_by_cell(total, part.T, block)
        rows = block.X if block.rate is None or not linear else block.rate
        size = max(size, float(np.abs(rows).max(initial=0.0)))
        weight += np.bincount(block.cell, block.weight, cells)
    return total / np.where(weight > 0, weight, 1.0) / size


def mean_rows(source: Any, cells: int, p: int) -> tuple[Floats, Floats | None]:
    """Weighted means over the rows of each cell of X and offset, or of their rates: (cells, p) and (cells,) or None."""
    total, moved, weight = np.zeros((p, cells)), np.zeros((1, cells)), np.zeros(cells)
    any_offset = False
    for block in source.blocks():
        if block.rate is None:
            add_by_cell(total, block.X.T, block)
            offset = block.offset
        else:
            part = np.zeros((len(block.moving), cells))
            add_by_cell(part, block.rate.T, block)
            total[block.moving] += part
            offset = block.rate_offset
        if offset is not None:
            any_offset = True
            add_by_cell(moved, offset[None], block)
        weight += np.bincount(block.cell, block.weight, cells)
    weight = np.where(weight > 0, weight, 1.0)  # an empty cell is not estimable, and said to be
    return (total / weight).T, (moved / weight)[0] if any_offset else None
