"""May two fits be compared, and does the smaller lie within the larger?

    check_same_data(candidates)       same rows, response, weights: else an error that says what differs
    step(smaller, larger) → Step      what the larger model has more, or Refused where it does not contain the smaller

Fixed parts are compared as column spaces, so `x + I(x^2)` is `poly(x, 2)`. Random effects are compared block by block: a block (columns
with one covariance) of the smaller model must be a linear image of a block of the larger on the same groups.
"""

from __future__ import annotations

import numpy as np
from attrs import frozen

from ..design.formula import data_names
from ..errors import DataError, OptionError, Refused
from ..estimate.random import full_blocks
from ..kernels.linalg import lengths
from ..state.design import Design, Problem, RETerm
from ..state.fit import FitState
from ..types import Floats, Ints

OUTSIDE = 1e-7  # length of a unit column outside the span of others, beyond which it is not in it
WHERE = "compare()"


@frozen(eq=False)
class Candidate:
    """A fitted model under the name it has in the table."""

    name: str
    problem: Problem
    fit: FitState

    @property
    def mixed(self) -> bool:
        return self.problem.design.random is not None

    @property
    def linear(self) -> bool:
        """Gaussian with identity link: linear models and linear mixed models."""
        return self.problem.family.name == "gaussian" and self.problem.link.name == "identity"


@frozen(eq=False)
class Step:
    """What a larger model has more than a smaller one within it.

    fixed       coefficients
    variances   random-effect columns: each brings a variance that cannot be negative
    parameters  all that is estimated more: coefficients, variances, correlations, shapes
    """

    fixed: int
    variances: int
    parameters: int


# ---------------------------------------------------------------- the same data
def check_same_data(candidates: list[Candidate]) -> None:
    """DataError where rows, response or weights differ between models: their likelihoods would be of different data."""
    first = candidates[0]
    for other in candidates[1:]:
        _check_rows(first, other)
        a, b = first.problem.design, other.problem.design
        if not np.array_equal(a.y, b.y):  # type: ignore[arg-type]
            responses = [str(c.problem.spec.response) for c in (first, other)]
            what = f"the responses are {responses[0]!r} and {responses[1]!r}" if len(set(responses)) == 2 else "the responses differ"
            raise DataError(
                f"{what}: the likelihoods are of different data.", where=WHERE, do="Compare models of one response, on one scale."
            )
        for name in ("weights", "freq"):
            if not _same(getattr(a, name), getattr(b, name)):
                option = "freq_weights" if name == "freq" else name
                raise DataError(
                    f"{first.name!r} and {other.name!r} have different {option}=.", where=WHERE, do="Fit both with the same weights."
                )


def _check_rows(first: Candidate, other: Candidate) -> None:
    a, b = first.problem.design, other.problem.design
    if np.array_equal(a.rows, b.rows) and a.n_data == b.n_data:
        return
    if a.n_data != b.n_data:
        what, do = f"{first.name!r} has data of {a.n_data} rows, {other.name!r} of {b.n_data}", "Fit both to the same data."
    else:
        lone = np.setxor1d(a.rows, b.rows)
        what = f"{first.name!r} uses {a.n} rows, {other.name!r} {b.n}, and {len(lone)} of them only one uses (the first: row {lone[0]})"
        columns = list(dict.fromkeys([*_columns(first.problem), *_columns(other.problem)]))
        do = f"Leave out the rows that either cannot use before fitting: data.drop_nulls({columns})."
    raise DataError(f"{what}: the likelihoods are of different data.", where=WHERE, do=do)


def _columns(problem: Problem) -> list[str]:
    """Columns of the data that a model reads."""
    spec = problem.spec
    exprs = [spec.response, *(f for t in spec.fixed for f in t.factors), *(f for bar in spec.bars for f in bar.factor)]
    exprs += [f for bar in spec.bars for t in bar.lhs for f in t.factors]
    return list(dict.fromkeys(name for e in [*exprs, *spec.offsets] for name in data_names(e)))


def _same(a: Floats | None, b: Floats | None) -> bool:
    return (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))


