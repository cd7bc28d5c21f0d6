"""K numbers computed from the coefficients by a short pipeline of steps: the question, whatever it is.

A step is `Linear(matrix, offset)`, `Each(function)` or `Average(rows)`; all know their value and their slope, so

    value(coef)     folds the steps;  coef may be (p,) or (S, p), draws at once
    jacobian(coef)  (K, p), by the chain rule

Parameters, marginal means, slopes, contrasts, ratios and predictions are all Targets; a `how` never asks which. Printing the steps is
"show your work".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from ..kernels.groups import Groups
from .fields import array, check_axes


@frozen(kw_only=True, eq=False)
class Linear:
    """x ↦ matrix x + offset.   matrix (K, m), offset (K,) or None."""

    matrix: np.ndarray = array("K", "m")
    offset: np.ndarray | None = array("K", optional=True)
    label: str = ""

    def value(self, x: np.ndarray) -> np.ndarray:
        out = x @ self.matrix.T
        return out if self.offset is None else out + self.offset

    def push(self, x: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
        return self.matrix @ jacobian


@frozen(kw_only=True, eq=False)
class Each:
    """x ↦ function(x), elementwise, with its derivative `slope`; `inverse` where a null value has to be carried back."""

    name: str
    function: Any
    slope: Any
    inverse: Any = None

    def value(self, x: np.ndarray) -> np.ndarray:
        return self.function(x)

    def push(self, x: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
        return self.slope(x)[:, None] * jacobian


@frozen(kw_only=True, eq=False)
class RowBlock:
    """Some rows that are averaged.

    cell    (b,)    mean that each row counts for
    X       (b, p)  with offset (b,), None: 0, and weight (b,), None: 1
    rate    (b, k)  for slopes: ∂X/∂x of the columns `moving` (k,), the others being 0; rate_offset (b,) = ∂offset/∂x
    beyond  (b, d)  part of the row that the data cannot estimate; None: the design has full rank
    """

    cell: np.ndarray = array("b")
    X: np.ndarray = array("b", "p")
    offset: np.ndarray | None = array("b", optional=True)
    weight: np.ndarray | None = array("b", optional=True)
    rate: np.ndarray | None = array("b", "k", optional=True)
    moving: np.ndarray | None = array("k", optional=True)
    rate_offset: np.ndarray | None = array("b", optional=True)
    beyond: np.ndarray | None = array("b", "d", optional=True)

    __attrs_post_init__ = check_axes

    def eta(self, coef: np.ndarray) -> np.ndarray:
        """Linear predictor (…, b)."""
        out = coef @ self.X.T
        return out if self.offset is None else out + self.offset

    def delta(self, coef: np.ndarray) -> np.ndarray:
        """Its slope (…, b)."""
        out = coef[..., self.moving] @ self.rate.T  # type: ignore[union-attr]
        return out if self.rate_offset is None else out + self.rate_offset


@frozen(kw_only=True, eq=False)
class Average:
    """β ↦ weighted means over the rows of each cell of what the linear predictor η = Xβ + offset stands for, block by block.

    mean_c = Σ w h(η) / Σ w;   where the rows carry rates, of the slopes  h′(η) ∂η/∂x

    rows      object whose blocks() yields RowBlocks, the same every time; never rows × draws in memory
    cells     C, number of means
    function, slope, curve   h, h′, h″ elementwise
    """

    rows: Any
    cells: int
    function: Any
    slope: Any
    curve: Any
    label: str = ""

    def value(self, x: np.ndarray) -> np.ndarray:
        """coef (…, p) → (…, C)."""
        draws = x.reshape(-1, x.shape[-1])
        total, weight = np.zeros((len(draws), self.cells)), np.zeros(self.cells)
        for block in self.rows.blocks():
            step = max(1, HELD // max(len(block.cell), 1))
            for start in range(0, len(draws), step):
                some = draws[start : start + step]
                eta = block.eta(some)
                mean = self.function(eta) if block.rate is None else self.slope(eta) * block.delta(some)
                add_by_cell(total[start : start + step], mean, block)
            weight += np.bincount(block.cell, block.weight, self.cells)
        with np.errstate(invalid="ignore"):
            return (total / weight).reshape(*x.shape[:-1], self.cells)

    def push(self, x: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
        total, weight = np.zeros((x.size, self.cells)), np.zeros(self.cells)
        for block in self.rows.blocks():
            eta = block.eta(x)
            if block.rate is None:
                add_gradient(total, block.X, self.slope(eta), block)
            else:
                add_gradient(total, block.X, self.curve(eta) * block.delta(x), block)
                moved = np.zeros((len(block.moving), self.cells))
                add_gradient(moved, block.rate, self.slope(eta), block)
                total[block.moving] += moved
            weight += np.bincount(block.cell, block.weight, self.cells)
        with np.errstate(invalid="ignore"):
            return (total / weight).T @ jacobian


HELD = 1_000_000  # draws × rows held at once


def add_by_cell(total: np.ndarray, values: np.ndarray, block: RowBlock) -> None:
    """Add the block's weighted values (…, b) to total (…, C), cell by cell."""
    cell = block.cell
    values = values if block.weight is None else values * block.weight
    if not len(cell):
        return
    if (cell == cell[0]).all():
        total[..., cell[0]] += values.sum(axis=-1)
        return
    cells = Groups(cell)
    total[..., cell[cells.first]] += cells.sums(values)


