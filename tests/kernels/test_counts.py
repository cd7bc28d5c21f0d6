"""Counts of rows drawn with replacement: their exact distribution, and that a seed gives the same ones everywhere."""

import numpy as np
import pytest
from scipy import stats

from bossa.kernels import counts
from bossa.kernels.counts import row_counts
from bossa.kernels.streams import stream


@pytest.mark.parametrize("n", [1, 2, 63, 64, 1000, 32_768, 32_769, 70_000])
def test_every_replicate_has_n_draws(n):
    drawn = row_counts(np.random.default_rng(0), n, 5)
    assert drawn.dtype == np.uint8
    assert (drawn.sum(axis=1, dtype=int) == n).all()


@pytest.mark.parametrize(("n", "b"), [(5, 40_000), (64, 4000), (200, 2000), (40_000, 8)])
def test_counts_of_a_row_are_binomial(n, b):
    """χ² of all counts against Binomial(n, 1/n); the rows of a replicate are as good as independent for it when n is large."""
    drawn = row_counts(np.random.default_rng(1), n, b)
    largest = 6 if n > 5 else 3
    seen = np.bincount(np.minimum(drawn, largest).ravel(), minlength=largest + 1)
    p = stats.binom.pmf(np.arange(largest), n, 1 / n)
    expected = drawn.size * np.append(p, 1 - p.sum())
    assert stats.chi2.sf(((seen - expected) ** 2 / expected).sum(), largest) > 1e-3


@pytest.mark.parametrize("n", [7, 64, 500])
def test_means_variances_and_covariances_are_multinomial(n):
    """E = 1, Var = 1 − 1/n, Cov = −1/n of first, middle and last rows over 20,000 replicates: 4.5 standard errors."""
    some = row_counts(np.random.default_rng(2), n, 20_000)[:, [0, n // 2, n - 1]].astype(float)
    error = 4.5 / np.sqrt(20_000)
    assert np.abs(some.mean(axis=0) - 1).max() < error
    expected = np.eye(3) - 1 / n
    assert np.abs(np.cov(some.T) - expected).max() < 2 * error


def test_a_poisson_count_is_poisson_to_the_last_bit():
    """Two random bytes decide most counts; what they cannot decide is drawn again, so that every probability is right beyond 1/65536."""
    edges, rest = counts._table(1000)
    whole, share = np.diff(edges, prepend=0), np.diff(rest, prepend=0.0)
    left = counts.CELL_BITS - whole.sum()
    assert 0 < left < len(whole)
    p = (whole + left * share) / counts.CELL_BITS
    np.testing.assert_allclose(p, stats.poisson.pmf(np.arange(len(p)), 1 - counts.MARGIN / np.sqrt(1000)), atol=1e-15)


def test_the_sum_of_squares_of_counts_has_its_moments():
    """Σc² of a bootstrap sample, which the ways of drawing (from a table, row by row) must share: mean n(2 − 1/n), n = 64 … 66."""
    for n in (63, 64, 65, 66):
        squares = (row_counts(np.random.default_rng(n), n, 40_000).astype(float) ** 2).sum(axis=1)
        assert abs(squares.mean() - (2 * n - 1)) < 4.5 * squares.std() / 200


def test_a_block_has_the_counts_recorded_for_its_seed():
    """The stream of this library, for good: seed 7, block 0."""
    assert row_counts(stream(7, 0), 10, 2).tolist() == [[1, 0, 1, 1, 1, 2, 2, 1, 1, 0], [2, 0, 0, 1, 0, 1, 1, 2, 1, 2]]
    assert row_counts(stream(7, 0), 100, 1)[0, :12].tolist() == [2, 0, 1, 1, 1, 0, 1, 0, 1, 1, 1, 1]