def check_same_family(candidates: list[Candidate]) -> None:
    """OptionError where a test would cross families or links."""
    kinds = {(c.problem.family.name, c.problem.link.name): c.name for c in candidates}
    if len(kinds) > 1:
        (one, a), (two, b) = list(kinds.items())[:2]
        raise OptionError(
            f"{a!r} is {one[0]} with link {one[1]!r}, {b!r} is {two[0]} with link {two[1]!r}: neither is a special case of the other.",
            where=WHERE,
            do="Use how='aic'.",
        )


# ---------------------------------------------------------------- one within the other
def step(smaller: Candidate, larger: Candidate) -> Step:
    """What `larger` has more than `smaller`; Refused where it does not contain it."""
    a, b = smaller.problem.design, larger.problem.design
    outside = columns_outside(a, b)
    if outside:
        raise _not_nested(smaller, larger, f"the larger fixed part cannot make up {', '.join(map(repr, outside[:4]))}")
    variances = extra_variances(a, b)
    if variances is None:
        raise _not_nested(smaller, larger, "its random effects are not among those of the larger model")
    return Step(len(b.names) - len(a.names), variances, larger.fit.npar - smaller.fit.npar)


def _not_nested(smaller: Candidate, larger: Candidate, why: str) -> Refused:
    return Refused(
        f"{smaller.name!r} is not a special case of {larger.name!r}: {why}.",
        where=WHERE,
        do="Use how='aic', which needs no nesting.",
    )


def columns_outside(smaller: Design, larger: Design) -> list[str]:
    """Names of the columns of the smaller fixed part (or "offset") that the larger cannot make up."""
    X, names = smaller.X, list(smaller.names)
    difference = _offset(smaller) - _offset(larger)
    if np.any(difference):
        X, names = np.column_stack((X, difference)), [*names, "offset"]
    return [name for name, left in zip(names, _outside(larger.X, X)) if left > OUTSIDE]


def _outside(span: Floats, columns: Floats) -> Floats:
    """Length of what the columns of `span` (n, p) leave of each unit column of `columns` (n, j), (j,)."""
    basis = np.linalg.qr(span / lengths(span))[0]
    unit = columns / lengths(columns)
    left = unit - basis @ (basis.T @ unit)
    return np.sqrt(np.einsum("ij,ij->j", left, left))


def _offset(design: Design) -> Floats:
    return np.zeros(design.n) if design.offset is None else design.offset


def same_columns(a: Design, b: Design) -> bool:
    """Equal fixed parts up to a change of sign and order: restricted likelihoods are then of the same contrasts, with the same constant."""
    if len(a.names) != len(b.names) or columns_outside(a, b):
        return False
    volumes = [float(np.log(np.abs(np.diag(np.linalg.qr(d.X, mode="r")))).sum()) for d in (a, b)]
    return abs(volumes[0] - volumes[1]) < 1e-8 * max(1.0, abs(volumes[0]))


# ---------------------------------------------------------------- random effects
@frozen(eq=False)
class Block:
    """Columns Z (n, k) of one covariance, on one partition of the rows."""

    groups: Ints
    Z: Floats


def extra_variances(smaller: Design, larger: Design) -> int | None:
    """How many more random-effect columns the larger model has; None where it does not contain the smaller one's."""
    within, around = _blocks(smaller), _blocks(larger)
    for block in within:
        if not any(np.array_equal(block.groups, other.groups) and _spans(other.Z, block.Z) for other in around):
            return None
    return sum(b.Z.shape[1] for b in around) - sum(b.Z.shape[1] for b in within)


def _blocks(design: Design) -> list[Block]:
    terms = () if design.random is None else design.random.terms
    return [Block(_partition(t), t.Z[:, part]) for t in terms for part in full_blocks(t.mask) or [slice(0, len(t.names))]]


def _partition(term: RETerm) -> Ints:
    """Codes of the groups by first appearance, so that equal partitions are equal arrays."""
    _, first, code = np.unique(term.group, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[code]


def _spans(Z: Floats, part: Floats) -> bool:
    """Is every column of `part` (n, j) a combination of those of Z (n, k), the same on all rows?"""
    return bool((_outside(Z, part) <= OUTSIDE).all())
