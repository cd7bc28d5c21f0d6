"""Every compiled twin against its NumPy definition, and the context that chooses between them."""

import numpy as np
import pytest
from attrs import evolve

from bossa import engine, load_dataset, model
from bossa.errors import OptionError, UnknownOption
from bossa.kernels import family, gram, kalman, link, replicates, seam  # noqa: F401 (each registers its kernels)

TWINS = [(name, where) for name, kernel in seam.KERNELS.items() for where in kernel.twins]


def agree(twin, kernel, args):
    """1e-8 of the size of each result; codes and missing values exactly."""
    for found, defined in zip(twin(*args), kernel.definition(*args), strict=True):
        assert found.dtype == defined.dtype
        usable = np.abs(defined[np.isfinite(defined)])
        np.testing.assert_allclose(found, defined, rtol=1e-8, atol=1e-8 * usable.max(initial=0.0))


def loaded(name, where):
    return seam.KERNELS[name].load(where) or pytest.skip(f"{where} is not installed")


def test_the_batched_kernels_have_twins():
    assert {("ols_many", "jax"), ("ols_responses", "jax"), ("glm_many", "jax"), ("lmm_many", "jax")} <= set(TWINS)


@pytest.mark.parametrize(("name", "where"), TWINS)
def test_a_twin_agrees_with_its_definition(name, where):
    twin, kernel = loaded(name, where), seam.KERNELS[name]
    for seed in range(5):
        agree(twin, kernel, kernel.example(np.random.default_rng(seed)))


@pytest.mark.parametrize("name", link.LINKS)
def test_a_traced_link_agrees_with_the_table(name):
    _jax = pytest.importorskip("bossa.kernels._jax", reason="jax is not installed")
    if name not in _jax.MEANS:
        assert not _jax.traceable(family.FAMILIES["gaussian"], link.LINKS[name])
        return
    eta = np.concatenate((np.linspace(-30.0, 5.0, 71) + 1e-3, np.geomspace(1e-6, 30.0, 20)))
    with _jax.jax.enable_x64(True):
        mu, slope = (np.asarray(v) for v in _jax.MEANS[name](_jax.jnp.asarray(eta)))
    np.testing.assert_allclose(mu, link.LINKS[name].inverse(eta), rtol=1e-12)
    np.testing.assert_allclose(slope, link.LINKS[name].slope(eta), rtol=1e-12)


@pytest.mark.parametrize("name", family.FAMILIES)
def test_a_traced_variance_agrees_with_the_table(name):
    _jax = pytest.importorskip("bossa.kernels._jax", reason="jax is not installed")
    if name not in _jax.VARIANCES:
        assert not _jax.traceable(family.FAMILIES[name], link.LINKS["log"])
        return
    mu = np.linspace(0.01, 0.99, 50)
    with _jax.jax.enable_x64(True):
        np.testing.assert_allclose(_jax.VARIANCES[name](_jax.jnp.asarray(mu)), family.FAMILIES[name].variance(mu), rtol=1e-14)


def test_a_rule_of_the_users_own_runs_as_defined():
    """A link called "log" that is none: the twin leaves it to the definition, to the bit."""
    twin = loaded("glm_many", "jax")
    X, W, Y, offset, _, start = gram.glm_many.example(np.random.default_rng(0))
    half = evolve(link.LINKS["log"], inverse=lambda eta: np.exp(eta / 2), slope=lambda eta: np.exp(eta / 2) / 2)
    args = X, W, Y, offset, (family.FAMILIES["poisson"], half), start
    for found, defined in zip(twin(*args), gram.glm_many.definition(*args), strict=True):
        np.testing.assert_array_equal(found, defined)


def test_replicates_without_a_maximum_have_the_definitions_codes():
    """y = 1 wherever x > 0 in some replicates: no maximum, and the same code from both."""
    twin = loaded("glm_many", "jax")
    rng = np.random.default_rng(2)
    x = np.linspace(-1.0, 1.0, 24)
    X, Y = np.column_stack((np.ones(24), x)), (x + rng.normal(size=(40, 24)) * np.linspace(0, 1, 40)[:, None] > 0) * 1.0
    args = X, np.ones((40, 24)), Y, None, (family.FAMILIES["binomial"], link.LINKS["logit"]), np.zeros(2)
    assert len(set(gram.glm_many.definition(*args)[2])) > 1
    np.testing.assert_array_equal(twin(*args)[2], gram.glm_many.definition(*args)[2])


def test_long_data_are_summed_in_blocks_of_rows(monkeypatch):
    _jax = pytest.importorskip("bossa.kernels._jax", reason="jax is not installed")
    monkeypatch.setattr(_jax, "CELLS", 1000)
    rng = np.random.default_rng(3)
    X, W, y = rng.normal(size=(1003, 4)), rng.integers(0, 3, size=(5, 1003)) * 1.0, rng.normal(size=1003)
    agree(_jax.ols_many, gram.ols_many, (X, W, y))


