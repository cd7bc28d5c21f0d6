"""Which terms does a formula ask for? R's algebra of terms: tree → products of factors, bars and offsets.

A product of factors is a set; a sum keeps the order of first appearance; terms are sorted by degree at the end, factors within a term
by first appearance in the formula. The intercept is a switch that the last 1, 0 or -1 sets. Random-effects terms and `offset()` can
only be added. What may be called is decided in `formula`; here `.` is the only name with a meaning.

Source: R `terms.formula` (Chambers & Hastie 1992 §2.4); Bates et al. (2015) §2.1–2.2 for bars.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from attrs import define, field, frozen

from ..errors import FormulaError, NotYet, suggestion
from ..state.spec import COMPARISONS, Bar, Call, Expr, Name, Number, Operation, Term, Text, names_in, written
from .parse import parse
from .transforms import RESERVED

MOST_TERMS = 20_000
DOT = Name(".")
Product = frozenset  # of Expr


@frozen
class Sides:
    """What a formula says: response, sorted fixed terms, bars, offsets; `dotted` if it has a `.` that no data have replaced yet."""

    response: Expr | None
    fixed: tuple[Term, ...]
    bars: tuple[Bar, ...]
    offsets: tuple[Expr, ...]
    dotted: bool


@define
class _Reader:
    """Walks one right-hand side; the algebra's switches and by-products are its fields."""

    text: str
    columns: tuple[str, ...] | None = None  # what `.` stands for; None: not known yet
    random: bool = False  # left of a bar
    intercept: bool = True
    adding: bool = True  # False to the right of a minus
    order: dict[Expr, None] = field(factory=dict)  # factors by first appearance
    bars: list[Bar] = field(factory=list)
    offsets: list[Expr] = field(factory=list)
    dotted: bool = False

    def error(self, what: str, expr: Expr, do: str = "") -> FormulaError:
        return FormulaError(what, text=self.text, position=expr.position, do=do)

    # ------------------------------------------------------------ sums
    def sum(self, expr: Expr) -> dict[Product, None]:
        """The products of a sum in order of first appearance; a long sum is walked in a loop, not by recursion."""
        parts: list[tuple[str, Expr]] = []
        while isinstance(expr, Operation) and expr.op in ("+", "-"):
            parts.append((expr.op, expr.args[-1]))
            if len(expr.args) == 1:
                break
            expr = expr.args[0]
        else:
            parts.append(("+", expr))
        found: dict[Product, None] = {}
        for op, part in reversed(parts):
            if op == "+":
                found |= self.term(part)
            else:
                self.remove(part, found)
        return found

    def remove(self, part: Expr, found: dict[Product, None]) -> None:
        if isinstance(part, Operation) and part.op in ("|", "||"):
            gone: list[Any] = self.bars_of(part)
            self.discard(gone, self.bars, part)
        elif isinstance(part, Call) and part.function == "offset":
            self.discard([part], self.offsets, part)
        else:
            self.adding = not self.adding
            for product in self.sum(part):
                if product not in found and not self.unknown_dot(product):
                    name, known = _label(product, self.order), [_label(p, self.order) for p in found]
                    do = suggestion(name, known, "The terms are:") if known else ""
                    raise self.error(f"there is no term {name} to take away.", part, do)
                found.pop(product, None)
            self.adding = not self.adding

    def unknown_dot(self, product: Product) -> bool:
        return self.dotted and self.columns is None

    def discard(self, gone: list[Any], kept: list[Any], part: Expr) -> None:
        for one in gone:
            if one not in kept:
                raise self.error(f"there is no {written(part)} to take away.", part)
            kept.remove(one)

    # ------------------------------------------------------------ products
    def term(self, expr: Expr) -> dict[Product, None]:
        if isinstance(expr, Number):
            self.switch(expr)
            return {}
        if isinstance(expr, Operation) and expr.op not in COMPARISONS:
            return self.operation(expr)
        if isinstance(expr, Call) and expr.function == "offset":
            self.offset(expr)
            return {}
        if expr == DOT:
            return self.dot(expr)
        return self.factor(expr)

    def switch(self, number: Number) -> None:
        if number.value not in (0, 1):
            raise self.error(f"{number} is not a term: only 0 and 1 (the intercept) are.", number, f"Write I({number} * x) for arithmetic.")
        self.intercept = (number.value == 1) == self.adding

    def offset(self, call: Call) -> None:
        if self.random:
            raise self.error("an offset cannot vary by group.", call)
        self.check_calls(call)
        self.offsets.append(call)

    def dot(self, expr: Expr) -> dict[Product, None]:
        if self.random:
            raise self.error("'.' is not allowed in a random-effects term.", expr)
        self.dotted = True
        names = [Name(c, expr.position) for c in self.columns] if self.columns is not None else [DOT]
        self.order |= dict.fromkeys(names)
        return {Product([name]): None for name in names}

    def factor(self, expr: Expr) -> dict[Product, None]:
        if isinstance(expr, Text):
            raise self.error(f"{expr} is not a term.", expr, "Column names stand without quotes, odd ones between backticks.")
        self.check_calls(expr)
        self.order.setdefault(expr)
        return {Product([expr]): None}

    def operation(self, expr: Operation) -> dict[Product, None]:
        if expr.op in ("+", "-"):
            return self.sum(expr)
        if expr.op in ("|", "||"):
            if self.random:
                raise self.error("a random-effects term cannot stand inside another.", expr)
            self.bars += self.bars_of(expr)
            return {}
        if expr.op not in ("*", ":", "/", "%in%", "^"):
            raise self.error(f"{expr.op!r} is not an operator of terms.", expr, "Arithmetic goes inside I().")
        added = len(self.bars) + len(self.offsets)
        left = self.term(expr.args[0])
        right = {} if expr.op == "^" else self.term(expr.args[1])
        if len(self.bars) + len(self.offsets) > added:
            raise self.error(f"a random-effects term or an offset can only be added, not combined by {expr.op!r}.", expr)
        if expr.op == "^":
            return self.power(left, expr)
        if not left or not right:
            raise self.error(f"{expr.op!r} needs a term on both sides.", expr)
        return self.combine(expr, left, right)

    def combine(self, expr: Operation, left: dict[Product, None], right: dict[Product, None]) -> dict[Product, None]:
        if len(left) * len(right) > MOST_TERMS:
            raise self.error(f"this makes more than {MOST_TERMS:,} terms.", expr)
        if expr.op == "/":
            nest: Product = Product().union(*left)
            return left | {nest | r: None for r in right}
        if expr.op == "%in%":
            nest = Product().union(*right)
            return {l | nest: None for l in left}
        products = {l | r: None for l in left for r in right}
        return left | right | products if expr.op == "*" else products

    def power(self, left: dict[Product, None], expr: Operation) -> dict[Product, None]:
        exponent = expr.args[1]
        if not isinstance(exponent, Number) or exponent.value < 1 or exponent.value != int(exponent.value):
            raise self.error(
                "the power of a sum of terms is a whole number of at least 1.", exponent, "Arithmetic goes inside I(): I(x^2)."
            )
        found = left
        for _ in range(int(exponent.value) - 1):
            before = len(found)
            if before * len(left) > MOST_TERMS:
                raise self.error(f"this makes more than {MOST_TERMS:,} terms.", expr)
            found = found | {f | l: None for f in found for l in left}
            if len(found) == before:
                break
        return found

    # ------------------------------------------------------------ calls, bars
    def check_calls(self, expr: Expr) -> None:
        """Refuse what may not be called, at any depth; arguments that are names of codings or levels are not looked at."""
        if isinstance(expr, Operation):
            if expr.op in ("|", "||", "~", "%in%", ":"):
                raise self.error(f"{expr.op!r} has no meaning in arithmetic.", expr)
            for arg in expr.args:
                self.check_calls(arg)
        if not isinstance(expr, Call):
            return
        if expr.function in RESERVED:
            raise NotYet(
                f"{expr.function}() is reserved for covariance structures, which are not built yet.",
                where=f"formula {self.text!r}",
                do="Use (x | g), or (x || g) without correlations.",
            )
        for arg in expr.args:
            if arg == DOT:
                raise self.error("'.' stands for a sum of terms, not for a value.", arg)
            if not (isinstance(arg, Call) and arg.function == "c"):
                self.check_calls(arg)

    def bars_of(self, expr: Operation) -> list[Bar]:
        """`(lhs | a/b/c)` is `(lhs | a) + (lhs | b:a) + (lhs | c:b:a)`, in lme4's naming."""
        reader = _Reader(text=self.text, random=True)
        products = reader.sum(expr.args[0])
        lhs = reader.sorted(products)
        if not lhs:
            raise self.error("nothing stands left of the bar.", expr, "Write (1 | g) for a random intercept.")
        nested = self.nested(expr.args[1])
        groups = [tuple(f for part in nested[: i + 1][::-1] for f in part) for i in range(len(nested))]
        return [Bar(lhs=lhs, factor=group, correlated=expr.op == "|") for group in groups]

    def nested(self, expr: Expr) -> list[tuple[Expr, ...]]:
        if isinstance(expr, Operation) and expr.op == "/":
            return [*self.nested(expr.args[0]), self.crossed(expr.args[1])]
        return [self.crossed(expr)]

    def crossed(self, expr: Expr) -> tuple[Expr, ...]:
        if isinstance(expr, Operation) and expr.op == ":":
            return (*self.crossed(expr.args[0]), *self.crossed(expr.args[1]))
        if (isinstance(expr, Name) and expr != DOT) or isinstance(expr, Call):
            self.check_calls(expr)
            return (expr,)
        raise self.error(
            f"{written(expr)!r} is not a grouping factor.",
            expr,
            "Write (x | g), (x | a:b) or (x | a/b); more factors are more terms: (1 | a) + (1 | b).",
        )

    def sorted(self, products: Iterable[Product]) -> tuple[Term, ...]:
        place = {expr: i for i, expr in enumerate(self.order)}
        terms = [Term(tuple(sorted(product, key=place.__getitem__))) for product in products]
        terms.sort(key=lambda t: t.degree)
        return (Term(()), *terms) if self.intercept else tuple(terms)


