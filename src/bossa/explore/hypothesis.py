"""Which linear function of the coefficients do these words mean: "x1 - x2 = 0", "2*g[b] = g[c] + 1", "(a + b)/2 = 3"?

A hypothesis is a linear expression in coefficient names on both sides of `=` (none: `= 0`). Names are found as they stand in the
coefficient table, longest first, so `x:g[b]` and `poly(x, 2)[1]` need no quoting; backticks settle any doubt. Each becomes a row of L
and a number: L β = null.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ..errors import FormulaError, OptionError, suggestion
from ..types import Floats

WHERE = "test()"
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?(?![\w.])")
_WORD = re.compile(r"[\w.]+(\[[^\]]*\])?")


def parse_hypotheses(hypotheses: Sequence[str], names: Sequence[str]) -> tuple[Floats, Floats]:
    """L (q, p) and null (q,) with L β = null, one row for each hypothesis.

    names   (p,)  coefficient names
    raises  FormulaError with a caret; OptionError where the hypotheses repeat or contradict each other
    """
    if not hypotheses:
        raise OptionError("no hypothesis is given.", where=WHERE, do='Write m.test("x1 - x2 = 0"), for example.')
    rows = [_Hypothesis(text, tuple(names)).row() for text in hypotheses]
    L, null = np.array([r for r, _ in rows]), np.array([c for _, c in rows])
    if np.linalg.matrix_rank(L) < len(L):
        raise OptionError("the hypotheses repeat or contradict each other.", where=WHERE, do="Leave out those that follow from the others.")
    return L, null


class _Hypothesis:
    """Recursive descent over one text; a value is p coefficients and a constant, (p + 1,)."""

    def __init__(self, text: str, names: tuple[str, ...]):
        if not isinstance(text, str):
            raise OptionError(f"{text!r} is not text.", where=WHERE, do='Write a hypothesis such as "x1 - x2 = 0".')
        self.text, self.names, self.at = text, names, 0
        known = {n: i for i, n in enumerate(names)}
        if "Intercept" in known:
            known["(Intercept)"] = known["Intercept"]
        self.known = dict(sorted(known.items(), key=lambda item: -len(item[0])))

    def error(self, what: str, position: int | None = None, do: str = "") -> FormulaError:
        return FormulaError(what, text=self.text, position=self.at if position is None else position, do=do, where=WHERE)

    def row(self) -> tuple[Floats, float]:
        left = self.expression()
        if self.takes("==") or self.takes("="):
            left = left - self.expression()
        if self.skip() < len(self.text):
            raise self.error("this cannot be read.", do="A hypothesis is a linear expression, such as 'x1 - 2*x2 = 0'.")
        if not left[:-1].any():
            raise self.error("no coefficient is left in this hypothesis.", 0)
        return left[:-1], -float(left[-1])

    def skip(self) -> int:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.at

    def takes(self, word: str) -> bool:
        found = self.text.startswith(word, self.skip())
        self.at += len(word) * found
        return found

    def expression(self) -> Floats:
        value = self.product()
        while True:
            if self.takes("+"):
                value = value + self.product()
            elif self.takes("-"):
                value = value - self.product()
            else:
                return value

    def product(self) -> Floats:
        value = self.factor()
        while True:
            start = self.skip()
            if self.takes("*"):
                other = self.factor()
                if value[:-1].any() and other[:-1].any():
                    raise self.error("two coefficients are multiplied; hypotheses are linear.", start)
                value = value * other[-1] if value[:-1].any() else other * value[-1]
            elif self.takes("/"):
                other = self.factor()
                if other[:-1].any() or other[-1] == 0:
                    raise self.error("only a number other than 0 can divide.", start)
                value = value / other[-1]
            else:
                return value

    def factor(self) -> Floats:
        start = self.skip()
        if self.takes("-"):
            return -self.factor()
        if self.takes("+"):
            return self.factor()
        if self.text.startswith("`", start):
            return self.quoted(start)
        name = self.name(start)
        if name is not None:
            self.at += len(name)
            return self.unit(self.known[name])
        if self.takes("("):
            value = self.expression()
            if not self.takes(")"):
                raise self.error("this parenthesis is never closed.", start)
            return value
        number = _NUMBER.match(self.text, start)
        if number:
            self.at = number.end()
            return np.append(np.zeros(len(self.names)), float(number.group()))
        return self.unknown(start)

    def name(self, start: int) -> str | None:
        """The longest coefficient name that stands here as a word of its own."""
        for name in self.known:
            end = start + len(name)
            if self.text.startswith(name, start) and not re.match(r"[\w.:\[]", self.text[end : end + 1]):
                return name
        return None

    def quoted(self, start: int) -> Floats:
        end = self.text.find("`", start + 1)
        if end < 0:
            raise self.error("this quote is never closed.", start)
        name = self.text[start + 1 : end]
        if name not in self.known:
            raise self.error(f"{name!r} is not a coefficient.", start, suggestion(name, self.names, "The coefficients are:"))
        self.at = end + 1
        return self.unit(self.known[name])

    def unit(self, index: int) -> Floats:
        value = np.zeros(len(self.names) + 1)
        value[index] = 1.0
        return value

    def unknown(self, start: int) -> Floats:
        word = _WORD.match(self.text, start)
        if word is None:
            ends = start >= len(self.text)
            what = "the hypothesis ends where a coefficient should follow." if ends else "a coefficient or a number should stand here."
            raise self.error(what, start)
        raise self.error(f"{word.group()!r} is not a coefficient.", start, suggestion(word.group(), self.names, "The coefficients are:"))
