"""Federations of real processes on the loopback: started, killed, frozen and looked at."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fedrax.runtime.distributed.membership import Membership
from fedrax.runtime.flower.certificates import make_certificates
from fedrax.runtime.flower.processes import free_port
from fedrax.supervision import Process, start

SMALL = [
    *("fedpg-br/cartpole", "budget.trajectories=none", "strategy.batch_min=2", "strategy.batch_max=4"),
    *("environment.horizon=40", "evaluation.episodes=2", "runtime.flower.gather=300"),
]

CLI = (sys.executable, "-m", "fedrax.cli")


class Federation:
    """A server and its nodes, each a command of the command line; a context manager that ends them all."""

    def __init__(
        self,
        folder: Path,
        *settings: str,
        small: Sequence[str] = SMALL,
        nodes: int = 2,
        secure: bool = True,
        fast: bool = True,
        host="127.0.0.1",
    ):
        self.folder, self.run = folder, folder / "run"
        self.count, self.fast = nodes, fast
        self.settings = [*small, f"federation.agents={nodes}", f"runtime.flower.fast={str(fast).lower()}", *settings]
        self.address = f"{host}:{free_port()}"
        self.certificates = folder / "certificates" if secure else None
        if secure:
            make_certificates(self.certificates, [host], nodes)
        self.processes: dict[str, Process] = {}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for name in list(self.processes):
            self.kill(name)

    def start_all(self):
        self.start_server()
        for node in range(self.count):
            self.start_node(node)
        return self

    def start_server(self, *more: str):
        command = ["server", *self.settings, "--out", str(self.run), *self.where(), *more]
        if (self.run / "config.toml").exists():
            command = ["server", self.settings[0], "--out", str(self.run), *self.where()]
        self.start("server", command)

    def start_node(self, node: int, *more: str, name: str | None = None, key: Path | None = None):
        name = name or f"node-{node}"
        command = ["node", "--data", str(self.folder / name), "--agent", str(node), *self.where(), *more]
        if self.certificates is not None:
            command += ["--key", str(key or self.certificates / "nodes" / f"node-{node}")]
        shared = ["--shared-seeds"] if "runtime.shared_seeds=true" in self.settings else []
        self.start(name, [*command, *shared, *(["--fast"] if self.fast else [])])

    def where(self) -> list[str]:
        secure = [] if self.certificates is None else ["--certificates", str(self.certificates)]
        return ["--superlink", self.address, *secure]

    def start(self, name: str, arguments: list[str], command: tuple[str, ...] = CLI):
        self.processes[name] = start(name, [*command, *arguments], self.folder / f"{name}.out", os.environ)

    def kill(self, name: str, number: int = signal.SIGKILL):
        """Kills a command, and all it started with it, as when a machine loses power."""
        process = self.processes.pop(name)
        family = [process.pid, *descendants(process.pid)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        process.wait(30)

    def part_of(self, name: str, words: str) -> int:
        """The process that a command started whose own command line contains these words."""
        for pid in descendants(self.processes[name].pid):
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                if words in line and "parent_death" not in line:
                    return pid
        raise AssertionError(f"{name} has no process {words!r}")

    def exchanges(self) -> list[dict]:
        path = self.run / "exchanges.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]

    def rounds(self) -> int:
        return max((row["round"] for row in self.exchanges()), default=-1) + 1

    def outcomes(self, agent: int) -> list[str]:
        return [row["outcome"] for row in self.exchanges() if row["agent"] == agent]

    def metrics(self) -> list[dict]:
        lines = (self.run / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines if line.endswith("}")]
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

    def until(self, condition, seconds: float = 180.0, what: str = "it"):
        """Waits for something to become true."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} did not happen within {seconds:g} s\n{self.logs()}")
            time.sleep(0.1)

    def until_round(self, number: int, seconds: float = 180.0):
        self.until(lambda: self.rounds() >= number, seconds, f"round {number}")

    def finish(self, seconds: float = 240.0) -> int:
        """The server's exit status, when it has ended."""
        try:
            return self.processes["server"].wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server did not end within {seconds:g} s\n{self.logs()}") from None

    def said(self, name: str = "server") -> str:
        return (self.folder / f"{name}.out").read_text()

    def note(self) -> str:
        path = self.run / "federation.log"
        return path.read_text() if path.exists() else ""

    def logs(self) -> str:
        files = [
            *sorted(self.folder.glob("*.out")),
            *sorted(self.folder.glob("*/*.log")),
            *self.run.glob("flower/*.log"),
        ]
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-1500:]}" for file in files)

    def account(self) -> dict[str, int]:
        """What a fault has cost by now: answers that did not come in time, rounds begun anew, results that are gone."""
        recorded = [row["round"] for row in self.metrics()]
        lost = recorded[-1] + 1 - len(set(recorded))
        assert lost == 0, f"{lost} results are lost"
        rows = [row for row in self.exchanges() if row["round"] <= recorded[-1]]
        answered = {(row["round"], row["agent"]) for row in rows if row["outcome"] == "answered"}
        return {
            "rounds": len(recorded),
            "answers_lost": self.count * len(recorded) - len(answered),
            "rounds_begun_anew": len(rows) // self.count - len(recorded),
            "results_lost": lost,
        }

    def membership(self) -> Membership:
        return Membership(self.count, self.run / "members.json")


def descendants(pid: int) -> list[int]:
    """All processes that a process started, and those that these started."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        for child in parents.get(todo.pop(), []):
            found.append(child)
            todo.append(child)
    return found
