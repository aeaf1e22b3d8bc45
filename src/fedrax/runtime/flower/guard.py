"""A SuperLink that takes runs from its own machine only.

Flower knows nodes by their keys. Who may submit a run, which is code that every node executes, it asks only where an
account service stands behind it; without one, whoever reaches the port may. So from other machines nothing passes but
what nodes ask for, and Flower checks their keys there.
"""

from __future__ import annotations

import importlib
import ipaddress
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fedrax.runtime.flower.identity import proving

Application = Callable[..., Awaitable[None]]

OPEN = ("/v1/fleet/", "/health")
"""Paths, and all below those that end so, that other machines may ask for."""
MARK = (b"x-orders", b"own-machine")
"""On every answer: a SuperLink without it is not guarded."""
LIMIT, PARTS = "FEDRAX_LARGEST_REQUEST", "FEDRAX_REFUSED_PARTS"
"""The environment's variables that say how many bytes a node may send in a request, and the file in which to note what
was refused."""
MOST_NOTED = 1 << 20
"""Bytes of that file."""
TOO_LONG = b"the request is longer than any answer of this federation"
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


class LimitedBodies:
    """An ASGI application that takes no more bytes from a node, in one request, than its answers can have."""

    def __init__(self, app: Application, limit: int, refuse: Callable[[str], None]) -> None:
        """``refuse`` is called with the name of the part of a message that a refused request brought."""
        self.app, self.limit, self.refuse = app, limit, refuse

    async def __call__(self, scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        """Passes a request on, or refuses it: before it is read, where it says how long it is."""
        if scope["type"] != "http" or not scope["path"].startswith(OPEN[0]):
            await self.app(scope, receive, send)
            return
        taken, first, refused = 0, b"", False

        async def counted() -> dict[str, Any]:
            nonlocal taken, first, refused
            message: dict[str, Any] = await receive()
            taken += len(message.get("body", b""))
            first = first or message.get("body", b"")
            if taken > self.limit:
                refused = True
                return {"type": "http.disconnect"}
            return message

        if declared(scope) > self.limit:
            refused, more = True, True
            while more and not first:
                more = bool((await counted()).get("more_body", False))
        else:
            await self.app(scope, counted, unless(lambda: refused, send))
        if refused:
            self.refuse(part_of(first))
            headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 413, "headers": headers})
            await send({"type": "http.response.body", "body": TOO_LONG})


def unless(over: Callable[[], bool], send: Callable[..., Any]) -> Callable[..., Any]:
    """``send``, until it is over: an application that was told that its client is gone may still answer."""

    async def sent(message: dict[str, Any]) -> None:
        if not over():
            await send(message)

    return sent


def declared(scope: dict[str, Any]) -> int:
    """How long a request's body is, as its header says; 0 where it does not."""
    length = dict(scope.get("headers", ())).get(b"content-length", b"")
    return int(length) if length.isdigit() and len(length) < 20 else 0


def part_of(body: bytes) -> str:
    """The field ``object_id`` of Flower's ``PushObjectRequest`` that a body begins with; empty where there is none.

    Only the beginning is there. Fields have the order of their numbers, and what is long comes after the name.
    """
    place = 0
    try:
        while True:
            tag, place = _varint(body, place)
            value, place = _varint(body, place)
            if tag & 7 == 2:
                if tag >> 3 == 3:
                    return body[place : place + value].decode("ascii")[:100]
                place += value
            elif tag & 7 != 0:
                return ""
    except (IndexError, UnicodeDecodeError):
        return ""


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place, value, shift = place + 1, value | (byte & 127) << shift, shift + 7
        if byte < 128:
            return value, place


def guarded(app: Application) -> Application:
    """The application behind all guards, as the environment's variables say."""
    if LIMIT in os.environ:
        path = Path(os.environ[PARTS])

        def refuse(part: str) -> None:
            # A flood must not fill the disk with its names either: those beyond are told as late.
            if part.isalnum() and (not path.exists() or path.stat().st_size < MOST_NOTED):
                with path.open("a", encoding="utf-8") as file:
                    file.write(f"{part}\n")

        app = LimitedBodies(app, int(os.environ[LIMIT]), refuse)
    return OwnMachine(app)


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
    wrap_servers(guarded)
    wrap_servers(proving())
    importlib.import_module("flwr.superlink.cli.flower_superlink").flower_superlink()


if __name__ == "__main__":
    main()
