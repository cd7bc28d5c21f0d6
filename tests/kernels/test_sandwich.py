"""Sandwich covariances: against statsmodels (0.14), scipy's Welch test, and the defining formulas with their n × n matrices."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bossa.kernels import sandwich
from bossa.kernels.linalg import leverage, lstsq, triangular


def regression(n=60, groups=8, seed=0):
    rng = np.random.default_rng(seed)
    X = np.column_stack((np.ones(n), rng.normal(20, 5, n), rng.integers(0, 2, n)))
    codes = np.concatenate((np.arange(groups), rng.integers(0, groups, n - groups)))
    y = X @ [1, 0.3, -1] + rng.normal(size=groups)[codes] + rng.normal(size=n) * (1 + X[:, 2])
    return X, y, rng.uniform(0.3, 3, n), codes


def fitted(X, y, w):
    found = lstsq(X, y, w)
    residual = y - X @ found.coef
    return found.R, residual, residual if w is None else w * residual, leverage(X, found.R, w)


def vcov(root):
    return root @ root.T


@pytest.mark.parametrize("kind", ["HC0", "HC1", "HC2", "HC3"])
@pytest.mark.parametrize("weighted", [False, True])
def test_hc_equals_statsmodels(kind, weighted):
    X, y, w, _ = regression()
    w = w if weighted else None
    R, _, e, h = fitted(X, y, w)
    peer = sm.OLS(y, X).fit() if w is None else sm.WLS(y, X, weights=w).fit()
    np.testing.assert_allclose(vcov(sandwich.hc_root(X, R, e, h, kind)), getattr(peer, f"cov_{kind}"), rtol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_clusters_equal_statsmodels(weighted):
    """Its correction is CR1S's; without it CR0."""
    X, y, w, codes = regression()
    w = w if weighted else None
    R, _, e, _ = fitted(X, y, w)
    peer = sm.OLS(y, X) if w is None else sm.WLS(y, X, weights=w)
    for kind, corrected in (("CR0", False), ("CR1S", True)):
        V = peer.fit(cov_type="cluster", cov_kwds={"groups": codes, "use_correction": corrected}).cov_params()
        np.testing.assert_allclose(vcov(sandwich.cluster_root(X, R, e, codes, kind)), V, rtol=1e-9)


# ---------------------------------------------------------------- CR2 by its definition
def cr2_by_definition(X, residual, w, codes, phi):
    """Pustejovsky & Tipton (2018): A_g = D (D B_g D)^(-1/2) D with D = Φ_g^½; V̂; and for each coefficient 2 E²/Var of its V̂."""
    n, p = X.shape
    W, Phi = np.diag(w), np.diag(phi)
    M = np.linalg.inv(X.T @ W @ X)
    residual_maker = np.eye(n) - X @ M @ X.T @ W
    meat, quadratic = np.zeros((p, p)), [[] for _ in range(p)]
    expected = np.zeros((p, p))
    for g in np.unique(codes):
        rows = codes == g
        B = (residual_maker @ Phi @ residual_maker.T)[np.ix_(rows, rows)]
        D = np.sqrt(Phi[np.ix_(rows, rows)])
        value, vector = np.linalg.eigh(D @ B @ D)
        A = D @ (vector * np.where(value > 1e-10, value, np.inf) ** -0.5) @ vector.T @ D
        score = X[rows].T @ W[np.ix_(rows, rows)] @ A
        meat += np.outer(score @ residual[rows], score @ residual[rows])
        expected += score @ B @ score.T
        for k in range(p):
            quadratic[k].append(residual_maker[rows].T @ (score.T @ M[k]))
    df = []
    for k in range(p):
        P = np.array(quadratic[k]) @ Phi @ np.array(quadratic[k]).T
        df.append(np.trace(P) ** 2 / np.sum(P**2))
    return M @ meat @ M, np.array(df), M @ expected @ M, M @ X.T @ W @ Phi @ W @ X @ M


CASES = {
    "plain": (60, 8, False, False),
    "weights, working variance 1": (60, 8, True, False),
    "working variance 1/weights": (60, 8, True, True),
    "clusters larger than the rank": (90, 4, False, False),
    "weighted clusters larger than the rank": (90, 4, True, False),
    "small clusters": (40, 30, True, True),
}


