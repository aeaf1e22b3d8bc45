"""Who an agent's keys are from: signatures with the registered keys that nodes have (ECDSA P-384, as Flower's)."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from fedrax.errors import FedraxError

PART = 48
"""Bytes of each of a signature's two numbers."""
BYTES = 2 * PART
FINGERPRINT = 32
"""Bytes of a public key's digest."""
SCHEME = ec.ECDSA(hashes.SHA384())


def fingerprint(key: ec.EllipticCurvePublicKey) -> bytes:
    """SHA-256 of a public key in the form SubjectPublicKeyInfo."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).digest()


def signed(key: ec.EllipticCurvePrivateKey, text: bytes) -> bytes:
    """A signature of :data:`BYTES` bytes: its two numbers, the first bytes highest."""
    return b"".join(number.to_bytes(PART, "big") for number in decode_dss_signature(key.sign(text, SCHEME)))


def is_signed(key: ec.EllipticCurvePublicKey, text: bytes, signature: bytes) -> bool:
    """Whether the signature is this key's of the text."""
    numbers = (int.from_bytes(part, "big") for part in (signature[:PART], signature[PART:]))
    try:
        key.verify(encode_dss_signature(*numbers), text, SCHEME)
    except InvalidSignature:
        return False
    return True


def read_own(path: Path) -> ec.EllipticCurvePrivateKey:
    """A node's private key, of OpenSSH or PEM.

    Raises:
        FedraxError: it cannot be read, or is none of P-384.
    """
    try:
        data = path.read_bytes()
        load = serialization.load_ssh_private_key if b"OPENSSH" in data else serialization.load_pem_private_key
        key = load(data, None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise FedraxError(
            f"{path} is no private key of ECDSA P-384 without a passphrase: give one as `fedrax certificates` makes"
        )
    return key


def read_peers(folder: Path) -> dict[bytes, ec.EllipticCurvePublicKey]:
    """The public keys in a folder (``*.pub``, of OpenSSH), by fingerprint.

    Raises:
        FedraxError: there are none, or a file is no public key of P-384.
    """
    files = sorted(folder.glob("*.pub"))
    if not files:
        raise FedraxError(f"{folder} holds no *.pub: put the public keys of all nodes of the federation there")
    keys = {}
    for path in files:
        try:
            key = serialization.load_ssh_public_key(path.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
            raise FedraxError(f"{path} is no public key of ECDSA P-384: give a node's, as `fedrax certificates` makes")
        keys[fingerprint(key)] = key
    return keys
