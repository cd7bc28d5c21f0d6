"""explore("information"): the averaging kernel, by its definition, and the identities of property 31."""

from __future__ import annotations

import numpy as np
import pytest

from bossa import load_dataset, model, normal
from bossa.errors import OptionError, Refused


def kernel(m, sigma2):
    X, W = m.design.X, np.ones(m.design.n) if m.fit_state.working is None else m.fit_state.working
    H, B = (X.T * W) @ X / sigma2, m.fit_state.prior.cov.dense()
    P = np.linalg.inv(H + np.linalg.inv(B))
    return P @ H, P, B


def test_share_dfs_and_entropy_are_the_averaging_kernels():
    cars = load_dataset("mtcars")
    prior = {"Intercept": normal(30, 5), "wt": normal(0, 1), "hp": normal(0, 0.01), "sigma": 2.5}
    m = model("mpg ~ wt + hp", cars, prior=prior).fit().explore("information")
    A, P, B = kernel(m, 6.25)
    np.testing.assert_allclose(m.effects["estimate"], np.diag(A), rtol=1e-10)
    np.testing.assert_allclose(m.effects["prior_sd"], [5, 1, 0.01], rtol=1e-12)
    np.testing.assert_allclose(m.effects["posterior_sd"], np.sqrt(np.diag(P)), rtol=1e-10)
    details = m.focus.target.details
    hat = m.design.X @ P @ m.design.X.T / 6.25
    # property 31: tr A = tr(hat) = k − tr(P B⁻¹)
    for same in (np.trace(A), np.trace(hat), 3 - np.trace(P @ np.linalg.inv(B))):
        assert details["dfs"] == pytest.approx(same, rel=1e-12)
    assert details["entropy"] == pytest.approx(0.5 * (np.linalg.slogdet(B)[1] - np.linalg.slogdet(P)[1]), rel=1e-12)
    text = str(m)
    assert "share of the coefficient that is data" in text
    assert f"{details['dfs']:.6g} of 3 degrees of freedom are signal" in text


def test_generalized_models_and_unknown_sigma():
    cars = load_dataset("mtcars")
    m = model("am ~ wt", cars, family="binomial", prior=normal(0, 2)).fit().explore("information")
    np.testing.assert_allclose(m.effects["estimate"], np.diag(kernel(m, 1.0)[0]), rtol=1e-7)
    m = model("mpg ~ wt", cars, prior=normal(0, 10)).fit()
    np.testing.assert_allclose(m.explore("information").effects["estimate"], m.infer().posterior.information().share, rtol=1e-10)


def test_without_a_prior_everything_is_data_and_a_column_of_that_name_is_a_column():
    cars = load_dataset("mtcars")
    m = model("mpg ~ wt", cars).fit().explore("information")
    assert m.effects["estimate"].to_list() == [1.0, 1.0]
    assert "no prior was given: everything is data" in str(m)
    named = model("mpg ~ information", cars.rename({"wt": "information"})).fit()
    assert named.explore("information").effects["slope"].to_list() == ["information"]


def test_shares_are_not_inferred_about():
    m = model("mpg ~ wt", load_dataset("mtcars"), prior=normal(0, 10)).fit()
    for how in ("asymp", "boot", "posterior"):
        with pytest.raises(Refused, match="property of the fit"):
            m.explore("information").infer(how=how)
    with pytest.raises(OptionError, match="at= has no use"):
        m.explore("information", at={"wt": 3})
