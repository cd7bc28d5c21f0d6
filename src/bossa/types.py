"""Array aliases used in signatures (the shape stands in the docstring of each function), and what counts as a number in an argument."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]
Array = NDArray[Any]


def is_whole(value: Any) -> TypeGuard[int]:
    """Is it an integer, Python's or NumPy's? True and False are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[float]:
    """Is it an integer or a float, Python's or NumPy's? True and False are none."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