def test_columns_that_cannot_change_are_taken_to_the_device_once():
    _jax = pytest.importorskip("bossa.kernels._jax", reason="jax is not installed")
    X, W, y = gram.ols_many.example(np.random.default_rng(4))
    _jax.ols_many(X, W, y)
    assert id(X) not in _jax.HELD  # it could change
    fixed = X.view()
    fixed.flags.writeable = False
    agree(_jax.ols_many, gram.ols_many, (fixed, W, y))
    there = _jax.HELD[id(fixed)][1]
    agree(_jax.ols_many, gram.ols_many, (fixed, 2.0 * W, y))
    assert _jax.HELD[id(fixed)][1] is there
    key = id(fixed)
    del fixed
    assert key not in _jax.HELD


@pytest.mark.parametrize(("k", "reml", "alike"), [(1, False, True), (3, True, False)])
def test_mixed_models_of_any_width_agree_and_what_has_no_maximum_has_the_same_code(k, reml, alike):
    """k correlated effects per group, one replicate of dependent columns; groups that are all alike are merged."""
    twin = loaded("lmm_many", "jax")
    rng, b, G, m = np.random.default_rng(k), 9, 14, 7
    Z = rng.normal(size=(k, 1 if alike else G, m)) + np.zeros((k, G, m))
    y = np.einsum("agi,bga->bgi", Z, rng.normal(size=(b, G, k))) + rng.normal(size=(b, G, m))
    X = np.stack((np.ones((G, m)), Z[0]))
    columns = np.concatenate((np.broadcast_to(X[:, None], (2, b, G, m)), y[None]))
    C = np.einsum("sbgi,tbgi->bst", columns, columns)
    C[0] = 1.0
    cols, rows = np.nonzero(np.tril(np.ones((k, k))).T)
    block = replicates.Block(
        A=np.einsum("agi,cgi->acg", Z, Z),
        B=np.einsum("agi,sgi->asg", Z, X),
        By=np.einsum("agi,bgi->abg", Z, y),
        C=C,
        n=np.full(b, 1.0 * G * m),
        rows=rows,
        cols=cols,
        reml=reml,
    )
    fewer = replicates.merged(block)
    assert (fewer.A.shape[2] < G) == alike
    agree(twin, replicates.lmm_many, (fewer, np.tile(np.eye(k)[rows, cols], (b, 1)), np.eye(len(rows)) * 0.02))


@pytest.mark.parametrize("formula", ["mpg ~ wt + factor(cyl)", "am ~ wt"])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_an_interval_does_not_depend_on_the_engine(formula, n_jobs):
    """The workers of n_jobs=2 run on the engine too: their numbers are those of one process on it, to the bit."""
    pytest.importorskip("jax")
    m = model(formula, load_dataset("mtcars"), **({"family": "binomial"} if formula.startswith("am") else {})).fit()
    asked = {"how": "boot", "scheme": "parametric" if formula.startswith("am") else "case", "n_boot": 300, "seed": 1}
    plain = m.infer(**asked).resamples["estimate"].to_numpy()
    with engine("jax"):
        on_jax = m.infer(**asked, n_jobs=n_jobs).resamples["estimate"].to_numpy()
        np.testing.assert_array_equal(on_jax, m.infer(**asked).resamples["estimate"].to_numpy())
    np.testing.assert_allclose(on_jax, plain, rtol=1e-8)
    assert (on_jax != plain).any(), "the engine was not used"


@pytest.mark.parametrize("scheme", ["parametric", "group"])
def test_intervals_of_a_mixed_model_do_not_depend_on_the_engine(scheme):
    pytest.importorskip("jax")
    m = model("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy")).fit()
    asked = {"how": "boot", "scheme": scheme, "n_boot": 60, "seed": 1}
    plain = m.infer(**asked).resamples["estimate"].to_numpy()
    with engine("jax"):
        on_jax = m.infer(**asked).resamples["estimate"].to_numpy()
    np.testing.assert_allclose(on_jax, plain, rtol=1e-8)
    assert (on_jax != plain).any(), "the engine was not used"


def test_jax_keeps_the_precision_the_user_had():
    jax = pytest.importorskip("jax")
    with engine("jax"):
        gram.ols_many(*gram.ols_many.example(np.random.default_rng(0)))
    assert jax.numpy.ones(1).dtype == np.float32


# ---------------------------------------------------------------------------------------------------- bossa.engine()


def test_an_unknown_engine_is_refused_with_the_known_ones():
    with pytest.raises(UnknownOption, match=r"'jaxx'.*Did you mean 'jax'"), engine("jaxx"):
        pass


def test_an_engine_that_is_not_installed_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setattr(seam, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"'jax' is not installed.*pip install 'bossa\[jax\]'"), engine("jax"):
        pass


def test_the_engine_is_numpy_again_after_the_block_and_after_an_error_in_it(monkeypatch):
    monkeypatch.setattr(seam, "find_spec", lambda name: True)
    assert seam.chosen() == "numpy"
    with engine("jax"), engine("numpy"):
        assert seam.chosen() == "numpy"
    with pytest.raises(OptionError), engine("jax"):
        raise OptionError("an error in the block.", where="here")
    assert seam.chosen() == "numpy"


def test_a_kernel_without_a_twin_runs_its_definition_on_any_engine(monkeypatch):
    def example(rng):
        return (rng.normal(),)

    monkeypatch.setattr(seam, "KERNELS", {})
    monkeypatch.setattr(seam, "find_spec", lambda name: True)
    double = seam.kernel(example=example)(lambda x: 2 * x)
    with engine("jax"):
        assert double(4) == 8
