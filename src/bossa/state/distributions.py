"""What does a column of simulated data look like? Plain descriptions, drawn by `generate`; a `Normal` is also a prior.

    normal(0, 1)  uniform(0, 10)  factor("a", "b")  values(0, 5, 10)  groups(30)

`per="s"` gives every group of column s one value (a trait of the subject); `within="s"` balances levels inside every group (all
conditions for every subject). Without either, numbers are drawn row by row and levels are balanced over all rows, in random order.
"""

from __future__ import annotations

import math
from typing import Any

from attrs import frozen

from ..errors import OptionError
from ..types import is_number, is_whole


@frozen
class Normal:
    """Normal with mean and standard deviation; per: as a column, one value for each group of that column."""

    mean: float = 0.0
    sd: float = 1.0
    per: str | None = None


@frozen
class Uniform:
    """Uniform between low and high."""

    low: float = 0.0
    high: float = 1.0
    per: str | None = None


@frozen
class Factor:
    """Levels in their order, the first the reference; numbers instead of labels where `numeric`.

    prob  probability of each level, rows independent; None: balanced
    """

    levels: tuple[Any, ...]
    prob: tuple[float, ...] | None = None
    per: str | None = None
    within: str | None = None
    numeric: bool = False


@frozen
class Groups:
    """`count` groups, `size` rows each where given; per: groups of groups; within: every group of that column meets them all."""

    count: int
    size: int | None = None
    per: str | None = None
    within: str | None = None


Column = Normal | Uniform | Factor | Groups


def normal(mean: float = 0.0, sd: float = 1.0, *, per: str | None = None) -> Normal:
    """Normal(mean, sd²): a simulated column, or a prior.

    >>> normal(100, 15)
    Normal(mean=100.0, sd=15.0, per=None)
    """
    return Normal(_number(mean, "mean", "normal()"), _positive(sd, "sd", "normal()"), _column(per, "per", "normal()"))


def uniform(low: float = 0.0, high: float = 1.0, *, per: str | None = None) -> Uniform:
    """Uniform on (low, high)."""
    low, high = _number(low, "low", "uniform()"), _number(high, "high", "uniform()")
    if not low < high:
        raise OptionError(f"low={low:g} is not below high={high:g}.", where="uniform()")
    return Uniform(low, high, _column(per, "per", "uniform()"))


def factor(*levels: Any, prob: Any = None, per: str | None = None, within: str | None = None) -> Factor:
    """A factor with these levels, the first the reference: balanced in random order, or drawn with probabilities `prob`."""
    labels = tuple(str(level) for level in levels)
    return _levelled(labels, prob, per, within, "factor()", numeric=False)


def values(*numbers: float, prob: Any = None, per: str | None = None, within: str | None = None) -> Factor:
    """A numeric column that takes these values (doses, days): balanced in random order, or with probabilities `prob`."""
    checked = tuple(_number(x, "a value", "values()") for x in numbers)
    return _levelled(checked, prob, per, within, "values()", numeric=True)


def groups(count: int, *, size: int | None = None, per: str | None = None, within: str | None = None) -> Groups:
    """A grouping factor of `count` groups, as equal in size as the rows allow; size: rows of each, from which n follows."""
    for value, name in ((count, "count"), (size, "size")):
        if not (is_whole(value) and value >= 1) and not (name == "size" and value is None):
            raise OptionError(f"{name}={value!r} is not a whole number of at least 1.", where="groups()")
    if size is not None and (per is not None or within is not None):
        raise OptionError("size= counts rows, which per= and within= share out themselves.", where="groups()", do="Leave size= out.")
    return Groups(int(count), None if size is None else int(size), _column(per, "per", "groups()"), _column(within, "within", "groups()"))


def _levelled(levels: tuple[Any, ...], prob: Any, per: Any, within: Any, where: str, *, numeric: bool) -> Factor:
    if len(set(levels)) < max(len(levels), 2):
        raise OptionError(f"{', '.join(map(str, levels)) or 'nothing'} is not a list of two or more different levels.", where=where)
    if prob is not None:
        if within is not None:
            raise OptionError("prob= draws levels and within= balances them.", where=where, do="Give one of them.")
        prob = tuple(_number(p, "a probability", where) for p in prob)
        if len(prob) != len(levels) or min(prob) < 0 or not math.isclose(sum(prob), 1.0, rel_tol=1e-9):
            raise OptionError(f"prob={list(prob)} is not one probability for each of the {len(levels)} levels, with sum 1.", where=where)
    return Factor(levels, prob, _column(per, "per", where), _column(within, "within", where), numeric)


def _number(value: Any, name: str, where: str) -> float:
    if not is_number(value) or not math.isfinite(value):
        raise OptionError(f"{name}={value!r} is not a finite number.", where=where)
    return float(value)


def _positive(value: Any, name: str, where: str) -> float:
    number = _number(value, name, where)
    if not number > 0:
        raise OptionError(f"{name}={value!r} is not positive.", where=where)
    return number


def _column(value: Any, name: str, where: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise OptionError(f"{name}={value!r} is not the name of a column.", where=where)
    return value
