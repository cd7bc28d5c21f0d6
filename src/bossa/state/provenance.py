"""Where a result came from, as hashes that anyone can compute again.

    Provenance(forward_model_hash=…, data_hash={batch: …}, parent_hash=hash of the state before, …)

Numbers enter hashes exactly: `float.hex` in JSON, IEEE bytes in arrays. One changed cell changes `data_hash` alone, a changed coding
`forward_model_hash` alone, a changed prior `cov_op_hash` (and `parent_hash`). Results that build on one another form a chain.

Source: FIPS 180-4 for SHA-256; JSON Schema 2020-12 for the form of SCHEMA.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
import numpy as np
from attrs import field, frozen

from .. import __version__
from ..errors import DataError, UnknownColumn, UnknownOption

HASH = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
TEXT, MAYBE_TEXT, MAYBE_HASH = {"type": "string"}, {"type": ["string", "null"]}, {"type": ["string", "null"], "pattern": "^[0-9a-f]{64}$"}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "bossa provenance, version 1",
    "type": "object",
    "properties": {
        "schema_version": {"type": "integer"},
        "forward_model_id": TEXT,
        "forward_model_hash": HASH,
        "obs_ops_used": {"type": "array", "items": TEXT},
        "n_iter": {"type": "integer"},
        "J_star": {"type": ["string", "null"], "pattern": "^(-?0x[01]\\.[0-9a-f]*p[+-][0-9]+|-?inf|nan)$"},
        "converged": {"type": "boolean"},
        "model_hash": MAYBE_HASH,
        "gaussx_op_hash": HASH,
        "cov_op_hash": HASH,
        "met_source": MAYBE_TEXT,
        "vardax_version": TEXT,
        "bossa_version": TEXT,
        "numpy_version": TEXT,
        "python_version": TEXT,
        "data_hash": {"type": "object", "additionalProperties": HASH},
        "data_columns": {"type": "array", "items": TEXT},
        "rows_left_out": {"type": "array", "items": {"type": "integer"}},
        "row_order": {"type": "string", "pattern": "^(kept|any)$"},
        "seed": MAYBE_TEXT,
        "adapter": TEXT,
        "created_at": TEXT,
        "parent_hash": MAYBE_HASH,
        "hash": HASH,
    },
    "additionalProperties": False,
}
SCHEMA["required"] = list(SCHEMA["properties"])
TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@frozen(kw_only=True)
class Provenance:
    """How one state came about.

    forward_model_id    "bossa.glm/poisson-log: y ~ x";  forward_model_hash  terms, codings, columns, family, link, weights, offset
    obs_ops_used        batches or sources that contributed, in order
    n_iter, J_star, converged   of the search; J the penalised −log-likelihood
    model_hash          of learnt nuisance parts, None: there are none
    cov_op_hash         of the prior's mean and covariance and of the response's dispersion
    met_source          of outside covariates, None: there are none
    data_hash           by batch, of the columns `data_columns` without the rows `rows_left_out`
    row_order           "kept", or "any": the order of the rows does not enter
    seed, adapter       what was drawn, and how the covariance came about
    parent_hash         hash of the state this one built on
    """

    forward_model_id: str
    forward_model_hash: str
    obs_ops_used: tuple[str, ...] = ("data",)
    n_iter: int = 0
    J_star: float | None = None
    converged: bool = True
    model_hash: str | None = None
    cov_op_hash: str
    met_source: str | None = None
    data_hash: Mapping[str, str] = field(factory=dict)
    data_columns: tuple[str, ...] = ()
    rows_left_out: tuple[int, ...] = ()
    row_order: str = "kept"
    seed: str | None = None
    adapter: str
    created_at: str = field(factory=_now)
    parent_hash: str | None = None
    bossa_version: str = __version__
    numpy_version: str = np.__version__
    python_version: str = field(factory=platform.python_version)
    schema_version: int = 1

    @property
    def hash(self) -> str:
        """SHA-256 of everything else."""
        return digest(self._fields())

    def _fields(self) -> dict[str, Any]:
        out = {f.name: getattr(self, f.name) for f in attrs.fields(Provenance)}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in out.items()}
        J = None if self.J_star is None else float(self.J_star).hex()
        same = {"gaussx_op_hash": self.cov_op_hash, "vardax_version": self.bossa_version}
        return plain | {"J_star": J, "data_hash": dict(self.data_hash)} | same

    def to_dict(self) -> dict[str, Any]:
        """As JSON, by SCHEMA; `hash` seals it."""
        return self._fields() | {"hash": self.hash}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Provenance:
        """Read back; DataError where the document does not have the form of SCHEMA or was changed since it was sealed."""
        validate(document)
        kept = {f.name: document[f.name] for f in attrs.fields(cls)}
        kept |= {k: tuple(kept[k]) for k in ("obs_ops_used", "data_columns", "rows_left_out")}
        kept["J_star"] = None if kept["J_star"] is None else float.fromhex(kept["J_star"])
        made = cls(**kept)
        if made.to_dict() != dict(document):
            raise DataError(
                "it was changed after it was sealed.", where="provenance", do="Get the original file: this history cannot be trusted."
            )
        return made

    def verify(self, data: Any, batch: Any = None) -> bool:
        """Are these the data of `batch` (None: the last one)?   data: any frame or a dict of columns"""
        if not self.data_hash:
            raise DataError("it names no data.", where="provenance", do="Fit a model to data; a prior has none.")
        batch = self.obs_ops_used[-1] if batch is None else str(batch)
        if batch not in self.data_hash:
            raise UnknownOption(batch, self.data_hash, where="provenance.verify()", kind="batch")
        if not self.data_columns:
            raise DataError("its sources have columns of their own.", where="verify()", do="Verify the posterior of each source.")
        there = data.keys() if isinstance(data, Mapping) else data.columns
        for c in self.data_columns:
            if c not in there:
                raise UnknownColumn(c, there, where="provenance.verify()")
        columns = {c: data[c] for c in self.data_columns}
        if self.rows_left_out:
            columns = {c: np.delete(np.asarray(v), self.rows_left_out) for c, v in columns.items()}
        return hash_columns(columns, self.row_order) == self.data_hash[batch]


def validate(document: Any, schema: Mapping[str, Any] | None = None, path: str = "provenance") -> None:
    """DataError at the first place where a document does not have the form that the schema (None: SCHEMA) describes."""
    import re

    schema = SCHEMA if schema is None else schema
    allowed = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    fits = any(isinstance(document, TYPES[t]) and not (t == "integer" and isinstance(document, bool)) for t in allowed)
    if not fits:
        raise DataError(f"{document!r} is not of type {' or '.join(allowed)}.", where=path)
    if isinstance(document, str) and not re.search(schema.get("pattern", ""), document):
        raise DataError(f"{document!r} does not have the form {schema['pattern']}.", where=path)
    if isinstance(document, list):
        for i, item in enumerate(document):
            validate(item, schema["items"], f"{path}[{i}]")
    if isinstance(document, dict):
        missing = [k for k in schema.get("required", ()) if k not in document]
        if missing:
            raise DataError(f"it has no {', '.join(missing)}.", where=path)
        for key, value in document.items():
            inner = schema.get("properties", {}).get(key, schema.get("additionalProperties", False))
            if inner is False:
                raise DataError(f"{key!r} is not one of its keys.", where=path)
            validate(value, inner, f"{path}.{key}")


def verify_chain(states: Iterable[Any]) -> bool:
    """Does each state (a Posterior, oldest first) build on the one before?  DataError names the first that does not."""
    before = None
    for i, state in enumerate(states):
        parent = state.provenance.parent_hash
        if before is not None and parent != before:
            raise DataError(
                f"state {i} does not build on state {i - 1}: its parent is {str(parent)[:12]}…, not {before[:12]}….",
                where="verify_chain()",
                do="Give every state in order, priors that were inflated among them.",
            )
        before = state.hash
    return True


# ---------------------------------------------------------------- hashes
def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON: sorted keys, floats by `float.hex`, arrays by their bytes."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def canonical(value: Any) -> str:
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    if isinstance(value, (float, np.floating)):
        return float(value).hex()
    if isinstance(value, (np.bool_, np.integer)):
        return value.item()
    if isinstance(value, np.ndarray):
        return {"shape": list(value.shape), "sha256": hash_array(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value]


def hash_array(values: np.ndarray) -> str:
    """Of its numbers as little-endian doubles; −0 counts as 0 and every nan as the same."""
    return hashlib.sha256(_canonical_doubles(values).tobytes()).hexdigest()


def _canonical_doubles(values: np.ndarray) -> np.ndarray:
    x = np.asarray(values, dtype="<f8") + 0.0
    return np.where(np.isnan(x), np.nan, x)


def hash_columns(columns: Mapping[str, Any], row_order: str = "kept") -> str:
    """Of named columns, whatever the frame's library: numbers as doubles, the rest as text, missing as missing.

    row_order  "any": rows are hashed one by one and sorted, so their order does not enter
    """
    plain = {name: _column(columns[name]) for name in sorted(columns)}
    if row_order == "kept":
        return digest({name: v if v.dtype.kind == "f" else v.tolist() for name, v in plain.items()})
    rows = zip(*(v.tolist() for v in plain.values()))
    return digest({"columns": list(plain), "rows": sorted(digest(row) for row in rows)})


def hash_parts(columns: Mapping[str, Any], parts: Sequence[np.ndarray]) -> list[str]:
    """`hash_columns` of some rows of the columns, for many parts: (n,) places of the rows of each."""
    order = np.concatenate([np.zeros(0, dtype=np.intp), *parts])
    plain: list[tuple[str, Any, bool]] = []
    for name in sorted(columns):
        column = np.asarray(columns[name])
        number = column.dtype.kind in "iufb"
        plain.append((json.dumps(name), memoryview(_canonical_doubles(column)[order]) if number else column[order], number))
    out, end = [], 0
    for part in parts:
        begin, end, told = end, end + len(part), []
        for key, values, number in plain:
            if number:
                told.append(f'{key}:{{"sha256":"{hashlib.sha256(values[begin:end]).hexdigest()}","shape":[{len(part)}]}}')
            else:
                v = _column(values[begin:end])
                told.append(f"{key}:{canonical(v) if v.dtype.kind == 'f' else json.dumps(v.tolist(), separators=(',', ':'))}")
        out.append(hashlib.sha256(f"{{{','.join(told)}}}".encode()).hexdigest())
    return out


def _column(values: Any) -> np.ndarray:
    """A column as doubles, or as an array of texts with None where missing."""
    array = np.asarray(values)
    if array.dtype.kind in "iufb":
        return array.astype(float)
    items = [None if v is None or (isinstance(v, float) and math.isnan(v)) else v for v in array.tolist()]
    if all(v is None or (isinstance(v, (int, float)) and not isinstance(v, bool)) for v in items):
        return np.array([np.nan if v is None else float(v) for v in items])
    return np.array([None if v is None else str(v) for v in items], dtype=object)
