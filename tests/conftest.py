"""What every test may use: the repository's folders, and one BLAS thread so that times and last digits do not depend on the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before the first import of numpy

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def golden() -> Path:
    """The golden numbers kept here: data/, cases/ in the corpus format."""
    return ROOT / "tests" / "golden"
