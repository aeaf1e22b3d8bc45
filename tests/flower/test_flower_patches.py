"""Flower in a hurry does what Flower does: the same answers, with fewer processes and layers in between."""

from datetime import timedelta

import pytest
from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import Status, SubStatus
from flwr.supercore.date import now
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run, RunStatus
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode import start_client_internal as loop
from flwr.supernode.nodestate import NodeStateFactory
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from fedrax.runtime.distributed.envelopes import Envelope
from fedrax.runtime.flower.flower_patches import supernode
from fedrax.runtime.flower.flower_patches.commands import WholeBodies, call_middlewares_directly
from fedrax.runtime.flower.flower_patches.supernode import answering
from fedrax.runtime.flower.records import MESSAGE_TYPE, from_records, to_records

RUN, SERIES, NODE = 3, 4, 7


@pytest.fixture
def node(monkeypatch):
    """A SuperNode's state and store, and what takes the next envelope: Flower's function, then ours."""
    for name, value in {"_run_id": RUN, "_task_id": 1, "_node_id": NODE}.items():
        monkeypatch.setattr(TaskIdentity, name, value)
    objects = ObjectStoreFactory()
    state, store = NodeStateFactory(objects).state(), objects.store()
    state.set_node_id(NODE)
    status = RunStatus(Status.RUNNING, "", "")
    state.store_run(Run(RUN, "a", "1", "hash", {}, "", "", "", "", status, "", "", None, 0, 0, 0.0, series_id=SERIES))
    state.set_run_series_context(SERIES, Context(RUN, NODE, {}, RecordDict(), {}))

    def take(*, state, object_store, envelopes):
        if not envelopes:
            return None
        message = Message(to_records(envelopes.pop()), dst_node_id=NODE, message_type=MESSAGE_TYPE)
        loop._insert_message(message, state, object_store)
        state.create_task("flwr-clientapp", RUN, "hash")
        return RUN

    answered = answering(take, loop._insert_message)
    return state, store, lambda *envelopes: answered(state=state, object_store=store, envelopes=list(envelopes))


def sent(state, store) -> Message:
    """The one answer that Flower's loop finds and sends, with its content."""
    (reply,) = state.get_messages_legacy(is_reply=True)
    return supernode._inflated(reply.metadata.message_id, store)


def test_an_envelope_is_answered_before_flower_looks_for_answers(node, monkeypatch):
    def app(message, context):
        assert context.node_id == NODE
        return Message(
            to_records(Envelope("worked", {"n": 1}, from_records(message.content).payload * 2)), reply_to=message
        )

    monkeypatch.setattr(supernode, "app", app)
    state, store, take = node
    assert take(Envelope("work", {}, b"ab")) == RUN
    reply = sent(state, store)
    assert from_records(reply.content) == Envelope("worked", {"n": 1}, b"abab")
    assert state.get_message_processing_duration(reply.metadata.reply_to_message_id) >= 0
    (task,) = state.get_tasks()
    assert (task.status.status, task.status.sub_status) == (Status.FINISHED, SubStatus.COMPLETED)
    assert len(store) == 0


def test_a_failing_agent_is_an_error_that_says_why(node, monkeypatch):
    def app(message, context):
        raise RuntimeError("nobody answers")

    monkeypatch.setattr(supernode, "app", app)
    state, store, take = node
    take(Envelope("work"))
    reply = sent(state, store)
    assert isinstance(reply.error, Error)
    assert "nobody answers" in reply.error.reason
    (task,) = state.get_tasks()
    assert task.status.status == Status.FINISHED


