"""Faults with real processes (make test-faults): what happens, and that no round's result is lost."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fedrax.runtime.flower.app import write_app
from fedrax.runtime.flower.certificates import make_certificates
from fedrax.runtime.flower.processes import environment, flower_command

from harness import CLI, Federation

pytestmark = pytest.mark.faults

SLOW_ROUNDS = ["strategy.batch_min=2", "strategy.batch_max=4", "budget.rounds=40"]


def finished(federation, rounds):
    assert federation.finish() == 0, federation.logs()
    rows = federation.metrics()
    assert [row["round"] for row in rows] == list(range(rounds))
    assert all(np.isfinite(row["return"]) for row in rows)


def test_a_node_killed_in_a_round_and_restarted_with_its_key(tmp_path, account):
    with Federation(tmp_path, "budget.rounds=6000") as federation:
        federation.start_all()
        federation.until_round(3)
        federation.kill("node-1")
        at = federation.rounds()
        federation.until(lambda: "absent" in federation.outcomes(1), what="the node's absence")
        federation.start_node(1)
        federation.until(lambda: federation.outcomes(1)[-1] == "answered", 300, "the node's return")
        assert federation.rounds() > at
        # The others went on meanwhile, and the same agent came back.
        assert set(federation.outcomes(0)) == {"answered"}
        assert sorted(federation.membership().places) == [0, 1]
        account(federation, "a node is killed in a round, and started again with its key")
        federation.kill("server", signal.SIGTERM)


def test_a_straggler_past_the_deadline_is_left_out_and_comes_back(tmp_path, account):
    with Federation(tmp_path, "budget.rounds=12", "runtime.flower.deadline=8") as federation:
        federation.start_all()
        federation.until_round(2)
        agent_server = federation.part_of("node-1", "runtime.flower.agent_server")
        os.kill(agent_server, signal.SIGSTOP)
        federation.until(lambda: "late" in federation.outcomes(1), what="a late answer")
        os.kill(agent_server, signal.SIGCONT)
        federation.until(lambda: federation.outcomes(1)[-1] == "answered", what="the straggler's return")
        finished(federation, 12)
        account(federation, "a straggler passes the deadline")


def test_a_killed_server_goes_on_where_it_was(tmp_path, account):
    with Federation(tmp_path, *SLOW_ROUNDS) as federation:
        federation.start_all()
        federation.until_round(5)
        federation.kill("server")
        before = federation.metrics()
        assert len(before) >= 4
        federation.start_server()
        finished(federation, 40)
        assert federation.metrics()[: len(before)] == before
        assert set(federation.outcomes(0)) | set(federation.outcomes(1)) <= {"answered", "absent"}
        account(federation, "the server, all of it, is killed and started again")


def test_a_killed_serverapp_is_started_again(tmp_path, account):
    with Federation(tmp_path, *SLOW_ROUNDS) as federation:
        federation.start_all()
        federation.until_round(5)
        os.kill(federation.part_of("server", "flwr-serverapp"), signal.SIGKILL)
        before = federation.metrics()
        finished(federation, 40)
        assert federation.metrics()[: len(before)] == before
        assert "started again, from the last checkpoint" in federation.said()
        account(federation, "the server's process is killed")


@pytest.mark.parametrize("fast", [True, False])
def test_a_killed_superlink_is_started_again(tmp_path, fast, account):
    rounds = 40 if fast else 6
    with Federation(tmp_path, *SLOW_ROUNDS[:2], f"budget.rounds={rounds}", fast=fast) as federation:
        federation.start_all()
        federation.until_round(rounds // 3)
        os.kill(federation.part_of("server", "superlink --host"), signal.SIGKILL)
        before = federation.metrics()
        finished(federation, rounds)
        assert federation.metrics()[: len(before)] == before
        account(federation, f"the SuperLink is killed, {'fast path' if fast else 'stock Flower'}")


def test_an_unknown_node_is_refused(tmp_path):
    with Federation(tmp_path, "budget.rounds=30") as federation:
        federation.start_all()
        make_certificates(tmp_path / "foreign", ["127.0.0.1"], 1)
        federation.until_round(1)
        federation.start_node(1, name="stranger", key=tmp_path / "foreign" / "nodes" / "node-0")
        finished(federation, 30)
        assert len(federation.membership().places) == 2
        log = (tmp_path / "stranger" / "supernode.log").read_text()
        assert "SuperNode ID" not in log


def test_a_node_that_comes_late_takes_its_place(tmp_path, account):
    with Federation(tmp_path, "budget.rounds=40", "runtime.flower.gather=2") as federation:
        federation.start_server()
        federation.start_node(0)
        federation.until_round(3)
        federation.start_node(1)
        federation.until(lambda: "answered" in federation.outcomes(1), what="the late node's answer")
        finished(federation, 40)
        assert federation.outcomes(1)[0] == "absent"
        account(federation, "a node comes late")


NEEDS_NAMESPACES = pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.run(["ip", "netns"], capture_output=True, check=False).returncode != 0
    if any((Path(p) / "ip").exists() for p in os.environ["PATH"].split(os.pathsep))
    else True,
    reason="needs root and network namespaces",
)


@pytest.fixture
def cable():
    """A network of two: this host at one end of a cable, a namespace at the other; what cuts and heals it."""
    name = f"fedrax{os.getpid() % 10000}"
    here, there = f"fx{os.getpid() % 10000}a", f"fx{os.getpid() % 10000}b"
    for command in (
        f"ip netns add {name}",
        f"ip link add {here} type veth peer name {there}",
        f"ip link set {there} netns {name}",
        f"ip addr add 10.213.77.1/24 dev {here}",
        f"ip link set {here} up",
        f"ip netns exec {name} ip addr add 10.213.77.2/24 dev {there}",
        f"ip netns exec {name} ip link set {there} up",
        f"ip netns exec {name} ip link set lo up",
    ):
        subprocess.run(command.split(), check=True)
    yield name, lambda up: subprocess.run(["ip", "link", "set", here, "up" if up else "down"], check=True)
    subprocess.run(["ip", "link", "del", here], check=False)
    subprocess.run(["ip", "netns", "del", name], check=False)


@NEEDS_NAMESPACES
def test_a_cut_network_heals(tmp_path, cable, account):
    namespace, set_cable = cable
    with Federation(tmp_path, "budget.rounds=6000", "runtime.flower.deadline=10", host="10.213.77.1") as federation:
        federation.start_server()
        federation.start_node(0)
        arguments = ["node", "--data", str(tmp_path / "node-1"), "--agent", "1", *federation.where(), "--fast"]
        arguments += ["--key", str(federation.certificates / "nodes" / "node-1")]
        federation.start("node-1", arguments, ("ip", "netns", "exec", namespace, *CLI))
        federation.until(lambda: federation.outcomes(1)[-1:] == ["answered"], what="the far node's answer")
        set_cable(False)
        federation.until(lambda: federation.outcomes(1)[-1] in ("late", "absent"), what="the cut")
        set_cable(True)
        federation.until(lambda: federation.outcomes(1)[-1] == "answered", 300, "the far node's return")
        assert set(federation.outcomes(0)) == {"answered"}
        account(federation, "the network is cut, and heals")
        federation.kill("server", signal.SIGTERM)


@NEEDS_NAMESPACES
@pytest.mark.parametrize("fast", [True, False])
def test_another_machine_brings_envelope_and_orders_nothing(tmp_path, cable, fast):
    """A site has the authority's certificate and a node's key: with them it may work, and not submit programs."""
    namespace, _ = cable
    inside = ("ip", "netns", "exec", namespace)
    with Federation(tmp_path, "budget.rounds=6000", nodes=1, fast=fast, host="10.213.77.1") as federation:
        federation.start_server()
        arguments = ["node", "--data", str(tmp_path / "node-0"), "--agent", "0", *federation.where()]
        arguments += ["--key", str(federation.certificates / "nodes" / "node-0"), *(["--fast"] if fast else [])]
        federation.start("node-0", arguments, (*inside, *CLI))
        federation.until_round(2)
        (tmp_path / "config.toml").write_text(
            f"""[superlink]