def add_gradient(total: np.ndarray, X: np.ndarray | None, values: np.ndarray, block: RowBlock) -> None:
    """Add Σ w v x over the rows of each cell to total (p, C).   X (b, p), values v (b,)"""
    assert X is not None
    if len(block.cell) and (block.cell == block.cell[0]).all():
        total[:, block.cell[0]] += X.T @ (values if block.weight is None else values * block.weight)
    else:
        add_by_cell(total, X.T * values, block)


@frozen(kw_only=True, eq=False)
class Target:
    """The question: K labelled rows and the steps that compute them from the coefficients.

    labels     polars frame (K rows): what stands before the numbers in the table
    steps      pipeline; none: the coefficients themselves
    kind       "params" | "means" | "slopes" | "contrasts" | "predictions": used for defaults (adjust) and wording only
    scale      "link" | "response"
    null       the question's own null value as shown: 0, or 1 for ratios; with `back` the test is of 0 before it unless the user says
    back       elementwise monotone map from the tested scale to the shown one (link → response, log → ratio), or None; `value` is
               before it; intervals are mapped through it, standard errors by its slope
    estimable  (K,) bool, None: all;  `reason` says which cell is empty
    family     (K,) int: rows that share multiplicity adjustment, None: one family
    group_size number of means compared in each family (Tukey), None
    notes      choices made (averaging, held values, reference level): always shown
    """

    labels: Any
    steps: tuple[Linear | Each | Average, ...] = ()
    kind: str = "params"
    scale: str = "link"
    null: float = 0.0
    back: Each | None = None
    estimable: np.ndarray | None = array("K", optional=True)
    reason: tuple[str, ...] = ()
    family: np.ndarray | None = array("K", optional=True)
    group_size: np.ndarray | None = array("K", optional=True)
    contrast: str | None = None
    notes: tuple[str, ...] = ()
    details: dict = field(factory=dict)

    def value(self, coef: np.ndarray) -> np.ndarray:
        """coef (…, p) → (…, K)."""
        for step in self.steps:
            coef = step.value(coef)
        return coef

    def cut(self, size: int) -> Iterator[tuple[slice, Target]]:
        """Its rows in order, `size` at a time where the last matrix can be cut; else all at once. Without labels."""
        last = max((i for i, step in enumerate(self.steps) if not isinstance(step, Each)), default=0)
        step = self.steps[last] if self.steps else None
        if not isinstance(step, Linear) or len(step.matrix) <= size:
            yield slice(None), self
            return
        for start in range(0, len(step.matrix), size):
            rows = slice(start, start + size)
            some = evolve(step, matrix=step.matrix[rows], offset=None if step.offset is None else step.offset[rows])
            yield rows, Target(labels=None, steps=(*self.steps[:last], some, *self.steps[last + 1 :]), kind=self.kind, back=self.back)

    def jacobian(self, coef: np.ndarray) -> np.ndarray:
        """coef (p,) → ∂value/∂coef (K, p)."""
        return self.value_and_jacobian(coef)[1]

    def value_and_jacobian(self, coef: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """coef (p,) → (K,) and (K, p)."""
        J = np.eye(coef.shape[-1])
        for step in self.steps:
            J, coef = step.push(coef, J), step.value(coef)
        return coef, J

    def then(self, *steps: Linear | Each | Average, **changes: Any) -> Target:
        return evolve(self, steps=(*self.steps, *steps), **changes)
