"""Every command and code block of the documentation runs, or is checked as far as it can be without training."""

import ast
import functools
import importlib.util
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from fedrax.cli import COMMANDS, main, parsed
from fedrax.config import COMPONENT_KINDS, parse_override, presets, resolve
from fedrax.describe_keys import all_keys
from fedrax.errors import FedraxError
from fedrax.loggers.base import loggers
from fedrax.names import plain_tables
from fedrax.plugins import load_plugins, located
from fedrax.registry import options_of
from fedrax.sweeps.plan import read_plan

from own_files import project
from pages import PAGES, PROGRAMS, PROJECT, Block, blocks, inline, overrides

__all__ = ["project"]

SETTINGS = tomllib.loads((PROJECT / "pyproject.toml").read_text())
SOURCES = ("train", "server", "deploy", "import")
"""Commands whose first argument describes an experiment."""
CHECKED_ELSEWHERE = {"extending.md": "tests/test_docs.py runs all of it as one plugin"}


def name_of(page):
    return str(page.relative_to(PROJECT))


def with_(chosen):
    return pytest.mark.parametrize("page", [page for page in PAGES if chosen(page)], ids=name_of)


def has_commands(page):
    return any(block.commands() for block in blocks(page))


def has_python(page):
    return page.name not in CHECKED_ELSEWHERE and any(block.language == "python" for block in blocks(page))


@pytest.fixture
def folder(project, monkeypatch):
    """A folder with all files that pages speak of without showing them."""
    shutil.copytree(PROJECT / "examples", project.path / "examples")
    for file in (project.path / "examples" / "point-mass").iterdir():
        # One file: a process has one plugin of a name.
        (project.path / file.name).symlink_to(file)
    extending = blocks(PROJECT / "docs" / "extending.md")
    project.write("mine.py", "\n".join(block.text for block in extending if block.language == "python"))
    # Of another test's, in this process.
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    for name in ("RUN", "imported/push"):
        project.write(f"{name}/config.toml", resolve("td3-her/push").to_toml())
    monkeypatch.chdir(project.path)
    return project


@with_(has_commands)
def test_commands_are_such_as_the_program_takes(page, folder, capsys):
    for block in blocks(page):
        if block.file:
            folder.write(block.file, block.text)
        for words in block.commands():
            with_line = f"{name_of(page)}:{block.line}: {' '.join(words)}"
            assert words[0] in PROGRAMS or block.reason, f"{with_line}\nis no command that is checked: say why not"
            try:
                CHECKS.get(words[0], lambda words, block: None)(words, block)
            except (FedraxError, SystemExit) as error:
                pytest.fail(f"{with_line}\n{error} {capsys.readouterr().err}")


def fedrax_line(words, block):
    """Parsed by the program's grammar, and its configuration resolved."""
    options = parsed(words[1:])
    name = words[1]
    plugins = [located(plugin, Path.cwd()) for plugin in getattr(options, "plugins", [])]
    if name in SOURCES:
        source = options.source
        resolve(source if source is None else str(source), options.overrides, plugins=plugins)
    elif name == "describe" and (options.overrides or options.name in presets()):
        resolve(options.name, options.overrides)
    elif name in ("describe", "list"):
        # Its error is on the terminal, which the failing test shows.
        assert main(words[1:]) == 0, words
    elif name == "sweep" and options.file.is_file():
        read_plan(options.file)
    elif name == "node":
        load_plugins(plugins)
        own = [] if options.environment is None else [f"environment.id={options.environment}"]
        for override in (*own, *options.overrides):
            parse_override(override)
            check_key(override.partition("=")[0])


def make_line(words, block):
    targets = re.findall(r"(?m)^([\w-]+):", (PROJECT / "Makefile").read_text())
    assert set(words[1:]) <= set(targets), words


def pip_line(words, block):
    for word in words[2:]:
        own = re.fullmatch(r"-e|fedrax|\.|(?:fedrax|\.|jax)\[.*\]", word)
        assert block.reason or own, f"{word} is another package, or an option of pip's: say why it is not checked"
    extras = [extra for word in words for extra in re.findall(r"^(?:fedrax|\.)\[(.*)\]$", word)]
    named = {extra for listed in extras for extra in listed.split(",")}
    assert named <= set(SETTINGS["project"]["optional-dependencies"]), words


def python_line(words, block):
    if words[1] == "-m":
        assert block.reason or importlib.util.find_spec(words[2]), words
    else:
        assert (PROJECT / words[1]).is_file(), words


def flwr_line(words, block):
    assert block.reason, f"{words}\nis not checked: say why not"


CHECKS = {"fedrax": fedrax_line, "make": make_line, "pip": pip_line, "python": python_line, "flwr": flwr_line}


