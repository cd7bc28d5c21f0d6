"""What is compared: every number of the corpus belongs to exactly one quantity, and a quantity is read by at most one reader.

A reader is a function of a case that yields `Number(path, ours, kind, scale)`: which reference number, what bossa says, and how the two
are to be held against each other. It never sees the reference's value: the runner looks that up by the path.

    @reader(r2="r2", adj_r2="adj_r2")
    def r_squared(case):
        yield Number(("r2",), case.model.diagnostics["rsquared"][0])

Patterns are dotted paths: `*` stands for one step, `**` for any number of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from corpus import Case, Path_


@dataclass(frozen=True)
class Number:
    """One comparison: `path` into the results, what bossa says, the kind of tolerance, and the scale where the kind needs one."""

    path: Path_
    ours: float | None
    kind: str = "relative"
    scale: float | None = None


@dataclass(frozen=True)
class Reader:
    read: Callable[[Case], Iterator[Number]]
    quantities: dict[str, tuple[str, ...]]
    fits: tuple[str, ...]


READERS: list[Reader] = []
PENDING: dict[str, tuple[str, ...]] = {}
SETTINGS: dict[str, str] = {}
REASONS: dict[str, str] = {}


def reader(*, fits: tuple[str, ...] = ("lm", "glm", "lmer", "glmer"), **quantities: str | tuple[str, ...]) -> Callable:
    """Register a reader for `quantities` (name=pattern or patterns) of the kinds of fit named."""

    def register(read: Callable[[Case], Iterator[Number]]) -> Callable[[Case], Iterator[Number]]:
        READERS.append(Reader(read, {k: (v,) if isinstance(v, str) else v for k, v in quantities.items()}, fits))
        return read

    return register


def pending(**quantities: str | tuple[str, ...]) -> None:
    """Numbers that no reader compares yet; they are counted as such."""
    PENDING.update({k: (v,) if isinstance(v, str) else v for k, v in quantities.items()})


def uncompared(pattern: str, reason: str) -> None:
    """Numbers of a quantity that its reader passes by, and why; counted as not compared."""
    REASONS[pattern] = reason


def reason_left(path: Path_) -> str:
    """Why the number at a path is not compared."""
    return next((reason for pattern, reason in REASONS.items() if matches(pattern, path)), "no reader yet")


def setting(pattern: str, reason: str) -> None:
    """Numbers that are part of the question (arguments, grids) or of R's run, not results; carved out of any quantity around them."""
    SETTINGS[pattern] = reason


@cache
def _matches(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_matches(pattern[1:], path[i:]) for i in range(len(path) + 1))
    return bool(path) and pattern[0] in ("*", path[0]) and _matches(pattern[1:], path[1:])


def matches(pattern: str, path: Path_) -> bool:
    """Does a dotted pattern describe this path? List positions count as `*` only."""
    return _matches(tuple(pattern.split(".")), tuple("#" if isinstance(p, int) else p for p in path))


@dataclass(frozen=True)
class Home:
    """Where a number belongs: its quantity, and the reader that compares it (None: nobody yet; quantity None: a setting)."""

    quantity: str | None
    reader: Reader | None


def homes(kind: str, path: Path_) -> list[Home]:
    """All the places that claim a number; a sound table of quantities gives exactly one. A setting goes before a quantity."""
    shape = tuple("#" if isinstance(p, int) else p for p in path)
    return _homes(kind, shape)


@cache
def _homes(kind: str, shape: tuple[str, ...]) -> list[Home]:
    if any(_matches(tuple(p.split(".")), shape) for p in SETTINGS):
        return [Home(None, None)]
    found = [
        Home(name, r)
        for r in READERS
        if kind in r.fits
        for name, patterns in r.quantities.items()
        if any(_matches(tuple(p.split(".")), shape) for p in patterns)
    ]
    found += [Home(name, None) for name, patterns in PENDING.items() if any(_matches(tuple(p.split(".")), shape) for p in patterns)]
    return found


def names() -> list[str]:
    """Every quantity, in the order of the report."""
    listed = [name for r in READERS for name in r.quantities] + list(PENDING)
    return list(dict.fromkeys(listed))
