"""Many mixed models at once: laws of the algebra that the refits in tests/estimate/test_many.py rest on."""

import numpy as np
import pytest
from attrs import evolve

from bossa.kernels import replicates
from bossa.kernels.replicates import Block, evaluate, merged


def balanced(seed=0, counted=False, reml=True, groups=24, unlike=0):
    """Eight replicates of groups with the same six doses, all but `unlike` of them; with counts of their own, if asked for."""
    rng = np.random.default_rng(seed)
    b, m = 8, 6
    Z = np.stack((np.ones((groups, m)), np.tile(np.linspace(-1.0, 1.0, m), (groups, 1))))
    Z[1, :unlike] += rng.normal(size=(unlike, m))
    effects = rng.normal(size=(b, groups, 2))
    y = effects[..., :1] + 0.5 * effects[..., 1:] * Z[1] + rng.normal(size=(b, groups, m))
    count = rng.integers(0, 3, size=(b, groups)) * 1.0 if counted else np.ones((b, groups))
    columns = np.concatenate((np.broadcast_to(Z[:, None], (2, b, groups, m)), y[None]))
    A = np.einsum("agi,cgi->acg", Z, Z)
    return Block(
        A=A,
        B=A.copy(),
        By=np.einsum("agi,bgi->abg", Z, y),
        C=np.einsum("sbgi,tbgi,bg->bst", columns, columns, count),
        n=count.sum(axis=1) * m,
        count=count if counted else None,
        rows=np.array([0, 1, 1]),
        cols=np.array([0, 0, 1]),
        reml=reml,
    )


def points(b=8, seed=1):
    return np.abs(np.random.default_rng(seed).normal(size=(b, 3)))


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("unlike", [0, 2])
def test_groups_that_are_alike_say_the_same_as_their_mean_and_scatter(counted, reml, unlike):
    """Criterion, gradient, factor and curvature of the merged block are those of all its groups."""
    block = balanced(counted=counted, reml=reml, unlike=unlike)
    fewer, theta = merged(block), points()
    assert fewer.A.shape[2] == 3 * (1 + unlike)
    all_of_them, found = evaluate(block, theta), evaluate(fewer, theta)
    for name in ("criterion", "gradient", "L"):
        np.testing.assert_allclose(getattr(found, name), getattr(all_of_them, name), rtol=1e-9, atol=1e-9)
    Q = replicates.curvature(block, all_of_them)
    np.testing.assert_allclose(replicates.curvature(fewer, found), Q, rtol=1e-9, atol=1e-9 * np.abs(Q).max())


def test_rows_in_another_order_are_no_other_groups():
    """Their sums differ in the last digit."""
    block, rng = balanced(), np.random.default_rng(3)
    moved = evolve(
        block, A=block.A * (1 + 1e-15 * rng.normal(size=block.A.shape)), B=block.B * (1 + 1e-15 * rng.normal(size=block.B.shape))
    )
    assert merged(moved).A.shape[2] == 3
    np.testing.assert_allclose(evaluate(merged(moved), points()).criterion, evaluate(block, points()).criterion, rtol=1e-12)


def test_groups_that_differ_stay_as_they_are():
    block = balanced(unlike=24)
    assert merged(block) is block


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("reml", [False, True])
def test_the_gradient_is_the_slope_of_the_criterion(counted, reml):
    block, theta, h = balanced(counted=counted, reml=reml, unlike=24), points(), 1e-5
    found = evaluate(block, theta).gradient
    for i in range(3):
        step = h * np.eye(3)[i]
        slope = (evaluate(block, theta + step).criterion - evaluate(block, theta - step).criterion) / (2 * h)
        np.testing.assert_allclose(found[:, i], slope, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reml", [False, True])
def test_a_count_of_two_is_the_group_twice(reml):
    block = balanced(reml=reml, unlike=24)
    doubled = evolve(block, count=np.full((8, 24), 2.0), C=2 * block.C, n=2 * block.n)
    twice = evolve(block, **{f: np.concatenate([getattr(block, f)] * 2, axis=2) for f in ("A", "B", "By")}, C=2 * block.C, n=2 * block.n)
    one, two = evaluate(doubled, points()), evaluate(twice, points())
    np.testing.assert_allclose(one.criterion, two.criterion, rtol=1e-12)
    np.testing.assert_allclose(one.gradient, two.gradient, rtol=1e-10, atol=1e-10)


def test_a_replicate_whose_columns_are_dependent_is_not_answered_for():
    block = balanced()
    C = block.C.copy()
    C[0] = 1.0
    _, criterion, _, code = replicates.lmm_many(evolve(block, C=C), points(), np.eye(3) * 0.05)
    assert code[0] == replicates.NOT_CONVERGED
    assert not np.isfinite(criterion[0])
    assert (code[1:] == replicates.FINE).all()
