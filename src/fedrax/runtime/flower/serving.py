"""``fedrax server``: a SuperLink, the run on it, and whatever it takes to keep both going."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from fedrax.config import Config, resolve
from fedrax.errors import FedraxError
from fedrax.records.files import write_json
from fedrax.records.lock import held, holder
from fedrax.records.rundir import RunDirectory, default_directory
from fedrax.records.sites import KEYS
from fedrax.records.summary import read_summary
from fedrax.runtime.continuation import continued, move_plugins
from fedrax.runtime.distributed.allowed import check_distributed
from fedrax.runtime.distributed.screening import largest_answer
from fedrax.runtime.flower.app import LASTING, write_app
from fedrax.runtime.flower.deaths import Deaths
from fedrax.runtime.flower.endpoint import AUTHORITY, CERTIFICATE, KEY, NODES, Endpoint, split_address
from fedrax.runtime.flower.guard import LIMIT, PARTS
from fedrax.runtime.flower.health import await_health, check_free
from fedrax.runtime.flower.identity import BYTES, SECRET
from fedrax.runtime.flower.processes import Watched, environment, flower_command, guarded_command, patched_command
from fedrax.runtime.flower.run_lock import LOCK, LOG, REFUSED_PARTS, WHY, Tail, gets_free, is_held, last_held
from fedrax.runtime.flower.status import Board
from fedrax.runtime.make import make_runtime
from fedrax.wording import counted

HEALTH_SECONDS = 60.0
START_SECONDS = 120.0
"""How long a submitted run may take until its server holds the run directory."""
LOOK_SECONDS = 0.2
TRIES = 5
"""Submissions in a row that may fail without a round in between."""
BESIDE_ARRAYS = 1 << 16
"""Bytes of a request beside the arrays in it: a node's words, and what Flower adds."""
EXECUTION_LOG = "superexec.log"
"""Of what starts the server's process, and of that process."""
CONNECTION = "fedrax"
"""What Flower's configuration calls the SuperLink."""


def prepared(
    source: str | Path | Mapping[str, Any] | None,
    overrides: Iterable[str],
    out: Path | None,
    *,
    plugins: Iterable[str] = (),
) -> RunDirectory:
    """The run's directory with its configuration in it: a new one, or the one in ``out`` that is to be resumed.

    ``plugins`` are more of them; those of a run that goes on are now where these say.

    Raises:
        FedraxError: a configuration that cannot run on nodes, a directory that cannot be used, or overrides that would
            make another experiment of the run that is there.
    """
    if out is not None and (out / "config.toml").is_file():
        directory = RunDirectory.open(out)
        with held(directory.path):
            move_plugins(directory, plugins)
            continued(directory, overrides)
        return directory
    config = resolve(source, [*overrides, "runtime=flower"], plugins=plugins)
    runtime = make_runtime(config, agents=False)
    runtime.close()
    check_distributed(config, runtime.federation)
    directory = RunDirectory.create(out or default_directory(config.name))
    with held(directory.path):
        directory.check_new()
        directory.write_config(config.to_toml())
    return directory


