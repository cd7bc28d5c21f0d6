"""Where crossed factors meet: the blocks between the first grouping's random effects and the rest.

With several grouping factors the first one's groups g are eliminated one by one. What this module holds is what that needs: N_g (k, D),
nonzero only in the columns of the levels that group g meets in the data, and A_rr (D, D) among the rest; and the operations on them

    schur(J)     A_rr − Σ_g (J_gN_g)ᵀ(J_gN_g)        within(Y)   N_gYN_gᵀ of every group
    up(v)        N v                                  down(v)     Nᵀv

in two forms with the same methods: dense arrays (small models, or where nearly everything meets), and lists of the pairs that meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from attrs import frozen

from ..types import Floats, Ints

DENSE_CELLS = 1_000_000  # up to this many cells N is one dense array
MIRROR = 256  # rows mirrored at a time
CHUNK_CELLS = 4_000_000  # cells of N made dense at a time
PAIR_BYTES = 600_000_000  # memory that the list of co-occurring pairs may take
PAIR_SECONDS, FLOP_SECONDS = 4e-9, 3e-11  # one pair gathered and scattered; one flop of a matrix product


@frozen(eq=False)
class Meeting:
    """Where two groupings meet in the data: `pair` (n,) numbers the pairs of levels met; `left`, `right` (P,) are their levels."""

    pair: Ints
    left: Ints
    right: Ints


@frozen(kw_only=True, eq=False)
class Entries:
    """Where N is nonzero: entries of group g at ptr[g] … ptr[g + 1], their `column` ascending.   group, column (E,), ptr (G + 1,)"""

    G: int
    k: int
    D: int
    group: Ints
    column: Ints
    ptr: Ints


def cross_blocks(entries: Entries, N: Floats, index: Ints, value: Floats) -> DenseCross | SparseCross:
    """N (k, E) at its entries, and A_rr as (flat index of the lower triangle, value), in the form that suits their size."""
    small = entries.k * entries.G * entries.D <= DENSE_CELLS
    return (DenseCross if small else SparseCross).of(entries, N, index, value)


def meeting(left: Ints, right: Ints, G: int, H: int) -> Meeting:
    code = left.astype(np.int64) * H + right
    if 8 * len(code) >= G * H:
        seen = np.zeros(G * H, dtype=bool)
        seen[code] = True
        met = np.flatnonzero(seen)
        number = np.empty(G * H, dtype=np.intp)
        number[met] = np.arange(len(met))
        pair = number[code]
    else:
        met, pair = np.unique(code, return_inverse=True)
    return Meeting(pair=pair, left=met // H, right=met % H)


def symmetric(A: Floats) -> Floats:
    """The lower triangle of A (D, D) mirrored above, in place and block by block."""
    for start in range(0, len(A), MIRROR):
        stop = min(start + MIRROR, len(A))
        A[start:stop, stop:] = A[stop:, start:stop].T
        own = np.tril(A[start:stop, start:stop])
        A[start:stop, start:stop] = own + np.tril(own, -1).T
    return A


@frozen(eq=False)
class DenseCross:
    """N (k, G, D) and A_rr (D, D) as dense arrays: small models, and many levels that all meet."""

    N: Floats
    square: Floats

    @classmethod
    def of(cls, at: Entries, N: Floats, index: Ints, value: Floats) -> DenseCross:
        dense = np.zeros((at.k, at.G, at.D))
        dense[:, at.group, at.column] = N
        square = np.zeros(at.D * at.D)
        square[index] = value
        return cls(dense, symmetric(square.reshape(at.D, at.D)))

    def schur(self, J: Floats) -> Floats:
        """S̃ = A_rr − Σ_g (J_gN_g)ᵀ(J_gN_g), (D, D), from J (k, k, G) = L_g⁻¹T₀ᵀ."""
        k, G, D = self.N.shape
        half = (J[0, 0][None, :, None] * self.N if k == 1 else np.einsum("abg,bgc->agc", J, self.N)).reshape(k * G, D)
        return self.square - half.T @ half

    def within(self, Y: Floats) -> Floats:
        """N_gYN_gᵀ for every group, (k, k, G), from symmetric Y (D, D)."""
        k, G, D = self.N.shape
        return np.einsum("agc,bgc->abg", (self.N.reshape(k * G, D) @ Y).reshape(k, G, D), self.N)

    def up(self, vr: Floats) -> Floats:
        """N vr, (k, s, G), from vr (D, s)."""
        return np.matmul(self.N, vr).transpose(0, 2, 1)

    def down(self, v0: Floats) -> Floats:
        """Nᵀ v0, (D, s), from v0 (k, s, G)."""
        return np.einsum("agc,asg->cs", self.N, v0) if v0.size < 2_000 else np.matmul(v0, self.N).sum(axis=0).T

    def squared(self, vr: Floats) -> Floats:
        """A_rr vr (D, s)."""
        return self.square @ vr

    def at_entries(self, at: Entries, Y: Floats) -> Floats:
        """N Y at the entries of N, (k, E)."""
        return np.array([(N @ Y)[at.group, at.column] for N in self.N])

    def dense(self) -> Floats:
        """N (k, G, D)."""
        return self.N


@frozen(eq=False)
class SparseCross:
    """N and A_rr by the pairs of levels that meet.

    N       k matrices (G, D) in compressed rows;  square (D, D)
    pairs   for each a ≤ b one matrix (D², G): column g holds the products N_a,c N_b,c′ of the columns c ≥ c′ that group g meets
            (both orders added where a < b); None where dense blocks are cheaper
    """

    N: tuple[Any, ...]
    square: Any
    pairs: dict[tuple[int, int], Any] | None

    @classmethod
    def of(cls, at: Entries, N: Floats, index: Ints, value: Floats) -> SparseCross:
        from scipy.sparse import coo_array, csr_array

        D, G, k = at.D, at.G, at.k
        rows = tuple(csr_array((values, at.column, at.ptr), shape=(G, D)) for values in N)
        row, column = index // D, index % D
        off = row != column
        square = coo_array(
            (np.concatenate((value, value[off])), (np.concatenate((row, column[off])), np.concatenate((column, row[off])))), shape=(D, D)
        )
        met = np.diff(at.ptr)
        n_pairs, kinds = int((met * (met + 1) // 2).sum()), k * (k + 1) // 2
        cheap = n_pairs * kinds * PAIR_SECONDS < 3 * k * G * D**2 * FLOP_SECONDS and n_pairs * (8 * kinds + 4) < PAIR_BYTES
        return cls(rows, square.tocsr(), _pairs(at, N) if cheap else None)

    def schur(self, J: Floats) -> Floats:
        D = self.square.shape[0]
        if self.pairs is None:
            out = self.square.toarray()
            for part, dense in self._chunks():
                half = np.einsum("abg,bgc->agc", J[:, :, part], dense).reshape(-1, D)
                out -= half.T @ half
            return out
        H = np.einsum("cag,cbg->abg", J, J)
        lower = self.pairs[0, 0] @ np.ascontiguousarray(-H[0, 0])
        for (a, b), matrix in self.pairs.items():
            if b:
                lower -= matrix @ np.ascontiguousarray(H[a, b])
        out = symmetric(lower.reshape(D, D))
        coo = self.square.tocoo()
        out[coo.row, coo.col] += coo.data
        return out

    def within(self, Y: Floats) -> Floats:
        k, G, D = len(self.N), self.N[0].shape[0], len(Y)
        out = np.empty((k, k, G))
        if self.pairs is None:
            for part, dense in self._chunks():
                out[:, :, part] = np.einsum("agc,bgc->abg", (dense.reshape(-1, D) @ Y).reshape(dense.shape), dense)
            return out
        diagonal = np.diag(Y).copy()
        Y.flat[:: D + 1] *= 0.5  # a pair (c, c) is there once, (c, c′) stands for two
        for (a, b), matrix in self.pairs.items():
            out[a, b] = out[b, a] = (2.0 if a == b else 1.0) * (matrix.T @ Y.ravel())
        Y.flat[:: D + 1] = diagonal
        return out

    def up(self, vr: Floats) -> Floats:
        return np.array([(N @ vr).T for N in self.N])

    def down(self, v0: Floats) -> Floats:
        out = self.N[0].T @ v0[0].T
        for N, v in zip(self.N[1:], v0[1:]):
            out += N.T @ v.T
        return out

    def squared(self, vr: Floats) -> Floats:
        return self.square @ vr

    def at_entries(self, at: Entries, Y: Floats) -> Floats:
        out = np.empty((len(self.N), len(at.column)))
        G, D = self.N[0].shape
        size = max(1, CHUNK_CELLS // D)
        for start in range(0, G, size):
            stop = min(start + size, G)
            part = slice(at.ptr[start], at.ptr[stop])
            for a, N in enumerate(self.N):
                out[a, part] = (N[start:stop] @ Y)[at.group[part] - start, at.column[part]]
        return out

    def dense(self) -> Floats:
        return np.array([N.toarray() for N in self.N])

    def _chunks(self) -> Iterator[tuple[slice, Floats]]:
        G, D = self.N[0].shape
        size = max(1, CHUNK_CELLS // (D * len(self.N)))
        for start in range(0, G, size):
            part = slice(start, min(start + size, G))
            yield part, np.array([N[part].toarray() for N in self.N])


def _pairs(at: Entries, N: Floats) -> dict[tuple[int, int], Any]:
    from scipy.sparse import csc_array

    D, E = at.D, len(at.column)
    kind = np.int32 if D * D < 2**31 and E < 2**31 else np.int64
    size = np.arange(E) - at.ptr[at.group] + 1  # pairs (c, c′) of each entry c: those up to itself
    ends = np.concatenate(([0], np.cumsum(size)))
    left = np.repeat(np.arange(E, dtype=kind), size)
    right = np.arange(ends[-1], dtype=kind) + np.repeat((at.ptr[at.group] - ends[:-1]).astype(kind), size)
    target = (at.column * D).astype(kind)[left] + at.column.astype(kind)[right]
    ptr = ends[at.ptr].astype(kind)
    made = {}
    for a in range(at.k):
        for b in range(a, at.k):
            value = N[a][left]
            value *= N[b][right]
            if a != b:
                value += N[b][left] * N[a][right]
            made[a, b] = csc_array((value, target, ptr), shape=(D * D, at.G))
    return made
