"""The page of `fedrax watch`: what it is told, by whom it may be asked, and how it ends."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from run_files import data, make_run, resumed, row, write

from fedrax.cli import main
from fedrax.errors import FedraxError
from fedrax.records import lock
from fedrax.records.metrics import MetricsWriter
from fedrax.records.refusals import REFUSALS, Refusal, Refusals
from fedrax.records.rundir import RunDirectory
from fedrax.watch import server as server_module
from fedrax.watch.runs import MOST_POINTS, Watched
from fedrax.watch.server import FILES, Server, hosts_of


@pytest.fixture
def served(tmp_path):
    """A function that serves a path and returns its server."""
    servers = []

    def serve(path: Path) -> Server:
        server = Server(Watched(path), 0)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        servers.append((server, thread))
        return server

    yield serve
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(server: Server, path: str, host: str | None = None, method: str = "GET", root: str | None = None):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    try:
        connection.request(
            method, (server.root if root is None else root) + path, headers={} if host is None else {"Host": host}
        )
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def test_the_page_gets_only_what_is_new(tmp_path):
    watched = Watched(make_run(tmp_path / "run", [row(0), row(1)], name="<b>run</b>"))
    first = data(watched)
    assert first["title"] == "<b>run</b>"
    assert first["columns"] == ["series", "rounds", "total_steps", "trajectories", "seconds", "return"]
    assert first["rows"] == [[0, 1, 100, None, None, 0], [0, 2, 200, None, None, 10]]
    write(tmp_path / "run", [row(2, **{"return": None})])
    then = data(watched, first["epoch"], first["next"])
    assert then["rows"] == [[0, 3, 300, None, None, None]]
    assert (then["from"], then["next"], then["total"]) == (2, 3, 3)
    assert data(watched, then["epoch"], then["next"])["rows"] == []


def test_a_line_that_is_half_written_waits_for_the_rest(tmp_path):
    run = make_run(tmp_path / "run", [row(0)])
    watched = Watched(run)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"seed": 0, "round": 1, "ret')
    assert data(watched)["total"] == 1
    with open(run / "metrics.jsonl", "a") as file:
        file.write('urn": 7.5}\n')
    assert data(watched)["rows"][-1] == [0, 2, None, None, None, 7.5]


def test_a_resumed_run_is_read_anew(tmp_path):
    run = make_run(tmp_path / "run", [row(0), row(1), row(2)])
    watched = Watched(run)
    first = data(watched)
    resumed(run, [row(0), row(1, **{"return": 99.0})])
    then = data(watched, first["epoch"], first["next"])
    assert then["epoch"] != first["epoch"]
    assert [each[-1] for each in then["rows"]] == [0, 99]
    assert then["from"] == 0


def test_a_file_of_the_same_number_is_another_where_its_rows_are(tmp_path):
    """The first one's number is free once it is gone."""
    run = make_run(tmp_path / "run", [row(0), row(1)])
    watched = Watched(run)
    first = data(watched)
    write(run, [row(0), row(1, **{"return": 98765.0}), row(2)], "w")
    then = data(watched, first["epoch"], first["next"])
    assert [each[-1] for each in then["rows"]] == [0, 98765, 20]


def test_the_evaluation_at_the_end_is_the_curves_last_point(tmp_path):
    run = make_run(tmp_path / "run", [row(0), {"seed": 0, "round": 1, "total_steps": 200}], rounds=2)
    watched = Watched(run)
    assert data(watched)["rows"] == [[0, 1, 100, None, None, 0.0], [0, 2, 200, None, None, None]]
    with MetricsWriter(RunDirectory(run), 2) as writer:
        writer.finish({0: {"return": 7.5}})
    assert [point[-1] for point in data(watched)["rows"]] == [0.0, 7.5]


def test_where_a_run_is(tmp_path):
    run = make_run(
        tmp_path / "run", [row(number, seed, seconds=6.0) for number in range(3) for seed in (0, 1)], seeds=2
    )
    watched = Watched(run)
    with lock.held(run):
        # A lock of this process's own is one of another's to who opens the file once more.
        series = data(watched)["series"]
    assert [(one["group"], one["state"], one["rounds"]) for one in series] == [
        ("seed 0", "training", 3),
        ("seed 1", "training", 3),
    ]
    assert series[1]["fraction"] == 0.3
    assert series[1]["left"] == pytest.approx(14.0)
    assert (series[1]["last_return"], series[1]["best_return"]) == (21.0, 21.0)
    assert data(watched)["series"][0]["state"] == "stopped"
    (run / "summary.json").write_text("{}")
    last = data(watched)["series"][0]
    assert (last["state"], last["fraction"], last["left"]) == ("finished", 1.0, None)