def serve(
    directory: RunDirectory,
    endpoint: Endpoint,
    *,
    progress: bool,
    ready: Callable[[], None] = lambda: None,
    meanwhile: Callable[[], list[str]] = list,
) -> None:
    """Trains the run in ``directory`` to its end, whatever dies meanwhile.

    Args:
        endpoint: of its SuperLink.
        progress: show who answers, live.
        ready: called once nodes can connect.
        meanwhile: called all the time from then on; what it says is shown.

    Raises:
        FedraxError: the run stopped for a reason that a person must mend, or the SuperLink at the endpoint is not the
            one that this started.
    """
    endpoint.check()
    config = resolve(directory.config)
    folder = directory.path.resolve()
    flower = folder / "flower"
    flower.mkdir(exist_ok=True)
    variables = environment(flower)
    bounded = {**variables, LIMIT: str(largest_request(config)), PARTS: str(flower / REFUSED_PARTS)}
    (folder / WHY).unlink(missing_ok=True)
    (flower / REFUSED_PARTS).unlink(missing_ok=True)
    secret = secrets.token_hex(BYTES)
    with contextlib.ExitStack() as stack:
        if not gets_free(folder):
            raise FedraxError(f"{folder} is in use by {holder(folder / LOCK)}; wait for it or end it")
        check_free(endpoint.address)
        # It says what is trained: what follows takes seconds, and more for each key.
        board = stack.enter_context(Board(folder, config, enabled=progress))
        command = superlink_command(endpoint, flower, config)
        link = stack.enter_context(Watched(command, flower / "superlink.log", bounded | {SECRET: secret}))
        await_health(endpoint.address, endpoint.authority, HEALTH_SECONDS, secret)
        execution = stack.enter_context(Watched(superexec_command(endpoint), flower / EXECUTION_LOG, variables))
        connect(endpoint, flower)
        keys = names_of_keys(endpoint)
        if keys:
            board.note(f"registering {counted(len(keys), 'key')} of nodes, which cannot connect before")
        register(endpoint, variables)
        write_json(folder / KEYS, keys, private=True)
        settings = {"preset": str(folder / "config.toml"), "directory": str(folder)}
        app = write_app(flower / "app", settings | {"keys": "" if endpoint.certificates is None else LASTING})
        board.note(f"nodes can connect to {endpoint.address}; the run is in {directory.path}")
        ready()
        tail = Tail(folder / LOG)
        known = link.starts
        for words in supervised(folder, app, variables):
            for text in [*(each.watch() or "" for each in (link, execution)), *meanwhile(), *words, *tail.lines()]:
                if text:
                    board.note(text)
            if link.starts != known:
                # A SuperLink that keeps its state in memory comes back without the nodes' keys.
                await_health(endpoint.address, endpoint.authority, HEALTH_SECONDS, secret)
                register(endpoint, variables)
                known = link.starts
            board.refresh()
            time.sleep(LOOK_SECONDS)
        board.note(ended_text(directory))
    why = folder / WHY
    if why.exists():
        raise FedraxError(why.read_text(encoding="utf-8").strip())


def ended_text(directory: RunDirectory) -> str:
    """What is said before the run's processes are stopped, which takes seconds."""
    if not directory.summary.exists():
        return "the run has ended; its processes are being stopped"
    summary = read_summary(directory)
    values = f"return {summary['final_return']:.4g}, best {summary['best_return']:.4g}"
    return f"the run is over after {counted(summary['rounds'], 'round')}: {values}; its processes are being stopped"


def largest_request(config: Config) -> int:
    """Bytes of the longest request that a node of the run has reason to send."""
    runtime = make_runtime(config, agents=False)
    try:
        return largest_answer(config, runtime.federation) + BESIDE_ARRAYS
    finally:
        runtime.close()


def supervised(folder: Path, app: Path, variables: dict[str, str]) -> Iterator[list[str]]:
    """Submits the run, and again whenever its server died; ends when the run has, or has said why it cannot.

    Yields what to tell people, again and again while it waits.

    Raises:
        FedraxError: it cannot be submitted, or dies again and again without a round.
    """
    fruitless, rounds = 0, rounds_done(folder)
    deaths = Deaths(folder, folder / "flower" / EXECUTION_LOG)
    while True:
        before = last_held(folder)
        submit(app, variables)
        submitted = time.monotonic()
        started = False
        while not _ended(folder):
            # In this order: a server may come and go between two looks.
            started = started or last_held(folder) not in (None, before)
            alive = is_held(folder)
            if started and not alive:
                break
            started = started or alive
            if not started and time.monotonic() - submitted > START_SECONDS:
                break
            yield []
        # The last moments: a server writes its summary, or why it stopped, before it lets go of the run.
        if _ended(folder):
            yield []
            return
        fruitless = fruitless + 1 if rounds_done(folder) == rounds else 1
        rounds = rounds_done(folder)
        why = deaths.why()
        if fruitless >= TRIES:
            raise FedraxError(
                f"the server ended {TRIES} times without finishing a round; the last time: {why}; mend it, and start "
                "`fedrax server` with the same --out again"
            )
        yield [f"the server ended: {why}; it is started again, from the last checkpoint"]


