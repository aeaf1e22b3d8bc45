"""Where no process lasts, as in Flower's simulation, an agent is woken from what it saved, by whichever process."""

from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, RecordDict

from fedrax.arrays import DecodeError
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.records.rundir import RunDirectory
from fedrax.runtime.flower import client_app
from fedrax.runtime.flower.door import ask
from fedrax.runtime.remote.letters import Letter
from fedrax.runtime.remote.post import LocalPost
from fedrax.runtime.remote.server import RemoteFederation

SETTINGS = [
    *("federation.agents=1", "budget.trajectories=none", "budget.rounds=3", "strategy.batch_min=2"),
    *("strategy.batch_max=4", "environment.horizon=20", "evaluation.episodes=2", "runtime.gather=0"),
]


def test_any_process_may_wake_the_agent(tmp_path, monkeypatch):
    context = SimpleNamespace(node_config={"partition-id": 0}, run_config={"nodes": str(tmp_path / "nodes")})
    processes = [{}, {}]

    def node(letter):
        processes.reverse()
        monkeypatch.setattr(client_app, "_awake", processes[0])
        return client_app._awakened(letter, context)

    config = resolve("fedpg-br/cartpole", SETTINGS)
    (tmp_path / "run").mkdir()
    federation = RemoteFederation(config, LocalPost({5: node}), RunDirectory(tmp_path / "run"), note=lambda text: None)
    state = federation.init()
    for index in range(3):
        ((state, rows),) = federation.advance(state, index)
        assert rows["present"] == [[1]]
    assert all(processes)
    assert {resident.name for process in processes for resident in process.values()} == set(
        federation.office.members.names
    )


def test_a_garbled_answer_is_said_to_be_one(monkeypatch):
    def garbled(socket, letter):
        raise DecodeError("the bytes are no letter")

    monkeypatch.setattr(client_app, "ask", garbled)
    monkeypatch.setattr(client_app, "Message", lambda content, reply_to: content)
    message = SimpleNamespace(content=RecordDict({"header": ConfigRecord({"kind": "work"})}))
    answer = client_app.hand_on(message, SimpleNamespace(node_config={client_app.SOCKET: "/nowhere"}))
    assert "garbled: the bytes are no letter" in answer["header"]["reason"]


def test_a_home_where_nobody_is_fails_in_one_line(tmp_path):
    with pytest.raises(FedraxError, match="is not at home"):
        ask(str(tmp_path / "nowhere"), Letter("work"), patience=0.0)
