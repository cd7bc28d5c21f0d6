"""Frozen containers: what one stage hands to the next. Shapes are declared and checked; no algorithms live here."""
