"""Field factories that make a container check itself.

`array("n", "p")` declares a read-only array with named axes; `check_axes` compares every axis name across the fields of one
instance, so a container cannot hold arrays that do not belong together. `choice`, `between`, `at_least` check options at the door.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import attrs
import numpy as np

from ..errors import DataError, OptionError, UnknownOption
from ..types import is_number, is_whole


def _frozen_view(value: Any) -> Any:
    if value is None:
        return None
    view = np.asarray(value).view()
    view.flags.writeable = False
    return view


def array(*axes: str, optional: bool = False) -> Any:
    """A read-only array with named axes; `optional`: may be None."""
    default = None if optional else attrs.NOTHING
    return attrs.field(default=default, converter=_frozen_view, metadata={"axes": axes})


def check_axes(self: Any) -> None:
    """`__attrs_post_init__` of a container: same axis name, same length."""
    seen: dict[str, int] = {}
    for name, axes in arrays_of(self.__class__).items():
        value = getattr(self, name)
        if value is None:
            continue
        if value.ndim != len(axes):
            where = f"{type(self).__name__}.{name}"
            raise DataError(f"has {value.ndim} axes, not {len(axes)} ({', '.join(axes)}).", where=where)
        for axis, length in zip(axes, value.shape):
            if seen.setdefault(axis, length) != length:
                where = f"{type(self).__name__}.{name}"
                raise DataError(f"has {length} along {axis!r}, other fields have {seen[axis]}.", where=where)


@cache
def arrays_of(kind: type) -> dict[str, tuple[str, ...]]:
    """Name and axes of the arrays that a container declares."""
    return {f.name: f.metadata["axes"] for f in attrs.fields(kind) if "axes" in f.metadata}


def choice(default: Any, among: Sequence[str]) -> Any:
    """An option that takes one of the listed words; upper or lower case does not matter."""
    by_lower = {word.lower(): word for word in among}

    def spelled(value: Any) -> Any:
        return by_lower.get(value.lower(), value) if isinstance(value, str) else value

    def check(instance: Any, attribute: attrs.Attribute, value: Any) -> None:
        if not isinstance(value, str) or value not in among:
            raise UnknownOption(value, among, where=f"{option_owner(instance)} {attribute.name}={value!r}", kind="value")

    return attrs.field(default=default, converter=spelled, validator=check)


def option_owner(instance: Any) -> str:
    """`infer(how='boot')` for the option class of a how, the class name otherwise."""
    return getattr(type(instance), "owner", type(instance).__name__)


def integer(default: int | None, minimum: int, optional: bool = False, word: str | None = None, do: str = "") -> Any:
    """An option that takes a whole number of at least `minimum`; or None where it is optional; or the word.

    do  advice to who gives something else
    """

    def check(instance: Any, attribute: attrs.Attribute, value: Any) -> None:
        if (optional and value is None) or (isinstance(value, str) and value == word):
            return
        if not is_whole(value) or value < minimum:
            number = f"a whole number of at least {minimum}"
            what = f"{attribute.name}={value!r} is {f'not {number}' if word is None else f'neither {number} nor {word!r}'}."
            raise OptionError(what, where=option_owner(instance), do=do)

    return attrs.field(default=default, validator=check)


def workers() -> Any:
    """An option that says how many workers, as joblib does: 1, 2, …, or −1 for one per core; None: what the active configuration says."""

    def check(instance: Any, attribute: attrs.Attribute, value: Any) -> None:
        if value is not None and (not is_whole(value) or value == 0):
            what = f"{attribute.name}={value!r} is not a number of workers."
            raise OptionError(what, where=option_owner(instance), do="Use 1, 2, …, or -1 for one per core.")

    return attrs.field(default=None, validator=check)


def flag(default: bool) -> Any:
    """An option that is True or False."""

    def check(instance: Any, attribute: attrs.Attribute, value: Any) -> None:
        if not isinstance(value, (bool, np.bool_)):
            raise OptionError(f"{attribute.name}={value!r} is neither True nor False.", where=option_owner(instance))

    return attrs.field(default=default, validator=check)


def conf_level(value: Any) -> float:
    """0.95, 95 or "95%" → 0.95; anything outside (0, 1) is an error."""
    number = value
    if isinstance(value, str):
        text = value.strip().removesuffix("%")
        try:
            number = float(text) / (100 if value.strip().endswith("%") else 1)
        except ValueError:
            number = None
    if not is_number(number):
        number = None
    if number is not None and 50 <= number < 100:  # 1.5 is a slip, not one and a half percent
        number = number / 100
    if number is None or not 0 < number < 1:
        raise OptionError(f"conf_level={value!r} is not a confidence level.", where="infer()", do="Use 0.95, 95 or '95%'.")
    return float(number)
