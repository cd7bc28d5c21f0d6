"""The JAX twins of the batched kernels beside their NumPy definitions, on whatever device JAX finds.

    python benchmarks/gpu.py [--scale 1] [--rounds 5]

One block of replicates for each kernel, as a bootstrap or a power study would ask for; --scale multiplies the number of replicates. Prints
the device, what the first call takes (it compiles), the median of later calls with the transfers of data and results in them, the ratio to
NumPy in the same process, and the largest difference between the two relative to the size of the result.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bossa.kernels import gram, replicates, seam
from bossa.kernels.family import FAMILIES
from bossa.kernels.link import LINKS


def columns(rng: np.random.Generator, n: int, p: int) -> np.ndarray:
    return np.column_stack((np.ones(n), rng.normal(size=(n, p - 1))))


def bootstrap(rng: np.random.Generator, scale: int) -> tuple[Any, ...]:
    X = columns(rng, 20_000, 10)
    return X, rng.integers(0, 3, size=(500 * scale, len(X))).astype(float), rng.normal(size=len(X))


def permutation(rng: np.random.Generator, scale: int) -> tuple[Any, ...]:
    X = columns(rng, 20_000, 10)
    return X, np.linalg.cholesky(X.T @ X).T, None, rng.normal(size=(500 * scale, len(X)))


def logistic(rng: np.random.Generator, scale: int) -> tuple[Any, ...]:
    X = columns(rng, 20_000, 10)
    beta = np.linspace(-0.4, 0.4, 10)
    y = (rng.random(len(X)) < 1 / (1 + np.exp(-X @ beta))).astype(float)
    W = rng.integers(0, 3, size=(250 * scale, len(X))).astype(float)
    return X, W, y, None, (FAMILIES["binomial"], LINKS["logit"]), beta


def mixed(rng: np.random.Generator, scale: int) -> tuple[Any, ...]:
    """New responses of 1,000 groups of 8 rows, each with an intercept and a slope of its own, at doses of its own."""
    b, G, m = 500 * scale, 1_000, 8
    Z = np.stack((np.ones((G, m)), rng.normal(size=(G, m))))
    By, C = np.empty((2, b, G)), np.empty((b, 3, 3))
    A = np.einsum("agi,cgi->acg", Z, Z)
    for i in range(b):
        effects = rng.normal(size=(G, 2)) @ np.array([[0.8, 0.3], [0.0, 0.5]])
        y = effects[:, :1] + effects[:, 1:] * Z[1] + rng.normal(size=(G, m))
        By[:, i] = np.einsum("agi,gi->ag", Z, y)
        F = np.stack((*Z, y)).reshape(3, -1)
        C[i] = F @ F.T
    rows, cols = np.array([0, 1, 1]), np.array([0, 0, 1])
    block = replicates.Block(A=A, B=A.copy(), By=By, C=C, n=np.full(b, 1.0 * G * m), rows=rows, cols=cols, reml=True)
    return block, np.tile([0.8, 0.3, 0.5], (b, 1)), np.diag([1e-3, 1e-3, 1e-3])


WORK: list[tuple[str, seam.Kernel, Callable[..., tuple[Any, ...]]]] = [
    ("bootstrap, linear, 20,000 × 10", gram.ols_many, bootstrap),
    ("new responses, linear, 20,000 × 10", gram.ols_responses, permutation),
    ("bootstrap, logistic, 20,000 × 10", gram.glm_many, logistic),
    ("new responses, mixed, 1,000 groups of 8, slopes", replicates.lmm_many, mixed),
]


def seconds(function: Callable[..., Any], args: tuple[Any, ...]) -> float:
    began = time.perf_counter()
    function(*args)
    return time.perf_counter() - began


def difference(one: tuple[np.ndarray, ...], two: tuple[np.ndarray, ...]) -> float:
    """Largest difference of usable numbers, relative to the largest of the result."""
    pairs = [(a[np.isfinite(b)], b[np.isfinite(b)]) for a, b in zip(one, two, strict=True)]
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-300)) for a, b in pairs if b.size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=int, default=1, help="times the replicates of a block")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    device = jax.devices()[0]
    print(f"JAX {jax.__version__} on {device.platform} ({device.device_kind}); NumPy {np.__version__} on {platform.machine()}")
    for title, kernel, make in WORK:
        args = make(np.random.default_rng(1), asked.scale)
        twin = kernel.load("jax")
        first = seconds(twin, args)
        times = [(seconds(kernel.definition, args), seconds(twin, args)) for _ in range(asked.rounds)]
        plain, fast = (statistics.median(column) for column in zip(*times))
        gap = difference(twin(*args), kernel.definition(*args))
        b = len(args[0].n) if kernel is replicates.lmm_many else len(args[3] if kernel is gram.ols_responses else args[1])
        print(f"{title}, {b:,} replicates")
        print(f"  NumPy {plain:.3f} s   JAX {fast:.3f} s, {fast / plain:.2f} of it (first {first:.2f} s)   differ by {gap:.0e}", flush=True)


if __name__ == "__main__":
    main()
