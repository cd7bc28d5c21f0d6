"""What data can be tried out at once, offline: small tables with a codebook, a source and a licence.

Each data set is two files: NAME.csv, and NAME.toml, its codebook: what the table is, where it comes from, under what terms, and every
column's type, levels in order (the first is the reference) and meaning. Factors arrive as `pl.Enum`, so their order is fixed.

    load_dataset("penguins")    the table
    show_datasets()             what there is
    about("penguins")           the codebook
"""

from __future__ import annotations

import tomllib
from importlib.resources import files

import polars as pl
from attrs import field, frozen

from ..errors import UnknownOption

_HOME = files(__name__) / "files"
_TYPES: dict[str, type[pl.DataType]] = {"float": pl.Float64, "int": pl.Int64, "bool": pl.Boolean, "text": pl.String}


@frozen(kw_only=True)
class Column:
    """One column of a codebook: type "float", "int", "bool", "text" or "factor" (then `levels`, in order)."""

    name: str
    type: str
    about: str
    levels: tuple[str, ...] = field(default=(), converter=tuple)

    @property
    def dtype(self) -> pl.DataType:
        return pl.Enum(list(self.levels)) if self.type == "factor" else _TYPES[self.type]()


@frozen(kw_only=True, repr=False)
class Codebook:
    """What a data set is, where it comes from and what its columns mean."""

    name: str
    title: str
    rows: int
    description: str
    source: str
    licence: str
    columns: tuple[Column, ...]

    def __repr__(self) -> str:
        lines = [f"{self.name}: {self.title}", f"{self.rows} rows, {len(self.columns)} columns", "", self.description, ""]
        width = max(len(c.name) for c in self.columns)
        for c in self.columns:
            levels = ", ".join(c.levels[:6]) + (f", … ({len(c.levels)} levels)" if len(c.levels) > 6 else "")
            lines.append(f"  {c.name:<{width}}  {c.type:<6}  {c.about}" + (f" [{levels}]" if c.levels else ""))
        return "\n".join([*lines, "", f"Source: {self.source}", f"Licence: {self.licence}"])


def _names() -> list[str]:
    return sorted(entry.name.removesuffix(".toml") for entry in _HOME.iterdir() if entry.name.endswith(".toml"))


def about(name: str) -> Codebook:
    """The codebook of a data set.

    name    as `show_datasets()` lists it; case does not count
    raises  UnknownOption with the nearest name

    >>> from bossa.datasets import about
    >>> about("sleepstudy").columns[0].name
    'Reaction'
    """
    known = _names()
    key = name.lower() if isinstance(name, str) else name
    if key not in known:
        raise UnknownOption(name, known, where="load_dataset()", kind="data set")
    book = tomllib.loads((_HOME / f"{key}.toml").read_text(encoding="utf-8"))
    columns = tuple(Column(**column) for column in book.pop("columns"))
    return Codebook(name=key, columns=columns, **book)


def load_dataset(name: str) -> pl.DataFrame:
    """A data set by name: `show_datasets()` lists them, `bossa.datasets.about(name)` explains one.

    >>> from bossa import load_dataset
    >>> load_dataset("sleepstudy").shape
    (180, 3)
    """
    book = about(name)
    schema: dict[str, pl.DataType] = {c.name: c.dtype for c in book.columns}
    return pl.read_csv((_HOME / f"{book.name}.csv").read_bytes(), schema=schema)


def show_datasets() -> pl.DataFrame:
    """One row per data set: name, rows, columns, description, source, licence."""
    books = [about(name) for name in _names()]
    return pl.DataFrame(
        {
            "name": [b.name for b in books],
            "rows": [b.rows for b in books],
            "columns": [len(b.columns) for b in books],
            "description": [b.title for b in books],
            "source": [b.source for b in books],
            "licence": [b.licence for b in books],
        }
    )
