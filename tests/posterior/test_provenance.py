"""Hashes change exactly where the world did, the stored form fits its schema, and broken histories are found."""

from __future__ import annotations

import json

import attrs
import numpy as np
import pandas as pd
import polars as pl
import pytest

from bossa.errors import DataError
from bossa.kernels import covop
from bossa.state.posterior import Posterior
from bossa.state.provenance import SCHEMA, Provenance, digest, hash_columns, validate, verify_chain

DATA = {"y": [1.5, -2.0, 0.1], "g": ["a", "b", "a"], "n": [1, 2, 3]}


def provenance(**changes):
    plain = {"forward_model_id": "bossa.lm: y ~ g", "forward_model_hash": digest("m"), "cov_op_hash": digest("c"), "adapter": "exact"}
    plain |= {"data_hash": {"data": hash_columns(DATA)}, "data_columns": ("g", "n", "y"), "J_star": 0.1, "obs_ops_used": ("data",)}
    return Provenance(**(plain | changes))


def test_the_same_data_have_the_same_hash_in_every_library():
    frames = [DATA, pl.DataFrame(DATA), pd.DataFrame(DATA), {k: np.array(v) for k, v in DATA.items()}]
    frames.append(pl.DataFrame(DATA).with_columns(pl.col("g").cast(pl.Categorical), pl.col("n").cast(pl.Float64)))
    frames.append(pd.DataFrame(DATA).assign(g=lambda d: d.g.astype("category")))
    assert len({hash_columns({c: f[c] for c in DATA}) for f in frames}) == 1


def test_one_changed_cell_is_seen_and_the_order_of_rows_only_where_it_counts():
    kept, free = (hash_columns(DATA, order) for order in ("kept", "any"))
    changed = DATA | {"y": [1.5, -2.0, np.nextafter(0.1, 1)]}
    assert hash_columns(changed) != kept
    assert hash_columns(changed, "any") != free
    turned = {k: v[::-1] for k, v in DATA.items()}
    assert hash_columns(turned) != kept
    assert hash_columns(turned, "any") == free
    missing = {"y": [1.0, None], "g": ["a", None]}
    frames = (missing, pd.DataFrame(missing), pl.DataFrame(missing))
    assert len({hash_columns({c: f[c] for c in missing}) for f in frames}) == 1


def test_verify_knows_its_data():
    origin = provenance()
    assert origin.verify(pl.DataFrame(DATA))
    assert not origin.verify(DATA | {"y": [1.5, -2.0, 0.2]})


def test_the_stored_form_fits_its_schema_and_reads_back():
    document = json.loads(json.dumps(provenance(parent_hash=digest(1), seed="5").to_dict()))
    validate(document)
    assert Provenance.from_dict(document).to_dict() == document
    assert document["gaussx_op_hash"] == document["cov_op_hash"]
    assert document["vardax_version"] == document["bossa_version"]
    assert float.fromhex(document["J_star"]) == 0.1
    ten = "forward_model_id forward_model_hash obs_ops_used n_iter J_star converged model_hash gaussx_op_hash met_source vardax_version"
    assert set(ten.split()) <= set(SCHEMA["required"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_iter", True),
        ("J_star", "0.1"),
        ("cov_op_hash", "abc"),
        ("data_hash", {"a": 1}),
        ("obs_ops_used", [1]),
        ("extra", "x"),
        ("adapter", None),
    ],
)
def test_what_does_not_fit_the_schema_is_named(key, value):
    document = provenance().to_dict() | {key: value}
    with pytest.raises(DataError) as caught:
        validate(document)
    assert key in str(caught.value)


def test_a_tampered_provenance_is_found():
    document = provenance().to_dict()
    for key, value in (("seed", "7"), ("n_iter", 3), ("created_at", "2020-01-01T00:00:00+00:00")):
        with pytest.raises(DataError, match="changed after it was sealed"):
            Provenance.from_dict(document | {key: value})


def chain(n=4):
    states, before = [], None
    for i in range(n):
        origin = provenance(parent_hash=None if before is None else before.hash, obs_ops_used=(f"week {i}",))
        before = Posterior(names=["x"], mean=np.array([float(i)]), cov=covop.Diag(np.ones(1)), provenance=origin)
        states.append(before)
    return states


def test_a_chain_holds_and_its_breaks_are_found():
    states = chain()
    assert verify_chain(states)
    with pytest.raises(DataError, match="state 2 does not build on state 1"):
        verify_chain([states[0], states[1], states[3]])
    changed = [states[0], attrs.evolve(states[1], mean=np.array([1.0 + 1e-15])), *states[2:]]
    with pytest.raises(DataError, match="state 2"):
        verify_chain(changed)
    inflated = states[0].as_prior(2.0)
    after = attrs.evolve(states[1], provenance=provenance(parent_hash=inflated.hash))
    assert verify_chain([states[0], inflated, after])
