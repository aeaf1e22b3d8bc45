"""The commands of a federation: what they write, what they print, and what they refuse, in one line each."""

import json
import stat
import subprocess
import sys
import tomllib
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from fedrax.cli import main
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.records.files import write_json
from fedrax.records.refusals import REFUSALS, Refusal, Refusals
from fedrax.records.sites import KEYS, MEMBERS, site_names
from fedrax.runtime.distributed.envelopes import JOINED, Envelope
from fedrax.runtime.distributed.membership import Membership
from fedrax.runtime.flower import run_lock
from fedrax.runtime.flower.certificates import make_certificates
from fedrax.runtime.flower.endpoint import Endpoint, is_loopback, split_address
from fedrax.runtime.flower.processes import Watched, environment, flower_command, free_port
from fedrax.runtime.flower.run_lock import Tail, held, is_held
from fedrax.runtime.flower.serving import names_of_keys, prepared
from fedrax.runtime.flower.status import Agents, Board, show_status
from fedrax.runtime.flower.transport import FlowerTransport
from fedrax.watch import runs


@pytest.fixture
def certificates(tmp_path):
    folder = tmp_path / "certificates"
    make_certificates(folder, ["127.0.0.1", "server.example.org"], 2)
    return folder


def test_the_servers_certificate_is_for_its_hosts_and_signed_by_the_authority(certificates):
    authority, server = (
        x509.load_pem_x509_certificate((certificates / f"{name}.crt").read_bytes()) for name in ("authority", "server")
    )
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["server.example.org"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_private_keys_are_their_owners_alone_and_fit_the_public_ones(certificates):
    for path in (certificates / "server.key", certificates / "nodes" / "node-0", certificates / "nodes" / "node-1"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = serialization.load_ssh_private_key((certificates / "nodes" / "node-1").read_bytes(), None)
    public = serialization.load_ssh_public_key((certificates / "nodes" / "node-1.pub").read_bytes())
    assert key.public_key() == public


def test_certificates_are_never_overwritten(certificates, capsys):
    before = (certificates / "server.key").read_bytes()
    assert main(["certificates", str(certificates)]) == 1
    assert "holds certificates already" in capsys.readouterr().err
    assert (certificates / "server.key").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["server", "fedpg-br/cartpole", "--superlink", "10.0.0.1:9092"], "reached from other machines"),
        (["node", "--superlink", "10.0.0.1:9092"], "reached from other machines"),
        (["node", "--superlink", "nowhere"], "is no address"),
        (["node", "--agent", "-1"], "agents are numbered from 0"),
        (["node", "--certificates", "missing"], "holds no authority.crt"),
        (["node", "--key", "missing"], "there is no key missing"),
        (["node", "--peers", "keys"], "--peers is for nodes with keys"),
        (["node", "learner.tau=1"], "is not a node's to say"),
        (["server", "fedpg-br/carpole"], "did you mean 'fedpg-br/cartpole'"),
        (["server", "fedtd3/pendulum", "strategy=central"], "in one place"),
        (["certificates", "here", "--nodes", "0"], "--nodes 0 is not allowed"),
        (["certificates", "here", "--host", "server.example.org:9092"], "without a port"),
        (["certificates", "here", "--host", "a host"], "'a host' is no host: give a name or an address"),
        (["deploy", "fedpg-br/cartpole", "--superlink", "x"], "is no address"),
        (["deploy", "fedpg-br/cartpole", "--superlink", "x:\u00b2"], "is no address"),
        (["deploy", "fedpg-br/cartpole", "--superlink", "[/x]:9092"], "is no address"),
        (["deploy", "fedtd3/pendulum", "strategy=central"], "in one place"),
        (["deploy", "fedpg-br/cartpole", "seeds=3"], "seeds = 3 is not allowed with runtime=flower"),
        (["status", "missing"], "there is no run at missing"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, why, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert why in error
    assert error.count("\n") == 1
    assert error.startswith("fedrax: ")


def test_peers_that_a_node_cannot_be_one_of_are_refused(certificates, capsys):
    nodes = certificates / "nodes"
    command = ["node", "--certificates", str(certificates), "--key", "node-0", "--data", str(certificates / "data")]
    for break_it, why in (
        ((nodes / "node-0.pub").unlink, f"{nodes} lacks the public key of {nodes / 'node-0'}"),
        (lambda: (nodes / "node-1.pub").write_text("x"), "node-1.pub is no public key of ECDSA P-384"),
        ((nodes / "node-1.pub").unlink, "holds no *.pub"),
    ):
        break_it()
        assert main([*command, "--peers", str(nodes)]) == 1
        error = capsys.readouterr().err
        assert why in error
        assert error.count("\n") == 1


def test_deploy_of_a_secure_sum_brings_every_public_key(capsys):
    secure = ["strategy=gpomdp", "federation.agents=3", "privacy.secure_sum=true", "privacy.clip=1"]
    assert main(["deploy", "fedpg-br/cartpole", *secure, "--superlink", "server.example.org:9092"]) == 0
    *_, what, node = capsys.readouterr().out.splitlines()
    assert what.endswith("with authority.crt and a key of its own, and all nodes' .pub")
    assert "--peers certificates/nodes" in node


def test_deploy_says_what_to_type_where(capsys):
    assert main(["deploy", "fedpg-br/cartpole", "federation.agents=3", "--superlink", "server.example.org:9092"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "fedrax certificates certificates --host server.example.org --nodes 3" in lines
    assert any(line.startswith("fedrax server fedpg-br/cartpole federation.agents=3 --superlink") for line in lines)
    assert any(line.startswith("fedrax node --superlink server.example.org:9092 --certificates") for line in lines)


def test_deploy_writes_a_flower_app(tmp_path, capsys):
    app = tmp_path / "app"
    assert main(["deploy", "fedpg-br/cartpole", "federation.agents=3", "--app", str(app)]) == 0
    assert f"flwr run {app} local --stream --federation-config 'num-supernodes=3 " in capsys.readouterr().out
    table = tomllib.loads((app / "pyproject.toml").read_text())
    assert table["project"]["dependencies"] == [], "Flower would install them anew for every run"
    table = table["tool"]["flwr"]["app"]
    assert table["config"] == {
        "preset": "fedpg-br/cartpole",
        "overrides": "federation.agents=3",
        "directory": "",
        "nodes": "",
        "keys": "",
    }
    built = subprocess.run(
        [flower_command("flwr"), "build", "--app", str(app)],
        cwd=tmp_path,
        env=environment(tmp_path / "home"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert list(tmp_path.glob("*.fab"))


def test_a_run_that_is_there_goes_on_as_configured(tmp_path):
    directory = prepared("fedpg-br/cartpole", ["federation.agents=2"], tmp_path / "run")
    assert tomllib.loads(directory.config.read_text())["runtime"]["kind"] == "flower"
    assert prepared("fedpg-br/cartpole", [], tmp_path / "run").path == directory.path
    with pytest.raises(FedraxError, match=r"federation\.agents = 3 would make .* another experiment"):
        prepared("fedpg-br/cartpole", ["federation.agents=3"], tmp_path / "run")
    prepared("fedpg-br/cartpole", ["budget.trajectories=7"], tmp_path / "run")
    assert tomllib.loads(directory.config.read_text())["budget"]["trajectories"] == 7


def test_status_shows_who_answered_and_why_not(tmp_path, capsys):
    run = prepared("fedpg-br/cartpole", ["federation.agents=2"], tmp_path / "run").path
    row = {"round": 3, "node": "n", "seconds": 1.5, "work_seconds": 1.0, "bytes_down": 100, "bytes_up": 2000}
    rows = [
        {**row, "agent": 0, "outcome": "answered", "reason": ""},
        {**row, "agent": 1, "outcome": "excluded", "reason": "message is not finite [/x] [bold]"},
    ]
    torn = '{"round": 2, "ag{"round": 2}\n[]\n{"agent": "x"}\n'
    whole = "".join(json.dumps(each) + "\n" for each in rows)
    (run / "exchanges.jsonl").write_text(torn + whole + '{"round": 4, "ag')
    assert main(["status", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "not running" in shown
    # What a node says is text, not markup.
    assert "message is not finite [/x] [bold]" in shown
    assert "2 kB" in shown
    assert "1/1" in shown
    assert "0/1" in shown


def test_status_names_the_key_of_each_agent_or_the_node(tmp_path, certificates, capsys):
    run = prepared("fedpg-br/cartpole", ["federation.agents=3"], tmp_path / "run").path
    row = {"round": 0, "seconds": 1.5, "work_seconds": 1.0, "bytes_down": 1, "bytes_up": 2}
    row |= {"outcome": "answered", "reason": ""}
    (run / "exchanges.jsonl").write_text("".join(json.dumps({**row, "agent": agent}) + "\n" for agent in range(3)))
    assert main(["status", str(run)]) == 0
    capsys.readouterr()
    # As a SuperLink does: keys are files of its owner, and nodes get their numbers as they come.
    nodes = [
        SimpleNamespace(
            node_id=number,
            public_key=public_key_to_bytes(
                serialization.load_ssh_public_key((certificates / "nodes" / f"node-{number}.pub").read_bytes())
            ),
        )
        for number in (1, 0)
    ]
    names = names_of_keys(Endpoint("127.0.0.1:9092", certificates))
    transport = FlowerTransport(SimpleNamespace(get_nodes=lambda: nodes), keys=True, names=names)
    addresses = transport.addresses()
    assert [transport.site(node.node_id) for node in nodes] == ["node-1", "node-0"]
    assert transport.site(7) == ""
    members = Membership(3, run / MEMBERS)
    for place, address in enumerate((1, 0, 7)):
        fields = {"run": "r", "node": f"{place}abcdefghijk", "agent": -1, "done": 0}
        members.admit(address, Envelope(JOINED, fields), run="r", addresses=addresses, key=transport.key(address))
    write_json(run / KEYS, names)
    assert site_names(run) == {0: "node-1", 1: "node-0", 2: "2abcdefg"}
    assert main(["status", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for agent, name in site_names(run).items():
        assert [line for line in lines if name in line and str(agent) in line.split(name)[0]], lines


PAUSES = [
    (["excluded", "paused"], "no usable answer of round 1; asked again in round 7", "no usable answer of round 1"),
    (["late", "absent", "paused", "paused"], "of round 2; asked again in round 7", "no usable answer of round 2"),
    (["excluded", "answered", "paused"], "asked again in round 7", ""),
    (["paused", "excluded"], "no usable answer of round 2", "no usable answer of round 2"),
    (["excluded", "paused", "answered"], "", ""),
]
"""Outcomes of rounds, and what is to be seen of them while the run goes on and once it is over."""


@pytest.mark.parametrize(("outcomes", "before", "after"), PAUSES)
def test_who_pauses_is_shown_with_the_last_reason(tmp_path, capsys, monkeypatch, outcomes, before, after):
    directory = prepared("fedpg-br/cartpole", ["federation.agents=1"], tmp_path / "run")
    row = {"agent": 0, "seconds": 1.0, "work_seconds": 1.0, "bytes_down": 1, "bytes_up": 1}
    reasons = {"paused": "asked again in round 7", "answered": ""}
    with open(directory.path / "exchanges.jsonl", "w") as file:
        for number, outcome in enumerate(outcomes):
            reason = reasons.get(outcome, f"no usable answer of round {number + 1}")
            file.write(json.dumps({**row, "round": number, "outcome": outcome, "reason": reason}) + "\n")
    agents = Agents(directory.path)
    agents.read()
    assert agents.why(0, over=False).endswith(before)
    assert agents.why(0, over=True) == after
    for over in (False, True):
        if over:
            directory.summary.write_text("{}")
        assert ("again" in show_status(directory.path)) == (not over and "again" in before)
        watched = runs.Watched(directory.path)
        watched.refresh()
        (seen,) = watched.data(0, 0, [])["attendance"]
        assert seen["reason"] == agents.why(0, over=over)


@pytest.mark.parametrize("exchanged", [False, True])
def test_a_status_names_who_is_refused(tmp_path, capsys, exchanged):
    """Also before the first round, which may wait for that node."""
    run = prepared("fedpg-br/cartpole", ["federation.agents=2"], tmp_path / "run").path
    if exchanged:
        (run / "exchanges.jsonl").write_text(exchange(0, 1.0, 1.0))
    refusals, why = Refusals(run / REFUSALS), "it says: " + 20 * "a long [bold]reason; "
    for stays, word in ((False, "refused"), (True, "waits")):
        refusals.add(7, "", Refusal(why, node="0123456789", agent=1, stays=stays))
        assert main(["status", str(run)]) == 0
        assert f"\n{word}: node 01234567, to be agent 1: {why}".rstrip() in capsys.readouterr().out
    refusals.remove(7, "", "0123456789")
    assert main(["status", str(run)]) == 0
    assert "waits" not in capsys.readouterr().out


def test_a_file_that_is_no_key_is_named(certificates):
    (certificates / "nodes" / "other.pub").write_text("ssh-rsa none")
    with pytest.raises(FedraxError, match=r"other\.pub is no public key"):
        names_of_keys(Endpoint("127.0.0.1:9092", certificates))


def test_the_live_table_says_how_far_the_run_is(tmp_path, capsys):
    directory = prepared("fedpg-br/cartpole", ["federation.agents=2", "budget.rounds=10"], tmp_path / "run")
    row = {"round": 3, "node": "n", "seconds": 1.5, "work_seconds": 1.0, "bytes_down": 100, "bytes_up": 2000}
    with Board(directory.path, resolve(directory.config), enabled=True) as board, held(directory.path):
        lines = [{**row, "agent": 0, "outcome": "answered", "reason": ""}]
        lines += [{**row, "agent": 1, "outcome": "late", "reason": "slow"}]
        (directory.path / "exchanges.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
        # The answers of a round are recorded before its row is.
        board.refresh()
        assert "answered" not in capsys.readouterr().out
        # What nodes compiled in the first round is no measure of the others.
        first = {"seed": 0, "round": 0, "return": 9.0, "seconds": 50.0, "trajectories": 0}
        rounds = {"seed": 0, "round": 3, "return": 12.5, "seconds": 56.0, "trajectories": 0}
        directory.metrics_jsonl.write_text(json.dumps(first) + "\n" + json.dumps(rounds) + "\n")
        board.refresh()
    shown = capsys.readouterr().out
    assert "round 4: 1 of 2 agents answered, the slowest in 1.50 s; 40% done, 4 rounds, return 12.5, left 0:12" in shown
    assert [board.agents.missed(agent) for agent in (0, 1)] == [0, 1]


def test_a_round_is_counted_once_its_row_is_there(tmp_path, capsys):
    directory = prepared("fedpg-br/cartpole", ["federation.agents=2", "budget.rounds=2"], tmp_path / "run")
    row = {"round": 0, "node": "n", "seconds": 1.5, "work_seconds": 1.0, "bytes_down": 100, "bytes_up": 2000}
    metrics = {"seed": 0, "round": 0, "return": 12.5, "seconds": 8.0, "trajectories": 0}
    with Board(directory.path, resolve(directory.config), enabled=True) as board:
        (directory.path / "exchanges.jsonl").write_text(
            json.dumps({**row, "agent": 0, "outcome": "answered", "reason": ""}) + "\n"
        )
        board.refresh()
        directory.metrics_jsonl.write_text(json.dumps(metrics) + "\n")
    assert "round 1: 1 of 1 agent answered, the slowest in 1.50 s; 50% done, 1 round, " in capsys.readouterr().out


def exchange(round, seconds, work):
    fields = {"agent": 0, "round": round, "bytes_down": 1, "bytes_up": 1, "outcome": "answered", "reason": ""}
    return json.dumps({**fields, "seconds": seconds, "work_seconds": work}) + "\n"


@pytest.mark.parametrize(
    ("changes", "seconds", "work", "told"),
    [
        ([], 5.0, 0.2, 1),
        ([], 5.0, 4.0, 0),
        ([], 1.0, 0.2, 0),
        (["runtime.flower.fast=true"], 5.0, 0.2, 0),
    ],
)
def test_what_shortens_waits_is_said_once_where_agents_work_little(tmp_path, capsys, changes, seconds, work, told):
    directory = prepared("fedpg-br/cartpole", ["budget.rounds=9", *changes], tmp_path / "run")
    with Board(directory.path, resolve(directory.config), enabled=True) as board:
        for number in range(3):
            with open(directory.path / "exchanges.jsonl", "a") as file:
                file.write(exchange(number, seconds, work))
            board.refresh()
            assert number or "fast=true" not in capsys.readouterr().out, "nodes compile in the first round"
    shown = capsys.readouterr().out
    assert shown.count("of a round's 5.0 s agents worked 0.2 s, and waited for messages else") == told
    assert shown.count("runtime.flower.fast=true") == told


def test_addresses():
    assert split_address("127.0.0.1:9092") == ("127.0.0.1", 9092)
    assert [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "10.0.0.1", "example.org", "0.0.0.0")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    for text in ("x", ":1", "a:b", "a:0", "a:70000"):
        with pytest.raises(FedraxError, match="is no address"):
            split_address(text)


def test_without_certificates_only_the_loopback_is_a_place():
    Endpoint("127.0.0.1:1", None).check()
    with pytest.raises(FedraxError, match=r"fedrax certificates DIR --host example\.org"):
        Endpoint("example.org:1", None).check()


def test_a_run_is_held_by_one_server(tmp_path):
    assert not is_held(tmp_path)
    with held(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(FedraxError, match="is in use by process"), held(tmp_path):
            pass
    assert not is_held(tmp_path)


def test_a_server_waits_for_what_a_killed_command_left_to_end(tmp_path, monkeypatch):
    with run_lock.held(tmp_path):
        assert not run_lock.gets_free(tmp_path, seconds=0)
        looks = iter([True, True, False])
        monkeypatch.setattr(run_lock, "is_held", lambda folder: next(looks))
        monkeypatch.setattr(run_lock.time, "sleep", lambda seconds: None)
        assert run_lock.gets_free(tmp_path)
    assert list(looks) == []


def test_a_tail_gives_every_whole_line_once(tmp_path):
    path = tmp_path / "log"
    path.write_text("before\n")
    tail = Tail(path)
    with open(path, "a") as file:
        file.write("one\ntw")
        file.flush()
        assert tail.lines() == ["one"]
        file.write("o\n")
        file.flush()
        assert tail.lines() == ["two"]
    assert tail.lines() == []


def test_a_watched_process_is_started_again_and_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("fedrax.runtime.flower.processes.AGAIN_SECONDS", 0.0)
    counter = tmp_path / "count"
    program = (
        f"import time; path = {str(counter)!r}; open(path, 'a').write('x'); "
        "time.sleep(1000 if len(open(path).read()) > 1 else 0)"
    )
    with Watched([sys.executable, "-c", program], tmp_path / "log", environment(tmp_path)) as watched:
        watched.process.wait()
        assert "is started again" in watched.watch()
        assert watched.watch() is None
        while counter.read_text() != "xx":
            assert watched.watch() is None
        running = watched.process
        assert running.poll() is None
    assert running.poll() is not None


def test_free_ports_are_of_the_loopback():
    assert 0 < free_port() < 65536