@pytest.mark.parametrize("case", CASES)
def test_cr2_is_its_definition(case):
    n, groups, weighted, matched = CASES[case]
    X, y, w, codes = regression(n, groups, seed=3)
    weights = w if weighted else None
    phi = 1 / w if matched else np.ones(n)
    R, residual, _, _ = fitted(X, y, weights)
    found = sandwich.cr2(X, R, residual, weights, codes, phi if matched else None)
    V, df, expected, truth = cr2_by_definition(X, residual, w if weighted else np.ones(n), codes, phi)
    np.testing.assert_allclose(vcov(found.root), V, rtol=1e-8)
    np.testing.assert_allclose(found.df(np.eye(3)), df, rtol=1e-8)
    np.testing.assert_allclose(expected, truth, rtol=1e-8)  # what the adjustment is for: no bias under the working model


def test_cr2_of_single_rows_is_hc2():
    X, y, _, _ = regression()
    R, residual, e, h = fitted(X, y, None)
    one_each = sandwich.cr2(X, R, residual, None, np.arange(len(y)))
    np.testing.assert_allclose(vcov(one_each.root), vcov(sandwich.hc_root(X, R, e, h, "HC2")), rtol=1e-11)


def test_cr2_of_a_cluster_with_a_dummy_of_its_own_stays_finite():
    X, y, _, codes = regression()
    X = np.column_stack((X, codes == 2))
    R, residual, _, _ = fitted(X, y, None)
    found = sandwich.cr2(X, R, residual, None, codes)
    assert np.isfinite(found.root).all()
    np.testing.assert_allclose(vcov(found.root), cr2_by_definition(X, residual, np.ones(60), codes, np.ones(60))[0], rtol=1e-7, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_counts_are_rows_repeated(seed):
    X, y, w, codes = regression(40, 6, seed)
    k = np.random.default_rng(seed).integers(1, 4, 40)
    index = np.repeat(np.arange(40), k)
    R = triangular(X, w * k)
    e = w * (y - X @ lstsq(X, y, w * k).coef)
    h = leverage(X, R, w * k) / k
    for kind in sandwich.HC_KINDS:
        counted = sandwich.hc_root(X, R, e, h, kind, k.astype(float))
        np.testing.assert_allclose(vcov(counted), vcov(sandwich.hc_root(X[index], R, e[index], h[index], kind)), rtol=1e-9)
    for kind in ("CR0", "CR1", "CR1S"):
        counted = sandwich.cluster_root(X, R, e, codes, kind, k.astype(float))
        np.testing.assert_allclose(vcov(counted), vcov(sandwich.cluster_root(X[index], R, e[index], codes[index], kind)), rtol=1e-9)


# ---------------------------------------------------------------- unequal variances
def cells(sizes, seed=1):
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    y = rng.normal(codes, 1 + codes)
    X = np.column_stack([np.ones(len(sizes)), np.eye(len(sizes))[:, 1:]])
    means = np.bincount(codes, weights=y) / sizes
    return X, codes, y, means


def test_two_cells_are_welchs_t_test():
    X, codes, y, means = cells([7, 12])
    found = sandwich.cell_variances(X, codes, y - means[codes])
    row = np.array([[0.0, 1.0]])
    peer = stats.ttest_ind(y[codes == 1], y[codes == 0], equal_var=False)
    assert found.df(row)[0] == pytest.approx(peer.df, rel=1e-12)
    assert (means[1] - means[0]) / np.linalg.norm(row @ found.root) == pytest.approx(peer.statistic, rel=1e-12)


def test_james_test_of_one_contrast_is_its_welch_t_squared():
    X, codes, y, means = cells([5, 9, 14])
    found = sandwich.cell_variances(X, codes, y - means[codes])
    row = np.array([[0.0, 1.0, -1.0]])
    divisor, df2 = sandwich.welch_james(row @ found.root, found.cell_df)
    assert divisor == pytest.approx(1, rel=1e-12)
    assert df2 == pytest.approx(found.df(row)[0], rel=1e-12)


def test_weights_within_cells_are_precisions():
    """A row of weight w stands for the mean of w rows: a weighted mean has variance σ²/Σw."""
    X, codes, y, _ = cells([6, 8])
    w = np.random.default_rng(0).uniform(0.5, 3, 14)
    means = np.bincount(codes, weights=w * y) / np.bincount(codes, weights=w)
    found = sandwich.cell_variances(X, codes, y - means[codes], w)
    for c in range(2):
        peer = sm.WLS(y[codes == c], np.ones((codes == c).sum()), weights=w[codes == c]).fit()
        assert X[c] @ vcov(found.root) @ X[c] == pytest.approx(peer.cov_params()[0, 0], rel=1e-12)
