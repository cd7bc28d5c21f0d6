"""How do the words of a formula belong together? `parse(text)` gives the tree, by R's precedence of operators.

A precedence-climbing parser over `scan`: an operand, then every operator that binds at least as tightly as asked. Bars `|` are
accepted inside parentheses only; `[a, b]` in an argument is R's `c(a, b)`. What the tree means is settled in `formula`.

Source: R language definition §10.3 (precedence); Pratt (1973).
"""

from __future__ import annotations

from ..errors import FormulaError
from ..state.spec import BINDING, UNARY, Call, Expr, Name, Number, Operation, Text
from .scan import Token, scan

DEEPEST = 100  # levels of parentheses, calls and operators; a sum may be as long as it likes
LONGEST = 1_000_000  # characters


def parse(text: str) -> Expr:
    """The tree of a formula; `~` is its root.

    raises  FormulaError with a caret under the place that cannot be read
    """
    if len(text) > LONGEST:
        raise FormulaError(f"it has {len(text):,} characters; at most {LONGEST:,} are read.", text=text[:60] + "…")
    parser = _Parser(text)
    tree = parser.expression(0)
    parser.expect("end", "")
    _check_depth(tree, text)
    return tree


def _check_depth(tree: Expr, text: str) -> None:
    """Later steps recurse: refuse what would exhaust the stack. Long sums outside calls are read in a loop and count once."""
    left: list[tuple[Expr, int, bool]] = [(tree, 0, False)]
    while left:
        expr, depth, called = left.pop()
        if depth > DEEPEST:
            raise FormulaError(f"operators are nested more than {DEEPEST} deep.", text=text, position=expr.position)
        if isinstance(expr, Operation):
            loop = expr.op in ("+", "-") and len(expr.args) == 2 and not called
            left += [(arg, depth + (not loop or i > 0), called) for i, arg in enumerate(expr.args)]
        elif isinstance(expr, Call):
            left += [(arg, depth + 1, True) for arg in (*expr.args, *(v for _, v in expr.kwargs))]


class _Parser:
    def __init__(self, text: str):
        self.text, self.tokens = text, list(scan(text))
        self.at = self.depth = self.nested = 0

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def error(self, what: str, token: Token | None = None, do: str = "") -> FormulaError:
        return FormulaError(what, text=self.text, position=(token or self.token).position, do=do)

    def take(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def sees(self, op: str) -> bool:
        return self.token.kind == "op" and self.token.value == op

    def expect(self, kind: str, value: str) -> None:
        token = self.token
        if token.kind != kind or token.value != value:
            raise self.error(f"expected {value!r} here." if value else self._stray(token))
        self.at += 1

    def _stray(self, token: Token) -> str:
        if token.value == ")":
            return "this parenthesis closes nothing."
        if token.value == "[":
            return "a formula has no subscripts: compute the column first."
        if token.value == "=":
            return "'=' belongs inside the arguments of a function; a response stands before '~'."
        if token.kind == "op":
            return f"{token.value!r} cannot stand here."
        return f"an operator is missing before {token.value!r}."

    def expression(self, least: int) -> Expr:
        self.nested += 1
        if self.nested > DEEPEST:
            raise self.error(f"parentheses and operators are nested more than {DEEPEST} deep.")
        left = self.operand()
        while self.token.kind == "op" and BINDING.get(str(self.token.value), -1) >= least:
            token = self.take()
            op = str(token.value)
            if op in ("|", "||") and not self.depth:
                raise self.error("a random-effects term goes in parentheses.", token, do="Write (x | g).")
            binding = BINDING[op]
            right = self.expression(binding if op == "^" else binding + 1)
            left = Operation(op, (left, right), token.position)
        if self.token.kind == "op" and str(self.token.value).startswith("%") and self.token.value not in BINDING:
            raise self.error(f"the operator {self.token.value} is not known here.", do="Known: %in%, %%, %/%.")
        self.nested -= 1
        return left

    def operand(self) -> Expr:
        token = self.take()
        if token.kind == "name":
            return self.call(token) if self.sees("(") else Name(str(token.value), token.position)
        if token.kind == "number":
            return self.not_called(Number(float(token.value or 0.0), token.position))
        if token.kind in ("text", "constant"):
            return self.not_called(Text(token.value, token.position))  # type: ignore[arg-type]
        if token.value in ("+", "-", "~"):
            return Operation(str(token.value), (self.expression(1 if token.value == "~" else UNARY),), token.position)
        if token.value in ("(", "["):
            return self.group(token)
        if token.kind == "end":
            raise self.error("the formula ends where a term should follow.", token)
        raise self.error(f"{token.value!r} cannot stand here: a term should.", token)

    def not_called(self, expr: Expr) -> Expr:
        if self.sees("("):
            raise self.error("only a name can be called.")
        return expr

    def group(self, token: Token) -> Expr:
        self.depth += 1
        if token.value == "[":
            inner: Expr = Call("c", self.arguments("]")[0], (), token.position)
        else:
            inner = self.expression(0)
            self.close(token)
        self.depth -= 1
        return self.not_called(inner)

    def close(self, opened: Token) -> None:
        if self.token.kind == "end":
            raise self.error("this parenthesis is never closed.", opened)
        self.expect("op", ")")

    def call(self, name: Token) -> Expr:
        self.take()
        self.depth += 1
        args, kwargs = self.arguments(")")
        self.depth -= 1
        return self.not_called(Call(str(name.value), args, kwargs, name.position))

    def arguments(self, end: str) -> tuple[tuple[Expr, ...], tuple[tuple[str, Expr], ...]]:
        args: list[Expr] = []
        kwargs: list[tuple[str, Expr]] = []
        opened = self.tokens[self.at - 1]
        while not self.sees(end):
            follower = self.tokens[min(self.at + 1, len(self.tokens) - 1)]
            if self.token.kind in ("name", "text") and follower.kind == "op" and follower.value == "=":
                token, _ = self.take(), self.take()
                if token.value in dict(kwargs):
                    raise self.error(f"the argument {token.value!r} is given twice.", token)
                kwargs.append((str(token.value), self.expression(0)))
            elif kwargs:
                raise self.error("an argument without a name follows one with a name.")
            else:
                args.append(self.expression(0))
            if self.sees(","):
                self.take()
            elif not self.sees(end):
                raise (
                    self.error("this parenthesis is never closed.", opened)
                    if self.token.kind == "end"
                    else self.error("expected ',' or ')' here.")
                )
        self.take()
        return tuple(args), tuple(kwargs)