ABSENT = {"torch", "onnxruntime", "exported"}
"""What only some have, and a file that an export writes."""


@with_(has_python)
def test_what_a_page_imports_that_no_test_needs_is_said_to_be_installed(page):
    python = [block for block in blocks(page) if block.language == "python"]
    imports = [
        line for block in python for line in re.findall(r"(?m)^(?:import|from) (.+?)(?: import .*)?$", block.text)
    ]
    for name in {name for line in imports for name in line.split(", ")} & ABSENT - {"exported"}:
        text = page.read_text()
        assert f"pip install {name}" in text or f"fedrax[{name}]" in text, f"{name} is imported, and not installed"


@with_(lambda page: has_python(page) and not overrides(page))
def test_python_runs(page, folder):
    """Where it is said why it does not, it is compiled, and what it imports is there."""
    namespace = {"__name__": "page"}
    for block in blocks(page):
        if block.language != "python":
            continue
        code = compile(block.text, f"{page}:{block.line}", "exec")
        if block.file:  # Whose commands import it.
            continue
        if not block.reason:
            exec(code, namespace)
            continue
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.Import):
                [importlib.import_module(name.name) for name in node.names if name.name not in ABSENT]
            elif isinstance(node, ast.ImportFrom) and node.module not in ABSENT:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names)


@pytest.mark.training
@with_(overrides)
def test_a_page_runs_from_top_to_bottom(page, project, monkeypatch):
    def small(source, changes=(), **settings):
        return resolve(source, [*changes, *overrides(page)], **settings)

    monkeypatch.setattr("fedrax.api.resolve", small)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    namespace = {"__name__": "page"}
    for block in blocks(page):
        if block.file:
            project.write(block.file, block.text)
        elif block.language == "python" and not block.reason:
            exec(compile(block.text, f"{page}:{block.line}", "exec"), namespace)
        elif not block.reason:
            for words in block.commands():
                assert words[0] == "fedrax", f"{name_of(page)}:{block.line}: say why it is not run"
                assert main(words[1:]) == 0, f"{name_of(page)}:{block.line}: {' '.join(words)}"


@functools.cache
def known_keys():
    """Every key of a configuration, tables of tables included."""
    keys = {*all_keys(), *COMPONENT_KINDS, *plain_tables()}
    for kind, registry in COMPONENT_KINDS.items():
        for component in registry:
            keys |= {f"{kind}.{component}.{option}" for option in options_of(registry[component])}
    for name in loggers:
        keys |= {f"records.loggers.{name}.{option}" for option in options_of(loggers[name])}
    return keys


FREE = ("environment.heterogeneity.", "environment.kwargs.", "environment.key", "environment.task")
"""Keys that an environment gives, or that stand for others."""


def is_key(key):
    return key in known_keys() or key.startswith(FREE)


def check_key(key):
    if not is_key(key):
        raise FedraxError(f"{key} is no key")


@pytest.mark.parametrize(
    "line",
    [
        "fedrax node environment.heterogeneity.length=0.7 --plugins nowhere.py",
        "fedrax node federaton.agents=3",
        "fedrax node federation.agens=3",
        "fedrax train fedpg-br/cartpole federaton.agents=3",
        "pip install pytest-cov",
        'pip install "fedrax[flowers]"',
        "python -m there_is_none",
        "python examples/nowhere.py",
        "make tea",
        "flwr run site local",
    ],
)
def test_a_line_that_is_wrong_is_found(line, folder):
    words = shlex.split(line)
    with pytest.raises((AssertionError, FedraxError, SystemExit)):
        CHECKS[words[0]](words, Block(1, "", "", line, ""))


@pytest.mark.parametrize("said", ["`federaton.agents=3`", "`federation.agens=3`", "`federation.agens`"])
def test_a_setting_that_is_wrong_is_found(said, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(said)
    monkeypatch.setitem(globals(), "PROJECT", tmp_path)
    with pytest.raises(AssertionError, match=said):
        test_settings_and_commands_named_in_the_text_exist(page)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_settings_and_commands_named_in_the_text_exist(page):
    tables = {key.split(".")[0] for key in known_keys()}
    for said in inline(page):
        named = re.findall(r"(?:^| )'?([a-z_]+\.[a-z_.-]+)=", said)
        # Without a value, what begins with no table may be a file or a function.
        named += [
            key for key in re.findall(r"^(?!.*\.py$)[a-z_]+\.[a-z_.-]*[a-z]$", said) if key.split(".")[0] in tables
        ]
        for key in named:
            assert is_key(key), f"{name_of(page)}: `{said}`"
        if match := re.match(r"fedrax ([a-z]+)", said):
            assert match[1] in COMMANDS, f"{name_of(page)}: `{said}`"