def _ended(folder: Path) -> bool:
    return not is_held(folder) and ((folder / "summary.json").exists() or (folder / WHY).exists())


def rounds_done(folder: Path) -> int:
    """Rounds that are safe in a checkpoint."""
    from fedrax.records.checkpoint import latest_round

    return latest_round(folder / "checkpoints") or 0


def superlink_command(endpoint: Endpoint, folder: Path, config: Config) -> list[str]:
    """Flower's SuperLink. Its state is kept in a file, so that nodes and the run outlive it, unless the run is fast."""
    host, port = split_address(endpoint.address)
    command = patched_command("superlink") if config.runtime.flower.fast else guarded_command("superlink")
    command += ["--host", host, "--port", str(port), "--isolation", "process"]
    command += ["--disable-runtime-dependency-installation"]
    if not config.runtime.flower.fast:
        command += ["--database", str(folder / "superlink.db")]
    if endpoint.certificates is None:
        return [*command, "--insecure"]
    names = {"--ssl-ca-certfile": AUTHORITY, "--ssl-certfile": CERTIFICATE, "--ssl-keyfile": KEY}
    for flag, name in names.items():
        command += [flag, str((endpoint.certificates / name).resolve())]
    return [*command, "--enable-supernode-auth"]


def superexec_command(endpoint: Endpoint) -> list[str]:
    """What starts the server's process; apart from the SuperLink, so that it outlives that."""
    command = [flower_command("flower-superexec"), "--runtime-api-address", endpoint.address]
    return (
        [*command, "--insecure"]
        if endpoint.authority is None
        else [*command, "--root-certificates", str(endpoint.authority)]
    )


def connect(endpoint: Endpoint, folder: Path) -> None:
    """Writes where Flower's own command line finds the SuperLink."""
    settings: dict[str, object] = {"address": endpoint.address}
    settings |= {"insecure": True} if endpoint.authority is None else {"root-certificates": str(endpoint.authority)}
    (folder / "config.toml").write_text(
        tomli_w.dumps({"superlink": {"default": CONNECTION, CONNECTION: settings}}), encoding="utf-8"
    )


def register(endpoint: Endpoint, variables: dict[str, str]) -> None:
    """Registers the nodes' public keys with the SuperLink, each once; a node with another key is refused."""
    if endpoint.certificates is None:
        return
    for key in sorted((endpoint.certificates / NODES).glob("*.pub")):
        done = flwr(["supernode", "register", str(key.resolve()), CONNECTION], variables)
        if done.returncode and "already" not in (done.stdout + done.stderr).lower():
            raise FedraxError(f"the SuperLink does not take the key {key}: {last_line(done)}")


def names_of_keys(endpoint: Endpoint) -> dict[str, str]:
    """The names of the nodes' public keys, without ``.pub``, by the digest of what the SuperLink knows a key as.

    Raises:
        FedraxError: a file is none.
    """
    if endpoint.certificates is None:
        return {}
    pem, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    names = {}
    for path in sorted((endpoint.certificates / NODES).glob("*.pub")):
        try:
            key = serialization.load_ssh_public_key(path.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm):
            raise FedraxError(f"{path} is no public key: give a node's, as `fedrax certificates` makes") from None
        names[hashlib.sha256(key.public_bytes(pem, form)).hexdigest()] = path.stem
    return names


def submit(app: Path, variables: dict[str, str]) -> None:
    """Starts the run on the SuperLink.

    Raises:
        FedraxError: Flower does not take it.
    """
    done = flwr(["run", str(app), CONNECTION, "--format", "json"], variables)
    try:
        accepted = done.returncode == 0 and bool(json.loads(done.stdout).get("success", True))
    except ValueError:
        accepted = False
    if not accepted:
        raise FedraxError(f"Flower does not take the run: {last_line(done)}")


def flwr(arguments: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Flower's command line."""
    return subprocess.run(
        [flower_command("flwr"), *arguments],
        env=variables,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        timeout=120,
    )


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a command said last."""
    lines = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"status {done.returncode}"
