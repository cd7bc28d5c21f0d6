"""Which functions may a formula call, with which arguments, and what do they learn from the data?

`FUNCTIONS` is the whole list. An elementwise function is `apply(x, **options)`. One that learns is `learn(x, counts, **options)` on
the values present at the fit, then `apply(x, state)` for any rows; the state is plain data. Words of structure (`I`, `offset`,
`cbind`, `factor`, codings …) have neither: `columns` knows what they do.

x (n,) is free of missing values when learnt from, NaN where missing when applied to; counts (n,) or None.

Source: R base::scale, stats::poly, splines::bs, splines::ns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from attrs import field, frozen

from ..errors import DataError, UnknownOption
from ..kernels.basis import bspline, natural_spline, orthogonal_poly, poly_columns
from ..kernels.contrasts import CODINGS
from ..state.spec import Call, Expr
from ..types import Array, Floats, is_number


@frozen
class Function:
    """data: how many leading arguments are evaluated on the rows (None: all);  options: the others, by name, with defaults."""

    data: int | None = 1
    options: Mapping[str, Any] = field(factory=dict)
    apply: Callable[..., Array] | None = None
    learn: Callable[..., Any] | None = None


def bind(call: Call, function: Function) -> tuple[tuple[Expr, ...], dict[str, Expr]]:
    """The arguments of a call: those evaluated on the rows, and the options given, by name.

    R's `Boundary.knots` and Python's `boundary_knots` are the same option; `x=` names the first argument.
    """
    named = {k.replace(".", "_").lower(): v for k, v in call.kwargs}
    args = list(call.args)
    if function.data == 1 and not args and "x" in named and call.function not in ("I", "offset"):
        args.append(named.pop("x"))
    known = list(function.options)
    data = len(args) if function.data is None else function.data
    if len(args) < max(data, 1) or len(args) > data + len(known):
        takes = "columns" if function.data is None else ", ".join(["x"] * data + [f"{k}=" for k in known])
        raise DataError(f"it takes ({takes}).", where=str(call))
    options = dict(zip(known, args[data:]))
    for name, value in named.items():
        if name not in known or name in options:
            raise UnknownOption(name, [k for k in known if k not in options] or ["nothing else"], where=str(call), kind="argument")
        options[name] = value
    return tuple(args[:data]), options


# ---------------------------------------------------------------- moments, ranks
def _moments(x: Floats, counts: Floats | None) -> tuple[float, float]:
    """Mean and standard deviation (divisor N − 1)."""
    N = x.size if counts is None else counts.sum()
    mean = float(x.mean() if counts is None else counts @ x / N)
    d = x - mean
    return mean, float(np.sqrt((d @ d if counts is None else counts @ d**2) / max(N - 1, 1)))


def _spread(x: Floats, counts: Floats | None) -> tuple[float, float]:
    mean, sd = _moments(x, counts)
    if not sd > 0:
        raise DataError("the values are all the same, so they have no spread to divide by.", do="Leave the term out.")
    return mean, sd


def _learn_scale(x: Floats, counts: Floats | None, center: bool, scale: bool) -> tuple[float, float]:
    shift = _moments(x, counts)[0] if center else 0.0
    if not scale:
        return shift, 1.0
    if center:
        return _spread(x, counts)
    N = x.size if counts is None else counts.sum()
    return 0.0, float(np.sqrt((x @ x if counts is None else counts @ x**2) / max(N - 1, 1)))  # R: root mean square


def _learn_center(x: Floats, counts: Floats | None) -> tuple[float, float]:
    return _moments(x, counts)[0], 1.0


def _learn_gelman(x: Floats, counts: Floats | None) -> tuple[float, float]:
    mean, sd = _spread(x, counts)
    return mean, 2 * sd


def _learn_norm(x: Floats, counts: Floats | None) -> tuple[float, float]:
    return 0.0, _spread(x, counts)[1]


def _shift_and_divide(x: Floats, state: tuple[float, float]) -> Floats:
    return (x - state[0]) / state[1]


def _learn_rank(x: Floats, counts: Floats | None) -> tuple[Floats, Floats]:
    """The different values and how many lie at or below each, with a leading 0."""
    values, index = np.unique(x, return_inverse=True)
    return values, np.append(0.0, np.cumsum(np.bincount(index, counts, values.size)))


def _rank(x: Floats, state: tuple[Floats, Floats]) -> Floats:
    """Mid-rank among the values learnt from; a new value stands between its neighbours."""
    values, below = state
    rank = (below[np.searchsorted(values, x, "left")] + below[np.searchsorted(values, x, "right")] + 1) / 2
    return np.where(np.isnan(x), np.nan, rank)


def _learn_signed_rank(x: Floats, counts: Floats | None) -> tuple[Floats, Floats]:
    return _learn_rank(np.abs(x), counts)


def _signed_rank(x: Floats, state: tuple[Floats, Floats]) -> Floats:
    return np.sign(x) * _rank(np.abs(x), state)


# ---------------------------------------------------------------- polynomials, splines
def _whole(value: Any, name: str, least: int) -> int:
    if not is_number(value) or value != int(value) or value < least:
        raise DataError(f"{name}={value!r} is not a whole number of at least {least}.")
    return int(value)


def _learn_poly(x: Floats, counts: Floats | None, degree: Any, raw: bool) -> tuple[Floats, Floats] | int:
    degree = _whole(degree, "degree", 1)
    if raw:
        return degree
    different = np.unique(x).size
    if degree >= different:
        raise DataError(
            f"degree={degree} needs more than {degree} different values; there are {different}.", do=f"Use degree={max(different - 1, 1)}."
        )
    return orthogonal_poly(x, degree, counts)


def _poly(x: Floats, state: tuple[Floats, Floats] | int) -> Floats:
    return np.column_stack([x**k for k in range(1, state + 1)]) if isinstance(state, int) else poly_columns(x, *state)


def _quantiles(x: Floats, counts: Floats | None, probabilities: Floats) -> Floats:
    """Type-7 quantiles, of the values repeated `counts` times."""
    if counts is None:
        return np.quantile(x, probabilities)
    order = np.argsort(x)
    last = np.cumsum(counts[order])
    at = (last[-1] - 1) * probabilities
    below, above = (x[order][np.searchsorted(last, k, "right")] for k in (np.floor(at), np.ceil(at)))
    return below + (at - np.floor(at)) * (above - below)


def _knots(x: Floats, counts: Floats | None, inner: int, knots: Any, boundary: Any, order: int) -> Floats:
    """Knot sequence with each boundary `order` times; `inner` knots at quantiles unless given."""
    low, high = (x.min(), x.max()) if boundary is None else _vector(boundary, "boundary_knots")
    if not low < high:
        raise DataError("the values are all the same: there is nothing to bend.", do="Leave the term out.")
    if knots is None:
        within = (x >= low) & (x <= high)
        p = np.linspace(0, 1, inner + 2)[1:-1]
        knots = _quantiles(x[within], None if counts is None else counts[within], p)
    else:
        knots = np.sort(_vector(knots, "knots"))
        if knots.size and not (low < knots[0] and knots[-1] < high):
            raise DataError(f"knots must lie strictly between {low:g} and {high:g}.")
    return np.concatenate(([low] * order, knots, [high] * order))


def _vector(value: Any, name: str) -> Floats:
    try:
        vector = np.atleast_1d(np.asarray(value, dtype=float))
    except (TypeError, ValueError):
        vector = np.array([np.nan])
    if vector.ndim != 1 or not np.isfinite(vector).all() or (name == "boundary_knots" and vector.size != 2):
        raise DataError(f"{name}={value!r} is not {'two numbers' if name == 'boundary_knots' else 'a list of numbers'}.")
    return np.sort(vector)


def _learn_bs(
    x: Floats, counts: Floats | None, df: Any, knots: Any, degree: Any, intercept: bool, boundary_knots: Any
) -> tuple[Floats, int, bool]:
    order = _whole(degree, "degree", 1) + 1
    least = order - 1 + bool(intercept)
    inner = 0 if df is None or knots is not None else _whole(df, "df", least) - least
    return _knots(x, counts, inner, knots, boundary_knots, order), order, bool(intercept)


def _bs(x: Floats, state: tuple[Floats, int, bool]) -> Floats:
    knots, order, intercept = state
    return bspline(x, knots, order)[:, 0 if intercept else 1 :]


def _learn_ns(x: Floats, counts: Floats | None, df: Any, knots: Any, intercept: bool, boundary_knots: Any) -> tuple[Floats, bool]:
    least = 1 + bool(intercept)
    inner = 0 if df is None or knots is not None else _whole(df, "df", least) - least
    return _knots(x, counts, inner, knots, boundary_knots, 4), bool(intercept)


def _ns(x: Floats, state: tuple[Floats, bool]) -> Floats:
    return natural_spline(x, *state)


def _log(x: Floats, base: Any = None) -> Floats:
    if base is None:
        return np.log(x)
    if not isinstance(base, (int, float)) or not base > 0 or base == 1:
        raise DataError(f"base={base!r} is not a positive number other than 1.")
    return np.log(x) / np.log(base)


_SPLINE = {"df": None, "knots": None, "degree": 3, "intercept": False, "boundary_knots": None}
FUNCTIONS: dict[str, Function] = {
    "log": Function(options={"base": None}, apply=_log),
    **{name: Function(apply=getattr(np, name)) for name in ("log2", "log10", "log1p", "exp", "sqrt", "abs")},
    "center": Function(learn=_learn_center, apply=_shift_and_divide),
    "scale": Function(options={"center": True, "scale": True}, learn=_learn_scale, apply=_shift_and_divide),
    "gelman": Function(learn=_learn_gelman, apply=_shift_and_divide),
    "norm": Function(learn=_learn_norm, apply=_shift_and_divide),
    "rank": Function(learn=_learn_rank, apply=_rank),
    "signed_rank": Function(learn=_learn_signed_rank, apply=_signed_rank),
    "poly": Function(options={"degree": 1, "raw": False}, learn=_learn_poly, apply=_poly),
    "bs": Function(options=_SPLINE, learn=_learn_bs, apply=_bs),
    "ns": Function(options={k: v for k, v in _SPLINE.items() if k != "degree"}, learn=_learn_ns, apply=_ns),
    "I": Function(),
    "offset": Function(),
    "unclass": Function(),
    "cbind": Function(data=None),
    "factor": Function(options={"levels": None}),
    "C": Function(options={"coding": "treatment", "ref": None, "omit": None}),
    "treatment": Function(options={"ref": None}),
    "sum": Function(options={"omit": None}),
    "helmert": Function(),
    "sequential": Function(),
}
MATRIX = ("poly", "bs", "ns")  # one term, several columns
LEVELLED = ("factor", "C", *CODINGS)  # give a factor (poly only where its argument is one)
RESERVED = ("ar1", "cs", "diag", "us")
