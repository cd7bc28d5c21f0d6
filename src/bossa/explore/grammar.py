"""What does a query ask? `parse(text)` gives a `Query`: a product of parts, each a set of means, contrasts among them, or a slope.

    query     := focal [ ("~" | "|") condition { "+" condition } ]          "1" as focal: the overall mean
    focal     := part { ":" part }
    condition := part
    part      := name [ "@" values ] | contrast "(" term { "," option } ")" | name "[" item { "," item } "]"
                 | "slope" "(" name ")" | "change" "(" name [ "," size ] ")"
    term      := name [ "@" values ] { ":" name [ "@" values ] }
    item      := side "-" side          side := level | "(" level { "+" level } ")" | "*"
    values    := value | "[" value { "," value } "]" | "range(" n ")" | "quantile(" n ")" | "mean" | "data"

Names with odd characters go between backticks, levels between quotes; TRUE / true / True are booleans. Names of contrasts and options
are accepted in R's spelling. Nothing here knows the model: names and levels are looked up in `grid`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from attrs import frozen

from ..design.transforms import FUNCTIONS
from ..errors import FormulaError, suggestion
from .contrast import named

CONTRASTS = ("pairwise", "revpairwise", "sequential", "treatment", "poly", "effect", "del_eff", "mean_chg", "sum", "helmert")
SPELLINGS = {
    "consec": "sequential",
    "consecutive": "sequential",
    "eff": "effect",
    "del.eff": "del_eff",
    "trt.vs.ctrl": "treatment",
    "trt.vs.ctrl1": "treatment",
    "dunnett": "treatment",
    "dummy": "treatment",
    "tukey": "pairwise",
    "deviation": "sum",
    "polynomial": "poly",
    "emtrends": "slope",
    "trend": "slope",
}
OPTIONS: dict[str, tuple[str, ...]] = {"treatment": ("ref",), "poly": ("degree",), "sum": ("omit",)}
OPTION_SPELLINGS = {"max.degree": "degree", "reference": "ref", "base": "ref"}
CONSTANTS = {"TRUE": True, "True": True, "true": True, "FALSE": False, "False": False, "false": False}
OTHERS = "*"  # in a bracket: the mean of all other levels

_TOKEN = re.compile(
    r"""\s+
    | (?P<number> (?: \d+\.?\d* | \.\d+ ) (?: [eE][+-]?\d+ )? (?![\w.]) )
    | (?P<word> [\w.]+ )
    | (?P<name> `[^`]+` )
    | (?P<text> "[^"]*" | '[^']*' )
    | (?P<op> [@:~|+\-*/()\[\],=] )
    """,
    re.VERBOSE,
)


@frozen
class Token:
    """kind: "number" | "word" | "name" (backticks) | "text" | "op" | "end"."""

    kind: str
    value: Any
    position: int


@frozen
class Level:
    """A value or level as written; `quoted` levels are never keywords or numbers."""

    value: Any
    position: int
    quoted: bool = False


@frozen
class Values:
    """kind "list": items;  "range" | "quantile": n;  "mean";  "data"."""

    kind: str
    position: int
    items: tuple[Level, ...] = ()
    n: int = 0


@frozen
class Variable:
    name: str
    position: int
    values: Values | None = None


@frozen
class Means:
    """The levels or values of one variable; a numeric one without values asks for its slope where it is focal."""

    variable: Variable


@frozen
class Contrast:
    """A named family of contrasts among the cells of a term."""

    method: str
    variables: tuple[Variable, ...]
    options: tuple[tuple[str, Level], ...] = ()
    position: int = 0


@frozen
class Item:
    """Mean of the levels in `plus` minus mean of those in `minus`."""

    plus: tuple[Level, ...]
    minus: tuple[Level, ...]

    def text(self, sign: str = "-") -> str:
        """As it is shown, with "-" or "/" between the sides."""
        return f"{_written(self.plus)} {sign} {_written(self.minus)}"


@frozen
class Bracket:
    """Contrasts of one variable written out."""

    variable: Variable
    items: tuple[Item, ...]


@frozen
class Slope:
    name: str
    position: int


@frozen
class Change:
    """The effect of `size` more of a variable, from where it is (centered: half below to half above)."""

    name: str
    position: int
    size: float = 1.0
    centered: bool = False


Part = Means | Contrast | Bracket | Slope | Change


@frozen
class Query:
    text: str
    focal: tuple[Part, ...]
    conditions: tuple[Part, ...] = ()


def scan(text: str, where: str) -> Iterator[Token]:
    """The tokens of a query, an "end" token last."""
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            quote = text[at] in "\"'`"
            what = f"the quote {text[at]} is never closed." if quote else f"{text[at]!r} has no meaning here."
            do = "" if quote else "Odd names go between backticks, odd levels between quotes."
            raise FormulaError(what, text=text, position=at, where=where, do=do)
        if match.lastgroup is not None:
            word = match.group()
            value: Any = word[1:-1] if match.lastgroup in ("name", "text") else _number(word) if match.lastgroup == "number" else word
            yield Token(match.lastgroup, value, at)
        at = match.end()
    yield Token("end", "", len(text))