def _label(product: Product, order: Mapping[Expr, None]) -> str:
    return ":".join(written(e) for e in order if e in product)


@lru_cache(maxsize=256)
def read(formula: str, columns: tuple[str, ...] | None = None) -> Sides:
    """A formula as terms; `columns` is what `.` stands for (the response is taken out)."""
    tree = parse(formula)
    if not isinstance(tree, Operation) or tree.op != "~":
        raise FormulaError("it has no '~'.", text=formula, do="Write 'response ~ terms'.")
    response = tree.args[0] if len(tree.args) == 2 else None
    if isinstance(response, Operation) and response.op == "~":
        raise FormulaError("it has more than one '~'.", text=formula, position=tree.position)
    reader = _Reader(text=formula)
    if response is not None:
        _check_response(response, reader)
        if columns is not None:
            columns = tuple(c for c in columns if c not in {n.id for n in names_in(response)})
    reader.columns = columns
    products = reader.sum(tree.args[-1])
    if response is not None and any(response in product for product in products):
        raise FormulaError(f"{written(response)} is the response and a term.", text=formula, do="Take it out of one side.")
    bars = tuple(reader.bars)
    _check_bars(bars, formula)
    return Sides(response, reader.sorted(products), bars, tuple(reader.offsets), reader.dotted)


def _check_response(response: Expr, reader: _Reader) -> None:
    if response == DOT:
        raise reader.error("'.' cannot be the response.", response)
    if isinstance(response, (Number, Text)) or (isinstance(response, Call) and response.function == "offset"):
        raise reader.error(f"{written(response)} cannot be the response.", response)
    reader.check_calls(response)


def _check_bars(bars: tuple[Bar, ...], formula: str) -> None:
    """One column twice on one grouping factor has two variances of which only the sum can be known."""
    seen: set[tuple[frozenset, Term]] = set()
    for bar in bars:
        for term in bar.lhs:
            key = (frozenset(bar.factor), term)
            if key in seen:
                what = "intercept" if not term.degree else str(term)
                raise FormulaError(
                    f"the random {what} of {bar.group} is there twice.",
                    text=formula,
                    do=f"Keep it in one term: write (0 + … | {bar.group}) in the other.",
                )
            seen.add(key)
