"""One BLAS thread where many small products are asked for: fits of few columns, streams, and refits, in this process and in workers.

A second thread makes them slower (10,000 linear bootstraps of 1000 × 6: 0.6 s instead of 0.15 s), much slower on a machine with other
work, and adds in another order, so that the last bit would depend on who computed. Cores are for workers (`n_jobs=`). Needs the optional
library threadpoolctl; without it BLAS keeps the threads it has.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from threading import current_thread, main_thread
from typing import Any


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside the block, BLAS runs on one thread. It is a setting of the whole process, so only the main thread changes it."""
    libraries = _libraries("scipy.linalg" in sys.modules) if current_thread() is main_thread() else None
    if libraries is None:
        yield
        return
    with libraries.limit(limits=1, user_api="blas"):
        yield


@cache
def _libraries(scipy: bool) -> Any:
    """The BLAS libraries that this process has loaded, of which scipy brings one; None without threadpoolctl."""
    if find_spec("threadpoolctl") is None:
        return None
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
