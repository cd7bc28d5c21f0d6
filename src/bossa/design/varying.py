"""How do the random-effects terms of a formula become groups and columns of Z?

Terms on the same grouping factor are one `RETerm` whose mask separates them: `(1 | g) + (0 + x | g)` is `(x || g)`. Left of a bar the
default codings hold (lme4); under `||` every term stands alone, a factor with all its levels in one correlated block.

Source: lme4 `mkReTrms`, `expandDoubleVerts`; Bates et al. (2015) §2.2–2.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

import numpy as np

from ..errors import DataError
from ..state.design import REStructure, RETerm
from ..state.spec import Bar, Expr
from ..types import Bools, Ints
from .columns import Codes, Value
from .encoder import Pieces, Varying, combined_codes, piece_names, z_columns
from .plan import plan


def varying_terms(bars: Iterable[Bar], values: Mapping[Expr, Value], groups: Mapping[Expr, Expr]) -> tuple[Varying, ...]:
    """One entry for each grouping factor, most random effects first.

    values  of all factors on the rows used;  groups: each grouping expression as a factor
    """
    by_factor: dict[frozenset[Expr], list[Bar]] = {}
    for bar in bars:
        by_factor.setdefault(frozenset(bar.factor), []).append(bar)
    out = []
    for same in by_factor.values():
        parts = tuple(groups[e] for e in same[0].factor)
        used, labels = _levels(parts, values)
        blocks = [block for bar in same for block in _blocks(bar, values)]
        pieces = tuple(p for block in blocks for p in block)
        sizes = tuple(sum(len(piece_names(p)) for p in block) for block in blocks)
        names = tuple(n for p in pieces for n in piece_names(p))
        if len(labels) < 2:
            raise DataError(
                f"the grouping factor {same[0].group} has one level only.", where="formula", do="Leave its random-effects term out."
            )
        out.append(Varying(group=same[0].group, parts=parts, used=used, labels=labels, terms=pieces, names=names, blocks=sizes))
    return tuple(sorted(out, key=lambda v: -len(v.labels) * len(v.names)))


def _blocks(bar: Bar, values: Mapping[Expr, Value]) -> list[list[Pieces]]:
    """The bar's terms by correlated block."""
    if bar.correlated:
        return [plan(bar.lhs, values, {})]
    return [plan([term], values, {}) for term in bar.lhs]


def _levels(parts: tuple[Expr, ...], values: Mapping[Expr, Value]) -> tuple[Ints, tuple[str, ...]]:
    """Codes of the combinations that occur, first factor slowest, and their labels `a:b`."""
    factors = [values[e] for e in parts]
    combined, _ = combined_codes(factors)
    used = distinct(combined)
    labels = [f.levels.labels for f in factors if isinstance(f, Codes)]
    if len(labels) == 1:
        return used, tuple(labels[0][i] for i in used)
    places = np.unravel_index(used, [len(own) for own in labels])
    return used, tuple(":".join(own[i] for own, i in zip(labels, row)) for row in zip(*places))


def distinct(codes: Ints) -> Ints:
    """Sorted different codes; by a table of flags where that is the smaller work."""
    top = int(codes.max()) + 1
    if top > 8 * codes.size + 1024:
        return np.unique(codes)
    flags = np.zeros(top, dtype=bool)
    flags[codes] = True
    return np.flatnonzero(flags)


def place_among(used: Ints, codes: Ints) -> Ints:
    """Index in `used` (sorted, all codes occur in it) of every code."""
    if used.size == used[-1] + 1:
        return codes
    if used[-1] > 8 * codes.size + 1024:
        return np.searchsorted(used, codes)
    table = np.empty(used[-1] + 1, dtype=np.intp)
    table[used] = np.arange(used.size)
    return table[codes]


def structure(varying: tuple[Varying, ...], values: Mapping[Expr, Value], n: int) -> REStructure:
    """The random-effects terms of the rows used."""
    terms = []
    for term in varying:
        combined, _ = combined_codes([values[e] for e in term.parts])
        terms.append(
            RETerm(
                factor=term.group,
                names=term.names,
                levels=term.labels,
                group=place_among(term.used, combined),
                Z=z_columns(term, values, n),
                mask=block_mask(term.blocks),
            )
        )
    return REStructure(terms=tuple(terms))


def block_mask(sizes: Iterable[int]) -> Bools:
    """Lower triangular blocks of the given sizes along the diagonal (k, k)."""
    label = np.repeat(np.arange(len(tuple(sizes))), tuple(sizes))
    return np.tril(label[:, None] == label[None, :])


def nesting(random: REStructure) -> tuple[str, ...]:
    """Grouping factors whose levels each lie within one level of another, though the formula writes them side by side."""
    notes = []
    for a, b in combinations(random.terms, 2):
        if set(a.factor.split(":")) & set(b.factor.split(":")):
            continue
        inner, outer = (a, b) if len(a.levels) > len(b.levels) else (b, a)
        if len(inner.levels) == len(outer.levels) or len(inner.levels) == inner.group.size:
            continue
        home = np.empty(len(inner.levels), dtype=outer.group.dtype)
        home[inner.group] = outer.group
        if (home[inner.group] == outer.group).all():
            notes.append(f"Every level of {inner.factor} lies within one level of {outer.factor}: nested, though written side by side.")
    return tuple(notes)
