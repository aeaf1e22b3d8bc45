"""Letters over Flower: real processes, TLS, keys and faults. Needs the optional extra ``fedrax[flower]``.

Nothing outside this package imports Flower. A node's agent lives in one process that outlasts Flower's, which starts a
new one for every message: the ClientApp only hands letters on (:mod:`.client_app`, :mod:`.home`). The server's half of
the round runs in Flower's ServerApp (:mod:`.server_app`); ``fedrax server`` and ``fedrax node`` watch over processes.
"""

from __future__ import annotations

import importlib.util

from fedrax.errors import FedraxError


def needed() -> None:
    """Raises :class:`FedraxError` where Flower is not installed."""
    if importlib.util.find_spec("flwr") is None:
        raise FedraxError("a federation of nodes needs Flower; pip install 'fedrax[flower]'")
