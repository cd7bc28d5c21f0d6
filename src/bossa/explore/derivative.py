"""How fast do the columns of the design change with one variable? Exact derivatives, by the chain rule through the formula.

`rates(encoder, frame, name)` gives ∂X/∂x (of the columns that move) and ∂offset/∂x on any rows, so a slope is an ordinary linear
function of the coefficients:

    ∂η/∂x = (∂X/∂x) β + ∂offset/∂x

Elementary functions have their derivative in a table. Bases (`poly`, `bs`, `ns`) are polynomials between knots: they are differentiated
through as many points as determine them, inside the interval that holds x, which is exact. A function passed in `env=` has no known
derivative: central differences of order 8. What jumps (`rank`, `factor`) has no slope, and is refused by name.

Source: Fornberg (1988) for differences of high order; Berrut & Trefethen (2004) eq. 9.4 for differentiating an interpolant.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import polars as pl

from ..design.columns import Codes, Columns, Numbers, Value
from ..design.encoder import Encoder, fill
from ..design.transforms import FUNCTIONS, LEVELLED, MATRIX, bind
from ..errors import Refused
from ..state.spec import COMPARISONS, Call, Expr, Name, Number, Operation, Text, names_in
from ..types import Array, Floats, Ints

WHERE = "explore()"


def _log_slope(x: Array) -> Floats:
    return 1 / np.asarray(x)


def _log2_slope(x: Array) -> Floats:
    return 1 / (np.asarray(x) * np.log(2))


def _log10_slope(x: Array) -> Floats:
    return 1 / (np.asarray(x) * np.log(10))


def _log1p_slope(x: Array) -> Floats:
    return 1 / (1 + np.asarray(x))


def _sqrt_slope(x: Array) -> Floats:
    return 0.5 / np.sqrt(x)


ELEMENTWISE: dict[str, Callable[[Array], Floats]] = {
    "log": _log_slope,
    "log2": _log2_slope,
    "log10": _log10_slope,
    "log1p": _log1p_slope,
    "exp": np.exp,
    "sqrt": _sqrt_slope,
    "abs": np.sign,
}
SCALED = ("center", "scale", "gelman", "norm")
SAME = ("I", "offset")
DIFFERENCES = np.array([1 / 280, -4 / 105, 1 / 5, -4 / 5, 0, 4 / 5, -1 / 5, 4 / 105, -1 / 280])


def rates(encoder: Encoder, frame: pl.DataFrame, name: str, unit: Expr | None = None) -> tuple[Ints, Floats, Floats | None]:
    """Columns (k,) of the formula that move with a variable, their derivatives (n, k), and that of the offset (n,), None where it is 0.

    unit    an expression in the variable: derivatives per unit of it; None: of the variable itself
    raises  Refused where the model has no slope in that variable
    """
    columns = encoder.values(frame)
    rate = _Rate(encoder, columns, name)
    ok = np.ones(frame.height, dtype=bool)
    moving: list[int] = []
    parts: list[Floats] = []
    for info, pieces in zip(encoder.terms, encoder.pieces):
        if name not in info.variables:
            continue
        by_name = [p for p in pieces if any(n.id == name for n in names_in(p.expr))]
        values: dict[Expr, Value] = {p.expr: encoder.atom(columns, p.expr, ok) for p in pieces}
        made = [np.empty((frame.height, info.columns.stop - info.columns.start), order="F") for _ in by_name]
        for out, piece in zip(made, by_name):
            fill(out, pieces, values | {piece.expr: rate.value(piece.expr, values[piece.expr])})
        moving += range(info.columns.start, info.columns.stop)
        parts.append(made[0] if len(made) == 1 else sum(made[1:], made[0]))
    spec = encoder.spec
    shifts = [np.broadcast_to(rate(e), frame.height) for e in spec.offsets if any(n.id == name for n in names_in(e))]
    if spec.offset == name:
        shifts.append(np.ones(frame.height))
    D = np.hstack(parts) if parts else np.zeros((frame.height, 0))
    shift = sum(shifts[1:], shifts[0]) if shifts else None
    if unit is not None:
        per = np.broadcast_to(rate(unit), frame.height)
        D, shift = D / per[:, None], None if shift is None else shift / per
    return np.array(moving, dtype=int), D, shift


class _Rate:
    """Derivatives of expressions on the rows of one frame."""

    def __init__(self, encoder: Encoder, columns: Columns, name: str):
        self.encoder, self.columns, self.name = encoder, columns, name

    def value(self, expr: Expr, value: Value) -> Numbers:
        """The derivative as the value of a piece, (n,) or (n, k) as the piece itself."""
        if isinstance(value, Codes):
            raise self.refused(expr, "is a factor")
        rate = self(expr)
        rate = rate if rate.ndim == value.values.ndim else np.asarray(rate)[..., None]
        return Numbers(np.broadcast_to(rate, value.values.shape), value.names)

    def refused(self, expr: Expr, why: str) -> Refused:
        return Refused(f"{expr} {why}, so it has no slope in {self.name}.", where=WHERE, do=f"Compare values: {self.name}[a - b].")

    def __call__(self, expr: Expr) -> Array:
        """d expr / d name: 0-d or (n,), (n, k) for a basis."""
        if not any(n.id == self.name for n in names_in(expr)):
            return np.float64(0.0)  # type: ignore[return-value]
        if isinstance(expr, Name):
            return np.float64(1.0)  # type: ignore[return-value]
        if isinstance(expr, Operation):
            return self.operation(expr)
        assert isinstance(expr, Call)
        return self.call(expr)

    def numbers(self, expr: Expr, inside: Expr) -> Array:
        return self.columns.numbers(expr, inside)

    def operation(self, expr: Operation) -> Array:
        if expr.op in COMPARISONS or expr.op in ("%/%", "%in%"):
            raise self.refused(expr, "jumps")
        u = self(expr.args[0])
        if len(expr.args) == 1:
            return -u if expr.op == "-" else u
        v = self(expr.args[1])
        if expr.op in ("+", "-"):
            return u + v if expr.op == "+" else u - v
        if expr.op == "%%":
            raise self.refused(expr, "jumps")
        a, b = (self.numbers(arg, expr) for arg in expr.args)
        with np.errstate(all="ignore"):
            if expr.op == "*":
                return u * b + a * v
            if expr.op == "/":
                return (u * b - a * v) / b**2
            by_base = b * np.power(a, b - 1) * u
            return by_base if not np.any(v) else by_base + np.power(a, b) * np.log(a) * v

    def call(self, expr: Call) -> Array:
        function = expr.function
        if function in self.encoder.spec.env:
            return self.differences(expr)
        if (function in LEVELLED and function != "poly") or function in ("rank", "signed_rank", "unclass"):
            raise self.refused(expr, "jumps" if function in ("rank", "signed_rank") else "is a factor")
        (argument, *_), options = bind(expr, FUNCTIONS[function])
        inner = self(argument)
        if function in SAME:
            return inner
        if function in SCALED:
            return inner / self.encoder.learnt[expr][1]
        x = self.numbers(argument, expr)
        if function in MATRIX:
            x = np.broadcast_to(x, self.columns.frame.height)
            return self.basis(expr, x) * np.broadcast_to(inner, x.shape)[:, None]
        base = options.get("base")
        outer = ELEMENTWISE[function](x)
        if function == "log" and isinstance(base, (Number, Text)):
            outer = outer / np.log(float(base.value))  # type: ignore[arg-type]
        return outer * inner

    def basis(self, expr: Call, x: Floats) -> Floats:
        """Derivative (n, k) of poly(), bs() or ns() in its argument."""
        state = self.encoder.learnt[expr]
        apply = FUNCTIONS[expr.function].apply
        assert apply is not None
        if expr.function == "poly":
            degree = state if isinstance(state, int) else len(state[0])
            half = np.maximum(np.abs(x), 1.0) if isinstance(state, int) else np.full(x.shape, 2 * state[1][1])  # b_1 is the sd of the data
            low, high = x - half, x + half
        else:
            degree, breaks = (state[1] - 1 if expr.function == "bs" else 3), np.unique(state[0])
            width = breaks[-1] - breaks[0]
            edges = np.concatenate(([breaks[0] - width], breaks, [breaks[-1] + width]))
            at = np.searchsorted(breaks, x, side="right")
            at[x == breaks[-1]] -= 1
            low, high = np.minimum(edges[at], x), np.maximum(edges[at + 1], x)
        return through_points(partial(apply, state=state), x, low, high, degree)

    def differences(self, expr: Expr) -> Array:
        """Central differences of order 8 of a whole expression."""
        frame, x = self.columns.frame, self.columns.numbers(Name(self.name), expr)
        known = self.encoder.variables[self.name]
        h = 1e-2 * (known.sd or max(abs(known.mean or 0.0), 1.0))
        total: Array = np.zeros(())
        for k, weight in zip(range(-4, 5), DIFFERENCES):
            if weight:
                moved = self.encoder.values(frame.with_columns(pl.Series(self.name, x + k * h)))
                total = total + weight * moved(expr).values  # type: ignore[union-attr]
        return total / h


def through_points(f: Callable[[Floats], Floats], x: Floats, low: Floats, high: Floats, degree: int) -> Floats:
    """Derivative (n, k) at x of functions that are polynomials of `degree` on each [low, high].

    f  u (m,) → (m, k)
    """
    t = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    centre, half = 0.5 * (low + high), 0.5 * (high - low)
    s = (x - centre) / half
    values = np.stack([f(centre + half * ti) for ti in t])
    out = np.zeros(values.shape[1:])
    for j in range(degree + 1):  # derivative of the Lagrange polynomial of point j
        scale = np.prod([t[j] - t[m] for m in range(degree + 1) if m != j])
        slope = np.zeros(len(x))
        for skip in range(degree + 1):
            if skip != j:
                others = [m for m in range(degree + 1) if m not in (j, skip)]
                slope += np.prod([s - t[m] for m in others], axis=0) if others else 1.0
        out += (slope / scale)[:, None] * values[j]
    return out / half[:, None]
