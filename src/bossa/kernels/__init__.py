"""Layer 1: pure functions over arrays. NumPy and SciPy only; no model, no data frame, no state."""
