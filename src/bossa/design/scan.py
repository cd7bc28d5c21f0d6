"""Which words is a formula made of? `scan(text)` gives tokens with their positions; nothing is evaluated here.

Names follow R: letters, digits, `.` and `_`, any alphabet, not starting with a digit; anything else goes between backticks. Words that
Python or R reserve (`yield`, `if`, `lambda`) are ordinary names; only TRUE / FALSE / NULL (True, False, None) are values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import frozen

from ..errors import FormulaError

CONSTANTS = {"TRUE": True, "FALSE": False, "NULL": None, "True": True, "False": False, "None": None}
ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}

_TOKEN = re.compile(
    r"""\s+
    | (?P<number> (?: \d+\.?\d* | \.\d+ ) (?: [eE][+-]?\d+ )? )
    | (?P<name> (?: [^\W\d_] | \.(?!\d) ) [\w.]* | _[\w.]* )
    | (?P<quoted> ` (?: \\. | [^`\\] )* ` )
    | (?P<text> " (?: \\. | [^"\\] )* " | ' (?: \\. | [^'\\] )* ' )
    | (?P<op> \*\* | %\w*% | %/% | %% | \|\| | <= | >= | == | != | [-+*/^:~|()<>,=\[\]] )
    """,
    re.VERBOSE,
)
_FOREIGN = {
    "$": "Columns are named directly: write x, not data$x.",
    "@": "Attributes cannot be reached from a formula.",
    ";": "A formula is one expression.",
    "{": "A formula is an expression, not code.",
    "}": "A formula is an expression, not code.",
    "&": "Compute the condition as a column first.",
    "!": "Compute the condition as a column first.",
}


@frozen
class Token:
    """kind: "name" | "number" | "text" | "constant" | "op" | "end"; value: what it stands for; position in the formula."""

    kind: str
    value: str | float | bool | None
    position: int


def scan(text: str) -> Iterator[Token]:
    """The tokens of a formula, an "end" token last.

    raises  FormulaError at the first character that starts no token
    """
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise FormulaError(*_unreadable(text[at]), text=text, position=at)
        if match.lastgroup is not None:
            yield _token(match.lastgroup, match.group(), at)
        at = match.end()
    yield Token("end", "", len(text))


def _token(kind: str, word: str, at: int) -> Token:
    if kind == "number":
        return Token("number", float(word), at)
    if kind == "name" and word in CONSTANTS:
        return Token("constant", CONSTANTS[word], at)
    if kind in ("quoted", "text"):
        inner = re.sub(r"\\(.)", lambda m: ESCAPES.get(m.group(1), m.group(1)), word[1:-1], flags=re.DOTALL)
        return Token("name" if kind == "quoted" else "text", inner, at)
    return Token(kind, "^" if word == "**" else word, at)


def _unreadable(character: str) -> tuple[str]:
    if character in "\"'`":
        return (f"the quote {character} is never closed.",)
    return (f"{character!r} has no meaning in a formula. {_FOREIGN.get(character, 'Odd column names go between backticks.')}",)
