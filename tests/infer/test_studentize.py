"""Replicates of clusters are studentized by cluster-robust standard errors: those that a fit of the replicate itself would show."""

import numpy as np
import polars as pl
import pytest

from bossa import model
from bossa.estimate.many import refit
from bossa.infer.clusters import cluster_codes
from bossa.infer.plan import plan
from bossa.infer.studentize import studentizers


def clusters(family, G=14, seed=0):
    rng = np.random.default_rng(seed)
    c = np.repeat(np.arange(G), rng.integers(2, 7, size=G))
    eta = 0.4 * rng.normal(size=G)[c]
    d = pl.DataFrame({"c": c, "z": rng.normal(size=G)[c], "x": rng.normal(size=len(c)), "w": rng.uniform(0.5, 2, len(c)), "o": 0.1 * eta})
    y = eta + rng.normal(size=len(c)) if family == "gaussian" else rng.poisson(np.exp(1 + eta))
    return d.with_columns(y=pl.Series(y))


CASES = {
    "lm": ("y ~ x + z", "gaussian", {}),
    "lm, weights": ("y ~ x + z + offset(o)", "gaussian", {"weights": "w"}),
    "poisson": ("y ~ x + z + offset(o)", "poisson", {}),
    "poisson, sqrt link": ("y ~ x + z", "poisson", {"link": "sqrt"}),
}


@pytest.mark.parametrize("scheme", ["group", "wild"])
@pytest.mark.parametrize("case", CASES)
def test_standard_errors_are_those_of_a_fit_of_the_replicate(case, scheme):
    formula, family, options = CASES[case]
    if scheme == "wild" and family != "gaussian":
        pytest.skip("the wild bootstrap is for linear models")
    d = clusters(family)
    m = model(formula, d, family=family, **options).fit()
    problem, fit = m.problem, m.fit_state
    groups = cluster_codes(problem, "c")
    chosen = plan(problem, fit, scheme, 300, 1, groups)  # two blocks
    draws = refit(problem, fit, chosen)
    own, se = studentizers(problem, fit, chosen, draws, groups)
    np.testing.assert_allclose(own, m.infer(errors="CR0", cluster="c").params["se"], rtol=1e-9)
    assert (draws.code == 0).all()
    for i in (0, 3, 299):
        block = chosen.block(i // chosen.block_size)
        j = i % chosen.block_size
        if scheme == "wild":
            data = d.with_columns(y=pl.Series(block.y[j]))
        else:  # a cluster drawn k times is k clusters
            copies = block.freq[j].astype(int)
            index = np.repeat(np.arange(d.height), copies)
            copy = np.concatenate([np.arange(k) for k in copies])
            data = d[index].with_columns(c=pl.Series([f"{a}.{b}" for a, b in zip(d["c"].to_numpy()[index], copy)]))
        again = model(formula, data, family=family, **options).fit().infer(errors="CR0", cluster="c").params["se"]
        np.testing.assert_allclose(se[i], again, rtol=1e-6)


def test_the_result_says_so_and_rows_keep_the_models_own():
    m = model("y ~ x + z", clusters("gaussian")).fit()
    by_cluster = m.infer(how="boot", scheme="wild", cluster="c", ci_type="studentized", n_boot=50, seed=1)
    assert "studentized by cluster-robust standard errors" in by_cluster.inference.notes
    rows = m.infer(how="boot", ci_type="studentized", n_boot=50, seed=1)
    assert not any("cluster-robust" in note for note in rows.inference.notes)
