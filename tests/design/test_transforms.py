"""Functions of a formula: values, what they learn, laws of the bases and codings. Splines and poly against R: test_columns_of_r."""

from __future__ import annotations

import tracemalloc

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline
from scipy.stats import rankdata

from bossa.design.encode import encode
from bossa.design.formula import make_spec
from bossa.kernels.basis import bspline, natural_spline, orthogonal_poly, poly_columns
from bossa.kernels.contrasts import CODINGS, coding

X = np.array([3.0, 1.5, 4.25, 1.5, 9.0, 2.5, 6.0, 5.0])


def column(formula, data=None):
    design = encode(make_spec(f"~ 0 + {formula}"), pl.DataFrame({"x": X} if data is None else data))[1]
    return design.X[:, 0]


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("center(x)", X - X.mean()),
        ("scale(x)", (X - X.mean()) / X.std(ddof=1)),
        ("scale(x, scale=FALSE)", X - X.mean()),
        ("scale(x, center=FALSE)", X / np.sqrt((X**2).sum() / 7)),
        ("gelman(x)", (X - X.mean()) / (2 * X.std(ddof=1))),
        ("norm(x)", X / X.std(ddof=1)),
        ("rank(x)", rankdata(X)),
        ("signed_rank(x - 4)", np.sign(X - 4) * rankdata(abs(X - 4))),
        ("log(x)", np.log(X)),
        ("log(x, 2)", np.log2(X)),
        ("log(x, base=10)", np.log10(X)),
        ("log1p(x)", np.log1p(X)),
        ("sqrt(abs(x - 4))", np.sqrt(abs(X - 4))),
        ("I(2^-1 * x^2 - (x - 1)/2)", X**2 / 2 - (X - 1) / 2),
        ("I(-x^2)", -(X**2)),
        ("I(x %% 2 + x %/% 2)", X % 2 + X // 2),
        ("scale(x=x)", (X - X.mean()) / X.std(ddof=1)),
    ],
)
def test_values(formula, expected):
    np.testing.assert_allclose(column(formula), expected, rtol=1e-14, atol=1e-14)


def test_rank_of_a_new_value_lies_between_its_neighbours():
    encoder = encode(make_spec("~ 0 + rank(x)"), pl.DataFrame({"x": X}))[0]
    np.testing.assert_array_equal(encoder.rows(pl.DataFrame({"x": [0.0, 2.0, 1.5, 99.0]})).X[:, 0], [0.5, 2.5, 1.5, 8.5])


def test_learning_sees_every_value_that_is_there():
    """As in R, where scale() is computed before rows with other missing values go."""
    data = {"y": [1.0, None, 3, 4], "x": [1.0, 2, 3, 9]}
    _encoder, design, _ = encode(make_spec("y ~ 0 + center(x)"), pl.DataFrame(data))
    np.testing.assert_allclose(design.X[:, 0], np.array([1, 3, 9]) - 3.75)


# ---------------------------------------------------------------- bases
@given(st.lists(st.floats(-1e3, 1e3).map(lambda v: round(v, 3)), min_size=8, max_size=40, unique=True), st.integers(1, 5))
def test_orthogonal_polynomials(values, degree):
    """Orthonormal, orthogonal to 1, leading coefficient positive, spanning the powers."""
    x = np.array(values)
    P = poly_columns(x, *orthogonal_poly(x, degree))
    np.testing.assert_allclose(P.T @ P, np.eye(degree), atol=1e-8)
    np.testing.assert_allclose(P.sum(axis=0), 0, atol=1e-8)
    assert P[:, 0] @ x > 0


