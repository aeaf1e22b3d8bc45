"""What a newcomer meets first: a command that speaks at once, names without waiting, words that a shell completes."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import typing
from pathlib import Path

import pytest

import fedrax
from fedrax import names
from fedrax.cli import main
from fedrax.completion import describable, key_values, values_of
from fedrax.config import COMPONENT_KINDS, Config, presets, resolve
from fedrax.describe import space_text
from fedrax.describe_keys import all_keys
from fedrax.environments.base import Discrete
from fedrax.kinds import DEFAULT_KINDS
from fedrax.opening import setup_line, sweep_opening
from fedrax.registry import options_of
from fedrax.runtime.flower.processes import free_port
from fedrax.strategies.base import strategies

ROOT = Path(fedrax.__file__).parent


def python(*arguments, **variables):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=os.environ | variables
    )


@pytest.mark.parametrize(
    "code",
    [
        "import fedrax",
        "import fedrax; dir(fedrax); fedrax.presets(); fedrax.__version__",
        "from fedrax import cli; cli.main(['list'])",
        "from fedrax import cli; cli.main(['completion', 'bash'])",
        "from fedrax.opening import opening; opening('fedpg-br/cartpole', ['attack=alie'])",
        "from fedrax.completion import key_values; key_values('learner.l')",
        "import fedrax.runtime.flower.node",
    ],
)
def test_this_imports_neither_jax_nor_what_takes_as_long(code):
    heavy = ("jax", "equinox", "pydantic", "gymnasium", "matplotlib", "numpy", "scipy")
    done = python("-c", f"import sys; {code}; sys.exit(', '.join(set({heavy}) & sys.modules.keys()) or 0)")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_first_line_of_a_training_comes_before_jax_is_imported():
    """JAX cannot be imported here at all."""
    code = """
import sys
sys.modules["jax"] = None
from fedrax.cli import main
main(["train", "fedpg-br/cartpole", "attack=alie", "attack.agents=3", "--seeds", "2", "--out", "never"])
"""
    assert python("-c", code).stdout.splitlines() == ["fedpg-br/cartpole: checking the configuration ..."]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["server", "fedpg-br/cartpole", "--out", "never"], "starting a server at {address}; the run goes to never"),
        (["node", "--data", "data"], "node for {address}; logs and state in data"),
    ],
)
def test_the_first_line_of_a_federation_comes_before_jax_is_imported(command, said, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    code = f"""
import os, signal, sys
sys.modules["jax"] = None
from fedrax.runtime.flower import node, processes
processes.start = lambda *arguments, **settings: sys.exit("would start a process")
node.Watched.__enter__ = node.Watched.__exit__ = lambda *arguments: None
node.Watched.watch = lambda self: sys.exit("watches")
from fedrax.cli import main
main({[*command, "--superlink", address]!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.splitlines() == [said.format(address=address)], done.stderr


@pytest.mark.parametrize("preset", presets())
def test_every_preset_is_told_in_a_line(preset):
    config = resolve(preset, ["attack=sign-flipping", "attack.agents=1"])
    said = setup_line(config)
    assert said.startswith(f"strategy {config.strategy['kind']}, learner {config.learner['kind']}, ")
    assert re.search(rf" {config.federation.agents} agents?, .*attack sign-flipping by 1 of the agents", said)


def test_a_line_on_a_run_says_what_every_run_has():
    assert setup_line(resolve(None, ["budget.rounds=3000"])) == (
        "strategy fedpg-br, learner policy-gradient, CartPole-v1, 10 agents, aggregator fedpg-filter, 3,000 rounds, "
        "seed 0"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["compression=int8"], ", compression int8, "),
        (["compression=top-k", "compression.share=0.05"], ", compression top-k (share 0.05), "),
        (["privacy.clip=1", "privacy.secure_sum=true"], ", privacy clip 1, secure sum, "),
        (["privacy.clip=1", "privacy.unit=agent", "privacy.noise=0.5"], ", privacy per agent (central), clip 1, noise"),
        (["privacy.clip=1", "privacy.unit=agent", "privacy.epsilon=8"], ", privacy epsilon 8 per agent (central), "),
        (["federation.participation=0.4"], ", 10 agents, 4 of them in a round, "),
        (["federation.participation=0.4", "federation.sampling=poisson"], "each in a round with chance 0.4, "),
        (["federation.dropout=0.1"], "10 agents, who fail to answer with chance 0.1, "),
        (["environment.heterogeneity.gravity=[9,10]"], ", environments differ in gravity, "),
        (
            ["environment=ContinuousCartPole-v0", "environment.heterogeneity.distribution=fedtd3"],
            ", environments drawn from fedtd3, ",
        ),
        (["aggregator=krum"], ", aggregator krum, "),
        (["runtime=flower"], ", each agent a node of a Flower federation, "),
        (["seeds=3", "seed=2"], ", seeds 2 to 4"),
        (["budget.steps=2000000"], ", 9 rounds or 2,000,000 environment steps, "),
    ],
)
def test_a_line_on_a_run_says_whatever_else_is_set(changes, said):
    assert said in setup_line(resolve(None, ["strategy=fedavg", "learner=ppo", "budget.rounds=9", *changes]))


