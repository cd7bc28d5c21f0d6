"""Array aliases used in signatures; the shape stands in the docstring of each function."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]
Array = NDArray[Any]