def test_polynomials_of_counts_are_those_of_repeated_rows():
    counts = np.array([1.0, 2, 0, 3, 1, 1, 2, 4])
    a, b = orthogonal_poly(X, 3, counts)
    a2, b2 = orthogonal_poly(np.repeat(X, counts.astype(int)), 3)
    np.testing.assert_allclose(np.append(a, b), np.append(a2, b2), rtol=1e-12)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_bsplines_against_scipy(order):
    knots = np.concatenate(([0.0] * order, [0.3, 0.5, 0.7], [1.0] * order))
    x = np.linspace(0, 1, 38)[:-1]
    np.testing.assert_allclose(bspline(x, knots, order), BSpline.design_matrix(x, knots, order - 1).toarray(), atol=1e-14)
    slope = BSpline(knots, np.eye(knots.size - order), order - 1).derivative()(x)
    np.testing.assert_allclose(bspline(x, knots, order, derivative=1), slope, atol=1e-12)
    np.testing.assert_allclose(bspline(np.linspace(-1, 2, 31), knots, order).sum(axis=1), 1, atol=1e-11)  # also outside


def test_natural_splines_are_straight_outside():
    knots = np.concatenate(([0.0] * 4, [0.4, 0.6], [1.0] * 4))
    for side in ([-3.0, -2.0, -1.0, 0.0], [1.0, 2.0, 3.0, 4.0]):
        np.testing.assert_allclose(np.diff(natural_spline(np.array(side), knots, False), 2, axis=0), 0, atol=1e-11)


# ---------------------------------------------------------------- codings
@pytest.mark.parametrize("kind", CODINGS)
@pytest.mark.parametrize("G", [2, 3, 4, 7])
def test_a_coding_and_the_intercept_span_all_levels(kind, G):
    C, names = coding(kind, tuple("abcdefg"[:G]))
    assert C.shape == (G, G - 1)
    assert len(set(names)) == G - 1
    assert np.linalg.matrix_rank(np.column_stack([np.ones(G), C])) == G
    if kind in ("sum", "helmert", "poly", "sequential"):
        np.testing.assert_allclose(C.sum(axis=0), 0, atol=1e-14)  # the intercept is the mean of the levels


@pytest.mark.parametrize(
    ("kind", "contrast"),
    [
        ("treatment", [-1, 0, 0, 1]),
        ("sum", [-0.25, -0.25, 0.75, -0.25]),
        ("helmert", [-1 / 12, -1 / 12, -1 / 12, 0.25]),
        ("sequential", [0, 0, -1, 1]),
    ],
)
def test_what_the_last_coefficient_compares(kind, contrast):
    """Row of the inverse of [1 C]: the comparison of level means that the coefficient is."""
    C, _ = coding(kind, tuple("abcd"))
    np.testing.assert_allclose(np.linalg.inv(np.column_stack([np.ones(4), C]))[3], contrast, atol=1e-14)


# ---------------------------------------------------------------- size
def test_memory_stays_below_three_times_x():
    n, r = 200_000, np.random.default_rng(0)
    data = pl.DataFrame(
        {"y": r.standard_normal(n), **{f"x{j}": r.standard_normal(n) for j in range(8)}, "g": np.array(list("abcdef"))[r.integers(0, 6, n)]}
    )
    spec = make_spec("y ~ " + " + ".join([f"x{j}" for j in range(8)] + ["g"]))
    encode(spec, data.head(100))
    tracemalloc.start()
    design = encode(spec, data)[1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * design.X.nbytes


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 9), st.integers(0, 10**6))
def test_all_codings_have_the_same_fitted_space(G, seed):
    """Recoding a factor changes coefficients, never the space."""
    r = np.random.default_rng(seed)
    g = np.concatenate([np.arange(G), r.integers(0, G, 20)])
    data = pl.DataFrame({"g": [f"l{v}" for v in g], "h": r.integers(0, 2, g.size).astype(bool), "x": r.standard_normal(g.size)})
    hats = []
    for kind in CODINGS:
        X = encode(make_spec("~ g*h + x:g", contrasts={"g": kind, "h": kind}), data)[1].X
        hats.append(X @ np.linalg.pinv(X))
    for hat in hats[1:]:
        np.testing.assert_allclose(hat, hats[0], atol=1e-7)
