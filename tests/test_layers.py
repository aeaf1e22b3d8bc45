"""Which package may know which: the imports of the source, those inside functions and for type checks included."""

import ast
from pathlib import Path

import pytest

import fedrax

ROOT = Path(fedrax.__file__).parent
OUTER = {"acting", "api", "audit", "cli", "cli_federation", "render", "describe", "exchange", "run_views", "watch"}
"""What a user calls; all else is below it."""
COMPONENTS = ("learners", "strategies", "aggregators", "attacks", "compression", "environments", "privacy", "loggers")
FORBIDDEN = {
    **{package: {"runtime", "records", "report", "sweeps", *OUTER} for package in COMPONENTS},
    "evaluation": {"runtime", "records", "report", "sweeps", *OUTER},
    "records": {"runtime", "report", "sweeps", *OUTER},
    "runtime": {"report", "sweeps", *OUTER},
    "report": {"runtime", "sweeps", *OUTER},
}
"""By package, what it may reach neither itself nor through another."""


def module_of(path):
    return ".".join(["fedrax", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")


FILES = {module_of(path): path for path in ROOT.rglob("*.py")}


def imports_of(path):
    """Modules of Fedrax that the file names in an import."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in FILES)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                if (found := inner if inner in FILES else node.module) in FILES:
                    yield found


def package_of(module):
    """``learners`` of ``fedrax.learners.ppo``; a module directly in ``fedrax`` is a package of its own."""
    return module.split(".")[1] if "." in module else "fedrax"


MODULES = {module: set(imports_of(path)) - {module} for module, path in FILES.items()}
PACKAGES = {}
for module, targets in MODULES.items():
    others = PACKAGES.setdefault(package_of(module), set())
    others |= {package_of(target) for target in targets} - {package_of(module)}


def reached(graph, start):
    """What can be reached from ``start``, by the way there."""
    ways, waiting = {}, [(start,)]
    while waiting:
        way = waiting.pop(0)
        for target in sorted(graph[way[-1]] - set(ways)):
            ways[target] = (*way, target)
            waiting.append(ways[target])
    return ways


def test_imports_are_found():
    """The test itself sees an import at the top, one inside a function, and one for type checks."""
    assert "records" in PACKAGES["api"]
    assert "fedrax.runtime.flower.local" in MODULES["fedrax.api"]
    assert "api" in PACKAGES["fedrax"]


def test_no_relative_import_is_missed():
    relative = [
        module
        for module, path in FILES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


@pytest.mark.parametrize("graph", [PACKAGES, MODULES], ids=["packages", "modules"])
def test_there_is_no_circle(graph):
    circles = [" -> ".join(ways[start]) for start in graph if start in (ways := reached(graph, start))]
    assert circles == []


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_does_not_know_what_is_above_it(package):
    ways = reached(PACKAGES, package)
    assert [" -> ".join(ways[above]) for above in sorted(FORBIDDEN[package] & set(ways))] == []
