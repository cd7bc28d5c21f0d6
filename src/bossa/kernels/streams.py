"""Random streams that depend on the seed and the block alone: never on the machine, the memory or the number of workers.

A seed is normalised once to entropy, which the result keeps and shows; block i draws from `stream(entropy, i)`.

Source: O'Neill (2015), seed sequences; NumPy's `SeedSequence` with an explicit spawn key.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import OptionError


def entropy(seed: Any, where: str = "seed") -> int | tuple[int, ...]:
    """Whatever `default_rng` takes → entropy that replays it; None: fresh entropy, kept so the run can be repeated.

    A Generator or BitGenerator gives up 128 bits of its stream, so passing it on twice gives two different runs.
    """
    if seed is None:
        return int(np.random.SeedSequence().entropy)  # type: ignore[arg-type]
    if isinstance(seed, np.random.SeedSequence):
        return _as_ints([*np.atleast_1d(np.asarray(seed.entropy)), *seed.spawn_key])
    if isinstance(seed, np.random.BitGenerator):
        seed = np.random.Generator(seed)
    if isinstance(seed, np.random.Generator):
        return _as_ints(seed.integers(0, 2**32, size=4))
    try:
        numbers = [int(s) for s in np.atleast_1d(seed)] if not isinstance(seed, (str, bytes, bool)) else [-1]
        exact = all(n == s for n, s in zip(numbers, np.atleast_1d(seed)))
    except (TypeError, ValueError):
        numbers, exact = [-1], False
    if not exact or not numbers or min(numbers) < 0:
        raise OptionError(f"seed={seed!r} cannot seed a generator.", where=where, do="Use a whole number ≥ 0, or a numpy Generator.")
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _as_ints(values: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


def stream(seed: int | tuple[int, ...], block: int) -> np.random.Generator:
    """The generator of block `block`."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(block,))))
