"""What the project says of itself: its dependencies, its version, and how it is checked."""

import ast
import re
import sys
import tomllib
from importlib import resources
from importlib.metadata import packages_distributions
from pathlib import Path

import fedrax

PROJECT = Path(__file__).parent.parent
SETTINGS = tomllib.loads((PROJECT / "pyproject.toml").read_text())
BROUGHT = {"Box2D": "gymnasium[box2d]", "mlflow": "mlflow-skinny"}
"""Packages that are declared by what brings them under another name."""


def normalised(name):
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;]", name)[0]).lower()


def imported():
    """The packages outside the standard library that the source imports, by the distribution that holds them."""
    holders = packages_distributions()
    for path in Path(fedrax.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            else:
                continue
            for name in names:
                top = name.split(".")[0]
                if top != "fedrax" and top not in sys.stdlib_module_names:
                    yield top, {normalised(holder) for holder in holders.get(top, [top])}


def test_every_imported_package_is_a_declared_dependency_with_its_reason():
    extras = SETTINGS["project"]["optional-dependencies"]
    lines = [*SETTINGS["project"]["dependencies"], *(line for extra in extras.values() for line in extra)]
    declared = {normalised(line) for line in lines}
    page = (PROJECT / "docs" / "dependencies.md").read_text().lower()
    undeclared = {top for top, holders in imported() if not holders & declared}
    assert undeclared <= {top for top, extra in BROUGHT.items() if any(line.startswith(extra) for line in lines)}
    assert {name for name in declared - {"fedrax"} if name not in page} == set()


def test_the_package_says_that_it_is_typed():
    assert (resources.files("fedrax") / "py.typed").is_file()
    assert SETTINGS["tool"]["mypy"]["strict"]


def test_the_version_is_one():
    version = SETTINGS["project"]["version"]
    assert f"\nversion: {version}\n" in (PROJECT / "CITATION.cff").read_text()
    assert re.search(r"^## (\S+?),? ", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version


def test_hooks_and_workflow_run_what_the_makefile_runs():
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (PROJECT / "Makefile").read_text(), re.MULTILINE)[1]
    commands = [line.strip().removeprefix("$(BIN)/") for line in recipe.splitlines()]
    hooks = re.findall(r"entry: \.venv/bin/(.*)", (PROJECT / ".pre-commit-config.yaml").read_text())
    assert hooks == commands
    assert "- run: .ci/run\n" in (PROJECT / ".github" / "workflows" / "ci.yml").read_text()
