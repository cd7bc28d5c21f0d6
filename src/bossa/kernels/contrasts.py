"""How does a factor become columns? Coding matrices: row per level, column per coefficient.

`coding(kind, labels, base)` gives the matrix (G, G-1) and a name per column; with an intercept all codings span the same space and
differ in what their coefficients compare. Columns are R's, in R's order:

    treatment   contr.treatment   level − reference (base: the reference, first)
    sum         contr.sum         level − mean of all levels (base: the level left out, last)
    helmert     contr.helmert     level − mean of those before it
    poly        contr.poly        orthonormal polynomials of the position
    sequential  MASS contr.sdif   level − the one before

Source: Venables & Ripley (2002) §6.2.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..types import Floats
from .basis import orthogonal_poly, poly_columns

CODINGS = ("treatment", "sum", "helmert", "poly", "sequential")


def coding(kind: str, labels: tuple[str, ...], base: int | None = None) -> tuple[Floats, tuple[str, ...]]:
    """Matrix (G, G-1) of one coding and its column names.

    kind    one of CODINGS
    labels  (G,)  of the levels
    base    index of the reference (treatment) or of the level left out (sum); None: first, last
    """
    G = len(labels)
    if kind == "treatment":
        others = np.delete(np.arange(G), 0 if base is None else base)
        return np.eye(G)[:, others], tuple(labels[i] for i in others)
    if kind == "sum":
        base = G - 1 if base is None else base
        others = np.delete(np.arange(G), base)
        C = np.eye(G)[:, others]
        C[base] = -1.0
        return C, tuple(labels[i] for i in others)
    row, column = np.arange(G)[:, None], np.arange(1, G)[None, :]
    if kind == "helmert":
        C = np.where(row < column, -1.0, np.where(row == column, column, 0.0))
        return C, tuple(str(j) for j in range(1, G))
    if kind == "sequential":
        return np.where(row < column, column / G - 1.0, column / G), tuple(f"{b}-{a}" for a, b in pairwise(labels))
    scores = np.arange(1.0, G + 1.0)
    C = poly_columns(scores, *orthogonal_poly(scores, G - 1))
    return C, tuple([".L", ".Q", ".C"][j] if j < 3 else f"^{j + 1}" for j in range(G - 1))
