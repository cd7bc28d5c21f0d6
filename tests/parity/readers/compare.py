"""Comparisons of models: information criteria of each, tests between them."""

from __future__ import annotations

import math
from collections.abc import Iterator

from corpus import Case
from quantities import Number, pending, reader


@reader(fits=("compare",), compare_ic=("ic.aic.*", "ic.bic.*", "ic.akaike_weights.*"))
def criteria(case: Case) -> Iterator[Number]:
    """AIC and BIC of each model, and the weights that AIC gives them."""
    rows = [case.fit({**record, "contrasts_used": {}}).diagnostics.row(0, named=True) for record in case.record["models"]]
    best = min(row["aic"] for row in rows)
    weights = [math.exp(-(row["aic"] - best) / 2) for row in rows]
    for i, row in enumerate(rows):
        yield Number(("ic", "aic", i), row["aic"])
        if case.reference(("ic", "bic", i)) is not None:
            yield Number(("ic", "bic", i), row["bic"])
        yield Number(("ic", "akaike_weights", i), weights[i] / sum(weights))


pending(compare_tests="tests.*.table.*.*", compare_aicc="ic.aicc.*")
