"""Which differences does a named contrast take among G means, in which order, and what is each called?

`rows(method, names, …)` gives (K, G) coefficients and K labels in emmeans' order and direction: `pairwise` earlier − later, `revpairwise`
and `sequential` later − earlier, `treatment` level − reference, `effect` level − mean of all, `del_eff` level − mean of the others,
`mean_chg` mean after − mean before, `helmert` level − mean of the earlier ones, `sum` effect without the omitted level, `poly`
orthogonal polynomials in the smallest whole numbers.

Source: Lenth (2016), contrast families of emmeans; Fisher & Yates (1963) table XXIII for the polynomials.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import gcd, lcm

import numpy as np

from ..types import Floats

Made = tuple[list[list[float]], list[str]]
DEGREES = ("linear", "quadratic", "cubic", "quartic")
ODD = set("+-/*")


def named(level: str) -> str:
    """A level as it stands in a label: between parentheses where it could be read as arithmetic."""
    return f"({level})" if ODD & set(level) else level


def rows(
    method: str, names: Sequence[str], sign: str = "-", base: int | None = None, degree: int | None = None
) -> tuple[Floats, list[str]]:
    """Coefficients (K, G) and labels (K,) of a family of contrasts.

    names   (G,)  of the means, as they stand in the labels
    sign    "-" or "/" (ratios) between them
    base    reference of `treatment` (default the first), omitted level of `sum` (default the last)
    degree  highest degree of `poly`; default up to 6
    """
    names = [named(n) for n in names]
    G = len(names)
    if method == "treatment":
        made = _treatment(names, sign, 0 if base is None else base)
    elif method == "sum":
        omitted = G - 1 if base is None else base
        C, labels = _effect(names, sign)
        made = [c for i, c in enumerate(C) if i != omitted], [label for i, label in enumerate(labels) if i != omitted]
    elif method == "poly":
        made = polynomials(G, min(6 if degree is None else degree, G - 1))
    else:
        made = FAMILIES[method](names, sign)
    return np.array(made[0], dtype=float).reshape(len(made[1]), G), made[1]


def _difference(G: int, plus: Sequence[int], minus: Sequence[int]) -> list[float]:
    c = [0.0] * G
    for i in plus:
        c[i] += 1 / len(plus)
    for i in minus:
        c[i] -= 1 / len(minus)
    return c


def _pairs(names: Sequence[str], sign: str, pairs: Sequence[tuple[int, int]]) -> Made:
    return [_difference(len(names), [i], [j]) for i, j in pairs], [f"{names[i]} {sign} {names[j]}" for i, j in pairs]


def _pairwise(names: Sequence[str], sign: str) -> Made:
    G = len(names)
    return _pairs(names, sign, [(i, j) for i in range(G) for j in range(i + 1, G)])


def _revpairwise(names: Sequence[str], sign: str) -> Made:
    return _pairs(names, sign, [(i, j) for i in range(len(names)) for j in range(i)])


def _sequential(names: Sequence[str], sign: str) -> Made:
    return _pairs(names, sign, [(i + 1, i) for i in range(len(names) - 1)])


def _treatment(names: Sequence[str], sign: str, base: int) -> Made:
    return _pairs(names, sign, [(i, base) for i in range(len(names)) if i != base])


def _effect(names: Sequence[str], sign: str) -> Made:
    everyone = range(len(names))
    return [_difference(len(names), [i], everyone) for i in everyone], [f"{n} effect" for n in names]


def _del_eff(names: Sequence[str], sign: str) -> Made:
    G = len(names)
    return [_difference(G, [i], [j for j in range(G) if j != i]) for i in range(G)], [f"{n} effect" for n in names]


def _mean_chg(names: Sequence[str], sign: str) -> Made:
    G = len(names)
    return [_difference(G, range(i + 1, G), range(i + 1)) for i in range(G - 1)], [f"{names[i]}|{names[i + 1]}" for i in range(G - 1)]


def _helmert(names: Sequence[str], sign: str) -> Made:
    G = len(names)
    before = [names[0] if i == 1 else f"({' + '.join(names[:i])})" for i in range(1, G)]
    return [_difference(G, [i], range(i)) for i in range(1, G)], [f"{names[i + 1]} {sign} {b}" for i, b in enumerate(before)]


FAMILIES: dict[str, Callable[[Sequence[str], str], Made]] = {
    "pairwise": _pairwise,
    "revpairwise": _revpairwise,
    "sequential": _sequential,
    "effect": _effect,
    "del_eff": _del_eff,
    "mean_chg": _mean_chg,
    "helmert": _helmert,
}


def polynomials(G: int, degree: int) -> Made:
    """Orthogonal polynomials over G equally spaced levels, in the smallest whole numbers, leading coefficient positive."""
    basis: list[list[Fraction]] = [[Fraction(1)] * G]
    for k in range(1, degree + 1):
        column = [Fraction(i) ** k for i in range(G)]
        for b in basis:
            share = sum(x * y for x, y in zip(column, b)) / sum(y * y for y in b)
            column = [Fraction(x - share * y) for x, y in zip(column, b)]
        basis.append(column)
    out = []
    for column in basis[1:]:
        scale = lcm(*(x.denominator for x in column))
        whole = [int(x * scale) for x in column]
        out.append([float(x // gcd(*whole)) for x in whole])
    return out, [DEGREES[k] if k < len(DEGREES) else f"degree {k + 1}" for k in range(degree)]
