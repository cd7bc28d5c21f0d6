"""Replicates of one fixed design: a seeded, lazily generated list of re-weightings (frequencies), new responses, or rearranged residuals.

A resampling method is a plan, not a loop. Block i draws from its own stream, and the block size depends on the number of rows and the
size of what is drawn for each alone, so the numbers do not depend on the number of workers, the machine, or the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from attrs import field, frozen

from ..errors import OptionError
from ..kernels.streams import stream
from .fields import array, check_axes

BLOCK_BYTES = 32_000_000  # of what is drawn for one block
BLOCK_CELLS = BLOCK_BYTES // 8  # so many numbers
MOST = 256  # replicates of one block


@frozen(kw_only=True, eq=False)
class Replicates:
    """One block: `freq` (b, n), of any type of number, multiplies the design's counts, or `y` (b, n) replaces its response."""

    freq: np.ndarray | None = array("b", "n", optional=True)
    y: np.ndarray | None = array("b", "n", optional=True)

    __attrs_post_init__ = check_axes

    @property
    def size(self) -> int:
        return len(self.freq if self.freq is not None else self.y)  # type: ignore[arg-type]


@frozen(kw_only=True, eq=False)
class Plan:
    """B replicates.

    scheme   name, for display
    unit     "row" | "group": draw gives frequencies;  "response": responses;  "order" | "sign": how residuals are rearranged
    n        B, number of replicates
    rows     n, rows of the design
    seed     entropy (kernels.streams.entropy)
    draw     draw(rng, start, b) → (b, n); picklable; deterministic schemes (jackknife, folds) use `start` and ignore rng
    said     what the scheme does, one sentence
    cell     bytes of one number drawn
    """

    scheme: str
    unit: str
    n: int
    rows: int
    seed: Any
    draw: Callable[[np.random.Generator, int, int], np.ndarray]
    said: str = ""
    cell: int = 8
    block_size: int = field()

    @block_size.default
    def _block_size(self) -> int:
        return max(1, min(MOST, BLOCK_BYTES // (self.cell * max(self.rows, 1))))

    @property
    def blocks(self) -> int:
        return -(-self.n // self.block_size)

    def drawn(self, i: int) -> np.ndarray:
        """What is drawn for replicates i·size … of the plan (b, n); the same whoever asks."""
        if not 0 <= i < self.blocks:
            raise OptionError(f"block {i} is not one of the plan's {self.blocks}.", where=f"Plan({self.scheme!r})")
        start = i * self.block_size
        return self.draw(stream(self.seed, i), start, min(self.block_size, self.n - start))

    def block(self, i: int) -> Replicates:
        """The data of those replicates, of a plan of frequencies or responses."""
        return Replicates(y=self.drawn(i)) if self.unit == "response" else Replicates(freq=self.drawn(i))


@frozen(kw_only=True, eq=False)
class Draws:
    """Refits of B replicates; row i is replicate i. code 0: usable; else why not (estimate.many.REASONS).

    se, df (B, p)  standard errors and degrees of freedom of the coefficients, where asked for
    b (B, m)       the random effects that were asked for
    """

    coef: np.ndarray = array("B", "p")
    sigma: np.ndarray = array("B")
    code: np.ndarray = array("B")
    se: np.ndarray | None = array("B", "p", optional=True)
    theta: np.ndarray | None = array("B", "t", optional=True)
    loglik: np.ndarray | None = array("B", optional=True)
    df: np.ndarray | None = array("B", "p", optional=True)
    b: np.ndarray | None = array("B", "m", optional=True)
    planned: int = 0

    __attrs_post_init__ = check_axes
