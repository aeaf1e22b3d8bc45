"""A SuperLink proves to the command that started it that it is that command's own, and no other at the same address.

The command makes a secret and hands it over in the environment, which other users cannot read. A request for the
SuperLink's health carries a nonce; the answer, HMAC-SHA256 of the nonce under the secret, tells nobody the secret and
is of no use for another nonce.
"""

from __future__ import annotations

import functools
import hmac
import os
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

Application = Callable[..., Awaitable[None]]

BYTES = 32
"""Of a secret, and of a nonce."""
SECRET = "FEDRAX_SUPERLINK_SECRET"
"""The environment variable that holds the secret."""
NONCE, PROOF = "x-nonce", "x-proof"
"""Headers of a request, and of its answer."""


def proof(secret: str, nonce: str) -> str:
    """What only who knows the secret can answer to a nonce."""
    return hmac.digest(secret.encode(), nonce.encode(), "sha256").hex()


class Proving:
    """An ASGI application that adds a proof to the answer wherever a request has a nonce."""

    def __init__(self, app: Application, *, secret: str) -> None:
        self.app, self.secret = app, secret

    async def __call__(self, scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        """Passes a request on."""
        nonce = dict(scope.get("headers", ())).get(NONCE.encode())
        if nonce is None:
            await self.app(scope, receive, send)
            return

        async def proven(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                header = (PROOF.encode(), proof(self.secret, nonce.decode("latin-1")).encode())
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        await self.app(scope, receive, proven)


def proving() -> Callable[[Application], Application]:
    """What lets applications of this process prove the secret in its environment, which is gone from there then.

    A process that was given none proves one that nobody knows.
    """
    return functools.partial(Proving, secret=os.environ.pop(SECRET, "") or secrets.token_hex(BYTES))