@pytest.mark.parametrize("wrong", ["seeds=0", "strategy=fedavgg", "federation.agents=0", "environment.id=CartPol-v1"])
def test_what_cannot_run_is_not_told_as_if_it_ran(wrong, tmp_path, capsys):
    assert main(["train", "fedpg-br/cartpole", wrong, "--out", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().out == "fedpg-br/cartpole: checking the configuration ...\n"


def test_a_sweeps_first_line(tmp_path):
    file = tmp_path / "sweep.toml"
    file.write_text('preset = "fedpg-br/cartpole"\nseeds = [3, 5]\n[setups.a]\n[setups.b]\n[grid]\nx = [1, 2]\n')
    assert sweep_opening(file) == f"{file}: 2 setups of fedpg-br/cartpole, times a grid, 2 seeds each"
    file.write_text('preset = "fedpg-br/cartpole"\nseeds = 3\n[grid]\nx = [1, 2]\n')
    assert sweep_opening(file) == f"{file}: a grid of fedpg-br/cartpole, 3 seeds each"
    for wrong in ("setups = 3", "seeds = 0\n[setups.a]", "[grid]"):
        file.write_text(wrong)
        assert sweep_opening(file) == f"{file}: reading the setups"
    assert sweep_opening(Path("two\nlines")) == "two\\nlines: reading the setups"


def test_names_read_from_the_source_are_those_that_are_registered():
    """In a process of its own: other tests register components."""
    code = """
from fedrax import names
from fedrax.describe import registered
from fedrax.listing import overview
assert names.components() == registered()
assert overview(names.components()).count("\\n") > 100
"""
    assert python("-c", code).stderr == ""


def is_own(component):
    """Whether it is Fedrax's, and not a plugin's of another test's."""
    return component.__module__.startswith("fedrax.")


def test_keys_read_from_the_source_are_those_that_are_declared():
    declared = {key for key in all_keys() if key.partition(".")[0] not in DEFAULT_KINDS}
    assert set(names.plain_keys()) == declared
    options = {key for name in strategies if is_own(strategies[name]) for key in options_of(strategies[name])}
    assert set(names.options("strategy")) == options


def test_values_are_those_that_types_list():
    """Of every setting, whatever name its type goes by, and wherever that is defined."""

    def words(hint):
        """Those of all literals in a type."""
        if typing.get_origin(hint) is typing.Literal:
            return {word for word in typing.get_args(hint) if isinstance(word, str)}
        return set().union(*(words(part) for part in typing.get_args(hint)))

    checked = 0
    for component_kind, registry in COMPONENT_KINDS.items():
        declared = {}
        for name in filter(lambda name, registry=registry: is_own(registry[name]), registry):
            hints = typing.get_type_hints(registry[name])
            for option in options_of(registry[name]):
                declared.setdefault(option, []).append(words(hints[option]))
        for option, setting in names.options(component_kind).items():
            listed = set().union(*declared[option]) - {"none"}
            assert set(setting.values) - {"none", "false", "true"} == listed, f"{component_kind}.{option}"
            checked += bool(setting.values)
    assert checked > 20
    assert "learner.torso=grid" in key_values("learner.torso=")
    assert "learner.action_bounds=squash" in key_values("learner.action_bounds=")
    assert key_values("runtime.flower.max_norm=") == [
        f"runtime.flower.max_norm={word}" for word in ("adaptive", "none")
    ]


def test_the_command_runs_as_a_module_and_says_its_version():
    done = python("-m", "fedrax", "--version")
    assert re.fullmatch(rf"fedrax {re.escape(fedrax.__version__)} \(Python 3\.\S+, jax \S+\)\n", done.stdout)


def test_public_names_are_there_before_they_are_imported():
    done = python("-c", "import fedrax; print(*[name for name in fedrax.__all__ if name not in dir(fedrax)])")
    assert done.stdout == "\n"
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = fedrax.trian


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("seeds", "seeds = 1   [integer, > 0, <= 100000]"),
        ("plugins", "plugins = []   [list of text]"),
        ("federation.agents", "federation.agents = 10   [integer, > 0"),
        ("privacy", "privacy.secure_sum = false   [true | false]"),
        ("runtime.flower", 'runtime.flower.max_norm = "adaptive"   [number | adaptive | none]'),
        ("runtime.flower.quorum", "share of a round's participants"),
        ("quorum", "runtime.flower.quorum = 0.5"),
        ("strategy.minibatch", "of fedpg-br, svrpg"),
        ("attack.agents", "of every attack"),
        ("attack.kind", "one of alie,"),
        ("strategy.svrpg", "strategy svrpg"),
        ("sweep", "cores_per_job = 1"),
        ("sweep.jobs", "at most so many runs at once"),
        ("setups", "[setups.robust]"),
    ],
)
def test_every_key_can_be_described(name, said, capsys):
    assert main(["describe", name]) == 0
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("key", ["name", "environment.heterogeneity", "runtime.flower.fast", "learner.hidden"])
def test_the_keys_of_a_configuration_are_described(key):
    assert key in all_keys()


