"""What deploy/ holds: its commands are ones that this version knows, and its files are what their programs take."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from fedrax.cli import parsed
from fedrax.config import resolve
from fedrax.runtime.flower.endpoint import AUTHORITY, CERTIFICATE, KEY, Endpoint

PROJECT = Path(__file__).parent.parent
DEPLOY = PROJECT / "deploy"
COMPOSE = {path.name: yaml.safe_load(path.read_text()) for path in sorted((DEPLOY / "docker").glob("*.yaml"))}
SERVICES = [(name, service) for name, table in COMPOSE.items() for service in table["services"]]
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
SCRIPTS = sorted((DEPLOY / "slurm").glob("*.sbatch"))
PAGES = [PROJECT / "docs" / name for name in ("deployment.md", "federation.md", "flower-users.md")]
VARIABLES = {"FEDRAX_SERVER": "server.example.org:9092"}


def expanded(text):
    """As Compose replaces ``${NAME:?why}``."""
    return re.sub(r"\$\{(\w+)[^}]*\}", lambda found: VARIABLES.get(found[1], "1"), text)


def fedrax_commands():
    for name, service in SERVICES:
        yield f"{name}: {service}", shlex.split(expanded(COMPOSE[name]["services"][service]["command"]))
    for unit in UNITS:
        (line,) = re.findall("^ExecStart=/opt/fedrax/bin/fedrax (.*)", unit.read_text(), re.MULTILINE)
        yield unit.name, shlex.split(line.replace("%i", "0"))
    for page in PAGES:
        for block in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL):
            for line in re.findall(r"^(?:/opt/fedrax/bin/)?fedrax (.*)", block, re.MULTILINE):
                yield f"{page.name}: {line}", shlex.split(line, comments=True)
            for line in re.findall(r"^sbatch deploy/slurm/train.sbatch (.*)", block, re.MULTILINE):
                out, *words = shlex.split(line)
                yield f"{page.name}: {line}", ["train", *words, "--out", out] if words else ["resume", out]


COMMANDS = dict(fedrax_commands())


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS.keys())
def test_every_command_is_one(words):
    options = parsed(words)
    # A page's plugin is its own test's (test_flower_users_page.py).
    if words[0] in ("train", "server", "deploy") and not any("plugins=" in word for word in words):
        resolve(options.source, options.overrides)
    if words[0] in ("server", "node") and options.superlink != parsed(["node"]).superlink:
        assert options.certificates is not None, "the network may listen"


@pytest.mark.parametrize(("name", "service"), SERVICES)
def test_services_have_few_rights_and_find_their_certificates(name, service):
    table = COMPOSE[name]["services"][service]
    assert table["read_only"]
    assert table["cap_drop"] == ["ALL"]
    assert table["security_opt"] == ["no-new-privileges:true"]
    assert table["user"].startswith("${FEDRAX_USER:?")
    mounts = dict(each.split(":")[1::-1] for each in table["volumes"])
    options = parsed(shlex.split(expanded(table["command"])))
    if hasattr(options, "superlink"):
        folder = str(options.certificates)
        kept = options.data if hasattr(options, "data") else options.out
        assert any(str(kept).startswith(f"{place}/") for place in mounts), "what is kept is mounted"
        assert f"{folder}/{AUTHORITY}" in mounts
        assert not {folder, f"{folder}/nodes"} & set(mounts), "nobody sees all keys"
    if hasattr(options, "key"):
        assert mounts[f"{folder}/nodes/{options.key}"].endswith(f"/{options.key}")
        assert len([place for place in mounts if place.startswith(folder)]) == 2, "it sees no other's key"


def test_the_compose_files_server_and_nodes_are_one_federation():
    services = COMPOSE["compose.yaml"]["services"]
    server = parsed(shlex.split(services["server"]["command"]))
    nodes = [parsed(shlex.split(services[name]["command"])) for name in services if name.startswith("node-")]
    made = parsed(shlex.split(services["certificates"]["command"]))
    host, _, port = server.superlink.partition(":")
    assert host == "server", "the service's name is its address"
    assert host in made.host
    assert {node.superlink for node in nodes} == {server.superlink}
    assert len({node.key for node in nodes}) == len(nodes) == made.nodes
    assert resolve(server.source, server.overrides).federation.agents == len(nodes)
    files = (AUTHORITY, CERTIFICATE, KEY, *(f"nodes/{node.key}.pub" for node in nodes))
    seen = [each for each in services["server"]["volumes"] if "certificates" in each]
    assert seen == [f"./certificates/{file}:{server.certificates}/{file}:ro" for file in files]
    assert services["server"]["restart"] == "on-failure:5", "what is refused is not tried for ever"
    assert f"https://{host}:{port}/health" in services["server"]["healthcheck"]["test"][-1]
    compile(services["server"]["healthcheck"]["test"][-1], "healthcheck", "exec")
    Endpoint(server.superlink, None)


def test_a_node_of_secure_sums_finds_its_peers():
    """What node.yaml and the page say to add for it."""
    told = (DEPLOY / "docker" / "node.yaml").read_text()
    (mount,) = re.findall(r"#   - (\./peers:\S+)", told)
    (added,) = re.findall(r"`(--peers \S+)`", told)
    command = expanded(COMPOSE["node.yaml"]["services"]["node"]["command"])
    assert str(parsed(shlex.split(f"{command} {added}")).peers) == mount.split(":")[1]
    page = (PROJECT / "docs" / "deployment.md").read_text()
    assert f"`{mount}`" in page
    assert f"`{added}`" in page


def test_units_are_users_of_their_own():
    texts = {unit.name: unit.read_text() for unit in UNITS}
    for text in texts.values():
        assert re.search("^StartLimitBurst=5$", text, re.MULTILINE), "what is refused is not tried for ever"
    users, folders = (
        {name: re.findall(pattern, text, re.MULTILINE) for name, text in texts.items()}
        for pattern in ("^User=(.*)", r"--certificates (\S+)")
    )
    assert users == {"fedrax-server.service": ["fedrax"], "fedrax-node@.service": ["fedrax-node-%i"]}
    assert folders == {"fedrax-server.service": ["/etc/fedrax"], "fedrax-node@.service": ["/etc/fedrax-node-%i"]}


def test_the_image_is_of_what_the_project_has():
    lines = (DEPLOY / "docker" / "Dockerfile").read_text().splitlines()
    for line in lines:
        if line.startswith("COPY") and "--from" not in line:
            for name in line.split()[1:-1]:
                assert (PROJECT / name).exists(), name
                assert f"!{name}" in (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    assert 'ENTRYPOINT ["fedrax"]' in lines
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_units(unit, tmp_path):
    path = tmp_path / unit.name.replace("@", "@0")
    path.write_text(unit.read_text().replace("/opt/fedrax/bin/fedrax", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if "fedrax" in line]) == (0, [])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_of_bash(script):
    subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", script], check=True)
    assert "--signal=B:USR1@" in script.read_text()


class Job:
    """A script of Slurm's as its node runs it, with stand-ins for ``fedrax`` and ``scontrol`` that note their words."""

    def __init__(self, folder, script, *arguments, restarts=0):
        self.noted = folder / "noted"
        ignored = f"grep SigIgn /proc/$$/status > {folder / 'ignored'}"
        for name, then in (("fedrax", f"{ignored}; echo started >> {self.noted}; exec sleep 60"), ("scontrol", "true")):
            path = folder / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.noted}\n{then}\n')
            path.chmod(0o755)
        variables = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "8"}
        # Slurm sets it from the second start on.
        variables |= {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}
        self.process = subprocess.Popen(
            ["bash", DEPLOY / "slurm" / script, *arguments], cwd=folder, env=variables, stdout=subprocess.DEVNULL
        )

    def words(self, count):
        deadline = time.monotonic() + 30
        while not self.noted.exists() or len(self.noted.read_text().splitlines()) < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return self.noted.read_text().splitlines()

    def end(self, sent=signal.SIGUSR1):
        """By what Slurm sends before the time is up, or by another signal."""
        self.process.send_signal(sent)
        return self.process.wait(30)


