"""Where no process lasts, as in Flower's simulation, any process loads an agent from what it saved."""

from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, RecordDict

from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.parsing import DecodeError
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.distributed.envelopes import JOIN, KEYS, Envelope
from fedrax.runtime.distributed.server import DistributedRuntime
from fedrax.runtime.distributed.transport import InProcessTransport
from fedrax.runtime.flower import client_app
from fedrax.runtime.flower.agent_client import ask

SETTINGS = [
    *("federation.agents=1", "budget.trajectories=none", "budget.rounds=3", "strategy.batch_min=2"),
    *("strategy.batch_max=4", "environment.horizon=20", "evaluation.episodes=2", "runtime.flower.gather=0"),
]


@pytest.mark.training
def test_any_process_may_load_the_agent(tmp_path, monkeypatch):
    context = SimpleNamespace(node_config={"partition-id": 0}, run_config={"nodes": str(tmp_path / "nodes")})
    processes = [{}, {}]

    def node(envelope):
        processes.reverse()
        monkeypatch.setattr(client_app, "_services", processes[0])
        return client_app._answered_here(envelope, context)

    config = resolve("fedpg-br/cartpole", SETTINGS)
    (tmp_path / "run").mkdir()
    federation = DistributedRuntime(
        config, InProcessTransport({5: node}), RunDirectory(tmp_path / "run"), note=lambda text: None
    )
    state = federation.init()
    for index in range(3):
        ((state, rows),) = federation.advance(state, index)
        assert rows["present"] == [[1]]
    assert all(processes)
    assert {service.name for process in processes for service in process.values()} == {
        place.node for place in federation.dispatcher.membership.places.values()
    }


def test_a_secure_sum_is_refused_where_no_process_keeps_its_secrets():
    context = SimpleNamespace(node_config={"partition-id": 0}, run_config={})
    answer = client_app._answered_here(Envelope(KEYS), context)
    assert (answer.kind, "start nodes by `fedrax node`" in answer.fields["reason"]) == ("refused", True)


def test_a_supernode_without_a_number_is_told_how_to_get_one():
    answer = client_app._answered_here(Envelope(JOIN), SimpleNamespace(node_config={}, run_config={}))
    assert (answer.kind, "--node-config 'partition-id=K'" in answer.fields["reason"]) == ("refused", True)


def test_a_damaged_answer_is_said_to_be_one(monkeypatch):
    def damaged(socket, envelope):
        raise DecodeError("the bytes are no envelope")

    monkeypatch.setattr(client_app, "ask", damaged)
    monkeypatch.setattr(client_app, "Message", lambda content, reply_to: content)
    message = SimpleNamespace(content=RecordDict({"header": ConfigRecord({"kind": "work"})}))
    answer = client_app.forward(message, SimpleNamespace(node_config={client_app.SOCKET: "/nowhere"}))
    assert "cannot be decoded: the bytes are no envelope" in answer["header"]["reason"]


def test_a_home_where_nobody_is_fails_in_one_line(tmp_path):
    with pytest.raises(FedraxError, match="does not answer at"):
        ask(str(tmp_path / "nowhere"), Envelope("work"), patience=0.0)
