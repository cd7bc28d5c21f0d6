"""What may change places when the null is true, in how many ways, and which of these a plan takes: some at random, or all.

    exchange(X, moved, within, groups, signs) → Exchange        exchange.plan(n_perm, …) → Plan, or None where all are too many

A plan's draw gives orders (b, n) of the rows, which residual stands in each, or signs (b, n). Orders that put equal residuals, or residuals
in equal rows of the design, are one arrangement; all distinct arrangements weigh alike, so they are enumerated instead of the orders.

Source: Pesarin & Salmaso (2010) §2 for conditioning on what is exchangeable; Phipson & Smyth (2010) for exact against random.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from attrs import frozen

from ..kernels.arrange import arrangements, every_sign, log_arrangements, nth_words, random_orders, random_signs
from ..state.plan import BLOCK_CELLS, Plan
from .covariance import distinct_rows

LARGEST = 2**20  # arrangements that n_perm="all" counts through
EQUAL = 11  # decimal places, of the largest, to which residuals that are one and the same agree
COUNTED = 4_096  # of these at a time


@frozen(eq=False)
class Orders:
    """Random orders of n rows, or of whole groups.

    blocks  (U,)    codes: only units (rows, groups) of one code change places
    places  (U, s)  rows of each group, in order; None: every row its own unit
    """

    units: int
    blocks: np.ndarray | None
    places: np.ndarray | None

    def __call__(self, rng: np.random.Generator, start: int, b: int) -> np.ndarray:
        return _of_rows(random_orders(rng, b, self.units, self.blocks), self.places)


@frozen(eq=False)
class EveryOrder:
    """Arrangements start, start + 1, … of all distinct ones.

    labels     (U,)  of units that are alike, those of different blocks different
    by_design  the labels are of places where equal rows of the design stand, else of equal residuals
    """

    labels: np.ndarray
    by_design: bool
    blocks: np.ndarray | None
    places: np.ndarray | None

    def __call__(self, rng: np.random.Generator, start: int, b: int) -> np.ndarray:
        words = nth_words(np.arange(start, start + b), self.labels, self.blocks)
        if not self.by_design:
            return _of_rows(np.unique(self.labels, return_index=True)[1][words], self.places)
        order = np.empty_like(words)
        order[:, np.argsort(self.labels, kind="stable")] = np.argsort(words, axis=1, kind="stable")
        return _of_rows(order, self.places)


@frozen(eq=False)
class Signs:
    """Random signs of `units`: rows, or the groups of codes (n,)."""

    units: int
    codes: np.ndarray | None

    def __call__(self, rng: np.random.Generator, start: int, b: int) -> np.ndarray:
        signs = random_signs(rng, b, self.units)
        return signs if self.codes is None else signs[:, self.codes]


@frozen(eq=False)
class EverySign:
    """Signs start, start + 1, … of all 2^M, of the M units with a residual; codes (n,): unit of each row, −1 for a residual of 0."""

    moving: int
    codes: np.ndarray

    def __call__(self, rng: np.random.Generator, start: int, b: int) -> np.ndarray:
        signs = every_sign(np.arange(start, start + b), self.moving)
        return np.concatenate((signs, np.ones((b, 1))), axis=1)[:, self.codes]


def _of_rows(units: np.ndarray, places: np.ndarray | None) -> np.ndarray:
    """Orders of rows (b, n) from orders of units (b, U)."""
    if places is None:
        return units
    out = np.empty((len(units), places.size), dtype=np.intp)
    out[:, places.ravel()] = places[units].reshape(len(units), -1)
    return out


@frozen(kw_only=True, eq=False)
class Exchange:
    """A way to rearrange n rows: at random, or through all exp(log_count) arrangements."""

    n: int
    signs: bool
    some: Orders | Signs
    every: EveryOrder | EverySign
    log_count: float

    @property
    def moves(self) -> str:
        """What is counted, in words."""
        return "sign flips" if self.signs else "arrangements"

    def count(self) -> int:
        """Number of arrangements; to be asked where it is small."""
        return 2**self.every.moving if isinstance(self.every, EverySign) else arrangements(self.every.labels, self.every.blocks)

    def said(self) -> str:
        """The number in words."""
        if self.log_count < math.log(1e15):
            return f"{self.count():,}"
        return f"about {math.exp(self.log_count):.2g}" if self.log_count < 700 else f"about 10^{self.log_count / math.log(10):,.0f}"

    def plan(self, asked: int | str, **given: Any) -> tuple[Plan, bool] | None:
        """A plan of what `asked` (a number, or "all") comes to, and whether it takes every arrangement; None: "all" are too many.

        given   scheme and seed of the Plan
        """
        unit, few = "sign" if self.signs else "order", self.log_count < math.log(LARGEST if asked == "all" else max(int(asked), 1)) + 1e-6
        if few:
            size = max(1, min(COUNTED, BLOCK_CELLS // self.n))
            return Plan(unit=unit, n=self.count(), rows=self.n, draw=self.every, block_size=size, **given), True
        if asked == "all":
            return None
        return Plan(unit=unit, n=int(asked), rows=self.n, draw=self.some, **given), False


def exchange(X: np.ndarray, moved: np.ndarray, within: np.ndarray | None, groups: np.ndarray | None, signs: bool) -> Exchange:
    """What changes places, and how many distinct arrangements that makes.

    X       (n, c)  what a statistic knows of each row besides its residual
    moved   (K, n)  residuals, of K questions that share arrangements
    within  (n,)    codes: only rows of one code change places;  groups (n,): whole groups change places, or sign
    """
    n = len(X)
    if signs:
        codes = np.arange(n) if groups is None else groups
        units = int(codes.max()) + 1
        moving = np.bincount(codes, weights=np.abs(moved).sum(axis=0), minlength=units) > 0
        every = EverySign(int(moving.sum()), np.where(moving, np.cumsum(moving) - 1, -1)[codes])
        return Exchange(n=n, signs=True, some=Signs(units, groups), every=every, log_count=every.moving * math.log(2))
    places = None if groups is None else np.argsort(groups, kind="stable").reshape(int(groups.max()) + 1, -1)
    units = n if places is None else len(places)
    found = []
    size = np.abs(moved).max(axis=1)
    for known in (X, np.round(moved.T / np.where(size > 0, size, 1.0), EQUAL)):
        labels = distinct_rows(known if places is None else known[places].reshape(units, -1))[1]
        if within is not None:
            labels = np.unique(within * (int(labels.max()) + 1) + labels, return_inverse=True)[1]
        found.append((log_arrangements(labels, within), labels))
    by_design = found[0][0] <= found[1][0]
    log_count, labels = found[0] if by_design else found[1]
    every_order = EveryOrder(labels, by_design, within, places)
    return Exchange(n=n, signs=False, some=Orders(units, within, places), every=every_order, log_count=log_count)
