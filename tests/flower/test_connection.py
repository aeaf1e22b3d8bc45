"""What people are told of a node that cannot connect, and of a server that ends again and again."""

import os
import stat
import sys

import pytest

from fedrax.cli import main
from fedrax.errors import FedraxError
from fedrax.records import lock
from fedrax.records.files import append_traceback
from fedrax.runtime.distributed.agent_service import AgentService
from fedrax.runtime.flower import connection as module
from fedrax.runtime.flower import serving
from fedrax.runtime.flower.connection import Connection
from fedrax.runtime.flower.deaths import Deaths, exception_line
from fedrax.runtime.flower.endpoint import Endpoint, is_host
from fedrax.runtime.flower.node import SOCKET_FOLDER, socket_folder
from fedrax.runtime.flower.processes import Watched
from fedrax.runtime.flower.run_lock import held
from fedrax.runtime.flower.server_app import recorded

REFUSAL = """ERROR :     Exit Code: 305
Failed to initialize the connection to the SuperLink.
[code: 2004] Failed to activate SuperNode.
The SuperNode could not establish a connection to the SuperLink.

For more information, visit: <https://example.org>
"""


class SuperNode:
    """One whose deaths a test decides on."""

    def __init__(self):
        self.deaths = []

    def watch(self):
        return self.deaths.pop() if self.deaths else None


@pytest.fixture
def told(tmp_path, monkeypatch):
    """A connection's words: after what a SuperNode logs, whether it has ended, and what is in the way."""
    for name in ("LOOK_SECONDS", "CONNECTED_LOOK_SECONDS"):
        monkeypatch.setattr(module, name, 0.0)
    log, node = tmp_path / "supernode.log", SuperNode()
    connection = Connection(Endpoint("127.0.0.1:9092", None), tmp_path / "node-0", log)

    def tell(logged="", *, ended=False, obstacle=None):
        monkeypatch.setattr(module, "obstacle", lambda endpoint: obstacle)
        with open(log, "a") as file:
            file.write(logged)
        node.deaths += ["flower-supernode ended (1), see its log; it is started again"] if ended else []
        return list(connection.watch(node))

    return tell


def test_every_obstacle_that_stays_is_told_once(told):
    assert told(obstacle="it was late once") == []
    assert told(obstacle="nobody listens yet") == []
    assert told(obstacle="nobody listens yet") == ["nobody listens yet; trying again"]
    assert told(obstacle="nobody listens yet") == []
    assert told(obstacle="it asks for TLS") == []
    assert told(obstacle="it asks for TLS") == ["it asks for TLS; trying again"]
    assert told("ERROR: SSL\n", ended=True, obstacle="it asks for TLS") == []
    assert told() == []


def test_an_obstacle_that_is_in_the_way_again_is_told_again(told):
    """What was said last is what is in the way now."""
    said = []
    for obstacle in ("nobody listens", "it asks for TLS", "nobody listens"):
        for _ in range(3):
            said += told(obstacle=obstacle)
    assert said == [f"{why}; trying again" for why in ("nobody listens", "it asks for TLS", "nobody listens")]


def test_a_key_is_blamed_once_what_passes_would_have_passed(told, tmp_path, monkeypatch):
    passed = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: passed[0])
    key = tmp_path / "node-0"
    (text,) = told(REFUSAL, ended=True)
    assert f"does not take the key {key} yet: a server that has just started registers the nodes' keys" in text
    passed[0] += module.PASSING_SECONDS - 1
    assert told(REFUSAL, ended=True) == []
    passed[0] += 1
    (text,) = told(REFUSAL, ended=True)
    assert f"still does not take the key {key}: its public half is not in nodes/" in text
    assert told(REFUSAL, ended=True) == []


@pytest.mark.parametrize("between", ["connected", "nobody listens"])
def test_a_server_that_starts_again_has_time_to_register_keys_again(told, monkeypatch, between):
    passed = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: passed[0])
    told(REFUSAL, ended=True)
    passed[0] += module.PASSING_SECONDS
    if between == "connected":
        told("INFO :      SuperNode ID: 17\n")
        told(ended=True)
    else:
        assert [told(obstacle=between) for _ in range(2)] == [[], ["nobody listens; trying again"]]
    assert "still" not in "".join(told(REFUSAL, ended=True))


def test_an_unknown_reason_is_flowers_own_in_printable_characters(told):
    (text,) = told("Exit Code: 7\nno \x1b[31mkey\nat all\n\nmore\n", ended=True)
    assert "the SuperNode does not connect: no  [31mkey at all (" in text
    (text,) = told(ended=True)
    assert text == "flower-supernode ended (1), see its log; trying again"


def test_a_connection_is_told_and_nothing_after_it_but_its_end(told):
    assert told("INFO :      SuperNode ID: 17\n") == ["connected to the SuperLink at 127.0.0.1:9092"]
    assert told("WARNING: retrying\n", obstacle="nobody listens yet") == []
    assert told() == []
    assert told(ended=True) == ["flower-supernode ended (1), see its log; it is started again"]
    assert told(obstacle="nobody listens yet") == []
    assert told(obstacle="nobody listens yet") == ["nobody listens yet; trying again"]


