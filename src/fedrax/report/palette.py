"""The colours of series, in pictures, on pages and while a run is watched; apart, as no more is imported to watch."""

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d46")
"""Okabe & Ito's colour-blind-safe colours, but not yellow and black: each vanishes on one background."""
