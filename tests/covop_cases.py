"""One covariance operator of every kind, shared by the tests of posteriors."""

from __future__ import annotations

import numpy as np

from bossa.kernels import covop

KINDS = ["diag", "chol", "chol of low rank", "precision_chol", "lowrank+diag", "diag minus lowrank", "kron", "dense", "dense of low rank"]


def operator(kind: str, k: int, seed: int) -> covop.CovOp:
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((k, k)) + 2 * np.eye(k)
    d = rng.uniform(0.5, 2, k)
    made = {
        "diag": lambda: covop.Diag(d),
        "chol": lambda: covop.from_root(A),
        "chol of low rank": lambda: covop.from_root(A[:, : max(1, k // 2)]),
        "precision_chol": lambda: covop.from_precision(A @ A.T),
        "lowrank+diag": lambda: covop.lowrank(d, A[:, :2]),
        "diag minus lowrank": lambda: covop.LowRank(d, np.linalg.qr(A[:, :1])[0], np.array([-0.7])),
        "kron": lambda: covop.Kron(covop.from_root(A), covop.Diag(rng.uniform(0.5, 2, 3))),
        "dense": lambda: covop.from_matrix(A @ A.T),
        "dense of low rank": lambda: covop.from_matrix(A[:, :1] @ A[:, :1].T),
    }
    return made[kind]()
