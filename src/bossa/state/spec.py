"""What the user asked for, before any data are looked at: the formula as terms, and how to fit it.

An expression (`Expr`) is a small tree; two expressions are equal when they say the same thing, whatever the spacing. A `Term` is a
product of factors; a term without factors is the intercept. Nothing here evaluates anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import field, frozen


@frozen
class Name:
    """A column of the data, or a name passed in `env=`."""

    id: str
    position: int = field(default=0, eq=False)

    def __str__(self) -> str:
        return self.id


@frozen
class Number:
    value: float
    position: int = field(default=0, eq=False)

    def __str__(self) -> str:
        return repr(int(self.value)) if float(self.value).is_integer() and abs(self.value) < 1e15 else repr(self.value)


@frozen
class Text:
    """A quoted string, or TRUE / FALSE / NULL as a keyword (`value` is then True, False or None)."""

    value: str | bool | None
    position: int = field(default=0, eq=False)

    def __str__(self) -> str:
        return f'"{self.value}"' if isinstance(self.value, str) else str(self.value).upper()


# R's precedence of binary operators, loosest first (`?Syntax`); unary signs bind between `:` and `^`
BINDING = {"~": 1, "|": 2, "||": 2, "<": 3, ">": 3, "<=": 3, ">=": 3, "==": 3, "!=": 3, "+": 4, "-": 4, "*": 5, "/": 5}
BINDING |= {"%in%": 6, "%%": 6, "%/%": 6, ":": 7, "^": 9}
UNARY = 8
COMPARISONS = ("<", ">", "<=", ">=", "==", "!=")


@frozen
class Operation:
    """`op` applied to one or two operands; inside calls it is arithmetic."""

    op: str
    args: tuple[Expr, ...]
    position: int = field(default=0, eq=False)

    @property
    def binding(self) -> int:
        """How tightly the operator binds, R's order; see `BINDING`."""
        return UNARY if len(self.args) == 1 else BINDING[self.op]

    def __str__(self) -> str:
        return written(self)


@frozen
class Call:
    function: str
    args: tuple[Expr, ...]
    kwargs: tuple[tuple[str, Expr], ...] = ()
    position: int = field(default=0, eq=False)

    def __str__(self) -> str:
        return written(self)


Expr = Name | Number | Text | Operation | Call


def written(expr: Expr, name: Callable[[str], str] = str) -> str:
    """The expression as text, with the parentheses it needs; `name` writes each name (backticks where they are wanted)."""
    if isinstance(expr, Name):
        return name(expr.id)
    if isinstance(expr, Call):
        inner = [written(a, name) for a in expr.args] + [f"{k}={written(v, name)}" for k, v in expr.kwargs]
        return f"{expr.function}({', '.join(inner)})"
    if not isinstance(expr, Operation):
        return str(expr)
    if len(expr.args) == 1:
        return expr.op + _operand(expr.args[0], UNARY, name)
    gap = "" if expr.op in ("^", ":", "/", "%%", "%/%") else " "  # as R's deparse
    right_first = expr.op == "^"
    left = _operand(expr.args[0], expr.binding + right_first, name)
    right = _operand(expr.args[1], UNARY if right_first else expr.binding + 1, name)
    return f"{left}{gap}{expr.op}{gap}{right}"


def _operand(expr: Expr, least: int, name: Callable[[str], str]) -> str:
    text = written(expr, name)
    return f"({text})" if isinstance(expr, Operation) and expr.binding < least else text


def names_in(expr: Expr) -> Iterator[Name]:
    """Every `Name` in the expression, left to right, those in arguments of calls too."""
    if isinstance(expr, Name):
        yield expr
    elif isinstance(expr, (Operation, Call)):
        for part in (*expr.args, *(v for _, v in getattr(expr, "kwargs", ()))):
            yield from names_in(part)


@frozen
class Term:
    """A product of factors in the order written; equality ignores that order. No factors: the intercept."""

    factors: tuple[Expr, ...] = field(eq=frozenset)

    @property
    def degree(self) -> int:
        return len(self.factors)

    def __str__(self) -> str:
        return ":".join(str(f) for f in self.factors) or "1"


@frozen
class Bar:
    """One random-effects term `(lhs | factor)`; nested ones (`a/b`) are already two bars.

    lhs         terms of the left side, the intercept among them if it is there
    factor      the grouping factor's parts: `(g,)`, or `(a, b)` for `a:b`
    correlated  False for `||`: every lhs term gets its own block (a factor stays one block, as in lme4)
    """

    lhs: tuple[Term, ...]
    factor: tuple[Expr, ...]
    correlated: bool = True

    @property
    def group(self) -> str:
        return ":".join(str(f) for f in self.factor)


@frozen(kw_only=True, eq=False)
class Spec:
    """Everything `model()` was told."""

    formula: str
    response: Expr | None
    fixed: tuple[Term, ...]
    bars: tuple[Bar, ...] = ()
    offsets: tuple[Expr, ...] = ()
    family: Any = None  # kernels.family.Family
    link: Any = None  # kernels.link.Link
    method: str = "ols"
    weights: str | None = None
    freq_weights: str | None = None
    offset: str | None = None
    missing: str = "drop"
    contrasts: Mapping[str, Any] = field(factory=dict)
    levels: Mapping[str, list] = field(factory=dict)
    env: Mapping[str, Any] = field(factory=dict)
    prior: Any = None

    @property
    def intercept(self) -> bool:
        return any(t.degree == 0 for t in self.fixed)