def test_a_job_of_slurm_resumes_its_run(tmp_path):
    arguments = ("train.sbatch", "runs/a", "fedtd3/pendulum", "seeds=5")
    job = Job(tmp_path, *arguments)
    assert job.words(2) == ["fedrax train fedtd3/pendulum seeds=5 --out runs/a", "started"]
    ignored = int((tmp_path / "ignored").read_text().split()[1], 16)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # As it is for a shell's background jobs.
        assert not ignored >> (signal.SIGINT - 1) & 1, "a sweep stops its runs by it"
    assert job.end() == 0
    assert job.words(3)[-1] == "scontrol requeue 7"
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "config.toml").touch()
    again = Job(tmp_path, *arguments, restarts=1)
    assert "fedrax resume runs/a" in again.words(4)
    assert again.end() == 0
    for line in again.words(5):
        if line.startswith("fedrax"):
            parsed(shlex.split(line)[1:])


def test_only_a_job_that_is_started_again_resumes_in_silence(tmp_path):
    """Another is told by fedrax that the folder holds a run, however it is configured now."""
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "config.toml").touch()
    job = Job(tmp_path, "train.sbatch", "runs/a", "fedtd3/pendulum", "seeds=9")
    assert job.words(2)[0] == "fedrax train fedtd3/pendulum seeds=9 --out runs/a"
    job.end()
    named = Job(tmp_path, "train.sbatch", "runs/a")
    assert named.words(5)[3] == "fedrax resume runs/a"
    named.end()


@pytest.mark.parametrize("arguments", [("train.sbatch", "runs/a", "fedtd3/pendulum"), ("sweep.sbatch", "a.toml")])
def test_a_job_that_is_cancelled_is_not_queued_again(arguments, tmp_path):
    job = Job(tmp_path, *arguments)
    job.words(2)
    assert job.end(signal.SIGTERM) == 128 + signal.SIGTERM
    assert not [line for line in job.words(2) if "scontrol" in line]


def test_a_job_of_slurm_goes_on_with_its_sweep(tmp_path):
    job = Job(tmp_path, "sweep.sbatch", "comparison.toml")
    assert job.words(1)[0] == "fedrax sweep comparison.toml --jobs 4"
    parsed(shlex.split(job.words(1)[0])[1:])
    assert job.end() == 0
    assert job.words(2)[-1] == "scontrol requeue 7"


def test_a_job_of_slurm_ends_as_its_command_does(tmp_path):
    job = Job(tmp_path, "train.sbatch", "runs/a", "fedtd3/pendulum")
    job.words(1)
    (tmp_path / "bin" / "fedrax").write_text("#!/bin/sh\nexit 1\n")
    job.end()
    failed = subprocess.run(
        ["bash", DEPLOY / "slurm" / "train.sbatch", "runs/a", "x"],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        check=False,
    )
    assert failed.returncode == 1
