"""``flwr run`` as a user of Flower types it, in a fresh environment with this package's wheel.

pip gets what the wheel needs, 1.3 GB, from where it is configured to; nothing of the runs reaches beyond the loopback.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedrax.runtime.flower.processes import free_port
from fedrax.supervision import start, stop_all

from harness import descendants

PROJECT = Path(__file__).parents[2]
SMALL = [
    *("federation.agents=2", "budget.rounds=2", "budget.trajectories=none", "strategy.batch_min=2"),
    *("strategy.batch_max=4", "environment.horizon=40", "evaluation.episodes=2"),
]
CONNECTIONS = """[superlink]
default = "local"
[superlink.local]
address = ":local:"
[superlink.deployment]
address = "{address}"
insecure = true
"""


class Fresh:
    """A new virtual environment that holds this package's wheel, and a new user's home."""

    def __init__(self, folder: Path):
        self.folder, self.address = folder, f"127.0.0.1:{free_port()}"
        python = [sys.executable, "-m"]
        source = folder / "source"
        shutil.copytree(PROJECT / "src", source / "src")
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(PROJECT / name, source)
        subprocess.run([*python, "pip", "wheel", "-q", "--no-deps", "-w", folder, source], check=True)
        subprocess.run([*python, "venv", folder / "venv"], check=True)
        (wheel,) = folder.glob("fedrax-*.whl")
        self.bin = folder / "venv" / "bin"
        subprocess.run([self.bin / "python", "-m", "pip", "install", "-q", f"{wheel}[flower-simulation]"], check=True)
        self.variables = {
            **{name: os.environ[name] for name in ("JAX_COMPILATION_CACHE_DIR",) if name in os.environ},
            "HOME": str(folder),
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),
            # What docs/federation.md says to set where there is no network.
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        (folder / ".flwr").mkdir()
        (folder / ".flwr" / "config.toml").write_text(CONNECTIONS.format(address=self.address))

    def __call__(self, *words: str, seconds: float = 400) -> str:
        """What a command says that succeeds."""
        done = subprocess.run(
            [self.bin / words[0], *words[1:]],
            cwd=self.folder,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=seconds,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def finished(self, connection: str) -> None:
        """Asserts that Flower says that its last run has completed."""
        listed = json.loads(self("flwr", "list", connection, "--format", "json"))
        assert [run["status"] for run in listed.get("runs", ())] == ["finished:completed"], listed


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    return Fresh(tmp_path_factory.mktemp("fresh"))


def trained(folder: Path) -> None:
    assert json.loads((folder / "summary.json").read_text())["rounds"] == 2
    rows = [json.loads(line) for line in (folder / "exchanges.jsonl").read_text().splitlines()]
    assert [(row["round"], row["agent"], row["outcome"]) for row in rows] == [
        (number, agent, "answered") for number in range(2) for agent in range(2)
    ]


@pytest.mark.slow
def test_flwr_run_in_a_fresh_environment(fresh):
    """One test: what takes long is the environment."""
    fresh("fedrax", "deploy", "fedpg-br/cartpole", *SMALL, "--app", "site")
    simulated(fresh)
    deployed(fresh)


def simulated(fresh):
    federation = "num-supernodes=2 client-resources-num-cpus=1"
    directory = fresh.folder / "simulated"
    before = {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()}
    try:
        words = ["flwr", "run", "site", "local", "--stream", "--federation-config", federation]
        said = fresh(*words, "--run-config", f'directory="{directory}" nodes="{fresh.folder / "simulated-nodes"}"')
        assert f"the run is in {directory}" in said, said
        assert "os.fork" not in said, said
        assert "round 2/2" in said, said
        fresh.finished("local")
        trained(directory)
    finally:
        # Flower leaves it running for the next `flwr run`.
        for pid in local_superlinks(fresh, before):
            for each in [pid, *descendants(pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGTERM)


def local_superlinks(fresh, before):
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and int(path.name) not in before:
            with contextlib.suppress(OSError):
                words = (path / "cmdline").read_bytes().decode().split("\0")
                if str(fresh.bin / "flower-superlink") in words:
                    yield int(path.name)


def deployed(fresh):
    """On Flower's own SuperLink; an agent of ``fedrax node``, and one in Flower's own SuperNode."""
    host, port = fresh.address.split(":")
    logs = fresh.folder / "logs"
    logs.mkdir()
    commands = {
        "superlink": ["flower-superlink", "--insecure", "--host", host, "--port", port],
        "node": ["fedrax", "node", "--superlink", fresh.address, "--agent", "0", "--data", str(logs / "node-0")],
        "supernode": [
            *("flower-supernode", "--insecure", "--superlink", fresh.address, "--port", str(free_port())),
            *("--node-config", "partition-id=1 num-partitions=2"),
        ],
    }
    directory = fresh.folder / "deployed"
    processes = []
    try:
        for name, (command, *words) in commands.items():
            line = [str(fresh.bin / command), *words]
            processes.append(start(name, line, logs / f"{name}.log", fresh.variables))
        wait_for(lambda: "connected" in (logs / "node.log").read_text(), 120)
        said = fresh(
            *("flwr", "run", "site", "deployment", "--stream", "--run-config"),
            f'directory="{directory}" nodes="{fresh.folder / "deployed-nodes"}"',
        )
        assert "round 2/2" in said, said
        fresh.finished("deployment")
        trained(directory)
    finally:
        stop_all(processes, ((signal.SIGTERM, 10.0),))


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)