def test_a_run_without_rows_is_there(tmp_path):
    series = data(Watched(make_run(tmp_path / "run", seeds=3)))["series"]
    assert [(one["group"], one["fraction"], one["last_return"]) for one in series] == [
        (f"seed {seed}", 0.0, None) for seed in range(3)
    ]


def test_a_sweep_is_shown_by_setup(tmp_path):
    for setup in ("plain", "robust"):
        for seed in (0, 1):
            make_run(tmp_path / setup / f"seed-{seed}", [row(0, seed)])
    jobs = [{"run": str(tmp_path / "robust" / "seed-1"), "state": "failed"}]
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    watched = Watched(tmp_path)
    found = data(watched)
    assert [(one["group"], one["seed"], one["state"]) for one in found["series"]] == [
        ("plain", 0, "stopped"),
        ("plain", 1, "stopped"),
        ("robust", 0, "stopped"),
        ("robust", 1, "failed"),
    ]
    # A run that starts later joins without what was handed out changing.
    make_run(tmp_path / "robust" / "seed-2", [row(0, 2)])
    then = data(watched, found["epoch"], found["next"])
    assert then["epoch"] == found["epoch"]
    assert then["rows"] == [[4, 1, 100, None, None, 2]]


def test_attendance_of_a_federation(tmp_path):
    run = make_run(tmp_path / "run", [row(0)])
    outcomes = ["answered", "late", "answered", "paused"]
    lines = [
        {"round": number, "agent": 1, "outcome": outcome, "seconds": 1.5, "work_seconds": 1.0, "bytes_up": 10}
        | {"bytes_down": 20, "reason": "<i>slow</i>" if outcome == "late" else ""}
        for number, outcome in enumerate(outcomes)
    ]
    # Rounds since a checkpoint are done again.
    again = [{**lines[1], "outcome": "answered"}]
    (run / "exchanges.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, *again]))
    (agent,) = data(Watched(run))["attendance"]
    assert (agent["agent"], agent["asked"], agent["answered"], agent["missed"]) == (1, 4, 3, 1)
    assert agent["site"] == ""
    (run / "members.json").write_text(json.dumps({"1": {"node": "0123456789", "key": "k", "address": 7}}))
    assert data(Watched(run))["attendance"][0]["site"] == "01234567"
    (run / "keys.json").write_text(json.dumps({"k": "node-0"}))
    assert data(Watched(run))["attendance"][0]["site"] == "node-0"
    assert data(Watched(run))["refused"] == []
    Refusals(run / REFUSALS).add(7, "", Refusal("<i>other</i> shapes", "node-1", "0123456789", 2))
    assert data(Watched(run))["refused"] == ["waits: node node-1, to be agent 2: <i>other</i> shapes"]
    (run / "members.json").write_text("[")
    assert data(Watched(run))["attendance"][0]["site"] == ""


def test_long_runs_come_in_pieces(tmp_path):
    run = make_run(tmp_path / "run", [row(number) for number in range(MOST_POINTS + 5)])
    watched = Watched(run)
    first = data(watched)
    assert (len(first["rows"]), first["total"]) == (MOST_POINTS, MOST_POINTS + 5)
    assert len(data(watched, first["epoch"], first["next"])["rows"]) == 5


def test_the_server_has_its_own_paths_alone(served, tmp_path):
    server = served(make_run(tmp_path / "run", [row(0)]))
    for path in FILES:
        status, headers, content = ask(server, path)
        assert (status, bool(content)) == (200, True)
        assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert json.loads(ask(server, "data?y=return&epoch=0&from=0")[2])["total"] == 1
    for path in ("page.py", "../config.toml", "/etc/passwd", "%2e%2e/config.toml", "data/"):
        assert ask(server, path)[0] == 404
    assert ask(server, "data?from=x")[0] == 400
    assert ask(server, "", method="POST")[0] == 501


def test_only_who_knows_the_token_is_answered(served, tmp_path):
    """Other users of the machine can reach the port, and know its number."""
    server = served(make_run(tmp_path / "run", [row(0)]))
    right = server.root
    other = "y" if right[1] == "x" else "x"
    for path in ("/", "/data", "//", f"{right[:-2]}/", f"/{other}{right[2:]}data", right.rstrip("/") + "x/data"):
        assert ask(server, path, root="")[0] == 404
    assert server.url.endswith(right)
    assert len(right) > 20


def test_a_run_that_can_no_longer_be_read_says_why(served, tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "REFRESH_SECONDS", 0.0)
    run = make_run(tmp_path / "run", [row(0)])
    server = served(run)
    assert ask(server, "data")[0] == 200
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text("name = \n")
    resumed(run, [row(0), row(1)])
    for _ in range(2):
        status, _, content = ask(server, "data")
        assert (status, b"config.toml cannot be read" in content) == (503, True)
    (run / "config.toml").write_text(text)
    assert json.loads(ask(server, "data")[2])["total"] == 2


def test_runs_that_were_evaluated_differently_share_no_chart(tmp_path):
    for name, where in (("a", "registered"), ("b", "own"), ("c", "own")):
        config = make_run(tmp_path / name, [row(0)]) / "config.toml"
        config.write_text(
            f"{config.read_text()}[environment.heterogeneity]\nlength = [0.5, 1.0]\n"
            f'[evaluation]\nenvironments = "{where}"\n'
        )
    found = data(Watched(tmp_path))
    assert [one["part"] for one in found["series"]] == [0, 1, 1]
    assert found["parts"] == ["evaluation.environments = registered", "evaluation.environments = own"]
    assert data(Watched(tmp_path / "a"))["parts"] == [""]


def test_port_80_is_named_by_no_number():
    assert hosts_of(80) == {"localhost", "127.0.0.1", "localhost:80", "127.0.0.1:80"}
    assert hosts_of(8080) == {"localhost:8080", "127.0.0.1:8080"}


def test_strangers_names_are_refused(served, tmp_path):
    server = served(make_run(tmp_path / "run", [row(0)]))
    port = server.server_port
    for host in (f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", f"127.0.0.1.evil.example:{port}", ""):
        assert ask(server, "data", host)[0] == 421
    assert ask(server, "data", f"localhost:{port}")[0] == 200
    assert server.server_address[0] == "127.0.0.1"


def test_nothing_of_the_page_comes_from_elsewhere():
    from importlib import resources

    page = (resources.files("fedrax.watch") / "page" / "index.html").read_text()
    script = (resources.files("fedrax.watch") / "page" / "page.js").read_text()
    assert "http:" not in page + script
    assert "https:" not in page + script
    assert "innerHTML" not in script


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{path}/nothing"], "there is no run at"),
        (["{path}"], "holds no run, and no folder with runs"),
        (["{path}/run", "--port", "70000"], "--port 70000 is not allowed"),
        (["{path}/torn"], "cannot be read"),
    ],
)
def test_what_cannot_be_watched_is_one_line(tmp_path, capsys, arguments, told):
    if "run" in arguments[0]:
        make_run(tmp_path / "run")
    if "torn" in arguments[0]:
        make_run(tmp_path / "torn")
        (tmp_path / "torn" / "config.toml").write_text("name = \n")
    assert main(["watch", *(word.format(path=tmp_path) for word in arguments)]) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_port_that_is_taken_is_said(tmp_path):
    make_run(tmp_path / "run")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(
            FedraxError, match=r"cannot listen on 127\.0\.0\.1:\d+: Address already in use; give another"
        ):
            Server(Watched(tmp_path / "run"), other.getsockname()[1])


def test_a_signal_ends_it(tmp_path):
    make_run(tmp_path / "run", [row(0)])
    command = [sys.executable, "-m", "fedrax.cli", "watch", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "http://127.0.0.1:" in process.stdout.readline()
        try:
            # As Ctrl-C, which is ignored where whoever runs the tests ignores it.
            process.terminate()
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, error) == (128 + signal.SIGTERM, "fedrax: interrupted\n")


def test_nothing_that_computes_or_draws_is_imported():
    code = (
        "import sys; import fedrax.watch.server; sys.exit({'jax', 'matplotlib', 'numpy'} & set(sys.modules) != set())"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_a_browser_draws_it(served, tmp_path):
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("there is no chromium")
    server = served(make_run(tmp_path / "run", [row(number) for number in range(5)], name="<b>mine</b>"))
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"),
            *("--virtual-time-budget=3000", server.url),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert '<h1 id="title">&lt;b&gt;mine&lt;/b&gt;</h1>' in done.stdout
    assert done.stdout.count("<canvas") == 1
    assert "50 %" in done.stdout
    assert "CONSOLE" not in done.stderr
