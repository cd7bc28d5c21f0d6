"""Which rows belong together, and what do they add up to? Rows are put in order once, and summed run by run."""

from __future__ import annotations

import numpy as np

from ..types import Floats, Ints


class Groups:
    """The G groups of n rows, in the order of their codes (n,); a code without rows is no group.

    order  (n,)  rows, group by group;  starts (G,) where each begins there;  first (G,) a row of each
    """

    def __init__(self, codes: Ints):
        self.order = np.argsort(codes, kind="stable")
        self.starts = np.flatnonzero(np.diff(codes[self.order], prepend=-1))
        self.first = self.order[self.starts]

    @property
    def rows(self) -> list[Ints]:
        """Rows of each group."""
        return np.split(self.order, self.starts[1:])

    def sums(self, v: Floats) -> Floats:
        """v (…, n) → (…, G)"""
        return np.add.reduceat(v[..., self.order], self.starts, axis=-1)

    def sums_of_products(self, v: Floats, columns: Floats) -> Floats:
        """v (…, n), columns (k, n) → (k, …, G)"""
        v = v[..., self.order]
        return np.stack([np.add.reduceat(v * z[self.order], self.starts, axis=-1) for z in columns])
