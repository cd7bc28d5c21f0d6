"""Exceptions and warnings that build their own message: what is wrong with which value, where it came from, what to do.

Callers pass facts. Every class keeps the three parts as `what`, `where`, `do`, so a front end can lay them out; `str()` joins them
into sentences. All are picklable (workers raise them across processes).
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable


def nearest(name: object, known: Iterable[object], n: int = 1) -> list[str]:
    """The known names closest to `name`, best first; case does not count."""
    by_lower: dict[str, str] = {}
    for k in known:
        by_lower.setdefault(str(k).lower(), str(k))
    return [by_lower[k] for k in difflib.get_close_matches(str(name).lower(), list(by_lower), n=n, cutoff=0.5)]


def listing(known: Iterable[object], limit: int = 12) -> str:
    """`a, b, c (+ 5 more)`."""
    names = [str(k) for k in known]
    more = f" (+ {len(names) - limit} more)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def suggestion(name: object, known: Iterable[object], intro: str = "Known:") -> str:
    """`Did you mean 'x'?`, or the list of what is known."""
    known = list(known)
    near = nearest(name, known)
    return f"Did you mean {near[0]!r}?" if near else f"{intro} {listing(known)}."


def one(value: object) -> str:
    """`a str`, `an int`, `None`: a value by its type."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' or name.startswith('nd') else 'a'} {name}"


def _rebuild(cls: type, what: str, where: str, do: str) -> BossaError:
    error: BossaError = BossaError.__new__(cls)
    BossaError.__init__(error, what, where=where, do=do)
    return error


def _message(what: str, where: str, do: str) -> str:
    text = f"{where}: {what}" if where else what
    return f"{text} {do}".strip()


class BossaError(Exception):
    """Base of every error that bossa raises on purpose."""

    def __init__(self, what: str, *, where: str = "", do: str = ""):
        self.what, self.where, self.do = what, where, do
        super().__init__(_message(what, where, do))

    def __str__(self) -> str:  # KeyError and friends would print the repr
        return _message(self.what, self.where, self.do)

    def __reduce__(self):
        return _rebuild, (type(self), self.what, self.where, self.do)


class DataError(BossaError, ValueError):
    """The data cannot be used as asked."""


class OptionError(BossaError, ValueError):
    """An argument has a value that is not allowed."""


class UnknownOption(OptionError):
    """A name that is not among the allowed ones."""

    def __init__(self, name: object, known: Iterable[object], *, where: str, kind: str = "option"):
        known = list(known)
        super().__init__(f"{kind} {name!r} is not one of {listing(known)}.", where=where, do=_did_you_mean(name, known))


def _did_you_mean(name: object, known: Iterable[object]) -> str:
    near = nearest(name, known)
    return f"Did you mean {near[0]!r}?" if near else ""


class UnknownColumn(DataError, KeyError):
    """A column that the data do not have."""

    def __init__(self, name: str, columns: Iterable[str], *, where: str):
        do = suggestion(name, columns, "The data has:")
        super().__init__(f"{name!r} is not a column of the data.", where=where, do=do)


class UnknownLevel(DataError):
    """A level that the factor did not have when the model was fitted."""

    def __init__(self, level: object, factor: str, levels: Iterable[object], *, where: str):
        levels = list(levels)
        super().__init__(f"{factor!r} has no level {level!r}.", where=where, do=suggestion(level, levels, "Its levels are:"))


class FormulaError(BossaError, ValueError):
    """A formula or query that cannot be read; shows where with a caret."""

    def __init__(self, what: str, *, text: str, position: int | None = None, do: str = "", where: str = "formula"):
        caret = "" if position is None else f"\n  {text}\n  {' ' * position}^\n"
        head = f"{where} {text!r}" if position is None else where
        super().__init__(what + caret, where=head, do=do)


class NotFitted(BossaError, AttributeError):
    """A result was asked of a model that does not have it yet."""


class Refused(BossaError, ValueError):
    """The question is understood, and has no valid answer for this model; says what to use instead."""


class NotYet(Refused, NotImplementedError):
    """Part of the plan, not built yet; named so that nobody waits for a wrong number."""


class FitFailed(BossaError, RuntimeError):
    """The fit ended without usable numbers."""


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the user's own line: the first one outside the library, however deep the call."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "bossa":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


class BossaWarning(UserWarning):
    """Base of every warning; names the consequence for the numbers."""


class ConvergenceWarning(BossaWarning):
    """The optimizer stopped early: the numbers may not be the maximum."""


class BoundaryWarning(BossaWarning):
    """A variance is estimated as 0 or a correlation as ±1."""


class SeparationWarning(BossaWarning):
    """A predictor separates the outcomes: its coefficient runs to infinity."""


class DataWarning(BossaWarning):
    """Something in the data changes what the numbers mean."""
