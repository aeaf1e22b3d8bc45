"""Federations whose processes are killed at random moments end as one that nobody disturbed (make test-faults)."""

import os
import random
import signal
import time

import pytest

from fedrax.records.checkpoint import latest_round

from harness import SMALL, Federation
from kills import Account, checkpoint_differences, differences

pytestmark = pytest.mark.faults

ROUNDS = 60
PATIENCE = 300.0
"""Seconds until a federation goes on after a kill, at most: Flower lets a dead node back in after up to a minute."""
# Every round waits for all agents, so that nothing of theirs is lost.
WHOLE = [
    *(f"budget.rounds={ROUNDS}", "runtime.shared_seeds=true", "runtime.flower.quorum=1"),
    "runtime.flower.deadline=3000",
]
REPLAY = [
    *("fedtd3/pendulum", "budget.steps_per_agent=none", "environment.horizon=20", "evaluation.episodes=2"),
    *("federation.local_updates=8", "learner.batch_size=8", "learner.learning_starts=8", "learner.buffer_size=64"),
    *(f"learner.{part}_layers=[8]" for part in ("actor", "feature", "head")),
    "runtime.flower.gather=300",
]
FEDERATIONS = {"CartPole, with certificates": (SMALL, True), "Pendulum": (REPLAY, False)}

AGENT, SERVER, LINK, COMMAND, NODE = (
    "an agent's process",
    "the server's process",
    "the SuperLink",
    "fedrax server and all it started",
    "a node and all it started",
)
WORDS = {AGENT: "runtime.flower.agent_server", SERVER: "flwr-serverapp", LINK: "superlink --host"}
"""Of the command lines of single processes."""
KILLS = {
    "CartPole, with certificates": {AGENT: 5, SERVER: 3, LINK: 2, COMMAND: 1, NODE: 1},
    "Pendulum": {AGENT: 6, SERVER: 2, LINK: 2, COMMAND: 2, NODE: 1},
}


def kill(federation, what, node):
    """Kills one of a federation's processes, or a command with all of its own, which is then started again."""
    if what == COMMAND:
        federation.kill("server")
        federation.start_server()
    elif what == NODE:
        federation.kill(f"node-{node}")
        federation.start_node(node)
    else:
        name = f"node-{node}" if what == AGENT else "server"
        os.kill(federation.part_of(name, WORDS[what]), signal.SIGKILL)


def trained(federation, disturb=lambda federation: None):
    """A federation that has trained to its end and whose agents are all saved: its run, and its agents' checkpoints."""
    federation.start_all()
    disturb(federation)
    assert federation.finish(PATIENCE) == 0, federation.logs()
    nodes = [federation.folder / f"node-{node}" for node in range(federation.count)]
    checkpoints = [path for node in nodes for path in node.glob("runs/*/checkpoints")]
    assert len(checkpoints) == federation.count
    federation.until(lambda: [latest_round(path) for path in checkpoints] == [ROUNDS] * federation.count)
    return federation.run, checkpoints


@pytest.mark.parametrize("name", FEDERATIONS)
def test_killed_at_random_moments_a_federation_ends_as_if_it_were_not(tmp_path, record_property, name):
    (small, secure), draw, account = FEDERATIONS[name], random.Random(name), Account(f"a federation, {name}")
    events = [what for what, number in KILLS[name].items() for _ in range(number)]
    draw.shuffle(events)
    moments = sorted(draw.randrange(1, ROUNDS - 2) + draw.random() for _ in events)

    def disturb(federation):
        started = time.monotonic()
        for what, moment in zip(events, moments, strict=True):
            federation.until_round(int(moment), PATIENCE)
            # A share of the mean round so far; what was killed before may still be coming back.
            time.sleep(moment % 1 * min(1.0, (time.monotonic() - started) / int(moment)))
            node = draw.randrange(federation.count)
            federation.until(lambda w=what, n=node: there(federation, w, n), PATIENCE, f"{what}'s return")
            kill(federation, what, node)
            account.hit(what)

    with Federation(tmp_path / "whole", *WHOLE, base=small, secure=secure) as federation:
        whole, agents = trained(federation)
    with Federation(tmp_path / "killed", *WHOLE, base=small, secure=secure) as federation:
        killed, survivors = trained(federation, disturb)
    found = differences(killed, whole)
    for ours, theirs in zip(survivors, agents, strict=True):
        found += checkpoint_differences(ours, theirs)
    account.close(found)
    account.tell(record_property)
    assert found == []


def there(federation, what, node):
    """Whether there is something to kill: what died may not have been started again yet."""
    if what in (COMMAND, NODE):
        return True
    try:
        return bool(federation.part_of(f"node-{node}" if what == AGENT else "server", WORDS[what]))
    except AssertionError:
        return False
