"""Flower's commands with shorter waits and cheaper requests, by internals of the versions named here.

A SuperNode polls every three seconds, every pull of an array waits for one second or more, and a request costs a
server several milliseconds. Where a round is seconds of work that hardly matters; ``runtime.flower.fast`` is
for when it does.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import sys
import time
from collections.abc import Awaitable, Callable
from types import FunctionType, SimpleNamespace
from typing import Any

from fedrax.runtime.flower.guard import guarded, wrap_servers
from fedrax.runtime.flower.identity import proving

Receive = Callable[[], Awaitable[dict[str, Any]]]

TESTED = ("1.41", "1.42")
"""Versions of Flower whose internals these are."""
LONGEST_WAIT = 0.15
"""Seconds between two looks of a SuperNode; each is a request that both ends have to serve."""
PULL_WAIT = 0.02
"""Seconds before an array that has not arrived is looked for again."""

UNARY = ("/v1/fleet/", "/v1/runtime/")
"""Paths below which Flower answers every request in one piece."""


def is_tested() -> bool:
    """Whether the installed Flower is one whose internals are known."""
    return importlib.metadata.version("flwr").rsplit(".", 1)[0] in TESTED


def shorten_pull_waits() -> None:
    """Lets this process look for arrays that have not arrived yet every few milliseconds."""
    if not is_tested():
        return
    module = importlib.import_module("flwr.supercore.inflatable.inflatable_utils")
    waits = {"initial_backoff": PULL_WAIT, "backoff_cap": PULL_WAIT * 10}
    for function in vars(module).values():
        if isinstance(function, FunctionType) and waits.keys() & inspect.signature(function).parameters.keys():
            _set_defaults(function, waits)


def _set_defaults(function: FunctionType, values: dict[str, float]) -> None:
    """Changes what a function's parameters are where its caller does not say."""
    positional = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    known = [p for p in positional if p.default is not p.empty]
    function.__defaults__ = tuple(values.get(p.name, p.default) for p in known) or None
    if function.__kwdefaults__:
        function.__kwdefaults__ |= {name: value for name, value in values.items() if name in function.__kwdefaults__}


class WholeBodies:
    """An ASGI application that is given every request's body in one piece.

    Flower's servers hand a body on through layers that make tasks for every piece of it, and with TLS a piece is 16 kB:
    a million weights then cost a third of a second of computing at every hop.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Callable[..., Any]) -> None:
        """Waits for the whole request, then hands it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        pieces: list[bytes] = []
        message: dict[str, Any] = {"more_body": True}
        while message.get("more_body", False):
            message = await receive()
            if message["type"] != "http.request":
                break
            pieces.append(message.get("body", b""))
        first: list[dict[str, Any]] = [{"type": "http.request", "body": b"".join(pieces), "more_body": False}]
        if message["type"] != "http.request":
            first = [message]

        async def whole() -> dict[str, Any]:
            return first.pop() if first else await receive()

        await self.app(scope, whole, send)


def call_middlewares_directly() -> None:
    """Lets the middlewares of this process's server hand requests on by a call, where the answer is one piece.

    Starlette puts a task and a queue between any two middlewares, so that answers can be streams. Flower has four of
    them on every request, which cost more than all that they do.
    """
    base = importlib.import_module("starlette.middleware.base")
    response_of = importlib.import_module("starlette.responses").Response
    with_tasks = base.BaseHTTPMiddleware.__call__

    async def call(self: Any, scope: dict[str, Any], receive: Receive, send: Callable[..., Any]) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(UNARY):
            await with_tasks(self, scope, receive, send)
            return
        request = base._CachedRequest(scope, receive)

        async def call_next(_: Any) -> Any:
            messages: list[dict[str, Any]] = []

            async def keep(message: dict[str, Any]) -> None:
                messages.append(message)

            await self.app(scope, request.wrapped_receive, keep)
            start, *bodies = messages
            response = response_of(b"".join(body.get("body", b"") for body in bodies), status_code=start["status"])
            response.raw_headers = list(start["headers"])
            return response

        response = await self.dispatch_func(request, call_next)
        await response(scope, request.wrapped_receive, send)

    base.BaseHTTPMiddleware.__call__ = call


def shorten_supernode_waits() -> None:
    """Lets a SuperNode of this process never wait for long."""
    loop = importlib.import_module("flwr.supernode.start_client_internal")
    clock = SimpleNamespace(**{name: getattr(time, name) for name in dir(time) if not name.startswith("_")})
    clock.sleep = lambda seconds: time.sleep(min(seconds, LONGEST_WAIT))
    vars(loop)["time"] = clock


COMMANDS = {
    "supernode": ("flwr.supernode.cli.flower_supernode", "flower_supernode"),
    "superlink": ("flwr.superlink.cli.flower_superlink", "flower_superlink"),
}
"""Where Flower keeps its commands."""


def main() -> None:
    """``python -m fedrax.runtime.flower.flower_patches.commands COMMAND ...``: one of :data:`COMMANDS`, patched."""
    module, name = COMMANDS[sys.argv.pop(1)]
    command = getattr(importlib.import_module(module), name)
    if is_tested():
        shorten_pull_waits()
        wrap_servers(WholeBodies)
        call_middlewares_directly()
        if name == "flower_supernode":
            shorten_supernode_waits()
            importlib.import_module("fedrax.runtime.flower.flower_patches.supernode").answer_in_process()
    if name == "flower_superlink":
        # Last, and so outermost: what is refused is not read first.
        wrap_servers(guarded)
        wrap_servers(proving())
    command()


if __name__ == "__main__":
    main()
