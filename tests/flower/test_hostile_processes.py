"""What real processes do with another's SuperLink, servers that die, nodes that cannot connect, and what they leave."""

import os
import signal
import stat

import pytest

from fedrax.runtime.flower.certificates import make_certificates
from fedrax.runtime.flower.health import check_free
from fedrax.runtime.flower.processes import free_port
from fedrax.runtime.flower.run_lock import is_held

from harness import Federation, superlink

pytestmark = pytest.mark.faults

PLUGIN = """
from fedrax.aggregators.base import aggregators
from fedrax.aggregators.mean import Mean


@aggregators.register("broken")
class Broken(Mean):
    \"\"\"Fails where it is used, in the server's process.\"\"\"

    def __call__(self, *arguments, **options):
        raise RuntimeError("the rule's own mistake")
"""


def until_said(federation, name, words, seconds=90):
    federation.until(lambda: words in federation.said(name), seconds, f"{name} saying {words!r}")


def test_a_second_server_on_the_port_is_refused_and_the_first_goes_on(tmp_path):
    with Federation(tmp_path / "a", "budget.rounds=6000", secure=False) as first:
        first.start_all()
        first.until_round(1)
        with Federation(tmp_path / "b", "budget.rounds=2", secure=False) as second:
            second.address = first.address
            second.start_server()
            assert second.finish(60) == 1
            assert (
                second.said().splitlines()[-1].startswith(f"fedrax: port {first.address[10:]} of 127.0.0.1 is in use")
            )
            assert not second.run.exists()
        first.until_round(first.rounds() + 3)
        assert [first.said().count(words) for words in ("starting a server at", "nodes can connect to")] == [1, 1]


def test_a_server_whose_port_another_superlink_takes_meanwhile_ends(tmp_path):
    with Federation(tmp_path, "budget.rounds=6000", nodes=1, secure=False) as federation:
        federation.start_server()
        federation.until(lambda: is_held(federation.run), what="a server")
        os.kill(federation.part_of("server", "superlink --host"), signal.SIGKILL)
        # The server starts it again, but not at once.
        check_free(federation.address)
        with superlink("22" * 32, port=int(federation.address.rpartition(":")[2])):
            assert federation.finish(90) == 1
        assert "is another server's: it does not know this one's secret" in federation.said()


def test_a_server_that_fails_again_and_again_says_why(tmp_path):
    (tmp_path / "broken.py").write_text(PLUGIN)
    plugin = ("--plugins", str(tmp_path / "broken.py"))
    with Federation(tmp_path, "budget.rounds=4", "aggregator=broken", nodes=1, secure=False) as federation:
        federation.start_server(*plugin)
        federation.start_node(0, *plugin)
        assert federation.finish(300) == 1, federation.logs()
        last = federation.said().splitlines()[-1]
        assert last.startswith(
            "fedrax: the server ended 5 times without finishing a round; the last time: RuntimeError"
        )
        assert "the rule's own mistake; the traceback is in" in last
        text = (federation.run / "error.txt").read_text()
        assert text.count("in __call__") >= 5


def test_a_server_that_is_killed_again_and_again_says_what_is_known(tmp_path):
    with Federation(tmp_path, "budget.rounds=6000", nodes=1, secure=False) as federation:
        federation.start_server()
        for deaths in range(5):
            federation.until(lambda: is_held(federation.run), 90, "a server")
            os.kill(federation.part_of("server", "flwr-serverapp"), signal.SIGKILL)
            if deaths < 4:
                federation.until(
                    lambda count=deaths + 1: federation.said().count("it is started again, from") == count,
                    60,
                    "its end",
                )
        assert federation.finish(90) == 1
        last = federation.said().splitlines()[-1]
        assert "5 times without finishing a round; the last time: it left no traceback, as when it is killed" in last
        assert "superexec.log" in last


