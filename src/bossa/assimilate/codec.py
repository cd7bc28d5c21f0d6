"""A state as JSON text and back, to the last bit, without pickle: only bossa's own containers, arrays and plain values.

Floats are written so that they read back as the same double; tuples, arrays, slices and dicts with any keys are tagged. A family or link
is written by name. What has no such form (functions given in `env=`, say) is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import attrs
import numpy as np
import polars as pl

from ..errors import DataError, Refused
from ..kernels.family import SHAPED, Family, resolve_family
from ..kernels.link import LINKS, Link
from ..state.provenance import digest

DTYPES: dict[str, Any] = {
    str(t): t for t in (pl.Float64, pl.Float32, pl.Int64, pl.Int32, pl.Int16, pl.Int8, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)
}
DTYPES |= {str(t): t for t in (pl.Boolean, pl.String, pl.Date)}


def to_json(value: Any) -> str:
    """JSON text of a container, sealed by a checksum; keys sorted, so equal states give equal text."""
    document = _plain(value)
    return json.dumps(document | {"checksum": digest(document)}, sort_keys=True, allow_nan=False)


def from_json(text: str) -> Any:
    """The container that `to_json` wrote.

    raises  DataError for text that is not such JSON, or was changed since
    """
    try:
        document = json.loads(text)
        seal = document.pop("checksum")
        if digest(document) != seal:
            what = "the text was changed since it was stored."
            raise DataError(what, where="from_json()", do="Get the original: its numbers cannot be trusted.")
        return _object(document)
    except (json.JSONDecodeError, TypeError, KeyError, AttributeError, ModuleNotFoundError) as error:
        what = f"the text cannot be read ({type(error).__name__})."
        raise DataError(what, where="from_json()", do="Give the text that to_json() wrote, unchanged.") from None


def _plain(x: Any) -> Any:
    if x is None or isinstance(x, (bool, str, int)):
        return x
    if isinstance(x, float):
        return x if math.isfinite(x) else {"~float": repr(x)}
    if isinstance(x, np.generic):
        return _plain(x.item())
    if isinstance(x, np.ndarray):
        return {"~array": [_plain(v) for v in x.reshape(-1).tolist()], "dtype": x.dtype.str, "shape": list(x.shape)}
    if isinstance(x, (list, tuple)):
        return {"~tuple" if isinstance(x, tuple) else "~list": [_plain(v) for v in x]}
    if isinstance(x, Mapping):
        return {"~dict": [[_plain(k), _plain(v)] for k, v in x.items()]}
    if isinstance(x, slice):
        return {"~slice": [x.start, x.stop, x.step]}
    if isinstance(x, Family):
        return {"~family": x.name, "aux": _plain(dict(x.aux))}
    if isinstance(x, Link) and LINKS.get(x.name) is x:
        return {"~link": x.name}
    if isinstance(x, pl.DataType) or (isinstance(x, type) and issubclass(x, pl.DataType)):
        return {"~dtype": str(x)}
    if attrs.has(type(x)) and type(x).__module__.startswith("bossa."):
        fields = {f.alias: _plain(getattr(x, f.name)) for f in attrs.fields(type(x)) if f.init}
        return {"~object": f"{type(x).__module__.removeprefix('bossa.')}:{type(x).__qualname__}", "fields": fields}
    raise Refused(f"{type(x).__name__} values cannot be stored as text.", where="to_json()", do="Do without env= and links of your own.")


def _object(x: Any) -> Any:
    if not isinstance(x, dict):
        return x
    tag = next((k for k in x if k.startswith("~")), "")
    value = x[tag]
    if tag == "~float":
        return float(value)
    if tag == "~array":
        return np.array([_object(v) for v in value], dtype=np.dtype(x["dtype"])).reshape(x["shape"])
    if tag in ("~tuple", "~list"):
        return tuple(_object(v) for v in value) if tag == "~tuple" else [_object(v) for v in value]
    if tag == "~dict":
        return {_object(k): _object(v) for k, v in value}
    if tag == "~slice":
        return slice(*value)
    if tag == "~family":
        aux = _object(x["aux"])
        return SHAPED[value](**aux) if aux else resolve_family(value)
    if tag == "~link":
        return LINKS[value]
    if tag == "~dtype":
        return DTYPES.get(value, pl.String)
    module, _, name = x["~object"].partition(":")
    cls = getattr(import_module(f"bossa.{module}"), name)
    if not (isinstance(cls, type) and attrs.has(cls)):
        raise DataError(f"{x['~object']!r} is not a container.", where="from_json()")
    return cls(**{k: _object(v) for k, v in x["fields"].items()})