def _number(word: str) -> int | float:
    return int(word) if word.isdigit() else float(word)


def parse(text: str, where: str = "explore()") -> Query:
    """The query that the text asks.

    raises  FormulaError with a caret under the place that cannot be read
    """
    if not isinstance(text, str):
        raise FormulaError(f"a query is text, not {type(text).__name__}.", text=repr(text), where=where, do='Write "g", for example.')
    return _Parser(text, where).query()


class _Parser:
    def __init__(self, text: str, where: str):
        self.text, self.where = text, where
        self.tokens, self.at = list(scan(text, where)), 0

    # ------------------------------------------------------------ tokens
    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def error(self, what: str, position: int | None = None, do: str = "") -> FormulaError:
        return FormulaError(what, text=self.text, position=self.token.position if position is None else position, do=do, where=self.where)

    def take(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def sees(self, *ops: str) -> bool:
        return self.token.kind == "op" and self.token.value in ops

    def takes(self, *ops: str) -> bool:
        found = self.sees(*ops)
        self.at += found
        return found

    def calls(self) -> bool:
        """A word followed by a parenthesis."""
        after = self.tokens[min(self.at + 1, len(self.tokens) - 1)]
        return self.token.kind == "word" and after.kind == "op" and after.value == "("

    # ------------------------------------------------------------ the sentence
    def query(self) -> Query:
        if self.token.kind == "end":
            raise self.error("the query is empty.", do='Name a factor or a covariate, such as "treatment".')
        if self.sees("~", "|"):
            raise self.error("what is asked should stand before it.", do='Write "g" for means, "pairwise(g)" for differences.')
        focal = self.focal()
        conditions: tuple[Part, ...] = ()
        if self.takes("~", "|"):
            conditions = self.conditions()
        if self.token.kind != "end":
            raise self.error(self.stray(), do=self.advice())
        return Query(self.text, focal, conditions)

    def stray(self) -> str:
        value = self.token.value
        if value in ("~", "|"):
            return "a query has one '~'; several conditions are joined by '+'."
        if value in (")", "]"):
            return f"this {value!r} closes nothing."
        return f"{value!r} cannot stand here." if self.token.kind == "op" else f"an operator is missing before {value!r}."

    def advice(self) -> str:
        if self.token.value in ("*", "/"):
            return "Combinations of levels are written g:h."
        if self.token.value == "+":
            return "Combinations of levels are written g:h; conditions follow '~'."
        if self.token.value == "-":
            return "Differences are written g[a - b] or pairwise(g)."
        if self.token.value == "=":
            return "Values follow '@': x@3, x@[1, 2]."
        return ""

    def focal(self) -> tuple[Part, ...]:
        if self.token.kind == "number" and self.token.value == 1:
            self.take()
            return ()
        parts = [self.part()]
        while self.takes(":"):
            parts.append(self.part())
        return tuple(parts)

    def conditions(self) -> tuple[Part, ...]:
        parts = [self.part()]
        while self.takes("+", ":"):
            parts.append(self.part())
        for part in parts:
            if isinstance(part, (Slope, Change)):
                raise self.error("a slope cannot be a condition.", part.position, "Write it first: slope(x) ~ g.")
        return tuple(parts)

    def part(self) -> Part:
        if self.calls():
            return self.called()
        variable = self.name()
        if self.takes("["):
            return self.bracket(variable)
        return Means(self.valued(variable))

    def name(self) -> Variable:
        token = self.token
        if token.kind == "name" or (token.kind == "word" and not token.value[0].isdigit()):
            self.take()
            return Variable(token.value, token.position)
        if token.kind == "text":
            do = f"Odd names go between backticks: `{token.value}`."
            raise self.error(f"the name of a variable should stand here, not the text {token.value!r}.", do=do)
        if token.kind == "end":
            raise self.error("the query ends where a name should follow.")
        raise self.error(f"the name of a variable should stand here, not {token.value!r}.")

    def valued(self, variable: Variable) -> Variable:
        return Variable(variable.name, variable.position, self.values()) if self.takes("@") else variable

    # ------------------------------------------------------------ functions
    def called(self) -> Part:
        token = self.take()
        opened = self.take()
        method = SPELLINGS.get(token.value, token.value)
        if method == "trt.vs.ctrlk":
            method = "treatment"
        if method == "slope":
            name = self.name()
            self.close(opened, ")")
            return Slope(name.name, name.position)
        if method == "change":
            return self.change(opened)
        if method not in CONTRASTS:
            do = suggestion(token.value, [*CONTRASTS, "slope", "change"], "Known:")
            do = "Name the column itself: its transforms follow it." if token.value in FUNCTIONS else do
            raise self.error(f"{token.value!r} is not a contrast.", token.position, do)
        variables = [self.valued(self.name())]
        while self.takes(":"):
            variables.append(self.valued(self.name()))
        options = list(self.options(method))
        self.close(opened, ")")
        if token.value == "trt.vs.ctrlk":
            options.append(("last", Level(True, token.position)))
        return Contrast(method, tuple(variables), tuple(options), token.position)

    def options(self, method: str) -> Iterator[tuple[str, Level]]:
        allowed, seen = OPTIONS.get(method, ()), set()
        while self.takes(","):
            token = self.token
            after = self.tokens[min(self.at + 1, len(self.tokens) - 1)]
            option = allowed[0] if allowed else ""
            if token.kind == "word" and after.kind == "op" and after.value == "=":
                option = OPTION_SPELLINGS.get(token.value, token.value)
                self.at += 2
                if option not in allowed:
                    do = suggestion(option, allowed, "It has:") if allowed else "It has none."
                    raise self.error(f"{method} has no option {token.value!r}.", token.position, do)
            elif not allowed:
                raise self.error(f"{method} takes nothing after its term.", do="Several factors are written g:h.")
            if option in seen:
                raise self.error(f"the option {option!r} is given twice.", token.position)
            seen.add(option)
            yield option, self.level()

    def change(self, opened: Token) -> Change:
        name = self.name()
        size, centered = 1.0, False
        while self.takes(","):
            token = self.token
            if token.kind == "word" and token.value == "centered":
                self.take()
                centered = True
                if self.takes("="):
                    centered = self.level().value is True
            else:
                value = self.level()
                if isinstance(value.value, (bool, str)):
                    raise self.error(f"{value.value!r} is not a size.", value.position, "Write change(x, 5), or change(x, 1, centered).")
                size = float(value.value)
        self.close(opened, ")")
        return Change(name.name, name.position, size, centered)

    def close(self, opened: Token, with_: str) -> None:
        if self.takes(with_):
            return
        if self.token.kind == "end":
            raise self.error(f"this {opened.value!r} is never closed.", opened.position)
        raise self.error(f"expected {with_!r} here, not {self.token.value!r}.")

    # ------------------------------------------------------------ values and levels
    def values(self) -> Values:
        token = self.token
        if self.calls():
            return self.spread()
        if token.kind == "word" and token.value in ("mean", "data"):
            self.take()
            return Values(token.value, token.position)
        if self.takes("["):
            return self.listed(token, "]")
        return Values("list", token.position, (self.level(),))

    def spread(self) -> Values:
        """range(n), quantile(n), or R's c(…)."""
        token, opened = self.take(), self.take()
        if token.value == "c":
            return self.listed(opened, ")")
        if token.value not in ("range", "quantile"):
            do = suggestion(token.value, ["range", "quantile", "mean", "data"], "Use one of:")
            raise self.error(f"{token.value!r} does not give values.", token.position, do)
        n = self.take()
        if n.kind != "number" or not isinstance(n.value, int) or n.value < 1:
            raise self.error(f"{token.value}() takes a whole number of values, at least 1.", n.position, f"Write x@{token.value}(5).")
        self.close(opened, ")")
        return Values(token.value, token.position, n=n.value)

    def listed(self, opened: Token, end: str) -> Values:
        items = [self.level()]
        while self.takes(","):
            items.append(self.level())
        self.close(opened, end)
        return Values("list", opened.position, tuple(items))

    def level(self) -> Level:
        """A value: a number with its sign, a boolean, a quoted or a bare level."""
        start = self.token.position
        sign = -1 if self.takes("-") else 1
        token = self.token
        if token.kind == "number":
            self.take()
            return Level(sign * token.value, start)
        if sign < 0:
            raise self.error("a number should follow this minus.", start)
        if token.kind in ("word", "text", "name"):
            self.take()
            known = token.kind == "word" and token.value in CONSTANTS
            return Level(CONSTANTS[token.value] if known else token.value, start, token.kind != "word")
        if token.kind == "end":
            raise self.error("the query ends where a value should follow.")
        raise self.error(f"a value or level should stand here, not {token.value!r}.", do="Levels with odd characters go between quotes.")

    # ------------------------------------------------------------ brackets
    def bracket(self, variable: Variable) -> Bracket:
        opened = self.tokens[self.at - 1]
        items = [self.item(variable)]
        while self.takes(","):
            items.append(self.item(variable))
        self.close(opened, "]")
        return Bracket(variable, tuple(items))

    def item(self, variable: Variable) -> Item:
        start = self.token.position
        plus = self.side()
        if not self.takes("-"):
            if self.sees("+"):
                raise self.error("a sum of levels goes in parentheses.", do=f"Write {variable.name}[(a + b) - c].")
            do = f"Write {variable.name}[a - b] for a difference, {variable.name}@a for a mean."
            raise self.error("a difference should stand in the brackets.", start, do)
        minus = self.side()
        if self.sees("+", "-"):
            raise self.error("one difference has two sides.", do=f"Group levels by parentheses: {variable.name}[a - (b + c)].")
        both = {(str(x.value)) for x in plus} & {str(x.value) for x in minus}
        if both:
            raise self.error(f"the level {min(both)!r} is on both sides.", start)
        return Item(plus, minus)

    def side(self) -> tuple[Level, ...]:
        token = self.token
        if self.takes(OTHERS):
            return (Level(OTHERS, token.position),)
        if not self.takes("("):
            level = self.bare()
            return (level,)
        levels = [self.bare()]
        while self.takes("+"):
            levels.append(self.bare())
        self.close(token, ")")
        return tuple(levels)

    def bare(self) -> Level:
        """A level in brackets, where a minus is always a difference."""
        if self.sees("-"):
            raise self.error("a level should stand here.", do="Negative values go between quotes.")
        return self.level()


def _written(levels: tuple[Level, ...]) -> str:
    texts = [str(x.value).upper() if isinstance(x.value, bool) else str(x.value) for x in levels]
    names = [text if x.value == OTHERS and not x.quoted else named(text) for x, text in zip(levels, texts)]
    return names[0] if len(names) == 1 else f"({' + '.join(names)})"