@pytest.mark.parametrize("fast", [True, False])
def test_a_node_says_once_why_it_cannot_connect_and_that_it_has(tmp_path, fast):
    with Federation(tmp_path, "budget.rounds=6000", nodes=1, fast=fast) as federation:
        make_certificates(tmp_path / "others", ["127.0.0.1"], 1)
        nobody, key = f"127.0.0.1:{free_port()}", tmp_path / "others" / "nodes" / "node-0"
        secure = ["--certificates", str(federation.certificates)]
        at = ["--superlink", federation.address]
        starts = {
            "nobody": ["--superlink", nobody],
            "plain": at,
            "authority": [*at, "--certificates", str(tmp_path / "others"), "--key", str(key)],
            "stranger": [*at, *secure, "--key", str(key)],
            "member": [*at, *secure, "--key", "node-0"],
        }
        more = ["--fast"] if fast else []
        federation.start_server()
        until_said(federation, "server", "nodes can connect")
        for name, arguments in starts.items():
            federation.start(name, ["node", "--data", str(tmp_path / name), *arguments, *more])
        with superlink() as plain:
            federation.start(
                "tls", ["node", "--data", str(tmp_path / "tls"), "--superlink", plain, *secure, "--key", "node-0"]
            )
            words = {
                "nobody": f"nobody listens at {nobody}; trying again",
                "plain": f"the SuperLink at {federation.address} asks for TLS: give --certificates and --key",
                "authority": f"the certificate of the SuperLink at {federation.address} is refused",
                "stranger": f"the SuperLink at {federation.address} does not take the key {key}",
                "tls": f"what listens at {plain} does not speak TLS (WRONG_VERSION_NUMBER)",
                "member": f"connected to the SuperLink at {federation.address}",
            }
            for name, line in words.items():
                until_said(federation, name, line)
            # Some SuperNodes have ended and were started again by now.
            for name in ("authority", "stranger", "tls"):
                log = tmp_path / name / "supernode.log"
                federation.until(lambda log=log: log.read_text().count("Exit Code") > 1, 90, "another try")
            for name, line in words.items():
                first, *rest = federation.said(name).splitlines()
                assert (
                    first
                    == f"node for {starts[name][1] if name != 'tls' else plain}; logs and state in {tmp_path / name}"
                )
                assert len(rest) == 1, rest
                assert rest[0].startswith(line)


@pytest.mark.parametrize("fast", [True, False])
def test_a_killed_node_leaves_nothing_after_its_next_start_and_a_second_is_refused(tmp_path, fast, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    with Federation(tmp_path, "budget.rounds=6000", nodes=1, secure=False, fast=fast) as federation:
        federation.start_all()
        federation.until_round(2)
        assert sum(path.is_dir() for path in (tmp_path / "tmp").iterdir()) == 1
        federation.kill("node-0")
        federation.start_node(0)
        federation.until(lambda: federation.said("node-0").count("node for") == 2, what="the node's next start")
        federation.start_node(0, "--data", str(tmp_path / "node-0"), name="second")
        assert federation.processes["second"].wait(30) == 1
        assert federation.said("second").count("\n") == 1
        assert "is in use by process" in federation.said("second")
        federation.until(lambda: federation.said("node-0").count("connected to") == 2, 90, "its return")
        assert sum(path.is_dir() for path in (tmp_path / "tmp").iterdir()) == 1
        federation.kill("server", signal.SIGTERM)
        os.kill(federation.processes["node-0"].pid, signal.SIGTERM)
        federation.processes["node-0"].wait(30)
        assert not [path for path in (tmp_path / "tmp").iterdir() if path.is_dir()]
        private = [*federation.run.glob("flower/*.log"), *(tmp_path / "node-0").glob("*.log")]
        private += [*(tmp_path / "node-0").glob("node.json"), *(tmp_path / "node-0").glob("runs/*/agent.json")]
        private.append(federation.run / "federation.log")
        assert {path.name for path in private} == {
            *(
                "superlink.log",
                "superexec.log",
                "agent.log",
                "supernode.log",
                "node.json",
                "agent.json",
                "federation.log",
            )
        }
        assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
