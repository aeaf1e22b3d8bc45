"""A SuperLink that takes runs from its own machine only.

Flower knows nodes by their keys. Who may submit a run, which is code that every node executes, it asks only where an
account service stands behind it; without one, whoever reaches the port may. So from other machines nothing passes but
what nodes ask for, and Flower checks their keys there.
"""

from __future__ import annotations

import importlib
import ipaddress
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from fedrax.runtime.flower.identity import proving

Application = Callable[..., Awaitable[None]]

OPEN = ("/v1/fleet/", "/health")
"""Paths, and all below those that end so, that other machines may ask for."""
MARK = (b"x-orders", b"own-machine")
"""On every answer: a SuperLink without it is not guarded."""
REFUSED = b"only the SuperLink's own machine may ask for this"


def wrap_servers(wrapper: Callable[[Application], Application]) -> None:
    """Lets every HTTP server of this process hand its requests to ``wrapper(application)``."""
    config = importlib.import_module("uvicorn").Config
    load = config.load

    def loaded(self: Any) -> None:
        load(self)
        self.loaded_app = wrapper(self.loaded_app)

    config.load = loaded


class OwnMachine:
    """An ASGI application that answers other machines only on the paths that are :data:`OPEN`."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def marked(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), MARK]}
            await send(message)

        if is_open(scope) or is_own(scope):
            await self.app(scope, receive, marked)
        elif scope["type"] == "http":
            headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(REFUSED)).encode())]
            await marked({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": REFUSED})
        else:
            await send({"type": "websocket.close", "code": 1008})


def is_open(scope: dict[str, Any]) -> bool:
    """Whether a request is for what everyone may ask for."""
    path = scope["path"]
    within = any(path.startswith(each) if each.endswith("/") else path == each for each in OPEN)
    return within and ".." not in path


def is_own(scope: dict[str, Any]) -> bool:
    """Whether a request comes from this machine: over the loopback, or from the very address it went to."""
    peer, here = (address_of(scope.get(end)) for end in ("client", "server"))
    return peer is not None and (peer.is_loopback or peer == here)


def address_of(end: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An end's address; None of what is none, as a Unix socket's."""
    try:
        address = ipaddress.ip_address(end[0])
    except (TypeError, ValueError, IndexError):
        return None
    return getattr(address, "ipv4_mapped", None) or address


def main() -> None:
    """``python -m fedrax.runtime.flower.guard superlink ...``: Flower's SuperLink, guarded."""
    sys.argv.pop(1)
    wrap_servers(OwnMachine)
    wrap_servers(proving())
    importlib.import_module("flwr.superlink.cli.flower_superlink").flower_superlink()


if __name__ == "__main__":
    main()
