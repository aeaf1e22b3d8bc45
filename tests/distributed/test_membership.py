"""Whose an agent's place is: a key's, or where there are none a name's, and nobody has two."""

import json

import pytest

from fedrax.errors import FedraxError
from fedrax.runtime.distributed.checks import Rejected
from fedrax.runtime.distributed.envelopes import JOINED, Envelope
from fedrax.runtime.distributed.membership import Membership

from stub_transport import RUN

EVERYWHERE = set(range(100))


@pytest.fixture
def membership(tmp_path):
    return Membership(3, tmp_path / "members.json")


def admitted(membership, address, node, *, agent=-1, key="", addresses=EVERYWHERE, fields=()):
    envelope = Envelope(JOINED, {"run": RUN, "node": node, "agent": agent, "done": 0} | dict(fields))
    return membership.admit(address, envelope, run=RUN, addresses=addresses, key=key).index


def restarted(membership):
    return Membership(membership.count, membership.file)


@pytest.mark.parametrize("restart", [lambda membership: membership, restarted])
def test_a_key_has_one_place_under_whatever_names(membership, restart):
    assert admitted(membership, 10, "a", key="k1") == 0
    assert admitted(membership, 11, "b", key="k2") == 1
    for number in range(20):
        membership.present.clear()
        membership = restart(membership)
        assert admitted(membership, 11, f"name{number}", key="k2") == 1
    assert admitted(membership, 12, "c", key="k3") == 2
    with pytest.raises(Rejected, match="all 3 agents are other nodes"):
        admitted(membership, 13, "d", key="k4")


def test_a_key_keeps_its_place_when_its_nodes_folder_is_lost(membership):
    assert admitted(membership, 10, "a", agent=2, key="k1") == 2
    again = restarted(membership)
    assert admitted(again, 50, "other", key="k1") == 2
    assert again.name_of(2) == "other"


def test_a_name_is_no_proof_where_there_are_keys(membership):
    admitted(membership, 10, "a", key="k1")
    membership.present.clear()
    for key in ("k2", ""):
        with pytest.raises(Rejected, match="goes by the name of agent 0, and its key is another"):
            admitted(membership, 11, "a", key=key)


@pytest.mark.parametrize("restart", [lambda membership: membership, restarted])
def test_a_connection_without_a_key_has_one_place(membership, restart):
    assert admitted(membership, 10, "a") == 0
    for number in range(20):
        membership.present.clear()
        membership = restart(membership)
        with pytest.raises(Rejected, match="it joins under another name, and is agent 0 already"):
            admitted(membership, 10, f"name{number}")
    assert admitted(membership, 10, "a") == 0
    assert admitted(membership, 11, "b") == 1


def test_a_node_without_a_key_has_its_place_again_after_a_restart(membership):
    assert admitted(membership, 10, "a", agent=1) == 1
    assert admitted(restarted(membership), 99, "a", addresses={99}) == 1


def test_a_list_of_names_as_earlier_versions_wrote_it_is_read(membership):
    membership.file.write_text('{"a": 2, "b": 0}')
    again = restarted(membership)
    assert admitted(again, 10, "a", key="k1") == 2
    assert admitted(again, 11, "c", key="k2") == 1
    assert json.loads(membership.file.read_text())["0"] == {"node": "b", "key": "", "address": None}
    assert admitted(restarted(again), 12, "x", key="k1") == 2


@pytest.mark.parametrize(
    "text", ['{"0": {}}', '{"0": 1.5}', '{"x": {"node": "a", "key": "", "address": 1}}', '{"0": []}']
)
def test_a_damaged_list_is_said_to_be_one(membership, text):
    membership.file.write_text(text)
    with pytest.raises(FedraxError, match=r"list of members .* is damaged"):
        restarted(membership)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (
            {"agent": 1},
            r"agent 1, which is another node; .* whoever runs the server removes its place from members\.json",
        ),
        ({"agent": 3}, "agents 0 to 2"),
        ({"agent": -7}, "field 'agent' is -7, not between -1 and 2147483647"),
        ({"done": 2**63 - 1}, "field 'done' is 9223372036854775807, not between"),
        ({"done": -2}, "field 'done' is -2, not between"),
        ({"node": "../../x"}, "letters and digits"),
        ({"run": "r2"}, "run 'r2'"),
    ],
)
def test_a_node_that_asks_for_what_it_cannot_have_is_not_admitted(membership, fields, why):
    admitted(membership, 10, "a", agent=1)
    with pytest.raises(Rejected, match=why):
        admitted(membership, 11, "b", agent=0, fields=fields)


def test_a_name_that_is_there_already_cannot_be_taken_over(membership):
    admitted(membership, 10, "a", agent=1)
    with pytest.raises(Rejected, match="another node, which is there"):
        admitted(membership, 11, "a", agent=1)
    assert admitted(membership, 11, "a", agent=1, addresses={11}) == 1
