"""An agent on its node: it answers twice alike, survives its process, and refuses in words."""

import shutil

import jax
import numpy as np
import pytest

from fedrax.errors import FedraxError
from fedrax.runtime.remote.letters import EVALUATE, JOIN, JOINED, REFUSED, STRANGER, WORK, WORKED, Letter
from fedrax.runtime.remote.post import LocalPost
from fedrax.runtime.remote.resident import Resident

from federations import configured, made, remote, rounds_of, same

CASE = ("fedavg-td3", "federation.agents=1", "strategy.actor_every=1")


class Recorder:
    """A node that keeps the letters it was sent."""

    def __init__(self, resident):
        self.resident, self.letters = resident, []

    def __call__(self, letter):
        self.letters.append(letter)
        return self.resident.answer(letter)


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """Two rounds of a federation of one, the letters it took, and its node's folder."""
    folder = tmp_path_factory.mktemp("history")
    config = configured(*CASE)
    resident = Resident(folder / "node", agent=0)
    node = Recorder(resident)
    federation, _, _ = remote(config, folder, LocalPost({7: node}))
    rounds_of(federation, 2)
    return node.letters, resident, folder


def worked(letters):
    return [letter for letter in letters if letter.kind == WORK]


def test_a_letter_that_comes_twice_is_answered_twice_alike(history):
    letters, resident, _ = history
    before = jax.device_get(resident.stay.standing)
    answer = resident.answer(worked(letters)[-1])
    assert answer.kind == WORKED
    assert resident.answer(worked(letters)[-1]) == answer
    same(before, resident.stay.standing, 0)


def test_a_restarted_agent_goes_on_where_it_was(history, tmp_path):
    letters, resident, folder = history
    assert Resident(folder / "node").answer(worked(letters)[-1]) == resident.answer(worked(letters)[-1])
    again = Resident(folder / "node")
    join = next(letter for letter in letters if letter.kind == JOIN)
    assert again.answer(join) == Letter(
        JOINED, {"run": join.fields["run"], "node": resident.name, "agent": 0, "done": 2}
    )
    assert again.answer(worked(letters)[-1]).payload == resident.answer(worked(letters)[-1]).payload
    same(again.stay.standing, resident.stay.standing, 0)


def test_an_extended_budget_reaches_the_node(history, tmp_path):
    """What it anneals over is the budget, and its agent is as it was."""
    letters, resident, folder = history
    node = Resident(shutil.copytree(folder / "node", tmp_path / "node"))
    join = next(letter for letter in letters if letter.kind == JOIN)
    longer = str(join.fields["config"]).replace("[budget]\nrounds = 4", "[budget]\nrounds = 9")
    assert node.answer(Letter(JOIN, {**join.fields, "config": longer})).fields["done"] == 2
    assert node.stay.config.budget.rounds == 9
    same(node.stay.standing, resident.stay.standing, 0)
    assert Resident(tmp_path / "node").answer(worked(letters)[-1]).kind == WORKED


def test_a_killed_agent_does_the_round_again_as_it_would_have(history, tmp_path):
    letters, resident, folder = history
    whole = resident.answer(worked(letters)[-1])
    # As if the process had died over the second round, before it saved it.
    (folder / "node" / "runs" / resident.stay.run / "checkpoints" / "checkpoint-2.safetensors").unlink()
    again = Resident(folder / "node")
    assert again.answer(letters[0]).fields["done"] == 1
    assert again.answer(worked(letters)[-1]).payload == whole.payload


def test_it_cannot_go_back(history):
    letters, resident, _ = history
    first, last = worked(letters)[0], worked(letters)[-1]
    assert resident.answer(last).kind == WORKED
    answer = resident.answer(first)
    assert answer.kind == REFUSED
    assert "cannot go back to round 1" in answer.fields["reason"]


@pytest.mark.parametrize(
    ("letter", "why"),
    [
        (Letter(JOIN, {"run": "../x", "config": ""}), "no name of a run"),
        (Letter(JOIN, {"run": "x", "config": "]"}), "TOMLDecodeError"),
        (Letter(JOIN, {"run": "x", "config": 'plugins = ["os"]'}), "start the node with --plugins"),
        (Letter(JOIN, {"run": "x", "config": 'environment.id = "os:X-v0"'}), "start the node with --plugins"),
        (Letter(JOIN, {"run": "x", "config": "[budget]\nround = 3"}), "unknown key budget.round"),
        (Letter(JOIN, {}), "KeyError"),
    ],
)
def test_what_it_cannot_do_is_refused_in_words(tmp_path, letter, why):
    answer = Resident(tmp_path).answer(letter)
    assert answer.kind == REFUSED
    assert why in answer.fields["reason"]


