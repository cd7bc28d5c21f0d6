"""Random-effects terms at the door and in words: what cannot be estimated, what changes the numbers, what lies at the boundary.

Shared by linear and generalized mixed models. A term reads `(columns | factor)`; T is its (k, k) lower triangle, b = T u.

Source: the checks of lme4 (Bates et al. 2015, §3.1) and what applied users meet behind them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import DataError, DataWarning, Refused, warn
from ..state.design import Design, REStructure, RETerm
from ..types import Bools, Floats

FLAT = 1e-10  # within-group share of a slope's variation below which it is constant within groups
SINGULAR = 1e-5  # singular value of T, in units where the columns of Z have mean square 1, below which it is 0


def term_label(term: RETerm) -> str:
    """`(1 + x | g)`."""
    return f"({' + '.join('1' if name == 'Intercept' else name for name in term.names)} | {term.factor})"


def check_terms(design: Design, free_scale: bool, where: str) -> None:
    """Errors for terms that no data of this shape can estimate; a DataWarning for slopes that do not vary within groups.

    free_scale  the family has a residual variance of its own (gaussian, gamma …): then an effect per row is confounded with it
    """
    terms = design.random.terms  # type: ignore[union-attr]
    for term in terms:
        _check_levels(term, design, free_scale, where)
    for i, term in enumerate(terms):
        twice = [name for j, name in enumerate(term.names) if name in term.names[:j]]
        if twice:
            raise DataError(f"{term_label(term)} holds {twice[0]!r} twice.", where=where, do="Write the term once.")
        for other in terms[:i]:
            _check_pair(other, term, where)
    flat = [(name, term.factor) for term in terms for name in _constant_within(term)]
    if flat:
        said = "; ".join(f"{name!r} never varies within {factor!r}" for name, factor in flat)
        warn(
            f"{where}: {said}: a random slope is then told from a random intercept only by how unequal the groups are. "
            "Its variance means little; drop the slope from the bars (it may stay a fixed effect).",
            DataWarning,
        )


def _check_levels(term: RETerm, design: Design, free_scale: bool, where: str) -> None:
    G, k, n = len(term.levels), len(term.names), design.n
    if G < 2:
        raise DataError(
            f"the grouping factor {term.factor!r} has one level only ({', '.join(term.levels)}): no variance between groups can be seen.",
            where=where,
            do=f"Drop {term_label(term)}, or group by a column with several levels.",
        )
    if free_scale and k * G >= n:
        what = "as many levels as rows" if k == 1 and n == G else f"{k * G:,} random effects for {n:,} rows"
        raise DataError(
            f"{term_label(term)} has {what}: its effects and the residual cannot be told apart.",
            where=where,
            do="Group by something that is observed more often, or drop a slope.",
        )


def _check_pair(one: RETerm, two: RETerm, where: str) -> None:
    if one.factor == two.factor:
        shared = [name for name in two.names if name in one.names]
        if shared:
            raise DataError(
                f"{term_label(one)} and {term_label(two)} both hold {shared[0]!r} of {one.factor!r}: their variances cannot be told apart.",
                where=where,
                do="Write the term once.",
            )
    elif len(one.levels) == len(two.levels) and one.names == two.names:
        pairs = np.unique(one.group.astype(np.int64) * len(two.levels) + two.group)
        if len(pairs) == len(one.levels):
            raise DataError(
                f"{one.factor!r} and {two.factor!r} split the rows into the same groups: their variances cannot be told apart.",
                where=where,
                do=f"Drop {term_label(two)}.",
            )


def _constant_within(term: RETerm) -> list[str]:
    """Columns that vary, but never within a group."""
    found = []
    size = np.bincount(term.group, minlength=len(term.levels))
    for name, z in zip(term.names, term.Z.T):
        z = z - z.mean()
        total = z @ z
        sums = np.bincount(term.group, z, len(term.levels))
        within = total - (sums**2 / np.maximum(size, 1)).sum()
        if total > 1e-20 * len(z) and within <= FLAT * total:
            found.append(name)
    return found


def term_factors(random: REStructure | None, theta: Floats | None) -> list[Floats]:
    """T (…, k, k) of each random-effects term, b_g = σ T u_g, from θ (…, t), column-major within a term."""
    assert random is not None
    assert theta is not None
    made, start = [], 0
    for term in random.terms:
        T = np.zeros((*theta.shape[:-1], *term.mask.shape))
        cols, rows = np.nonzero(term.mask.T)
        T[..., rows, cols] = theta[..., start : start + len(rows)]
        start += len(rows)
        made.append(T)
    return made


def full_blocks(mask: Bools) -> list[slice] | None:
    """Consecutive columns whose part of T is a full lower triangle, nothing between them; None where `mask` (k, k) is no such thing."""
    k, start, found = len(mask), 0, []
    while start < k:
        stop = start + int(mask[start:, start].sum())
        found.append(slice(start, stop))
        start = stop
    whole = np.zeros_like(mask)
    for block in found:
        size = block.stop - block.start
        whole[block, block] = np.tril(np.ones((size, size), dtype=bool))
    return found if (whole == mask).all() else None


def boundary_names(term: RETerm, T: Floats, scale: Floats) -> tuple[str, ...]:
    """What of a term lies at the boundary, in words: variances of 0, correlations of ±1, or a combination without variance.

    T      (k, k)  lower triangle
    scale  (k,)    root mean square of each column of Z: `SINGULAR` is judged in its units
    """
    sd = np.sqrt((T**2).sum(axis=1))
    zero = sd * scale < SINGULAR
    found = [f"variance of {name} in {term.factor}" for name, z in zip(term.names, zero) if z]
    live = np.flatnonzero(~zero)
    for block in full_blocks(term.mask) or [slice(0, len(T))]:
        inside = [i for i in live if block.start <= i < block.stop]
        if len(inside) < 2:
            continue
        unit = T[inside] / sd[inside, None]
        values = np.linalg.svd(unit, compute_uv=False)
        if values[-1] > SINGULAR:
            continue
        if len(inside) == 2:
            a, b = (term.names[i] for i in inside)
            sign = "+1" if unit[0] @ unit[1] > 0 else "−1"
            found.append(f"correlation of {a} and {b} in {term.factor} ({sign})")
        else:
            names = ", ".join(term.names[i] for i in inside)
            found.append(f"a combination of {names} in {term.factor}")
    return tuple(found)


def boundary_words(names: Sequence[str]) -> tuple[str, str]:
    """Message and advice for what lies at the boundary."""
    variances = [n.removeprefix("variance of ") for n in names if n.startswith("variance of ")]
    correlations = [n.removeprefix("correlation of ") for n in names if n.startswith("correlation of ")]
    others = [n for n in names if n.startswith("a combination")]
    said, advice = [], []
    if variances:
        said.append(f"the variance of {listed(variances)} is estimated as 0: the groups differ no more than residual noise explains")
        advice.append(
            "Report it, or drop the term: the fixed effects stay (nearly) what they are. It does not show that the groups are equal."
        )
    if correlations:
        said.append(f"the correlation of {listed(correlations)} is estimated at its limit: the data cannot tell the two apart")
        advice.append("Write `||` instead of `|` to leave the correlation out, or drop the slope.")
    if others:
        said.append(f"{listed(others)} has no variance: the data support fewer random effects than the formula asks for")
        advice.append("Leave out the slope with the smallest variance, or write `||` instead of `|`.")
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}.", " ".join(advice)


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def refuse_zero_residual(where: str) -> Refused:
    return Refused(
        "the fixed effects reproduce the response exactly: nothing is left for random effects and residual.",
        where=where,
        do="Check that the response is not computed from the predictors.",
    )
