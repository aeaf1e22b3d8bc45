"""Certificates and keys for a trial: an authority, the server's certificate, and a key for every node."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedrax.errors import FedraxError, shown
from fedrax.runtime.flower.endpoint import AUTHORITY, CERTIFICATE, KEY, NODES, is_host

DAYS = 90
"""How long the certificates hold: they are for trials."""


def make_certificates(folder: Path, hosts: Sequence[str], nodes: int) -> list[Path]:
    """Writes an authority's certificate, the server's certificate and key, and a key pair for each node.

    The authority's own key is not kept: nobody can add to what it signed.

    Args:
        folder: must not hold such files yet.
        hosts: names and addresses under which nodes reach the server.
        nodes: how many.

    Returns:
        The files, private ones readable by their owner alone.

    Raises:
        FedraxError: the folder holds certificates already, or a host is none.
    """
    for host in hosts:
        if not is_host(host):
            raise FedraxError(
                f"--host {shown(host)} is no host: give a name or an address, without a port, for example "
                "server.example.org or 10.0.0.1"
            )
    if (folder / AUTHORITY).exists():
        raise FedraxError(f"{folder} holds certificates already; choose another folder, or remove it")
    (folder / NODES).mkdir(parents=True, exist_ok=True)
    authority_key = ec.generate_private_key(ec.SECP384R1())
    authority = _signed("Fedrax trial authority", authority_key.public_key(), None, authority_key, None)
    server_key = ec.generate_private_key(ec.SECP384R1())
    names = [_name(host) for host in hosts]
    server = _signed("Fedrax server", server_key.public_key(), names, authority_key, authority.subject)
    written = [
        _write(folder / AUTHORITY, authority.public_bytes(serialization.Encoding.PEM), secret=False),
        _write(folder / CERTIFICATE, server.public_bytes(serialization.Encoding.PEM), secret=False),
        _write(folder / KEY, _private(server_key, serialization.PrivateFormat.PKCS8), secret=True),
    ]
    for number in range(nodes):
        key = ec.generate_private_key(ec.SECP384R1())
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        stem = folder / NODES / f"node-{number}"
        written.append(_write(stem, _private(key, serialization.PrivateFormat.OpenSSH), secret=True))
        written.append(_write(stem.with_suffix(".pub"), public + b"\n", secret=False))
    return written


def _signed(
    name: str,
    public: ec.EllipticCurvePublicKey,
    hosts: list[x509.GeneralName] | None,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name | None,
) -> x509.Certificate:
    """A certificate; an authority's where there are no ``hosts``."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=hosts is None, path_length=None), critical=True)
        .add_extension(_usage(authority=hosts is None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    if hosts is not None:
        served = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        builder = builder.add_extension(served, critical=False)
    return builder.sign(key, hashes.SHA384())


def _usage(*, authority: bool) -> x509.KeyUsage:
    """What a key may do (RFC 5280, section 4.2.1.3): Python 3.13 refuses an authority that does not say."""
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private(key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _write(path: Path, content: bytes, *, secret: bool) -> Path:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return path
