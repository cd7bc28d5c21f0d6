"""How `insteval_sim` was made: lecture ratings with crossed random effects, simulated; no row of any real survey is in it.

Uses only `Generator.random()` (whose stream numpy keeps) and inverse normals, so the same file comes out everywhere.
`python tests/datasets/recipe_insteval_sim.py` prints the csv.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy.special import ndtri

SEED, STUDENTS, LECTURERS, RATINGS = 20240501, 420, 72, 3000
SPREAD = {"student": 0.33, "lecturer": 0.52, "department by service": 0.11, "residual": 1.18}


def insteval_sim() -> pl.DataFrame:
    """3000 ratings of 72 lecturers by 420 students; y = 1 … 5 is a rounded, clipped normal."""
    rng = np.random.default_rng(SEED)

    def pick(k: int, n: int, skew: float = 1.0) -> np.ndarray:
        return np.minimum((rng.random(n) ** skew * k).astype(int), k - 1)

    def normal(n: int) -> np.ndarray:
        return ndtri(rng.random(n))

    dept_of = pick(6, LECTURERS)
    student_age = pick(4, STUDENTS)
    s, d = pick(STUDENTS, RATINGS), pick(LECTURERS, RATINGS, 1.4)
    outside = rng.random(RATINGS) < 0.42  # a service lecture: given to another department's students
    lecture_age = pick(6, RATINGS, 1.3)
    cell = SPREAD["department by service"] * normal(12)
    latent = (
        3.28
        - 0.09 * outside
        + np.array([0.0, 0.05, 0.08, 0.13])[student_age[s]]
        - np.array([0.0, 0.08, 0.11, 0.16, 0.13, 0.19])[lecture_age]
        + SPREAD["student"] * normal(STUDENTS)[s]
        + SPREAD["lecturer"] * normal(LECTURERS)[d]
        + cell[2 * dept_of[d] + outside]
        + SPREAD["residual"] * normal(RATINGS)
    )
    frame = pl.DataFrame(
        {
            "s": [f"s{i + 1:03d}" for i in s],
            "d": [f"d{i + 1:02d}" for i in d],
            "studage": np.array([2, 4, 6, 8])[student_age[s]],
            "lectage": lecture_age + 1,
            "service": outside.astype(int),
            "dept": [f"dept{i + 1}" for i in dept_of[d]],
            "y": np.clip(np.rint(latent), 1, 5).astype(int),
        }
    )
    return frame.unique(subset=["s", "d"], keep="first", maintain_order=True).sort("s", "d")


if __name__ == "__main__":
    print(insteval_sim().write_csv(), end="")
