"""Whatever a command is given, what it refuses it refuses in a few words: every command, argument by argument."""

import shlex
from pathlib import Path

import pytest
from told import status_of

from fedrax import cli
from fedrax.cli_checks import check_effort
from fedrax.errors import FedraxError

READERS = ("train", "describe", "sweep", "sweep --dry-run", "import")
ODD = [
    *(
        "utf-16",
        "utf-16-le",
        "utf-16-be",
        "latin-1",
        "binary",
        "empty",
        "brackets",
        "nested",
        "dotted",
        "digits",
        "cut",
    ),
    *("huge", "pipe", "endless", "endless-loop", "folder"),
]
EVERY_COMMAND = ["", "--", "-", "--no-such", "''", "no-such", "train train", "LONG", "'a\nb'", "describe"]
OF_RUNS = [
    f"{command} {path}"
    for command in ("resume", "evaluate", "audit", "render", "export --to safetensors", "report", "status")
    for path in ("MISSING", "DIR", "FILE", "FILE/x", "/dev/null", "LONG", "''", "PIPE")
]
NUMBERS = ("-1", "0.5", "x", "''", "nan", "1e3", "9" * 30, "9" * 5000, "٣x")
ARGUMENTS = [
    *(f"evaluate RUN --episodes {number}" for number in ("0", "1000000000", *NUMBERS)),
    *(f"evaluate RUN --unseen {number}" for number in ("100001", *NUMBERS)),
    *(f"evaluate RUN --evaluation-seed {number}" for number in ("2147483648", *NUMBERS)),
    *(
        f"evaluate RUN --policy {which}"
        for which in ("-1", "none", "3", "9" * 30, "9" * 5000, "''", "best.safetensors")
    ),
    *("evaluate RUN --environments some", "evaluate RUN --across", "evaluate RUN --unseen 3", "evaluate RUN RUN"),
    *("evaluate RUN --episodes 1000000 --unseen 100000", "evaluate RUN --plugins MISSING", "evaluate RUN --yes 3"),
    *(f"audit RUN --repetitions {number}" for number in ("0", "99", "1000001", *NUMBERS)),
    *(f"audit RUN --seed {number}" for number in ("2147483648", *NUMBERS)),
    *(f"audit RUN --attacks {ids}" for ids in ("A8", "a1", "''", "A1,", "A1;A2", "LONG")),
    *("audit RUN RUN", "audit RUN --against 3", "audit RUN --plugins MISSING"),
    *(f"render RUN --episodes {number}" for number in ("0", "1001", "2147483648", *NUMBERS)),
    *(f"render RUN --agent {number}" for number in ("2", *NUMBERS)),
    *("render RUN --format avi", "render RUN --format", "render RUN --policy 1", "render RUN --plugins FILE"),
    *("export RUN", "export RUN --to", "export RUN --to pickle", "export RUN --to pth", "export RUN --to LONG"),
    *(f"export RUN --to safetensors --seed {number}" for number in ("1", *NUMBERS)),
    *(f"export RUN --to safetensors --agent {number}" for number in ("2", *NUMBERS)),
    *("export RUN --to safetensors --policy 1", "resume RUN seed=3", "resume RUN learner.hidden=[8]", "resume RUN x"),
    *(
        "resume RUN budget.rounds=2",
        "resume RUN budget.rounds=-1",
        "resume RUN budget.rounds=nan",
        "resume RUN =",
        "report",
    ),
    *("resume RUN strategy=svrpg", "resume RUN --plugins MISSING.py", "report RUN MISSING", "report RUN RUN FILE"),
    *("report RUN --title LONG", "report RUN --title 'a\nb'", "report RUN --title '\x01'", "report RUN --smooth 3"),
    "report RUN --smoothing 0",
    *(f"train fedpg-br/cartpole --seeds {number}" for number in ("0", "100001", "2147483648", *NUMBERS)),
    *(
        "train",
        "train fedpg-br",
        "train fedpg-br/cartpol",
        "train ''",
        "train LONG",
        "train / x=1",
        "train . --quiet x",
    ),
    *("train fedpg-br/cartpole x", "train fedpg-br/cartpole =", "train fedpg-br/cartpole a.=1", "train a..b=1"),
    *("train fedpg-br/cartpole KEYS=1", "train KEYS=1", "train fedpg-br/cartpole --plugins MISSING.py"),
    *(
        "train fedpg-br/cartpole --plugins DIR",
        "train fedpg-br/cartpole --plugins ''",
        "train seed=1 seed=x budget.rounds=1",
    ),
    *("reproduce", "reproduce no-such", "reproduce LONG", "reproduce ''", "reproduce / --seeds 1"),
    *(f"reproduce FIGURE --seeds {number} --out DIR/r" for number in ("0", "100001", *NUMBERS)),
    *("reproduce FIGURE x --out DIR/r", "reproduce FIGURE learner.x=1 --out DIR/r", "reproduce FIGURE --out FILE/x"),
    *(f"sweep SWEEP --jobs {number}" for number in ("0", *(n for n in NUMBERS if not n.startswith("9"))) if number),
    *(f"sweep SWEEP --retry {number}" for number in ("-1", "0.5", "x")),
    *("sweep", "sweep MISSING", "sweep LONG", "sweep SWEEP SWEEP", "sweep SWEEP x=1", "sweep SWEEP --dry-run 3"),
    *("import", "import fedpg-br/cartpole", "import MISSING FILE", "import td3-her/slide FILE --out DIR/i"),
    *(
        "import td3-her/slide MISSING.pth",
        "import td3-her/slide DIR",
        "import td3-her/slide x=1",
        "import td3-her/slide LONG",
    ),
    *(
        "describe no-such",
        "describe ''",
        "describe LONG",
        "describe MISSING",
        "describe fedpg-br x=1",
        "describe CartPole-v9",
    ),
    *("describe fedpg-br/cartpole --plugins MISSING.py", "describe fedpg-br/cartpole a.b.c.d=1", "describe 'a\nb'"),
    *(
        "list x",
        "list --plugins MISSING.py",
        "list --plugins LONG",
        "list --plugins",
        "list --plugins DIR",
        "describe KEYS=1",
        "describe krum compression",
    ),
]
FLOWER = [
    *(f"certificates DIR/c --nodes {number}" for number in ("0", "1001", *NUMBERS)),
    *("certificates FILE", "certificates FILE/x", "certificates LONG", "certificates"),
    *(f"certificates DIR/c --host {host}" for host in ("''", "'a b'", "LONG", "'a\nb'", "é e.example")),
    *(
        f"node --superlink {address}"
        for address in ("''", "x", "x:", ":1", "x:y", "x:99999", "x:-1", "LONG", "'a b:1'")
    ),
    *(
        "node --agent -1",
        "node --agent x",
        "node x",
        "node --key MISSING",
        "node --certificates MISSING",
        "node --data FILE",
    ),
    *("server", "server no-such", "server fedpg-br/cartpole x", "server fedpg-br/cartpole --certificates MISSING"),
    *("server fedpg-br/cartpole --superlink x", "server fedpg-br/cartpole --superlink LONG", "server LONG"),
    *("deploy", "deploy no-such", "deploy fedpg-br/cartpole x", "deploy fedpg-br/cartpole --app FILE"),
    *("deploy fedpg-br/cartpole --superlink x", "deploy fedpg-br/cartpole --app FILE/x", "deploy LONG"),
    *("status", "status RUN RUN", "status RUN --plugins x"),
]
WRITERS = [
    "train fedpg-br/cartpole budget.rounds=1 --quiet --out OUT",
    "render RUN --format gif --out OUT",
    "export RUN --to safetensors --out OUT",
    "report RUN --out OUT",
    "reproduce FIGURE --out OUT",
    "sweep SWEEP",
]
OUTPUTS = ["FILE/x", "FILE/x/y/z", "LONG", "DIR/LONG", "/proc/x", "/dev/null/x", "LOOP/x"]