def test_a_node_imports_its_own_copy_of_a_plugin_and_no_other(tmp_path):
    """The server's may lie anywhere, or nowhere; what is not named at the node is not imported."""
    text = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"
    for site in ("server", "node"):
        (tmp_path / site).mkdir()
        (tmp_path / site / "node_plugin.py").write_text(text)
    own = str(tmp_path / "node" / "node_plugin.py")
    budget = "budget.rounds = 1\n"
    asked = f'{budget}plugins = ["{tmp_path / "server" / "node_plugin.py"}"]'
    refused = Resident(tmp_path / "a").answer(Letter(JOIN, {"run": "x", "config": asked}))
    assert refused.kind == REFUSED
    assert str(tmp_path / "server" / "node_plugin.py") in refused.fields["reason"]
    assert Resident(tmp_path / "a", plugins=[own]).answer(Letter(JOIN, {"run": "x", "config": asked})).kind == JOINED
    more = f'{budget}plugins = ["{own}", "antigravity"]'
    assert (
        "antigravity"
        in Resident(tmp_path / "b", plugins=[own]).answer(Letter(JOIN, {"run": "y", "config": more})).fields["reason"]
    )
    assert [path.parent.name for path in tmp_path.rglob("*.ran")] == ["node"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"agent": 1}, "agent 0 of the run, not agent 1"),
        ({"form": "?"}, "other shapes"),
        ({"round": "x"}, "ValueError"),
    ],
)
def test_an_order_that_is_not_for_it_is_refused(history, change, why):
    letters, resident, _ = history
    last = worked(letters)[-1]
    answer = resident.answer(Letter(WORK, {**last.fields, "round": 9, **change}, last.payload))
    assert answer.kind == REFUSED
    assert why in answer.fields["reason"]


def test_an_agent_whose_work_failed_goes_on_from_what_it_saved(history, monkeypatch):
    letters, resident, _ = history
    last = worked(letters)[-1]
    before = resident.answer(last)

    def fail(part, standing, *rest):
        jax.tree.map(lambda x: x.delete(), standing)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(type(resident.stay.part), "work", fail)
    answer = resident.answer(Letter(WORK, {**last.fields, "round": 2}, last.payload))
    assert answer.kind == REFUSED
    assert "out of memory" in answer.fields["reason"]
    monkeypatch.undo()
    assert resident.answer(last).payload == before.payload
    assert resident.answer(Letter(WORK, {**last.fields, "round": 2}, last.payload)).kind == WORKED


def test_a_site_says_only_what_its_environment_is(tmp_path):
    with pytest.raises(FedraxError, match="it may set environment"):
        Resident(tmp_path, overrides=["learner.tau=0.5"])
    config = configured(*CASE)
    resident = Resident(tmp_path / "node", overrides=["environment.heterogeneity.observation_noise_std=0.25"])
    federation, _, _ = remote(config, tmp_path, LocalPost({7: resident.answer}))
    federation.office.gather(1, 1, 0)
    assert resident.stay.config.environment.heterogeneity["observation_noise_std"] == 0.25
    assert "observation_noise_std" not in config.environment.heterogeneity


def test_a_site_with_other_spaces_is_refused(tmp_path):
    config = configured("fedpg-br", "federation.agents=1")
    resident = Resident(tmp_path / "node", agent=0, overrides=["environment.id=Acrobot-v1"])
    federation, _, notes = remote(config, made(tmp_path), LocalPost({7: resident.answer}))
    with pytest.raises(FedraxError, match=r"0 usable answers where runtime\.quorum asks for 1"):
        rounds_of(federation, 1)
    assert any("its environment's spaces must be the server's" in note for note in notes)


def test_it_says_that_it_does_not_know_a_run(history, tmp_path):
    _, resident, _ = history
    for kind in (WORK, EVALUATE):
        assert Resident(tmp_path).answer(Letter(kind, {"run": "other"})) == Letter(STRANGER)
        assert resident.answer(Letter(kind, {"run": "other"})) == Letter(STRANGER)


def test_nodes_have_names_of_their_own_that_last(tmp_path):
    names = {Resident(tmp_path / str(k % 2)).name for k in range(4)}
    assert len(names) == 2
    np.testing.assert_array_equal([len(name) for name in names], [32, 32])
