"""Rows of a frame become batches, and batches become sites of a stream.

A batch is known by its id: the same rows again change nothing, other rows under the same id are an error. Ids are what JSON can hold;
the whole frame is encoded at once, by the encoder that the stream began with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl
from attrs import evolve

from ..errors import DataError, UnknownColumn
from ..state.provenance import hash_parts
from ..types import Bools, Floats, Ints
from .mixed import columns
from .sites import Rows, Site, gaussian_sites
from .solve import AssimState, linearised
from .told import columns_read
from .within import grouped, labels_of, met


def rows_with_ids(frame: pl.DataFrame, used: Ints, by: str) -> tuple[pl.DataFrame, Bools | None]:
    """The rows of a frame that a stream begins with, and which of them (None: none) are incomplete: their batches count, they do not.

    used  (n,) places of the complete rows;  incomplete rows without an id are left out
    """
    if len(used) == frame.height or by not in frame.columns:
        return frame, None
    blank = np.ones(frame.height, dtype=bool)
    blank[used] = False
    rows = np.flatnonzero(~(blank & frame.get_column(by).is_null().to_numpy()))
    return frame[rows], blank[rows]


def taken(state: AssimState, frame: pl.DataFrame, blank: Bools | None = None) -> AssimState:
    """The state with the batches of a frame taken in.   blank (n,): rows that the model cannot use, whatever is in them"""
    assert state.by is not None
    parts = split(frame, state.by, state.time)
    kind = frame.schema[state.by]
    if isinstance(kind, pl.Enum) and not state.sites:
        state = evolve(state, ids=tuple(kind.categories.to_list()))
    strange = next((id_ for id_, _, _ in parts if state.ids and id_ not in state.ids), None)
    if strange is not None:
        what = f"{state.by!r} began as an ordered factor without this level; it has {', '.join(state.ids)}."
        raise DataError(what, where=f"batch {strange!r}", do="Declare all levels at the beginning, or give time=.")
    rows, known = encoded(state, frame, parts, blank), _hashes(state)
    new = [not _told_before(known, r.batch, r.hash) for r in rows]
    lost = sum(len(index) - len(r.y) for (_, _, index), r, yes in zip(parts, rows, new) if yes)
    rows = [r for r, yes in zip(rows, new) if yes]
    state = evolve(state, left_out=state.left_out + lost)
    if state.within is not None:
        for r in rows:
            state = evolve(state, within=evolve(state.within, seen=met(state.within, r.batch, r.grouped)))  # type: ignore[arg-type]
    if state.kind == "lm":
        return added(state, gaussian_sites(rows))
    family = state.encoder.spec.family
    for r in rows:
        family.check(r.y, r.weights, response=f"the response of batch {r.batch!r}")
    return added(linearised(rows, state), [], [r.hash for r in rows]) if rows else state


def added(state: AssimState, sites: Iterable[Site], hashes: Sequence[str] = ()) -> AssimState:
    """The state with sites appended: ids checked, the chain carried on."""
    chain, kept, known = state.chain, list(state.sites), _hashes(state)
    for site in sites:
        if not _told_before(known, site.batch, site.hash):
            kept.append(site)
            known[site.batch] = site.hash
            chain = hashlib.sha256(f"{chain}{site.batch!r}{site.hash}".encode()).hexdigest()
    for h in hashes:
        chain = hashlib.sha256(f"{chain}{h}".encode()).hexdigest()
    return evolve(state, sites=tuple(kept), chain=chain)


def _hashes(state: AssimState) -> dict[Any, str]:
    """The hash of each batch, by its id."""
    return {site.batch: site.hash for site in state.sites}


def _told_before(known: dict[Any, str], batch: Any, hash_: str) -> bool:
    if batch not in known:
        one = next(iter(known), batch)
        if isinstance(one, str) != isinstance(batch, str):
            kind = "numbers and this is text" if isinstance(batch, str) else "text and this is a number"
            raise DataError(f"ids were {kind}.", where=f"batch {batch!r}", do=f"Write ids like {one!r}, so that batches have an order.")
        return False
    if known[batch] == hash_:
        return True
    what = "this batch was taken in before, with other rows."
    raise DataError(what, where=f"batch {batch!r}", do="Give it an id of its own; a corrected batch needs the stream to begin again.")


def plain_id(value: Any, where: str = "batch") -> Any:
    """A batch's id as a number, a string or a bool: what JSON can hold; dates in ISO form."""
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if value is None:
        raise DataError("the id of a batch is missing.", where=where, do="Leave those rows out, or give them an id.")
    return str(value)


