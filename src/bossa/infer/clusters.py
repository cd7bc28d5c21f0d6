"""Which rows belong together: a column of the data as codes 0 … G−1, for clusters of errors, whole-group resampling, strata."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DataError, NotYet, OptionError, Refused, UnknownColumn
from ..state.design import Problem
from ..types import Ints


def cluster_codes(problem: Problem, name: Any, where: str = "infer()") -> Ints:
    """Code of each row's cluster (n,), 0 … G−1, in sorted order of the column's values.

    name     a column of the data, in the formula or not
    raises   UnknownColumn with the nearest name; DataError for a missing value; Refused where all rows are in one cluster
    """
    if isinstance(name, (list, tuple)):
        if len(name) != 1:
            raise NotYet(
                "clustering by several columns at once is not built yet.", where=where, do="Use the coarsest column, or one made of both."
            )
        name = name[0]
    if not isinstance(name, str):
        raise OptionError(f"{name!r} is not the name of a column.", where=where, do="Write e.g. cluster='school'.")
    if problem.data is None:
        raise Refused("the model was loaded without its data, so its clusters are not known.", where=where, do="Save it with data=True.")
    if name not in problem.data.columns:
        raise UnknownColumn(name, problem.data.columns, where=where)
    column = problem.data[name]
    missing = column.is_null() | (column.is_nan() if column.dtype.is_float() else False)
    if missing.any():
        row = int(problem.design.rows[int(missing.arg_max())])
        more = f" and {missing.sum() - 1} more" if missing.sum() > 1 else ""
        raise DataError(f"{name!r} is missing in row {row}{more} of the rows used.", where=where, do="Drop or fill those rows first.")
    codes = column.rank("dense").to_numpy().astype(np.intp) - 1
    if codes.max() == 0:
        raise Refused(f"{name!r} has a single value, so there is one cluster.", where=where, do="Name a column with several values.")
    return codes
