"""The distributed runtime over Flower: processes, TLS, keys and faults. Needs the extra ``fedrax[flower]``.

Nothing outside this package imports Flower. Flower starts a process for every message, so a node's agent has a longer
lived one of its own (:mod:`.agent_server`), to which the ClientApp forwards envelopes (:mod:`.client_app`). The
server's half of the round runs in Flower's ServerApp (:mod:`.server_app`). ``fedrax server`` and ``fedrax node``
supervise the processes.
"""

from __future__ import annotations

import importlib.util

from fedrax.errors import FedraxError


def needed() -> None:
    """Raises :class:`FedraxError` where Flower is not installed."""
    if importlib.util.find_spec("flwr") is None:
        raise FedraxError("a federation of nodes needs Flower; pip install 'fedrax[flower]'")