def test_a_server_that_has_ended_is_told_once_and_so_is_the_next(told):
    told("INFO :      SuperNode ID: 17\n")
    assert [told(obstacle="nobody listens") for _ in range(4)] == [[], ["nobody listens; trying again"], [], []]
    assert [told() for _ in range(2)] == [["the SuperLink at 127.0.0.1:9092 answers again"], []]


def raised(error):
    try:
        raise error from KeyError("the cause")
    except type(error) as caught:
        return caught


def test_a_death_is_explained_by_its_traceback(tmp_path):
    append_traceback(tmp_path, raised(ValueError("of an earlier run")))
    deaths = Deaths(tmp_path, tmp_path / "superexec.log")
    path = append_traceback(tmp_path, raised(TypeError("no such shape\n\nand much\n  more")))
    assert deaths.why() == f"TypeError: no such shape; the traceback is in {path}"
    (tmp_path / "superexec.log").write_text("started\nSegmentation fault\n\n")
    assert deaths.why().endswith("superexec.log ends with 'Segmentation fault'")
    assert "it left no traceback, as when it is killed, and nothing in" in deaths.why()


def test_the_line_of_an_exception_is_short_and_need_not_be_there():
    assert exception_line(["Error: no"]) is None
    assert exception_line(["Traceback (most recent call last):", "  File x"]) is None
    line = exception_line(["Traceback (most recent call last):", "  File x", "E: " + "a" * 1000])
    assert line.startswith("E: aaa")
    assert len(line) < 310


def test_a_servers_process_writes_why_it_ends(tmp_path):
    """What a person must mend stops the run; anything else leaves a traceback, and the process is started again."""
    with pytest.raises(RuntimeError), recorded(tmp_path):
        raise RuntimeError("a plugin's own mistake")
    assert [path.name for path in tmp_path.iterdir()] == ["error.txt"]
    assert exception_line((tmp_path / "error.txt").read_text().splitlines()) == "RuntimeError: a plugin's own mistake"
    with pytest.raises(FedraxError), recorded(tmp_path):
        raise FedraxError("too many rounds were lost")
    assert (tmp_path / "stopped.txt").read_text() == "too many rounds were lost\n"
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_server_that_ends_five_times_is_given_up_with_the_exceptions_line(tmp_path, monkeypatch):
    """The supervisor with servers that take the run and are gone before it looks."""

    def failing(app, variables):
        with pytest.raises(RuntimeError), held(tmp_path), recorded(tmp_path):
            raise RuntimeError("a plugin's own mistake")

    monkeypatch.setattr(serving, "submit", failing)
    said = []
    with pytest.raises(FedraxError, match="ended 5 times without finishing a round") as caught:
        said.extend(text for words in serving.supervised(tmp_path, tmp_path, {}) for text in words)
    assert "RuntimeError: a plugin's own mistake; the traceback is in" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(said) == serving.TRIES - 1
    assert (tmp_path / "error.txt").read_text().count("\nRuntimeError: a plugin's own mistake") == serving.TRIES


def test_a_second_node_with_the_same_data_is_refused_in_one_line(tmp_path, capsys):
    with lock.held(tmp_path / "data"):
        assert main(["node", "--data", str(tmp_path / "data")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "data is in use by process" in error
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".lock"]


def test_a_key_without_certificates_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "node-0").write_text("")
    assert main(["node", "--data", str(tmp_path / "data"), "--key", str(tmp_path / "node-0")]) == 1
    assert "give --certificates too" in capsys.readouterr().err


def test_what_a_killed_node_left_is_removed_by_its_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data = tmp_path / "data"
    left, others = tmp_path / "fedrax-left", tmp_path / "others"
    for folder in (left, others):
        folder.mkdir()
        (folder / "agent").touch()
    data.mkdir()
    (data / SOCKET_FOLDER).write_text(f"{left}\n")
    with socket_folder(data) as folder:
        assert not left.exists()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert (data / SOCKET_FOLDER).read_text() == f"{folder}\n"
    assert not folder.exists()
    # Nothing but such a folder is removed, whatever the file says.
    (data / SOCKET_FOLDER).write_text(f"{others}\n")
    with socket_folder(data):
        assert others.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"data", "others"}


@pytest.mark.parametrize("existed", [False, True])
def test_what_nodes_say_is_their_owners_to_read(tmp_path, existed):
    before = os.umask(0o022)
    try:
        files = [tmp_path / name for name in ("node.json", "error.txt", "some.log")]
        if existed:
            for path in files:
                path.write_text('{"name": "n"}\n')
        AgentService(tmp_path)
        append_traceback(tmp_path, raised(ValueError("shown")))
        with Watched([sys.executable, "-c", "print('said')"], tmp_path / "some.log", os.environ) as watched:
            watched.process.wait()
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600] * 3
    assert "said" in files[2].read_text()


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("256.256.256.256", False),
        ("10.0.0", False),
        ("1", False),
        ("10.0.0.1", True),
        ("1und1.de", True),
        ("::1", True),
    ],
)
def test_numbers_are_a_host_only_where_they_are_an_address(text, host):
    assert is_host(text) == host
