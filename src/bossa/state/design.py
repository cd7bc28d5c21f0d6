"""Data and formula as arrays: what every estimator reads, and nothing else of the data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from attrs import evolve, field, frozen

from .fields import array, check_axes


@frozen(kw_only=True, eq=False)
class RETerm:
    """One random-effects term: b_g = T u_g for each level g of one factor, T lower triangular.

    factor  name of the grouping factor ("g", "a:b")
    names   (k,)  column names of Z ("Intercept", "x", "f[b]")
    levels  (G,)  labels of the groups
    group   (n,)  code of each row's group, 0 … G-1
    Z       (n, k)
    mask    (k, k) bool, lower: the free entries of T (diagonal only for `||`)
    """

    factor: str
    names: tuple[str, ...]
    levels: tuple[str, ...]
    group: np.ndarray = array("n")
    Z: np.ndarray = array("n", "k")
    mask: np.ndarray = array("k", "k")

    __attrs_post_init__ = check_axes

    def take(self, rows: np.ndarray) -> RETerm:
        """The term on some of the rows; groups that are left out disappear."""
        present, group = np.unique(self.group[rows], return_inverse=True)
        return evolve(self, levels=tuple(self.levels[g] for g in present), group=group, Z=self.Z[rows])


@frozen(kw_only=True, eq=False)
class REStructure:
    """All random-effects terms, largest q first; θ concatenates each term's free entries of T, column-major within the term."""

    terms: tuple[RETerm, ...]

    @property
    def q(self) -> int:
        return sum(len(t.levels) * len(t.names) for t in self.terms)


@frozen(kw_only=True, eq=False)
class Design:
    """Rows used and columns of the fixed part.

    X        (n, p)  columns kept; before a fit every column of the formula, after it those that rank allows
    y        (n,)    response; a proportion for binomial counts (the trials are in `weights`)
    weights  (n,)    prior weights times trials; None: all 1.  Rows of weight 0 are not here
    freq     (n,)    counts; None: all 1
    offset   (n,)    None: all 0
    names    (p,)    coefficient names of X's columns
    term_of  (p,)    index into `terms` of each column
    terms            term labels in R's order ("Intercept", "x", "g", "x:g")
    columns  (P,)    every coefficient name of the formula, dropped ones included
    kept     (P,)    True where the column is in X
    rows     (n,)    index of each row in the user's data
    n_data           rows of the user's data
    random           REStructure or None
    """

    X: np.ndarray = array("n", "p")
    y: np.ndarray | None = array("n", optional=True)
    weights: np.ndarray | None = array("n", optional=True)
    freq: np.ndarray | None = array("n", optional=True)
    offset: np.ndarray | None = array("n", optional=True)
    names: tuple[str, ...]
    term_of: np.ndarray = array("p")
    terms: tuple[str, ...]
    columns: tuple[str, ...]
    kept: np.ndarray = array("P")
    rows: np.ndarray = array("n")
    n_data: int
    random: REStructure | None = None
    notes: tuple[str, ...] = ()

    __attrs_post_init__ = check_axes

    @property
    def n(self) -> int:
        return self.X.shape[0]

    @property
    def n_obs(self) -> float:
        """Observations: rows, or the sum of their counts."""
        return float(self.n) if self.freq is None else float(self.freq.sum())

    @property
    def total_weights(self) -> np.ndarray | None:
        """weights × freq (n,), None: all 1."""
        if self.weights is None:
            return self.freq
        return self.weights if self.freq is None else self.weights * self.freq

    def blocks(self, size: int = 8192) -> Iterator[slice]:
        """Row slices that together cover the rows; kernels pass over X through these."""
        for start in range(0, self.n, size):
            yield slice(start, min(start + size, self.n))

    def take(self, counts: np.ndarray) -> Design:
        """The rows with a positive count, each standing for that many rows."""
        used = np.flatnonzero(counts > 0)

        def some(x: np.ndarray | None) -> np.ndarray | None:
            return None if x is None else x[used]

        random = self.random
        if random is not None:
            random = evolve(random, terms=tuple(t.take(used) for t in random.terms))
        changes: dict[str, Any] = {"y": some(self.y), "weights": some(self.weights), "offset": some(self.offset), "rows": self.rows[used]}
        return evolve(self, X=self.X[used], freq=np.asarray(counts, dtype=float)[used], random=random, **changes)

    def keep(self, kept: np.ndarray) -> Design:
        """The same rows with only the columns where `kept` (P,) is True."""
        if kept.all():
            return self
        index = np.flatnonzero(kept)
        names = tuple(self.names[i] for i in index)
        return evolve(self, X=self.X[:, index], names=names, term_of=self.term_of[index], kept=kept)


@frozen(kw_only=True, eq=False)
class FitOptions:
    """What `.fit()` was told."""

    nagq: int | None = None
    optimizer: str | None = None
    max_iter: int | None = None
    tol: float | None = None
    start: Any = None


@frozen(kw_only=True, eq=False)
class Problem:
    """A design and how to fit it: all that an estimator or a how needs.

    data    polars frame of the rows used, for columns that the design does not hold (clusters, batches); None after `load`
    source  frame of all rows, where some were left out; None: `data` has them all
    encoder turns any new rows into the same columns
    """

    design: Design
    spec: Any
    family: Any
    link: Any
    method: str
    encoder: Any = None
    data: Any = None
    source: Any = None
    prior: Any = None
    options: FitOptions = field(factory=FitOptions)
