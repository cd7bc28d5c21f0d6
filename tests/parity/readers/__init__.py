"""One module per family of quantities; importing this package registers them all, in the order of the report."""

# ruff: noqa: F401, I001
from . import params, robust, fit, rows, terms
from . import predictions, mixed, effects, marginal, compare, resampling
