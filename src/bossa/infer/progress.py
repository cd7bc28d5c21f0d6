"""A progress bar on work that lasts; silent where there is no terminal or no tqdm."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..errors import OptionError


@contextmanager
def progress_bar(progress: Any, total: int, what: str) -> Iterator[Callable[[int], None] | None]:
    """Yields `tick(k)`, or None where nothing is shown.   progress  True | False | "auto" (a terminal or a notebook)"""
    if progress not in (True, False, "auto"):
        raise OptionError(f"progress={progress!r} is none of True, False, 'auto'.", where="infer()")
    shown = progress is True or (progress == "auto" and (sys.stderr.isatty() or "ipykernel" in sys.modules))
    if not shown or find_spec("tqdm") is None:
        yield None
        return
    with import_module("tqdm.auto").tqdm(total=total, desc=what, leave=False, delay=0.5) as bar:
        yield bar.update
