"""A corpus of reference numbers on disk: cases, their data with types and factor levels in order, and every number in them.

A number is named by its path in `results`: ("coef", 2, "se"). "Inf" and "-Inf" are numbers; null (R's NA) is not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import polars as pl

Path_ = tuple[str | int, ...]


def number(value: Any) -> float | None:
    """The number a JSON leaf stands for, or None when it is not one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value)
    return {"Inf": math.inf, "-Inf": -math.inf}.get(value) if isinstance(value, str) else None


def leaves(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, float]]:
    """Every number below `value`, with its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        found = number(value)
        if found is not None:
            yield path, found


@lru_cache(maxsize=8)
def load_data(root: Path, name: str) -> pl.DataFrame:
    """data/NAME.csv with the types of data/NAME.json; factors (ordered or not) as Enum, so their order is kept."""
    meta = json.loads((root / "data" / f"{name}.json").read_text(encoding="utf-8"))
    frame = pl.read_csv(root / "data" / f"{name}.csv", infer_schema=False)
    types = {"float": pl.Float64, "int": pl.Int64, "str": pl.String}
    columns = []
    for column in meta["columns"]:
        values, kind = frame[column["name"]], column["type"]
        if kind == "bool":
            columns.append((values == "TRUE").alias(column["name"]))
        elif kind in ("factor", "ordered"):
            columns.append(values.cast(pl.Enum(column["levels"])))
        else:
            columns.append(values.cast(types[kind]))
    return pl.DataFrame(columns)


class Case:
    """One model (or comparison of models) with its reference numbers; `model` fits it with bossa, once."""

    def __init__(self, root: Path, file: Path):
        self.root = root
        self.record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        self.id: str = self.record["id"]
        self.kind: str = self.record["fit"]  # lm, glm, lmer, glmer, compare
        self.tags: list[str] = self.record["tags"]
        self.level: float = self.record.get("conf_level", 0.95)
        self.results: dict[str, Any] = self.record["results"]
        self.unstable: list[str] = self.record.get("unstable", [])

    def at(self, *path: str | int) -> Any:
        """The part of `results` at a path."""
        value: Any = self.results
        for key in path:
            value = value[key]
        return value

    def has(self, *path: str | int) -> bool:
        value: Any = self.results
        for key in path:
            if isinstance(value, dict) and key not in value:
                return False
            value = value[key]
        return True

    def reference(self, path: Path_) -> float | None:
        return number(self.at(*path))

    def is_unstable(self, path: Path_) -> bool:
        """Named under `unstable`, as a whole section or by a dotted path."""
        dotted = ".".join(str(part) for part in path)
        return any(dotted == key or dotted.startswith(key + ".") for key in self.unstable)

    @cached_property
    def data(self) -> pl.DataFrame:
        return load_data(self.root, self.record["data"])

    @property
    def mixed(self) -> bool:
        return self.kind in ("lmer", "glmer")

    @property
    def linear(self) -> bool:
        """Gaussian with identity link: a linear model to bossa, whoever fitted it in R."""
        return not self.mixed and self.record.get("family") == "gaussian" and self.record.get("link") == "identity"

    def fit(self, record: dict[str, Any] | None = None) -> Any:
        """The fitted bossa model of this case (or of one of the models it compares)."""
        from bossa import model

        r = self.record if record is None else record
        options: dict[str, Any] = {k: r[k] for k in ("weights", "offset") if r.get(k)}
        if r["fit"] in ("glm", "glmer"):
            options |= {"family": r["family"], "link": r["link"]}
        if r["fit"] == "lmer":
            options["method"] = "reml" if r["REML"] else "ml"
        codings = r.get("contrasts_used") or r.get("contrasts") or {}
        named = {g: coding for g, coding in codings.items() if g in self.data.columns}
        if set(codings.values()) - {"treatment"} - set(named.values()):
            raise ValueError(f"a coding of something that is not a column: {codings}")
        if named:
            options["contrasts"] = named
        nagq = {"nagq": r["nAGQ"]} if r["fit"] == "glmer" else {}
        return model(r["formula"], self.data, **options).fit(**nagq)

    @cached_property
    def _outcome(self) -> Any:
        try:
            return self.fit()
        except Exception as error:  # noqa: BLE001  whatever went wrong is this case's failure, and the run goes on
            return error

    @property
    def model(self) -> Any:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    @cached_property
    def inferred(self) -> Any:
        """`model.infer()` at the case's level."""
        return self.model.infer(conf_level=self.level)


def load_cases(root: Path, tags: list[str] | None = None, ids: list[str] | None = None) -> list[Case]:
    """The cases of a corpus that carry any of `tags` and bear one of `ids`; empty: all."""
    cases = [Case(root, file) for file in sorted((root / "cases").glob("*.json"))]
    return [c for c in cases if (not tags or set(tags) & {*c.tags, c.kind}) and (not ids or c.id in ids)]
