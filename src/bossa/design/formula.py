"""Which terms does a formula ask for? Text → `Spec`, by R's algebra of terms; then `resolve` against the columns there are.

A product of factors is a set; a sum keeps the order of first appearance; terms are sorted by degree at the end, factors within a term
by first appearance in the formula. The intercept is a switch that the last 1, 0 or -1 sets. Bars go to `Spec.bars`, `offset()` to
`Spec.offsets`. A formula is data: what may be called is in `transforms.FUNCTIONS` and `env=`, nothing else exists.

Source: R language `terms.formula` (Chambers & Hastie 1992 §2.4); Bates et al. (2015) §2.1–2.2 for bars.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from attrs import define, evolve, field, frozen

from ..errors import DataError, FormulaError, NotYet, OptionError, UnknownColumn, UnknownOption, suggestion
from ..kernels.contrasts import CODINGS
from ..state.spec import COMPARISONS, Bar, Call, Expr, Name, Number, Operation, Spec, Term, Text, names_in, written
from .parse import parse
from .transforms import FUNCTIONS, RESERVED, bind

MOST_TERMS = 20_000
CODING_NAMES = {"contr.treatment": "treatment", "contr.sum": "sum", "contr.helmert": "helmert", "contr.poly": "poly", "contr.sdif": "sequential"}
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
                    known = [_label(p, self.order) for p in found]
                    raise self.error(f"there is no term {_label(product, self.order)} to take away.", part, suggestion(_label(product, self.order), known, "The terms are:"))
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
            raise self.error("the power of a sum of terms is a whole number of at least 1.", exponent, "Arithmetic goes inside I(): I(x^2).")
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
            raise NotYet(f"{expr.function}() is reserved for covariance structures, which are not built yet.", where=f"formula {self.text!r}", do="Use (x | g), or (x || g) without correlations.")
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
        if isinstance(expr, Name) and expr != DOT or isinstance(expr, Call):
            self.check_calls(expr)
            return (expr,)
        raise self.error(f"{written(expr)!r} is not a grouping factor.", expr, "Write (x | g), (x | a:b) or (x | a/b); more factors are more terms: (1 | a) + (1 | b).")

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
                raise FormulaError(f"the random {what} of {bar.group} is there twice.", text=formula, do=f"Keep it in one term: write (0 + … | {bar.group}) in the other.")
            seen.add(key)


# ---------------------------------------------------------------- Spec
def make_spec(
    formula: str,
    *,
    weights: str | None = None,
    freq_weights: str | None = None,
    offset: str | None = None,
    contrasts: Mapping[str, Any] | None = None,
    levels: Mapping[str, Any] | None = None,
    missing: str = "drop",
    env: Mapping[str, Any] | None = None,
) -> Spec:
    """What `model()` was told about the columns, checked as far as that goes without data. See `bossa.model`."""
    if not isinstance(formula, str):
        raise OptionError(f"formula={formula!r:.80} is not a string.", where="model()", do="Write it as text: 'y ~ x'.")
    for name, value in (("weights", weights), ("freq_weights", freq_weights), ("offset", offset)):
        if value is not None and not isinstance(value, str):
            raise OptionError(f"{name}= takes the name of a column, not {type(value).__name__}.", where="model()", do="Put the values into the data.")
    if not isinstance(missing, str) or missing not in ("drop", "error"):
        raise UnknownOption(missing, ("drop", "error"), where="model() missing=", kind="value")
    env = _checked_env(env)
    sides = read(formula)
    for expr in _expressions(sides):
        _check_functions(expr, formula, env)
    return Spec(
        formula=formula,
        response=sides.response,
        fixed=sides.fixed,
        bars=sides.bars,
        offsets=sides.offsets,
        weights=weights,
        freq_weights=freq_weights,
        offset=offset,
        contrasts=_checked_contrasts(contrasts),
        levels=_checked_levels(levels),
        missing=missing,
        env=env,
    )


def resolve(spec: Spec, frame: Any) -> Spec:
    """The spec with `.` replaced by the columns of `frame`, every name looked up.

    raises  UnknownColumn with the nearest name
    """
    columns = tuple(frame.columns)
    if spec.fixed and any(DOT in term.factors for term in spec.fixed) and "." not in columns:
        sides = read(spec.formula, columns)
        spec = evolve(spec, fixed=sides.fixed, offsets=sides.offsets)
    known = {*columns, *(k for k, v in spec.env.items() if not callable(v))}
    for name in _column_names(spec):
        if name not in known:
            raise UnknownColumn(name, [*columns, *spec.env], where=f"formula {spec.formula!r}")
    for argument in ("weights", "freq_weights", "offset"):
        name = getattr(spec, argument)
        if name is not None and name not in columns:
            raise UnknownColumn(name, columns, where=f"{argument}={name!r}")
    for name in spec.levels:
        if name not in columns:
            raise UnknownColumn(name, columns, where="levels=")
    return spec


def dot_columns(spec: Spec, frame: Any) -> tuple[str, ...]:
    """What `.` stands for in this formula; empty where there is none."""
    if not read(spec.formula).dotted:
        return ()
    response = set() if spec.response is None else {n.id for n in names_in(spec.response)}
    return tuple(c for c in frame.columns if c not in response)


def _expressions(sides: Sides | Spec) -> Iterator[Expr]:
    """Every factor of every term, the response, offsets and grouping factors."""
    if sides.response is not None:
        yield sides.response
    yield from (f for term in sides.fixed for f in term.factors)
    yield from sides.offsets
    for bar in sides.bars:
        yield from (f for term in bar.lhs for f in term.factors)
        yield from bar.factor


def _column_names(spec: Spec) -> Iterator[str]:
    for expr in _expressions(spec):
        yield from data_names(expr)


def data_names(expr: Expr) -> list[str]:
    """Names of the columns that an expression reads, in order; names given as options (`C(x, sum)`) are not among them."""
    if isinstance(expr, Name):
        return [expr.id]
    parts: tuple[Expr, ...] = ()
    if isinstance(expr, Operation):
        parts = expr.args
    elif isinstance(expr, Call):
        parts = bind(expr, FUNCTIONS[expr.function])[0] if expr.function in FUNCTIONS else expr.args
    return list(dict.fromkeys(name for part in parts for name in data_names(part)))


def _check_functions(expr: Expr, formula: str, env: Mapping[str, Any]) -> None:
    if isinstance(expr, Operation):
        parts: tuple[Expr, ...] = expr.args
    elif isinstance(expr, Call):
        if expr.function not in FUNCTIONS and not callable(env.get(expr.function)):
            known = [*FUNCTIONS, *(k for k, v in env.items() if callable(v))]
            raise FormulaError(f"{expr.function!r} is not a function of formulas.", text=formula, position=expr.position, do=suggestion(expr.function, known) + " Others are passed in env={'name': function}.")
        parts = _bound(expr, formula) if expr.function in FUNCTIONS else expr.args
    else:
        return
    for part in parts:
        _check_functions(part, formula, env)


def _bound(call: Call, formula: str) -> tuple[Expr, ...]:
    try:
        return bind(call, FUNCTIONS[call.function])[0]
    except (DataError, UnknownOption) as error:
        raise FormulaError(f"{call.function}(): {error.what}", text=formula, position=call.position, do=error.do) from None


def _checked_env(env: Mapping[str, Any] | None) -> dict[str, Any]:
    if env is None:
        return {}
    if not isinstance(env, Mapping):
        raise OptionError(f"env= takes a dict of names, not {type(env).__name__}.", where="model()")
    for name, value in env.items():
        if not isinstance(name, str):
            raise OptionError(f"the name {name!r} is not a string.", where="model() env=")
        if callable(value):
            if name in FUNCTIONS or name in RESERVED:
                raise OptionError(f"{name!r} is already a function of formulas.", where="model() env=", do="Give yours another name.")
        elif not isinstance(value, (int, float, str, list, tuple, range, np.ndarray, np.generic)):
            raise OptionError(f"{name!r} is a {type(value).__name__}: neither a function, a number, a string nor an array.", where="model() env=")
    return dict(env)


def _checked_contrasts(contrasts: Mapping[str, Any] | None) -> dict[str, Any]:
    if contrasts is None:
        return {}
    if not isinstance(contrasts, Mapping):
        raise OptionError(f"contrasts= takes a dict such as {{'g': 'sum'}}, not {type(contrasts).__name__}.", where="model()")
    return {_name(name, "contrasts="): coding_name(value, f"contrasts= of {name!r}") for name, value in contrasts.items()}


def coding_name(value: Any, where: str) -> Any:
    """A coding as given: one of CODINGS (R's names accepted), or an array (levels, columns)."""
    if isinstance(value, str):
        value = CODING_NAMES.get(value, value)
        if value not in CODINGS:
            raise UnknownOption(value, CODINGS, where=where, kind="coding")
        return value
    try:
        matrix = np.array(value, dtype=float)
    except (TypeError, ValueError):
        raise OptionError("neither a coding's name nor an array of numbers (levels, columns).", where=where, do=f"Codings: {', '.join(CODINGS)}.") from None
    if matrix.ndim == 1:
        matrix = matrix[:, None]
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise OptionError("the array must have a finite number for each level and column.", where=where)
    return matrix


def _checked_levels(levels: Mapping[str, Any] | None) -> dict[str, list]:
    if levels is None:
        return {}
    if not isinstance(levels, Mapping):
        raise OptionError(f"levels= takes a dict such as {{'g': ['b', 'a']}}, not {type(levels).__name__}.", where="model()")
    out = {}
    for name, values in levels.items():
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise OptionError(f"levels of {name!r} must be a list.", where="model() levels=")
        listed = list(values)
        if any(not isinstance(v, (str, int, float, bool, np.generic)) for v in listed):
            raise OptionError(f"levels of {name!r} must be strings, numbers or booleans.", where="model() levels=")
        if len(set(listed)) < len(listed) or not listed:
            raise OptionError(f"levels of {name!r} {'name one twice' if listed else 'are empty'}.", where="model() levels=")
        out[_name(name, "levels=")] = listed
    return out


def _name(name: Any, argument: str) -> str:
    if not isinstance(name, str):
        raise OptionError(f"{name!r} is not the name of a column.", where=f"model() {argument}")
    return name


# ---------------------------------------------------------------- update
def update_formula(old: str, new: str) -> str:
    """`new` with each `.` replaced by that side of `old`, simplified: ("y ~ x + z", ". ~ . - z") → "y ~ x".

    Source: R `update.formula`.
    """
    if not isinstance(new, str):
        raise OptionError(f"formula={new!r:.80} is not a string.", where="update()", do="Write '. ~ . - x'.")
    before, after = parse(old), parse(new)
    if not isinstance(after, Operation) or after.op != "~":
        raise FormulaError("it has no '~'.", text=new, do="Write '. ~ . - x'.")
    if not isinstance(before, Operation) or before.op != "~":
        raise FormulaError("it has no '~'.", text=old)
    left = [_substituted(a, before.args[0] if len(before.args) == 2 else None, new) for a in after.args[:-1]]
    right = _substituted(after.args[-1], before.args[-1], new)
    head = f"{_unparsed(left[0])} ~ " if left else "~ "
    text = head + _unparsed(right)
    sides = read(text)
    return text if sides.dotted else head + _right_side(sides)


def _substituted(expr: Expr, old: Expr | None, text: str) -> Expr:
    if expr == DOT:
        if old is None:
            raise FormulaError("the old formula has no response for '.'.", text=text, position=expr.position)
        return old
    if isinstance(expr, Operation):
        return evolve(expr, args=tuple(_substituted(a, old, text) for a in expr.args))
    if isinstance(expr, Call):
        return evolve(expr, args=tuple(_substituted(a, old, text) for a in expr.args))
    return expr


def _right_side(sides: Sides) -> str:
    def summed(terms: tuple[Term, ...]) -> list[str]:
        parts = [":".join(_unparsed(f) for f in t.factors) for t in terms if t.degree]
        return parts if any(not t.degree for t in terms) else ["0", *parts]

    bars = [f"({' + '.join(summed(b.lhs)) or '1'} {'|' if b.correlated else '||'} {':'.join(_unparsed(f) for f in b.factor)})" for b in sides.bars]
    parts = [*summed(sides.fixed), *(_unparsed(o) for o in sides.offsets), *bars]
    if not any(t.degree for t in sides.fixed) and any(not t.degree for t in sides.fixed):
        parts = ["1", *parts]
    return " + ".join(parts)


def _unparsed(expr: Expr) -> str:
    """The expression as text that `parse` reads back: odd names between backticks, bars in parentheses."""
    if isinstance(expr, Operation) and expr.op in ("|", "||"):
        return f"({_unparsed(expr.args[0])} {expr.op} {_unparsed(expr.args[1])})"
    if isinstance(expr, Operation) and expr.op in ("+", "-") and len(expr.args) == 2:
        right = _unparsed(expr.args[1])
        nested = isinstance(expr.args[1], Operation) and expr.args[1].op in ("+", "-")
        return f"{_unparsed(expr.args[0])} {expr.op} {f'({right})' if nested else right}"
    return written(expr, _backticked)


def _backticked(name: str) -> str:
    plain = re.fullmatch(r"(?:[^\W\d_]|\.(?!\d)|_)[\w.]*", name) and name not in ("TRUE", "FALSE", "NULL", "True", "False", "None")
    return name if plain else "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
