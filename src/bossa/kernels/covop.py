"""A covariance as an operator: what it does to a vector, never a matrix unless one is asked for.

Every kind has P = S Sᵀ with S (k, m) and answers, for v (k,) or (k, c) and z (m,) or (m, c),

    mv(v) = P v     solve(v) = P⁻¹ v     sqrt_mv(z) = S z     sqrt_t(v) = Sᵀ v     whiten(v) = W v,  WᵀW = P⁻¹
    diag()          logdet()             dense()              rank, size, width m

Where the rank r is below k (a root with fewer columns than rows), P⁻¹ is Moore and Penrose's and logdet the sum over the r positive
eigenvalues: the density is then one on the range of P.

Source: Golub & Van Loan (2013) §2.1.4, §4.2, §12.3; Woodbury (1950).
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from attrs import field, frozen

from ..errors import DataError, Refused
from ..types import Bools, Floats
from .linalg import cholesky_factor, upper

RANK_TOL = 1e-11  # of a row-scaled root's largest singular value


class CovOp(Protocol):
    """What every kind of covariance answers."""

    @property
    def kind(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def rank(self) -> int: ...
    def mv(self, v: Floats) -> Floats: ...
    def solve(self, v: Floats) -> Floats: ...
    def sqrt_mv(self, z: Floats) -> Floats: ...
    def sqrt_t(self, v: Floats) -> Floats: ...
    def whiten(self, v: Floats) -> Floats: ...
    def diag(self) -> Floats: ...
    def logdet(self) -> float: ...
    def dense(self) -> Floats: ...
    def scaled(self, factor: float) -> CovOp: ...
    def arrays(self) -> dict[str, Any]: ...


def _rows(scale: Floats, v: Floats) -> Floats:
    """scale (k,) times each column of v."""
    return (scale * v.T).T


@frozen(eq=False)
class Diag:
    """P = diag(d), d (k,) ≥ 0; inf: nothing is known of that one (its precision is 0)."""

    d: Floats
    kind: str = field(default="diag", init=False)

    @property
    def size(self) -> int:
        return len(self.d)

    width = size

    @property
    def rank(self) -> int:
        return int((self.d > 0).sum())

    def mv(self, v: Floats) -> Floats:
        return _rows(self.d, v)

    def solve(self, v: Floats) -> Floats:
        return _rows(self._inverse(self.d), v)

    def sqrt_mv(self, z: Floats) -> Floats:
        return _rows(np.sqrt(self.d), z)

    sqrt_t = sqrt_mv

    def whiten(self, v: Floats) -> Floats:
        return _rows(self._inverse(np.sqrt(self.d)), v)

    def diag(self) -> Floats:
        return self.d

    def logdet(self) -> float:
        return float(np.log(self.d[self.d > 0]).sum())

    def dense(self) -> Floats:
        return np.diag(self.d)

    def scaled(self, factor: float) -> Diag:
        return Diag(factor * self.d)

    def arrays(self) -> dict[str, Any]:
        return {"d": self.d}

    @staticmethod
    def _inverse(d: Floats) -> Floats:
        return np.divide(1.0, d, out=np.zeros_like(d), where=d > 0)


@frozen(eq=False)
class Chol:
    """P = L Lᵀ; L (k, k) lower triangular, or (k, r) of full column rank r < k."""

    L: Floats
    kind: str = field(default="chol", init=False)

    @property
    def size(self) -> int:
        return self.L.shape[0]

    @property
    def width(self) -> int:
        return self.L.shape[1]

    rank = width

    def mv(self, v: Floats) -> Floats:
        return self.L @ (self.L.T @ v)

    def solve(self, v: Floats) -> Floats:
        return self._back(self.whiten(v))

    def sqrt_mv(self, z: Floats) -> Floats:
        return self.L @ z

    def sqrt_t(self, v: Floats) -> Floats:
        return self.L.T @ v

    def whiten(self, v: Floats) -> Floats:
        if self.rank == self.size:
            return _lower_solve(self.L, v)
        return np.asarray(np.linalg.lstsq(self.L, v, rcond=None)[0], dtype=float)

    def _back(self, z: Floats) -> Floats:
        if self.rank == self.size:
            return _lower_solve(self.L, z, trans=True)
        return np.asarray(np.linalg.lstsq(self.L.T, z, rcond=None)[0], dtype=float)

    def diag(self) -> Floats:
        return np.einsum("ij,ij->i", self.L, self.L)

    def logdet(self) -> float:
        if self.rank == self.size:
            return 2.0 * float(np.log(np.abs(np.diag(self.L))).sum())
        return 2.0 * float(np.log(np.abs(np.diag(upper(self.L)))).sum())

    def dense(self) -> Floats:
        return self.L @ self.L.T

    def scaled(self, factor: float) -> Chol:
        return Chol(math.sqrt(factor) * self.L)

    def arrays(self) -> dict[str, Any]:
        return {"L": self.L}


@frozen(eq=False)
class PrecisionChol:
    """P⁻¹ = RᵀR, R (k, k) upper triangular: what a least-squares or scoring fit holds already."""

    R: Floats
    kind: str = field(default="precision_chol", init=False)

    @property
    def size(self) -> int:
        return self.R.shape[0]

    width = rank = size

    def mv(self, v: Floats) -> Floats:
        return self.sqrt_mv(self.sqrt_t(v))

    def solve(self, v: Floats) -> Floats:
        return self.R.T @ (self.R @ v)

    def sqrt_mv(self, z: Floats) -> Floats:
        return _lower_solve(self.R.T, z, trans=True)

    def sqrt_t(self, v: Floats) -> Floats:
        return _lower_solve(self.R.T, v)

    def whiten(self, v: Floats) -> Floats:
        return self.R @ v

    def diag(self) -> Floats:
        half = self.sqrt_mv(np.eye(self.size))
        return np.einsum("ij,ij->i", half, half)

    def logdet(self) -> float:
        return -2.0 * float(np.log(np.abs(np.diag(self.R))).sum())

    def dense(self) -> Floats:
        half = self.sqrt_mv(np.eye(self.size))
        return half @ half.T

    def scaled(self, factor: float) -> PrecisionChol:
        return PrecisionChol(self.R / math.sqrt(factor))

    def arrays(self) -> dict[str, Any]:
        return {"R": self.R}


@frozen(eq=False)
class LowRank:
    """P = D^½ (I + Q diag(f) Qᵀ) D^½: a diagonal plus (f > 0) or minus (−1 < f < 0) something of low rank.

    d (k,) > 0 the diagonal D;  Q (k, r) orthonormal columns;  f (r,)
    """

    d: Floats
    Q: Floats
    f: Floats
    kind: str = field(default="lowrank+diag", init=False)

    @property
    def size(self) -> int:
        return len(self.d)

    width = rank = size

    def _times(self, g: Floats, v: Floats) -> Floats:
        """(I + Q diag(g) Qᵀ) v"""
        return v + self.Q @ _rows(g, self.Q.T @ v)

    def mv(self, v: Floats) -> Floats:
        root = np.sqrt(self.d)
        return _rows(root, self._times(self.f, _rows(root, v)))

    def solve(self, v: Floats) -> Floats:
        root = 1.0 / np.sqrt(self.d)
        return _rows(root, self._times(-self.f / (1.0 + self.f), _rows(root, v)))

    def sqrt_mv(self, z: Floats) -> Floats:
        return _rows(np.sqrt(self.d), self._times(np.sqrt(1.0 + self.f) - 1.0, z))

    def sqrt_t(self, v: Floats) -> Floats:
        return self._times(np.sqrt(1.0 + self.f) - 1.0, _rows(np.sqrt(self.d), v))

    def whiten(self, v: Floats) -> Floats:
        return self._times(1.0 / np.sqrt(1.0 + self.f) - 1.0, _rows(1.0 / np.sqrt(self.d), v))

    def diag(self) -> Floats:
        return self.d * (1.0 + np.einsum("ij,j,ij->i", self.Q, self.f, self.Q))

    def logdet(self) -> float:
        return float(np.log(self.d).sum() + np.log1p(self.f).sum())

    def dense(self) -> Floats:
        return self.mv(np.eye(self.size))

    def scaled(self, factor: float) -> LowRank:
        return LowRank(factor * self.d, self.Q, self.f)

    def arrays(self) -> dict[str, Any]:
        return {"d": self.d, "Q": self.Q, "f": self.f}


@frozen(eq=False)
class Kron:
    """P = A ⊗ B, both operators of any kind; element (i, j) of the product is entry i · size(B) + j."""

    A: Any
    B: Any
    kind: str = field(default="kron", init=False)

    @property
    def size(self) -> int:
        return self.A.size * self.B.size

    @property
    def width(self) -> int:
        return self.A.width * self.B.width

    @property
    def rank(self) -> int:
        return self.A.rank * self.B.rank

    def _times(self, left: Any, right: Any, v: Floats, width: int) -> Floats:
        """(left ⊗ right) v, `width` being the number of columns of `right`."""
        columns = v.reshape(v.shape[0], -1)
        out = []
        for column in columns.T:
            inner = np.asarray(right(column.reshape(-1, width).T))
            out.append(np.asarray(left(inner.T)).reshape(-1))
        return np.stack(out, axis=1).reshape(-1, *v.shape[1:])

    def mv(self, v: Floats) -> Floats:
        return self._times(self.A.mv, self.B.mv, v, self.B.size)

    def solve(self, v: Floats) -> Floats:
        return self._times(self.A.solve, self.B.solve, v, self.B.size)

    def sqrt_mv(self, z: Floats) -> Floats:
        return self._times(self.A.sqrt_mv, self.B.sqrt_mv, z, self.B.width)

    def sqrt_t(self, v: Floats) -> Floats:
        return self._times(self.A.sqrt_t, self.B.sqrt_t, v, self.B.size)

    def whiten(self, v: Floats) -> Floats:
        return self._times(self.A.whiten, self.B.whiten, v, self.B.size)

    def diag(self) -> Floats:
        return np.kron(self.A.diag(), self.B.diag())

    def logdet(self) -> float:
        return float(self.B.rank * self.A.logdet() + self.A.rank * self.B.logdet())

    def dense(self) -> Floats:
        return np.kron(self.A.dense(), self.B.dense())

    def scaled(self, factor: float) -> Kron:
        return Kron(self.A.scaled(factor), self.B)

    def arrays(self) -> dict[str, Any]:
        return {"A": self.A, "B": self.B}


@frozen(eq=False)
class Dense:
    """P as a matrix, with a root of it L (k, r)."""

    P: Floats
    root: Chol
    kind: str = field(default="dense", init=False)

    @property
    def size(self) -> int:
        return len(self.P)

    @property
    def width(self) -> int:
        return self.root.width

    rank = width

    def mv(self, v: Floats) -> Floats:
        return self.P @ v

    def solve(self, v: Floats) -> Floats:
        return self.root.solve(v)

    def sqrt_mv(self, z: Floats) -> Floats:
        return self.root.sqrt_mv(z)

    def sqrt_t(self, v: Floats) -> Floats:
        return self.root.sqrt_t(v)

    def whiten(self, v: Floats) -> Floats:
        return self.root.whiten(v)

    def diag(self) -> Floats:
        return np.diag(self.P)

    def logdet(self) -> float:
        return self.root.logdet()

    def dense(self) -> Floats:
        return self.P

    def scaled(self, factor: float) -> Dense:
        return Dense(factor * self.P, self.root.scaled(factor))

    def arrays(self) -> dict[str, Any]:
        return {"P": self.P}


@frozen(eq=False)
class Flat:
    """P⁻¹ = WᵀW, W (r, k) of rank r < k: nothing is known of some combinations, so P is not finite. Priors only: solve, whiten, diag."""

    W: Floats
    kind: str = field(default="flat", init=False)

    @property
    def size(self) -> int:
        return self.W.shape[1]

    @property
    def rank(self) -> int:
        return self.W.shape[0]

    width = size

    def _infinite(self, v: Floats) -> Floats:
        raise Refused("nothing is known of some combinations: their variance is infinite.", where="covariance", do="Use a proper prior.")

    mv = sqrt_mv = sqrt_t = _infinite

    def solve(self, v: Floats) -> Floats:
        return self.W.T @ (self.W @ v)

    def whiten(self, v: Floats) -> Floats:
        return self.W @ v

    def split(self) -> tuple[Floats, Floats]:
        """A generalised inverse (k, r) of W, and a basis (k, k − r) of what it does not see; columns of W brought to one length first."""
        size = np.sqrt(np.einsum("ij,ij->j", self.W, self.W))
        scale = np.where(size > 0, size, 1.0)
        U, s, V = np.linalg.svd(self.W / scale)
        r = int((s > RANK_TOL * s.max(initial=0.0)).sum())
        return (V[:r].T / s[:r]) @ U[:, :r].T / scale[:, None], V[r:].T / scale[:, None]

    @property
    def known(self) -> Bools:
        """(k,) the coefficients whose variance is finite."""
        unseen = self.split()[1]
        return np.abs(unseen).max(axis=1, initial=0.0) <= 1e-9 * np.abs(unseen).max(initial=0.0)

    def finite(self) -> Floats:
        """Covariance (j, j) of those."""
        A = self.split()[0][self.known]
        return np.asarray(A @ A.T, dtype=float)

    def diag(self) -> Floats:
        out = np.full(self.size, np.inf)
        out[self.known] = np.diag(self.finite())
        return out

    def logdet(self) -> float:
        return math.inf

    def dense(self) -> Floats:
        return self._infinite(self.W)

    def scaled(self, factor: float) -> Flat:
        return Flat(self.W / math.sqrt(factor))

    def arrays(self) -> dict[str, Any]:
        return {"W": self.W}


def _lower_solve(L: Floats, v: Floats, trans: bool = False) -> Floats:
    from scipy.linalg import solve_triangular

    return solve_triangular(L, v, lower=True, trans=1 if trans else 0, check_finite=False)


# ---------------------------------------------------------------- making them
def from_root(A: Floats) -> Chol:
    """P = A Aᵀ for any A (k, m), compressed to a lower triangle where P has full rank, to r independent columns where it has not."""
    k, m = A.shape
    if k == 0 or m == 0:
        return Chol(np.zeros((k, 0)))
    size = np.sqrt(np.einsum("ij,ij->i", A, A))
    unit = A / np.where(size > 0, size, 1.0)[:, None]
    if m >= k and (size > 0).all():
        L = upper(unit.T).T
        if (np.abs(np.diag(L)) > RANK_TOL).all():
            L = L * np.where(np.diag(L) < 0, -1.0, 1.0)
            return Chol(L * size[:, None])
    U, s, _ = np.linalg.svd(unit, full_matrices=False)
    keep = s > RANK_TOL * s.max(initial=0.0)
    return Chol((U[:, keep] * s[keep]) * size[:, None])


def from_matrix(P: Any, where: str = "covariance", do: str = "") -> Dense:
    """P (k, k) checked: finite, symmetric, positive semidefinite; DataError otherwise."""
    P = np.asarray(P, dtype=float)
    if P.ndim != 2 or P.shape[0] != P.shape[1]:
        raise DataError(f"it has shape {P.shape}, not (k, k).", where=where, do=do)
    if not np.isfinite(P).all():
        raise DataError("it has entries that are not finite.", where=where, do=do)
    scale = np.sqrt(np.maximum(np.diag(P), 0.0))
    scale = np.where(scale > 0, scale, 1.0)
    unit = P / np.outer(scale, scale)
    if np.abs(unit - unit.T).max(initial=0.0) > 1e-8:
        raise DataError("it is not symmetric.", where=where, do=do)
    P, unit = (P + P.T) / 2, (unit + unit.T) / 2
    try:
        return Dense(P, Chol(np.linalg.cholesky(unit) * scale[:, None]))
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(unit)
    if len(values) and values[0] < -1e-10 * max(values[-1], 0.0):
        raise DataError(f"it is not positive semidefinite: its scaled form has the eigenvalue {values[0]:.3g}.", where=where, do=do)
    keep = values > 1e-13 * values[-1]
    return Dense(P, Chol((vectors[:, keep] * np.sqrt(values[keep])) * scale[:, None]))


def lowrank(d: Floats, U: Floats) -> LowRank:
    """diag(d) + U Uᵀ, d (k,) > 0, U (k, r)."""
    Q, s, _ = np.linalg.svd(U / np.sqrt(d)[:, None], full_matrices=False)
    return LowRank(d, Q, s**2)


def from_precision(H: Floats) -> PrecisionChol:
    """P = H⁻¹ for positive definite H (k, k); LinAlgError where it is not."""
    return PrecisionChol(cholesky_factor(H))


def transformed(op: CovOp, L: Floats) -> Chol:
    """L P Lᵀ as a root, for L (K, k); P is not formed."""
    return from_root(op.sqrt_t(L.T).T)


def image(op: CovOp, L: Floats) -> CovOp | None:
    """`transformed` where some variances are infinite: what is known of combinations of the rows of L that no flat coefficient enters.

    returns  None: of none of them is anything known, or there are more rows than numbers
    """
    if not isinstance(op, Flat) and np.isfinite(op.diag()).all():
        return transformed(op, L)
    if len(L) > op.size:
        return None
    inverse, unseen = Flat(op.whiten(np.eye(op.size))).split()
    U, s, _ = np.linalg.svd(L @ unseen)
    free = U[:, int((s > 1e-12 * np.linalg.norm(L) * np.linalg.norm(unseen)).sum()) :].T  # (free L) unseen = 0
    root = from_root(free @ L @ inverse)
    if root.rank == 0:
        return None
    return from_root(free.T @ root.L) if len(free) == len(L) else Flat(root.whiten(np.eye(len(free))) @ free)


def subset(op: CovOp, index: np.ndarray) -> CovOp:
    """Rows and columns `index` of P, without forming it."""
    if isinstance(op, Diag):
        return Diag(op.d[index])
    if isinstance(op, Dense):
        return from_matrix(op.P[np.ix_(index, index)])
    if isinstance(op, Chol):
        return from_root(op.L[index])
    if isinstance(op, Flat):
        return _subset_flat(op, index)
    chosen = np.zeros((len(index), op.size))
    chosen[np.arange(len(index)), index] = 1.0
    return transformed(op, chosen)


def _subset_flat(op: Flat, index: np.ndarray) -> CovOp:
    if len(index) == op.size:
        return Flat(op.W[:, index])
    place = np.cumsum(op.known) - 1
    inside = op.known[index]
    P = op.finite()[np.ix_(place[index[inside]], place[index[inside]])]
    if inside.all():
        return from_matrix(P)
    W = np.zeros((len(P), len(index)))
    W[:, inside] = from_matrix(P).whiten(np.eye(len(P)))
    return Flat(W)


KINDS = {"flat": Flat, "diag": Diag, "chol": Chol, "precision_chol": PrecisionChol, "lowrank+diag": LowRank, "kron": Kron, "dense": Dense}


def rebuilt(kind: str, arrays: dict[str, Any]) -> CovOp:
    """The operator that `kind` and `arrays()` describe; bit for bit, but for the root of a dense one, which is formed again."""
    if kind == "dense":
        return from_matrix(arrays["P"])
    return KINDS[kind](**arrays)


# ---------------------------------------------------------------- many coefficients
def krylov(prior: Diag, information_mv: Any, n_krylov: int) -> LowRank:
    """(B⁻¹ + H)⁻¹ from products with H alone, by Lanczos on B^½ H B^½ with full re-orthogonalisation.

        B^½HB^½ ≈ Q diag(λ) Qᵀ   ⇒   P ≈ B^½ (I − Q diag(λ/(1+λ)) Qᵀ) B^½

    prior           B, positive and finite
    information_mv  v (k,) ↦ H v, H positive semidefinite
    n_krylov        steps; exact, to rounding, once they span the range of H

    Source: Golub & Van Loan (2013) §10.1; Fisher & Courtier (1995) for analysis errors.
    """
    root, k = np.sqrt(prior.d), prior.size
    q = root * information_mv(root * np.random.default_rng(0).standard_normal(k))  # inside the range of what is looked for
    basis = np.zeros((k, min(n_krylov, k)))
    alpha, beta, steps = [], [], 0
    size = float(np.linalg.norm(q))
    if size == 0.0:
        return LowRank(prior.d, np.zeros((k, 0)), np.zeros(0))
    q /= size
    for j in range(basis.shape[1]):
        basis[:, j], steps = q, j + 1
        w = root * information_mv(root * q)
        alpha.append(float(q @ w))
        for _ in range(2):
            w = w - basis[:, :steps] @ (basis[:, :steps].T @ w)
        size = float(np.linalg.norm(w))
        if size <= 1e-12 * max(max(np.abs(alpha)), 1e-300):
            break
        beta.append(size)
        q = w / size
    T = np.diag(alpha) + np.diag(beta[: steps - 1], 1) + np.diag(beta[: steps - 1], -1)
    values, vectors = np.linalg.eigh(T)
    values = np.maximum(values, 0.0)
    return LowRank(prior.d, basis[:, :steps] @ vectors, -values / (1.0 + values))
