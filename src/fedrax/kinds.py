"""The kinds of component that a configuration chooses one of each of."""

from __future__ import annotations

DEFAULT_KINDS = {
    "learner": "policy-gradient",
    "critic": "mlp",
    "strategy": "fedpg-br",
    "aggregator": "mean",
    "preaggregator": "none",
    "attack": "none",
    "compression": "none",
}
"""Every kind of component, and the one that is taken where none is named."""
