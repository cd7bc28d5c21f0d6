"""One module per family of quantities; importing this package registers them all."""

from . import compare, effects, fit, marginal, mixed, params, predictions, resampling, robust, rows, terms  # noqa: F401
