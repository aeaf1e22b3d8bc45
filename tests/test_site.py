"""What the documentation's site is made of besides its pages, and the examples that it shows."""

import json
import runpy
import shutil
import sys

import pytest

from fedrax.config import COMPONENT_KINDS, presets
from fedrax.loggers.base import loggers
from fedrax.names import plain_tables
from fedrax.registry import options_of

from own_files import project
from pages import PROJECT

__all__ = ["project"]

SCRIPTS = sorted((PROJECT / "examples").glob("*.py"))
RESULTS = sorted((PROJECT / "benchmarks" / "results").glob("*.json"))


@pytest.fixture
def site(monkeypatch):
    """The modules of ``tools/site`` can be imported, by names that tests may use for others."""
    monkeypatch.syspath_prepend(str(PROJECT / "tools" / "site"))
    for name in ("examples", "reference", "results"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_reference_pages_have_every_option_with_its_default(site):
    from reference import reference_pages

    pages = reference_pages()
    for kind, registry in COMPONENT_KINDS.items():
        page = pages[f"reference/{kind}.md"]
        for name in registry:
            part = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
            rows = [line for line in part.splitlines() if line.startswith("| <code>")]
            assert len(rows) == len(options_of(registry[name])), (kind, name)
            for row, (key, (field, declared, _)) in zip(rows, options_of(registry[name]).items(), strict=True):
                assert f"<code>{kind}.<wbr>{key}</code>" in row
                assert f"| {declared.meaning[:15]}" in row
                assert field.default is None or f"`{json.dumps(field.default)}`" in row
    for table in plain_tables():
        assert f"\n## {table}\n" in pages["reference/configuration.md"]
    for name in loggers:
        assert f"\n## {name}\n" in pages["reference/loggers.md"]
        assert f"records.loggers.{name}.axis".replace(".", ".<wbr>") in pages["reference/loggers.md"]
    shown = "".join(text for path, text in pages.items() if path.startswith("reference/presets/"))
    assert all(f"\n## {name}\n" in shown for name in presets())
    assert "usage: fedrax train" in pages["reference/commands.md"]


def test_every_result_is_a_table_with_its_date_and_machine(site):
    from results import benchmark_pages

    pages = benchmark_pages(PROJECT)
    assert len(RESULTS) > 40
    everything = "".join(pages.values())
    for path in RESULTS:
        machine = json.loads(path.read_text())["machine"]
        part = everything.split(f"\n## {path.stem} {{")[1].split("\n## ")[0]
        assert f"**{machine['date']}**, {machine['processor']}" in part
        assert "\n|---" in part
    for line in everything.splitlines():
        assert "{'" not in line, "a cell holds a table"
    seeds = json.loads((PROJECT / "benchmarks/results/fedtd3_pendulum_preset.json").read_text())["results"]["table"]
    part = everything.split("\n## fedtd3_pendulum_preset {")[1].split("\n## ")[0]
    assert all(name in part for name in seeds)
    assert str(seeds["sccd"]["iqm"]) in part


def test_examples_are_short_and_say_what_they_print(site):
    from examples import example_pages

    pages = example_pages(PROJECT)
    assert len(SCRIPTS) == 5
    for path in SCRIPTS:
        text = path.read_text()
        assert len(text.splitlines()) < 60
        assert "rint" in text.split('"""')[1], "its docstring"
        assert f"[{path.name}]({path.stem}.md)" in pages["examples/index.md"]
    assert "class PointMass" in pages["examples/point-mass.md"]


@pytest.mark.training
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_runs(path, project, monkeypatch, capsys):
    # A copy, whose modules the fixture makes this process forget.
    shutil.copytree(PROJECT / "examples", project.path / "examples")
    monkeypatch.setattr(sys, "argv", [path.name, "2"])
    runpy.run_path(str(project.path / "examples" / path.name), run_name="__main__")
    shown = capsys.readouterr().out
    assert EXPECTED[path.stem] <= set(shown.split()), shown


EXPECTED = {
    "own_environment": {"fedavg", "local", "central", "strategy"},
    "own_strategy": {"fedavg", "slow-average", "return"},
    "personalisation": {"local", "neighbours", "fedper", "own", "others"},
    "private_federation": {"epsilon", "return", "guarantee"},
    "robustness_table": {"fedpg-br", "svrpg", r"\end{tabular}"},
}
"""Words that each prints."""