default = "theirs"
[superlink.theirs]
address = "{federation.address}"
root-certificates = "{federation.certificates / "authority.crt"}"
"""
        )
        variables = environment(tmp_path)
        app = write_app(tmp_path / "app", {"preset": "fedpg-br/cartpole"})
        for order in (["run", str(app), "theirs"], ["list", "theirs"]):
            command = [flower_command("flwr"), *order, "--format", "json"]
            from_there = subprocess.run([*inside, *command], env=variables, capture_output=True, text=True, check=False)
            assert "403 Forbidden" in from_there.stdout, from_there
        from_here = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        assert json.loads(from_here.stdout)["success"]
        federation.kill("server", signal.SIGTERM)


def test_everything_binds_to_the_loopback(tmp_path):
    """No process of a federation listens on an address that other machines reach."""
    with Federation(tmp_path, "budget.rounds=60", secure=False) as federation:
        federation.start_all()
        federation.until_round(2)
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            local, _, state, *rest = line.split()[1:]
            if state == "0A" and _ours(federation, rest[5]):
                address = socket.inet_ntoa(bytes.fromhex(local.split(":")[0])[::-1])
                assert address.startswith("127."), address
        federation.kill("server", signal.SIGTERM)


def _ours(federation, inode):
    from harness import descendants

    wanted = f"socket:[{inode}]"
    for process in federation.processes.values():
        for pid in descendants(process.pid):
            folder = Path(f"/proc/{pid}/fd")
            try:
                if any(os.readlink(file) == wanted for file in folder.iterdir()):
                    return True
            except OSError:
                continue
    return False
