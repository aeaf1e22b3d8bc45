"""A SuperLink's address and certificates."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from fedrax.errors import FedraxError, shown

AUTHORITY, CERTIFICATE, KEY = "authority.crt", "server.crt", "server.key"
"""Files in a folder of certificates."""
NODES = "nodes"
"""The folder of the nodes' keys in it."""
NUMBERS = re.compile(r"[0-9.]+")
"""What only an address is made of: top-level domains are no numbers (RFC 3696)."""
LABEL = re.compile("[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
"""Of a machine's name, between its dots; underscores are common in networks of containers."""


@dataclass(frozen=True)
class Endpoint:
    """A SuperLink's address, and the certificates that prove who it is."""

    address: str
    certificates: Path | None
    """The folder that ``fedrax certificates`` made; None for plain text, which only the loopback may carry."""

    def check(self) -> None:
        """Raises :class:`FedraxError` for an address that must not be used as it is."""
        host, _ = split_address(self.address)
        if self.certificates is None and not is_loopback(host):
            raise FedraxError(
                f"{self.address} is reached from other machines, and there are no certificates: make some with "
                f"`fedrax certificates DIR --host {host}` and give --certificates DIR"
            )
        if self.certificates is not None and not (self.certificates / AUTHORITY).is_file():
            raise FedraxError(f"{self.certificates} holds no {AUTHORITY}; `fedrax certificates DIR` makes one")

    @property
    def authority(self) -> Path | None:
        """The certificate that the SuperLink's is signed by."""
        return None if self.certificates is None else (self.certificates / AUTHORITY).resolve()


def split_address(text: str) -> tuple[str, int]:
    """``host:port``.

    Raises:
        FedraxError: anything else.
    """
    host, _, port = text.rpartition(":")
    if not is_host(host.strip("[]")) or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise FedraxError(f"{shown(text)} is no address; give HOST:PORT, for example 127.0.0.1:9092")
    return host, int(port)


def is_host(text: str) -> bool:
    """Whether it is an address, or can be a machine's name (RFC 1123)."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return (
            len(text) <= 253
            and not NUMBERS.fullmatch(text)
            and all(LABEL.fullmatch(label) for label in text.split("."))
        )
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
