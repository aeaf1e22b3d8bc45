"""A prototype to measure Flower's transport against: the same envelopes in plain gRPC over TLS. No product.

A node opens one stream to the server and holds it, so it needs no port of its own and may be behind a firewall. Down
the stream come a ticket and an envelope, up it go the ticket and the answer. A node whose stream ends is gone; it
connects again by itself, as another address, and joins anew.

The server proves who it is by its certificate. The nodes prove nothing, and what the server has not sent or received
when it dies is gone.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc

from fedrax.parsing import DecodeError
from fedrax.runtime.distributed.envelopes import REFUSED, Envelope, from_bytes, to_bytes
from fedrax.runtime.distributed.transport import Answer, DeliveryError, Transport
from fedrax.runtime.flower.endpoint import CERTIFICATE, KEY

SERVICE, METHOD = "fedrax.Envelopes", "Exchange"
OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Both ends notice within half a minute that the other's machine is gone.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]
TICKET = 8
"""Bytes of a ticket before an envelope."""
AGAIN_SECONDS = 1.0
"""Before a node connects again."""


class Service(Protocol):
    """What answers on a node."""

    def answer(self, envelope: Envelope) -> Envelope:
        """The answer to a request."""

    def flush(self) -> None:
        """Called while an answer travels."""


@dataclass
class Sent:
    """A request, and its answer once there is one."""

    address: int
    expires: float
    answer: Answer | None = None


class GrpcTransport(Transport):
    """The server of the nodes' streams; a context manager."""

    def __init__(self, address: str, certificates: Path, nodes: int) -> None:
        """``nodes`` is how many may be connected at once: each stream takes a thread."""
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._addresses, self._tickets = itertools.count(1), itertools.count(1)
        self._streams: dict[int, queue.SimpleQueue[bytes | None]] = {}
        self._sent: dict[str, Sent] = {}
        self._server = grpc.server(ThreadPoolExecutor(nodes), options=OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(self._exchange)
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler})])
        pair = ((certificates / KEY).read_bytes(), (certificates / CERTIFICATE).read_bytes())
        self._server.add_secure_port(address, grpc.ssl_server_credentials([pair]))

    def __enter__(self) -> GrpcTransport:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=None).wait()

    def addresses(self) -> set[int]:
        """A number for every stream."""
        with self._lock:
            return set(self._streams)

    def send(self, envelopes: Sequence[tuple[int, Envelope]], *, seconds: float) -> list[str]:
        """Puts envelopes into the nodes' streams."""
        now, tickets = self.now(), []
        with self._lock:
            self._sent = {ticket: sent for ticket, sent in self._sent.items() if sent.expires > now}
            for address, envelope in envelopes:
                number = next(self._tickets).to_bytes(TICKET, "big")
                stream = self._streams.get(address)
                gone = DeliveryError("the node is not connected") if stream is None else None
                self._sent[number.hex()] = Sent(address, now + seconds, gone)
                tickets.append(number.hex())
                if stream is not None:
                    stream.put(number + to_bytes(envelope))
        return tickets

    def collect(self, tickets: Iterable[str]) -> list[tuple[str, Answer]]:
        """The answers that have arrived, and errors in place of those that will not."""
        now, found = self.now(), []
        with self._lock:
            for ticket in tickets:
                sent = self._sent.get(ticket)
                if sent is None or (sent.answer is None and sent.expires <= now):
                    found.append((ticket, DeliveryError("the request expired")))
                elif sent.answer is not None:
                    found.append((ticket, sent.answer))
                    del self._sent[ticket]
        return found

    def wait(self, seconds: float) -> None:
        """Until something arrives, but no longer than this."""
        self._news.wait(seconds)
        self._news.clear()

    def _exchange(self, answers: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """One node's stream."""
        stream: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        with self._lock:
            address = next(self._addresses)
            self._streams[address] = stream
        threading.Thread(target=self._receive, args=(address, answers), daemon=True).start()
        yield from iter(stream.get, None)

    def _receive(self, address: int, answers: Iterator[bytes]) -> None:
        """Takes a node's answers until its stream ends."""
        with contextlib.suppress(grpc.RpcError):
            for data in answers:
                self._take(data[:TICKET].hex(), address, decoded(data[TICKET:]))
        with self._lock:
            self._streams.pop(address).put(None)
            lost = [ticket for ticket, sent in self._sent.items() if sent.address == address]
        for ticket in lost:
            self._take(ticket, address, DeliveryError("the node's connection ended"))

    def _take(self, ticket: str, address: int, answer: Answer) -> None:
        """Keeps the first answer to a request that was sent to this address."""
        with self._lock:
            sent = self._sent.get(ticket)
            if sent is not None and sent.address == address and sent.answer is None:
                sent.answer = answer
        self._news.set()


def decoded(data: bytes) -> Answer:
    """The envelope in these bytes, or why there is none."""
    try:
        return from_bytes(data)
    except DecodeError as error:
        return error


def serve_node(service: Service, address: str, authority: Path) -> None:
    """Answers the server's envelopes until the process is stopped; a lost connection is made again."""
    credentials = grpc.ssl_channel_credentials(authority.read_bytes())
    while True:
        answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        with grpc.secure_channel(address, credentials, options=OPTIONS) as channel:
            exchange = channel.stream_stream(f"/{SERVICE}/{METHOD}")
            with contextlib.suppress(grpc.RpcError):
                for data in exchange(iter(answers.get, None)):
                    request = decoded(data[TICKET:])
                    refusal = Envelope(REFUSED, {"reason": str(request)})
                    answer = service.answer(request) if isinstance(request, Envelope) else refusal
                    answers.put(data[:TICKET] + to_bytes(answer))
                    service.flush()
        answers.put(None)
        time.sleep(AGAIN_SECONDS)
