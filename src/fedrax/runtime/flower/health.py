"""Whether a SuperLink can be reached, and whether it is one's own; where it cannot, why, in words for people."""

from __future__ import annotations

import errno
import hmac
import http.client
import secrets
import socket
import ssl
import time
from collections.abc import Mapping
from email.message import Message
from pathlib import Path

from fedrax.errors import FedraxError
from fedrax.records.files import reason
from fedrax.runtime.flower.endpoint import Endpoint, split_address
from fedrax.runtime.flower.guard import MARK
from fedrax.runtime.flower.identity import BYTES, NONCE, PROOF, proof

PATH = "/health"
ANSWER_SECONDS = 5.0
AGAIN_SECONDS = 0.2
FREE_SECONDS = 3.0
"""How long a port may stay in use: a SuperLink whose server was killed ends a moment later."""


def check_free(address: str) -> None:
    """Raises :class:`FedraxError` where a SuperLink cannot listen at an address, as when somebody does already."""
    host, port = split_address(address)
    deadline = time.monotonic() + FREE_SECONDS
    while (error := _refusal(host.strip("[]"), port)) is not None:
        if error.errno != errno.EADDRINUSE:
            raise FedraxError(
                f"the SuperLink cannot listen at {address}: {reason(error)}; give --superlink an address of this "
                "machine, and a port that you may listen on"
            )
        if time.monotonic() > deadline:
            raise FedraxError(
                f"port {port} of {host} is in use: another program listens there, perhaps another `fedrax server`; "
                f"end that one, or choose another port with --superlink {host}:PORT"
            )
        time.sleep(AGAIN_SECONDS)


def _refusal(host: str, port: int) -> OSError | None:
    """Why nobody can listen there; a name may stand for several addresses, all of which are listened on."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        return error
    errors: list[OSError] = []
    for family, kind, protocol, _, end in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                # What has ended keeps its port for a minute, and is no obstacle.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(end)
        except OSError as error:
            errors.append(error)
    used = [error for error in errors if error.errno == errno.EADDRINUSE]
    # A machine may lack one of the families that a name stands for.
    return used[0] if used else errors[0] if len(errors) == len(found) else None


def trusted(authority: Path) -> ssl.SSLContext:
    """TLS that accepts what an authority has signed.

    Raises:
        FedraxError: the file holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=str(authority))
    except OSError as error:
        raise FedraxError(f"{authority} is not an authority's certificate: {reason(error)}") from None


def health(address: str, authority: Path | None, headers: Mapping[str, str]) -> Message | None:
    """The headers of a SuperLink's answer to whether it is well; None where it does not say so.

    Raises:
        OSError, http.client.HTTPException: nobody answers, or not as is asked.
    """
    host, port = split_address(address)
    host = host.strip("[]")
    connection = (
        http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
        if authority is None
        else http.client.HTTPSConnection(host, port, timeout=ANSWER_SECONDS, context=trusted(authority))
    )
    try:
        connection.request("GET", PATH, headers=dict(headers))
        answer = connection.getresponse()
        return answer.headers if answer.status == http.client.OK else None
    finally:
        connection.close()


def await_health(address: str, authority: Path | None, seconds: float, secret: str) -> None:
    """Waits until the SuperLink that was given this secret answers (:mod:`.identity`).

    Raises:
        FedraxError: it does not, within so many seconds; or another one does, or one that is not guarded
            (:mod:`.guard`).
    """
    deadline = time.monotonic() + seconds
    why = ""
    while time.monotonic() < deadline:
        nonce = secrets.token_hex(BYTES)
        try:
            headers = health(address, authority, {NONCE: nonce})
        except OSError as error:
            headers, why = None, f" ({reason(error)})"
        except http.client.HTTPException as error:
            headers, why = None, f" ({type(error).__name__})"
        if headers is not None:
            _check_own(address, headers, proof(secret, nonce))
            return
        time.sleep(AGAIN_SECONDS)
    raise FedraxError(f"no SuperLink answers at {address}{why}; see its log, and whether the port is free")


def _check_own(address: str, headers: Message, expected: str) -> None:
    mark, value = (text.decode() for text in MARK)
    if headers.get(mark) != value:
        raise FedraxError(
            f"the SuperLink at {address} takes runs from everyone who reaches it: another one uses the port, or "
            "this version of Flower cannot be guarded; choose another port, or install flwr 1.41 or 1.42"
        )
    if not hmac.compare_digest(headers.get(PROOF, "").encode(), expected.encode()):
        raise FedraxError(
            f"the SuperLink at {address} is another server's: it does not know this one's secret; end the other "
            "server, or choose another port"
        )


def obstacle(endpoint: Endpoint) -> str | None:
    """Why a node cannot reach the SuperLink; None where it can."""
    address, authority = endpoint.address, endpoint.authority
    try:
        found = health(address, authority, {}) is not None
        return None if found else f"what answers at {address} is not a SuperLink"
    except ssl.SSLCertVerificationError as error:
        return (
            f"the certificate of the SuperLink at {address} is refused ({error.verify_message}): give --certificates "
            "the folder with its own authority.crt, and --superlink an address that its certificate names"
        )
    except ssl.SSLError as error:
        return (
            f"what listens at {address} does not speak TLS ({error.reason}): start `fedrax server` with --certificates "
            "too, or both without"
        )
    except ConnectionRefusedError:
        return f"nobody listens at {address}"
    except (ConnectionResetError, http.client.HTTPException):
        if authority is None and _speaks_tls(address):
            return f"the SuperLink at {address} asks for TLS: give --certificates and --key"
        return f"what listens at {address} does not answer as a SuperLink does"
    except OSError as error:
        return f"{address} cannot be reached ({reason(error)})"


def _speaks_tls(address: str) -> bool:
    """Whether who listens there answers to TLS, whoever that is."""
    host, port = split_address(address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host.strip("[]"), port), ANSWER_SECONDS) as connection,
            context.wrap_socket(connection),
        ):
            return True
    except OSError:
        return False