@pytest.fixture(scope="module")
def places(whole, odd_files, tmp_path_factory):
    """What the words of a command line in capitals stand for."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "folder").mkdir()
    (folder / "file").write_text("text")
    sweep = folder / "sweep.toml"
    sweep.write_text('preset = "fedpg-br/cartpole"\nout = "OUT"\n[setups.a]\nbudget.rounds = 1\n')
    return {
        "RUN": str(whole),
        "MISSING": str(folder / "missing"),
        "DIR": str(folder / "folder"),
        "FILE": str(folder / "file"),
        "PIPE": str(odd_files / "pipe.toml"),
        "LOOP": str(odd_files / "endless-loop.toml"),
        "SWEEP": str(sweep),
        "FIGURE": "fedpg-br/cartpole",
        "KEYS": ".".join(["a"] * 5000),
        "LONG": "long" * 3000,
    }


def words(command, places):
    found = shlex.split(command)
    for name, place in places.items():
        found = [word.replace(name, place) for word in found]
    return found


def check_refused(command, places, capsys):
    assert status_of(words(command, places), capsys) != 0, command


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """What is written without being told where goes to a folder of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ODD)
def test_files_that_are_no_settings_are_refused(name, odd_files, capsys):
    file = str(odd_files / f"{name}.toml")
    for reader in READERS:
        rest = ["missing.pth"] if reader == "import" else []
        assert status_of([*reader.split(), file, *rest], capsys) != 0
    graph = ["strategy=gossip", "learner=ppo", f"strategy.topology={file}", "budget.rounds=1"]
    assert status_of(["describe", "federation.agents=3", *graph], capsys) != 0


