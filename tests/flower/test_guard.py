"""Other machines may reach a SuperLink as nodes do, and for nothing else."""

import asyncio

import pytest

from fedrax.runtime.flower.guard import MARK, REFUSED, OwnMachine

HERE, PEER = ("10.0.0.1", 8000), ("10.0.0.2", 40_000)


def asked(path, client=PEER, server=HERE, kind="http"):
    """What an application's guard lets through, and what it answers."""
    passed, answers = [], []

    async def app(scope, receive, send):
        passed.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b"done"})

    async def send(message):
        answers.append(message)

    asyncio.run(OwnMachine(app)({"type": kind, "path": path, "client": client, "server": server}, None, send))
    return passed, answers


@pytest.mark.parametrize("path", ["/v1/fleet/pull-messages", "/health"])
def test_nodes_reach_what_they_need(path):
    passed, answers = asked(path)
    assert passed == [path]
    assert answers[0]["headers"] == [(b"a", b"b"), MARK]
    assert answers[1]["body"] == b"done"


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/control/start-run", "/v1/runtime/acquire-task", "/", "/healthy", "/v1/fleet", "/V1/control/start-run"),
        *("//v1/fleet/pull-messages", "/v1/control/../fleet/pull-messages"),
        *("/v1/fleet/../control/start-run", "/v1/fleet/x/../../runtime/acquire-task"),
    ],
)
def test_other_machines_order_nothing(path):
    passed, answers = asked(path)
    assert not passed
    assert answers[0]["status"] == 403
    assert answers[1]["body"] == REFUSED


@pytest.mark.parametrize(
    "client", [("127.0.0.1", 1), ("127.5.0.1", 1), ("::1", 1), ("::ffff:127.0.0.1", 1), ("10.0.0.1", 1)]
)
def test_the_own_machine_orders(client):
    assert asked("/v1/control/start-run", client=client)[0] == ["/v1/control/start-run"]


@pytest.mark.parametrize("client", [None, ("", 0), ("somebody", 1), ("::ffff:10.0.0.2", 1), ("10.0.0.2", 8000)])
def test_who_cannot_be_placed_is_another_machine(client):
    assert not asked("/v1/control/start-run", client=client)[0]
    assert not asked("/v1/control/start-run", client=client, server=None)[0]


def test_other_machines_open_no_sockets():
    passed, answers = asked("/v1/control/stream", kind="websocket")
    assert not passed
    assert answers == [{"type": "websocket.close", "code": 1008}]
