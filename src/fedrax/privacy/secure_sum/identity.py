"""What a node knows of registered keys. Without `cryptography`, which an extra brings, there is nobody to know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec


class Identity(NamedTuple):
    """What a node signs with, and whose signatures it asks of its peers."""

    own: ec.EllipticCurvePrivateKey | None = None
    """None: it does not sign."""
    peers: Mapping[bytes, ec.EllipticCurvePublicKey] | None = None
    """Registered public keys by fingerprint; None: nobody told it any, and it takes what the server hands it."""


NOBODY = Identity()
"""Of a node that neither signs nor asks for signatures."""
