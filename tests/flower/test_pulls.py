"""Answers are taken part by part: what never comes, or cannot be read, costs its own node's round and nothing else."""

from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.task_identity import TaskIdentity

from fedrax.parsing import DecodeError
from fedrax.runtime.distributed.envelopes import EVALUATED, Envelope
from fedrax.runtime.flower.flower_patches.pulls import PATIENCE, Pulls
from fedrax.runtime.flower.records import MESSAGE_TYPE, from_records, to_records
from fedrax.runtime.flower.transport import FlowerTransport


class SuperLink:
    """A grid's client over a store of announced messages and their parts."""

    def __init__(self):
        self.announced, self.parts, self.absent, self.confirmed = {}, {}, set(), []

    def announce(self, ticket, records):
        message = Message(records, dst_node_id=7, message_type=MESSAGE_TYPE)
        message.metadata.__dict__["_reply_to_message_id"] = ticket
        with no_object_id_recompute():
            name, tree = message.object_id, get_object_tree(message)
            message.metadata.__dict__["_message_id"] = name
            parts = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}
        self.announced[ticket] = (message_to_proto(message), tree)
        self.parts |= parts
        self.absent |= parts.keys()
        return name, list(parts)

    def PullMessages(self, request):
        taken = [self.announced.pop(ticket) for ticket in request.message_ids if ticket in self.announced]
        return SimpleNamespace(
            messages_list=[message for message, _ in taken], message_object_trees=[tree for _, tree in taken]
        )

    def PullObject(self, request):
        name = request.object_id
        there = name in self.parts and name not in self.absent
        content = self.parts[name] if there else b""
        return SimpleNamespace(object_found=name in self.parts, object_available=there, object_content=content)

    def ConfirmMessageReceived(self, request):
        self.confirmed.append(request.message_object_id)


@pytest.fixture(autouse=True)
def identity(monkeypatch):
    for name in ("run_id", "task_id", "node_id"):
        monkeypatch.setattr(TaskIdentity, f"_{name}", 1)


@pytest.fixture
def link():
    return SuperLink()


@pytest.fixture
def grid(link):
    from flwr.proto.node_pb2 import Node

    return SimpleNamespace(_runtime_client=link, node=Node(node_id=1), run=SimpleNamespace(run_id=1))


def pulls_of(grid, refused=lambda part: False, pause=lambda seconds: None):
    return Pulls(grid, refused, pause=pause)


ANSWER = Envelope(EVALUATED, {"run": "r", "agent": 1, "names": ""}, b"12345")


def test_a_whole_answer_is_taken_once(link, grid):
    name, _ = link.announce("t1", to_records(ANSWER))
    link.absent.clear()
    pulls = pulls_of(grid)
    ((ticket, message),) = pulls.collect(["t1", "t2"])
    assert (ticket, from_records(message.content)) == ("t1", ANSWER)
    assert link.confirmed == [name]
    assert pulls.collect(["t2"]) == []


def test_an_answer_on_its_way_holds_nobody_up_and_is_taken_when_it_is_whole(link, grid):
    _, parts = link.announce("slow", to_records(ANSWER))
    _, others = link.announce("quick", to_records(Envelope("worked", {}, b"other")))
    link.absent -= set(others)
    pulls = pulls_of(grid)
    assert [ticket for ticket, _ in pulls.collect(["slow", "quick"])] == ["quick"]
    link.absent -= set(parts[:-1])
    assert pulls.collect(["slow"]) == []
    link.absent.clear()
    ((ticket, message),) = pulls.collect(["slow"])
    assert (ticket, from_records(message.content)) == ("slow", ANSWER)


def test_parts_that_follow_at_once_are_waited_for_once_and_not_for_long(link, grid):
    _, parts = link.announce("t1", to_records(ANSWER))
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        link.absent.discard(parts[len(pauses) - 1] if len(pauses) <= len(parts) else None)

    assert [ticket for ticket, _ in pulls_of(grid, pause=pause).collect(["t1"])] == ["t1"]
    assert len(pauses) == len(parts)
    link.announce("t2", to_records(Envelope("worked", {}, b"never")))
    pulls, pauses[:] = pulls_of(grid, pause=pauses.append), []
    assert pulls.collect(["t2"]) == pulls.collect(["t2"]) == []
    assert sum(pauses) == pytest.approx(PATIENCE, abs=0.03)


def test_an_answer_whose_part_was_too_large_is_named(link, grid):
    _, parts = link.announce("flood", to_records(ANSWER))
    ((_, error),) = pulls_of(grid, lambda part: part in parts).collect(["flood"])
    assert str(error) == "its answer is larger than any that is asked for"


def test_an_answer_that_nobody_waits_for_is_forgotten(link, grid):
    link.announce("late", to_records(ANSWER))
    pulls = pulls_of(grid)
    pulls.collect(["late"])
    assert set(pulls.partial) == {"late"}
    pulls.collect(["other"])
    assert not pulls.partial


def test_an_answer_of_many_parts_is_refused_before_one_is_taken(link, grid):
    link.announce("many", RecordDict({str(k): ConfigRecord({"x": k}) for k in range(20)}))
    ((_, error),) = pulls_of(grid).collect(["many"])
    assert str(error) == "an answer of more than 8 parts"


@pytest.mark.parametrize("content", [b"", b"Message 5 1\x00\x00", b"\xff" * 40, b"Nothing 3\x00abc"])
def test_parts_that_cannot_be_read_are_their_nodes_fault(link, grid, content):
    _, parts = link.announce("garbage", to_records(ANSWER))
    link.absent.clear()
    for part in parts:
        link.parts[part] = content
    ((_, error),) = pulls_of(grid).collect(["garbage"])
    assert isinstance(error, DecodeError)
    assert "cannot be read" in str(error)


def test_a_part_that_was_lost_is_named(link, grid):
    _, parts = link.announce("lost", to_records(ANSWER))
    del link.parts[parts[-1]]
    link.absent.clear()
    ((_, error),) = FlowerTransport(grid).collect(["lost"])
    assert str(error) == "a part of its answer did not arrive"


def test_keys_are_digests_of_what_the_superlink_knows(grid):
    nodes = [SimpleNamespace(node_id=5, public_key=b"a"), SimpleNamespace(node_id=6, public_key=b"b")]
    grid.get_nodes, grid.get_node_ids = lambda: nodes, lambda: [5, 6]
    lasting, fleeting = FlowerTransport(grid, keys=True), FlowerTransport(grid)
    assert lasting.addresses() == fleeting.addresses() == {5, 6}
    assert lasting.key(5) == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    assert len({lasting.key(5), lasting.key(6)}) == 2
    assert fleeting.key(5) == lasting.key(99) == ""