def test_a_task_is_nobody_elses_and_does_not_expire_while_its_agent_works(node, monkeypatch):
    """The next envelope finds no task but its own, however long the work on this one takes."""
    state, store, take = node
    hearts = []

    class Heart(HeartbeatSender):
        def start(self):
            hearts.append(self.heartbeat_fn)
            super().start()

    def app(message, context):
        (task,) = (task for task in state.get_tasks() if task.status.status != Status.FINISHED)
        assert task.status.status == Status.RUNNING
        assert state.claim_task(task.task_id) is None
        # Most of its time has passed when its heart beats.
        token = state.task_token_store[task.task_id]
        token.active_until = now() + timedelta(seconds=5)
        assert hearts[-1]()
        assert token.active_until > now() + timedelta(seconds=50)
        return Message(to_records(Envelope("worked")), reply_to=message)

    monkeypatch.setattr(supernode, "HeartbeatSender", Heart)
    monkeypatch.setattr(supernode, "app", app)
    for number in range(2):
        take(Envelope("work", {"round": number}))
        assert from_records(sent(state, store).content).kind == "worked"
    assert {task.status.sub_status for task in state.get_tasks()} == {SubStatus.COMPLETED}
    # Every heart has stopped: nobody vouches for a task that has ended.
    assert not any(heart() for heart in hearts)


def test_no_envelope_is_no_answer(node):
    state, _, take = node
    assert take() is None
    assert not state.get_messages_legacy()


class Translating(BaseHTTPMiddleware):
    """As Flower's: reads the body, replaces the answer's, and keeps its headers."""

    async def dispatch(self, request, call_next):
        request.state.body = await request.body()
        inner = await call_next(request)
        if inner.status_code >= 400:
            return inner
        response = Response(request.state.answer, media_type="application/protobuf")
        response.headers["x-inner"] = inner.headers["x-inner"]
        return response


class Passing(BaseHTTPMiddleware):
    """As the others of Flower's."""

    async def dispatch(self, request, call_next):
        return await call_next(request)


async def double(request):
    if not request.state.body:
        return JSONResponse({"why": "nothing sent"}, status_code=400)
    if request.state.body == b"raise":
        raise RuntimeError("failed within")
    assert await request.body() == request.state.body
    request.state.answer = request.state.body * 2
    return JSONResponse(None, headers={"x-inner": "kept"})


@pytest.fixture
def client(monkeypatch):
    monkeypatch.setattr(BaseHTTPMiddleware, "__call__", BaseHTTPMiddleware.__call__)
    call_middlewares_directly()
    routes = [Route(path, double, methods=["POST"]) for path in ("/v1/fleet/double", "/v1/control/double")]
    return TestClient(Starlette(routes=routes, middleware=[Middleware(Passing), Middleware(Translating)]))


@pytest.mark.parametrize("path", ["/v1/fleet/double", "/v1/control/double"])
def test_middlewares_answer_alike_with_tasks_and_without(client, path):
    answer = client.post(path, content=b"ab" * 50_000)
    assert (answer.status_code, answer.content) == (200, b"ab" * 100_000)
    assert (answer.headers["x-inner"], answer.headers["content-type"]) == ("kept", "application/protobuf")
    refused = client.post(path)
    assert (refused.status_code, refused.json()) == (400, {"why": "nothing sent"})
    with pytest.raises(RuntimeError, match="failed within"):
        client.post(path, content=b"raise")


def test_requests_without_streams_start_no_task(client, monkeypatch):
    def forbidden():
        raise AssertionError("a task group was made")

    monkeypatch.setattr("starlette.middleware.base.create_collapsing_task_group", forbidden)
    assert client.post("/v1/fleet/double", content=b"ab").content == b"abab"
    with pytest.raises(AssertionError, match="task group"):
        client.post("/v1/control/double", content=b"ab")


def test_a_body_in_pieces_arrives_in_one():
    seen = []

    async def app(scope, receive, send):
        seen.append(await receive())
        await Response(b"")(scope, receive, send)

    TestClient(WholeBodies(app)).post("/", content=iter([b"a", b"b", b"c"]))
    assert seen == [{"type": "http.request", "body": b"abc", "more_body": False}]