def split(frame: pl.DataFrame, by: str, time: str | None) -> list[tuple[Any, float, Ints]]:
    """(id, time, places of its rows) of each batch, in the order of `by`, or of `time`; a batch's time is its earliest."""
    where = f"by={by!r}"
    for column in (by, time):
        if column is not None and column not in frame.columns:
            raise UnknownColumn(column, frame.columns, where="by=" if column == by else "time=")
    lost = frame.get_column(by).null_count() + (int(frame.get_column(by).is_nan().sum()) if frame.schema[by].is_float() else 0)
    if lost:
        raise DataError(f"{lost} rows have no value.", where=where, do="Leave them out, or give them a batch.")
    places = frame.select(pl.col(by).alias("id")).with_row_index("row").group_by("id", maintain_order=True).agg("row").sort("id")
    index = [rows.to_numpy().astype(np.intp) for rows in places["row"]]
    ids = [plain_id(value, where) for value in places["id"].to_list()]
    if time is None:
        return [(id_, float(place), rows) for place, (id_, rows) in enumerate(zip(ids, index))]
    times = _times(frame, time)
    return sorted(((id_, float(times[rows].min()), rows) for id_, rows in zip(ids, index)), key=lambda part: part[1])


def _times(frame: pl.DataFrame, time: str) -> Floats:
    """The time column as numbers; dates and datetimes in days."""
    series = frame.get_column(time)
    if series.dtype == pl.Date:
        values = series.cast(pl.Int32).cast(pl.Float64)
    elif series.dtype == pl.Datetime:
        values = series.cast(pl.Datetime("us")).cast(pl.Int64).cast(pl.Float64) / 86_400e6
    elif series.dtype.is_numeric():
        values = series.cast(pl.Float64)
    else:
        raise DataError(f"column {time!r} has type {series.dtype}.", where=f"time={time!r}", do="Use a number, a date or a datetime.")
    out = values.to_numpy()
    if not np.isfinite(out).all():
        raise DataError(f"{int((~np.isfinite(out)).sum())} rows have no time.", where=f"time={time!r}")
    return out


def encoded(state: AssimState, frame: pl.DataFrame, parts: Sequence[tuple[Any, float, Ints]], blank: Bools | None = None) -> list[Rows]:
    """The complete rows of each batch as arrays; the whole frame is encoded once.   blank: as in `taken`"""
    encoder = state.encoder
    read = {name: frame.get_column(name).to_numpy() for name in columns_read(encoder) if name in frame.columns}
    if blank is not None:
        frame = frame.with_columns(pl.when(~pl.Series(blank)).then(pl.col(name)).otherwise(None).alias(name) for name in read)
    made = encoder.rows(frame)
    y, weights = encoder.response(frame), encoder.prior_weights(frame)
    counts = encoder.spec.freq_weights
    freq = None if counts is None else frame.get_column(counts).cast(pl.Float64).to_numpy()
    ok = made.ok & ~np.isnan(y)
    gone = ~ok
    for values in (weights, freq):
        if values is not None:
            ok &= np.nan_to_num(values) > 0
    X = np.ascontiguousarray(made.X if all(state.kept) else made.X[:, state.kept])
    if state.varying is not None:
        X = np.hstack((X, columns(state.varying, encoder.random(frame), tuple(term.group for term in encoder.varying))))
        ok &= ~np.isnan(X).any(axis=1)
    Z: list[Floats] = []
    if state.within is not None:
        labels, random = labels_of(state.within, frame), encoder.random(frame)
        Z = [z for _, z in random]
        for (codes, z), text in zip(random, labels):
            ok &= (codes != -2) & ~np.isnan(z).any(axis=1) & (text != None)  # noqa: E711
    infinite = ok & ~(np.isfinite(X).all(axis=1) & np.isfinite(y))
    for bad, what in ((infinite, "infinite"), (gone & (encoder.spec.missing == "error"), "missing, and missing='error'")):
        if bad.any():
            batch = next(batch for batch, _, index in parts if bad[index].any())
            raise DataError(f"a value is {what}.", where=f"batch {batch!r}", do="Leave those rows out.")
    out = []
    hashes = hash_parts(read, [index for _, _, index in parts])
    for (batch, when, index), hashed in zip(parts, hashes):
        used = index[ok[index]]
        some = {n: None if v is None else v[used] for n, v in (("offset", made.offset), ("weights", weights), ("freq", freq))}
        random_part = None if state.within is None else grouped(state.within, labels, Z, used)
        out.append(Rows(batch=batch, time=when, X=X[used], y=y[used], hash=hashed, grouped=random_part, **some))
    return out