def test_the_list_has_every_key_that_stands_alone_and_every_table(capsys):
    """An unknown one is answered with it."""
    assert main(["list"]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert set(Config.model_fields) <= set(re.split(r"[;:,] | ", last))


def test_an_unknown_command_is_answered_with_one():
    done = python("-m", "fedrax", "trian", "fedpg-br/cartpole")
    assert done.returncode == 2
    assert "unknown command 'trian' (did you mean 'train'?); fedrax --help shows all" in done.stderr


def completed(line):
    """What a shell is answered at the end of the line."""
    variables = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n\"'><=;|&(:",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    code = (
        "import os, sys; os.dup2(1, 8); os.dup2(2, 9); sys.modules['jax'] = None; from fedrax.cli import main; main()"
    )
    return python("-c", code, **variables).stdout.split("\n")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("fedrax tr", ["train "]),
        ("fedrax train fedpg-br/c", ["fedpg-br/cartpole "]),
        ("fedrax train fedpg-br/cartpole attack=al", ["alie "]),
        ("fedrax train fedpg-br/cartpole federation.ag", ["federation.agents="]),
        ("fedrax train fedpg-br/cartpole --se", ["--seeds "]),
        ("fedrax describe runtime.flower.qu", ["runtime.flower.quorum "]),
        ("fedrax reproduce fedpg-br/cartpole-", ["fedpg-br/cartpole-attacks "]),
    ],
)
def test_a_shell_completes_words(line, words):
    assert completed(line) == words


def test_what_is_completed():
    assert "budget.rounds=" in key_values("bud")
    assert "budget.rounds=" not in key_values("")
    assert "strategy=" in key_values("")
    assert "strategy.minibatch=" in key_values("strategy.m")
    assert values_of("runtime") == ["simulation", "flower"]
    assert values_of("privacy.secure_sum") == ["false", "true"]
    assert "CartPole-v1" in values_of("environment")
    assert "krum" in values_of("aggregator.kind")
    assert values_of("no.such") == []
    assert "privacy" in describable("")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_a_shell_is_told_how(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "fedrax" in capsys.readouterr().out


def test_bash_takes_the_script(capsys):
    main(["completion", "bash"])
    script = capsys.readouterr().out
    done = subprocess.run(["bash", "-c", f"{script}\ncomplete -p fedrax"], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("complete ")


POSIX = {"fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
"""Modules that Windows does not have."""
CALLS = {"fork", "getuid", "geteuid", "killpg", "register_at_fork", "sched_getaffinity", "setsid", "sysconf", "SIGHUP"}
"""And what is missing there of ``os`` and ``signal``."""


def run_on_import(nodes):
    """Every node that importing a module evaluates on Windows: none in a function, none that asks for the platform."""
    for node in nodes:
        if isinstance(node, ast.If) and re.search(r"platform|hasattr", ast.unparse(node.test)):
            yield from run_on_import(node.body if "win32" in ast.unparse(node.test) else [])
            continue
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield node
            yield from run_on_import(ast.iter_child_nodes(node))


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_importing_needs_nothing_that_windows_lacks(path):
    needed = set()
    for node in run_on_import(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Import):
            needed |= {name.name for name in node.names} & POSIX
        elif isinstance(node, ast.ImportFrom):
            needed |= {node.module} & POSIX
        elif isinstance(node, ast.Attribute):
            needed |= {node.attr} & CALLS
    assert needed == set()


def test_the_workflow_tests_the_versions_that_the_package_names():
    project = tomllib.loads((ROOT.parent.parent / "pyproject.toml").read_text())["project"]
    named = {text.rpartition(" ")[2] for text in project["classifiers"] if "Python :: 3." in text}
    workflow = (ROOT.parent.parent / ".github" / "workflows" / "ci.yml").read_text()
    tested = re.search(r'python: \[(".*")\]', workflow)[1]
    assert {version.strip(' "') for version in tested.split(",")} == named
    assert project["requires-python"] == f">={min(named)}"


def test_actions_are_told_by_their_own_numbers():
    assert space_text(Discrete(3)) == "0 to 2"
    assert space_text(Discrete(3, start=-1)) == "-1 to 1"