@pytest.mark.parametrize("command", [*EVERY_COMMAND, *OF_RUNS, *ARGUMENTS])
def test_arguments_that_nobody_means_are_refused(command, places, capsys):
    check_refused(command, places, capsys)


@pytest.mark.parametrize("command", FLOWER)
def test_arguments_of_a_federation_that_nobody_means_are_refused(command, places, capsys):
    pytest.importorskip("flwr")
    check_refused(command, places, capsys)


@pytest.mark.parametrize("out", OUTPUTS)
@pytest.mark.parametrize("command", WRITERS)
def test_paths_that_cannot_be_written_are_refused(command, out, places, tmp_path, capsys):
    if command.startswith("sweep"):
        place = words(out, places)[0]
        (tmp_path / "sweep.toml").write_text(Path(places["SWEEP"]).read_text().replace("OUT", place))
        places = {**places, "SWEEP": str(tmp_path / "sweep.toml")}
    check_refused(command.replace("OUT", out), places, capsys)


def test_there_are_hundreds_of_them():
    assert len({*EVERY_COMMAND, *OF_RUNS, *ARGUMENTS, *FLOWER}) + len(WRITERS) * len(OUTPUTS) + len(ODD) * 6 > 400


@pytest.mark.parametrize("name", ["readable", "marked"])
def test_text_in_utf_8_is_read_with_and_without_a_mark(name, odd_files, capsys):
    assert cli.main(["describe", str(odd_files / f"{name}.toml")]) == 0
    assert 'name = "Zürich"' in capsys.readouterr().out


def test_an_evaluation_of_millions_of_episodes_is_asked_about(places, capsys):
    with pytest.raises(FedraxError, match=r"100 environments are 2000000 episodes, more than 1000000; .* --yes"):
        check_effort(1000, 20, 100, agreed=False)
    check_effort(1000, 20, 100, agreed=True)
    with pytest.raises(FedraxError, match="at most 100000000 are counted at once"):
        check_effort(10**6, 1, 10**5, agreed=True)
    check_effort(1000, 10, 100, agreed=False)
    assert cli.main(words("evaluate RUN --episodes 1000000 --unseen 100000", places)) == 1
    assert "are 100000000000 episodes" in capsys.readouterr().err
