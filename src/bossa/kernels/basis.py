"""Which columns span the polynomials, or the splines, of a numeric variable? Bases that can be evaluated again at new values.

What is learnt from the data (recurrence coefficients, knots) is separate from the evaluation, so new rows get the same functions as
the fitted ones. All evaluations take x (n,) and return (n, k).

Source: R stats::poly (Kennedy & Gentle 1980, three-term recurrence); de Boor (1978) ch. IX–X for splines; R splines::bs, ns.
"""

from __future__ import annotations

import numpy as np

from ..types import Floats


def orthogonal_poly(x: Floats, degree: int, counts: Floats | None = None) -> tuple[Floats, Floats]:
    """Recurrence coefficients of the polynomials orthonormal over the values of x, constant first.

    b_{k+1} p_{k+1}(x) = (x − a_k) p_k(x) − b_k p_{k−1}(x),   p_0 = 1/b_0

    x        (n,)  more than `degree` different values
    counts   (n,)  how often each counts; None: once
    returns  a (degree,), b (degree + 1,), all b > 0 (the sign R chooses)
    """
    c = np.ones_like(x) if counts is None else counts
    a, b = np.zeros(degree), np.zeros(degree + 1)
    b[0] = np.sqrt(c.sum())
    before, now = np.zeros_like(x), np.full_like(x, 1 / b[0])
    for k in range(degree):
        a[k] = (c * x * now**2).sum()
        after = (x - a[k]) * now - (b[k] * before if k else 0.0)
        b[k + 1] = np.sqrt((c * after**2).sum())
        before, now = now, after / b[k + 1]
    return a, b


def poly_columns(x: Floats, a: Floats, b: Floats) -> Floats:
    """p_1 … p_degree of `orthogonal_poly` at x.   returns (n, degree), Fortran order"""
    columns = np.empty((x.size, a.size), order="F")
    before, now = np.zeros_like(x), np.full_like(x, 1 / b[0])
    for k in range(a.size):
        after = (x - a[k]) * now - (b[k] * before if k else 0.0)
        before, now = now, after / b[k + 1]
        columns[:, k] = now
    return columns


def bspline(x: Floats, knots: Floats, order: int, derivative: int = 0) -> Floats:
    """B-splines at x; outside the knots the outermost pieces go on.

    x        (n,)
    knots    (m,)  non-decreasing, each end `order` times
    order    degree + 1
    returns  (n, m − order)

    Source: de Boor (1978) eqs. X.12 (recurrence), X.15 (derivative).
    """
    piece = np.clip(np.searchsorted(knots, x, side="right") - 1, order - 1, knots.size - order - 1)
    B = (piece[:, None] == np.arange(knots.size - 1)).astype(float)
    for k in range(2, order + 1):
        span = knots[k - 1 :] - knots[: -k + 1]
        inverse = np.divide(1.0, span, out=np.zeros_like(span), where=span > 0)
        scaled = B * inverse
        if k > order - derivative:
            B = (k - 1) * (scaled[:, :-1] - scaled[:, 1:])
        else:
            B = (x[:, None] - knots[:-k]) * scaled[:, :-1] + (knots[k:] - x[:, None]) * scaled[:, 1:]
    return B


def natural_spline(x: Floats, knots: Floats, intercept: bool) -> Floats:
    """Cubic splines with no curvature at the boundary, linear beyond it.

    x        (n,)
    knots    (m,)  each boundary 4 times
    returns  (n, m − 6), one less without `intercept`: the B-splines in the null space of the two boundary conditions

    Source: R splines::ns (QR of the conditions, so that columns and signs are R's).
    """
    first = 0 if intercept else 1
    ends = knots[[0, -1]]
    conditions = bspline(ends, knots, 4, derivative=2)[:, first:]
    null = np.linalg.qr(conditions.T, mode="complete")[0][:, 2:]
    inside = np.clip(x, *ends)
    B = bspline(inside, knots, 4)
    out = np.flatnonzero(x != inside)
    if out.size:
        B[out] += (x[out] - inside[out])[:, None] * bspline(inside[out], knots, 4, derivative=1)
    return B[:, first:] @ null
