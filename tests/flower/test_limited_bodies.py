"""What a node may send in one request is bounded before it is read."""

import asyncio

import pytest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node

from fedrax.runtime.flower.guard import TOO_LONG, LimitedBodies, part_of

PART = "ab" * 32


def pushed(size):
    return PushObjectRequest(
        node=Node(node_id=2**60), run_id=2**61, object_id=PART, object_content=bytes(size), session_id="s"
    ).SerializeToString()


def asked(body, *, path="/v1/fleet/push-object", length=None, limit=1000, pieces=1):
    """How many bytes the application read, what went back, and which parts were noted as refused."""
    size = -(-len(body) // pieces)
    chunks = [body[k : k + size] for k in range(0, len(body), size)] or [b""]
    messages = [{"type": "http.request", "body": c, "more_body": k < len(chunks) - 1} for k, c in enumerate(chunks)]
    read, answers, refused, taken = [], [], [], []

    async def app(scope, receive, send):
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            read.append(len(message.get("body", b"")))
        status = 200 if message["type"] == "http.request" else 499
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async def receive():
        taken.append(1)
        return messages.pop(0)

    async def send(message):
        answers.append(message)

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    scope = {"type": "http", "path": path, "headers": headers}
    asyncio.run(LimitedBodies(app, limit, refused.append)(scope, receive, send))
    return sum(read), answers, refused, len(taken)


def test_a_request_within_the_limit_passes():
    body = pushed(100)
    read, answers, refused, _ = asked(body, length=len(body), pieces=3)
    assert read == len(body)
    assert [answers[0]["status"], answers[1]["body"], refused] == [200, b"done", []]


def test_a_request_that_says_it_is_too_long_is_refused_after_its_first_piece():
    body = pushed(100_000)
    read, answers, refused, taken = asked(body, length=len(body), pieces=50)
    assert (read, taken) == (0, 1)
    assert [(a.get("status"), a.get("body")) for a in answers] == [(413, None), (None, TOO_LONG)]
    assert refused == [PART]


def test_a_request_that_does_not_say_is_refused_once_it_is_too_long():
    body = pushed(100_000)
    read, answers, refused, taken = asked(body, pieces=50)
    assert read <= 1000
    assert taken == 1
    assert [a.get("status") for a in answers] == [413, None]
    assert refused == [PART]


def test_a_request_that_says_less_than_it_is_is_refused_as_well():
    _, answers, _, _ = asked(pushed(100_000), length=10, pieces=500)
    assert answers[0]["status"] == 413


@pytest.mark.parametrize("path", ["/v1/runtime/push-object", "/v1/control/start-run"])
def test_the_servers_own_requests_are_as_long_as_they_are(path):
    assert asked(pushed(100_000), path=path)[1][0]["status"] == 200


@pytest.mark.parametrize(
    "body", [b"", b"\xff" * 200, b"\x1a\x40" + b"\xff" * 64, b"\x0a", b"\x1a\x05ab", b"\x22\x05abcde", b"\x0d1234"]
)
def test_a_body_that_names_no_part_is_refused_all_the_same(body):
    assert part_of(body) in ("", "ab")


def test_the_part_is_read_from_a_beginning():
    assert part_of(pushed(100_000)[:200]) == PART
