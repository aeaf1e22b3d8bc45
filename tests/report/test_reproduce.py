"""Reproducing a published figure with a training function that only writes what a run would."""

import csv
import re

import pytest
from rich.console import Console

from fedrax.config import presets, resolve
from fedrax.errors import FedraxError
from fedrax.report import published
from fedrax.report.experiments import FIGURES
from fedrax.report.reproduce import reproduce


@pytest.fixture
def trainer(write_run):
    """A training function that notes its calls and writes 60 rounds of 100 trajectories."""

    class Trainer:
        def __init__(self):
            self.calls = []
            self.finished = True

        def __call__(self, preset, overrides, seeds, directory):
            self.calls.append((preset, tuple(overrides), seeds))
            said = dict(text.split("=", 1) for text in overrides)
            return write_run(
                directory,
                seeds=tuple(range(seeds)),
                rounds=60,
                agents=int(said["federation.agents"]),
                strategy=said.get("strategy", "fedpg-br"),
                attack=said.get("attack", "none"),
                byzantine=int(said.get("attack.agents", 0)),
                finished=self.finished,
            )

    return Trainer()


def quiet():
    return Console(width=80, record=True, quiet=False, file=open("/dev/null", "w"))


@pytest.mark.training
def test_ours_beside_the_published_numbers(trainer, tmp_path):
    console = quiet()
    report = reproduce("fedpg-br/cartpole", tmp_path, train=trainer, seeds=2, console=console)
    assert report == tmp_path / "report.html"
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "figure.svg").stat().st_size > 10_000
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 7
    # Round 10 of seeds 0 and 1: 1000 and 1010.
    at_1000 = next(row for row in rows if row["curve"] == "FedPG-BR K=10" and row["trajectories per agent"] == "1000")
    assert (at_1000["ours"], at_1000["published"], at_1000["difference"]) == ("1005", "483", "522")
    assert (at_1000["low"], at_1000["high"]) == ("1000", "1010")
    printed = console.export_text()
    assert "1,005 [1,000, 1,010]" in printed
    assert "+522" in printed
    page = report.read_text()
    assert "published (read off)" in page
    assert "fedrax reproduce fedpg-br/cartpole --seeds 2" in page
    assert "fedrax train fedpg-br/cartpole federation.agents=10 seeds=2" in page
    assert "NeurIPS 2021" in page
    assert not re.search(r"""(src|href)=["']?http|url\(["']?http|fetch\(""", page), "it needs no network"


def test_finished_runs_are_used_again_and_other_settings_are_not_mistaken_for_them(trainer, tmp_path):
    for overrides in ([], [], ["budget.trajectories=99"]):
        reproduce("fedpg-br/cartpole", tmp_path, train=trainer, seeds=1, overrides=overrides, console=quiet())
    assert len(trainer.calls) == 10
    assert trainer.calls[0] == ("fedpg-br/cartpole", ("federation.agents=10",), 1)
    assert trainer.calls[5] == ("fedpg-br/cartpole", ("federation.agents=10", "budget.trajectories=99"), 1)


def test_points_beyond_the_budget_are_left_open(trainer, write_run, tmp_path):
    def short(preset, overrides, seeds, directory):
        return write_run(directory, seeds=(0,), rounds=8)

    reproduce("fedpg-br/cartpole", tmp_path, train=short, seeds=1, console=quiet())
    with (tmp_path / "table.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["curve"] == "FedPG-BR K=10"]
    assert [row["ours"] for row in rows] == ["500"] + [""] * 6
    assert rows[0]["low"] == ""
    assert rows[1]["difference"] == ""


def test_attacks_are_panels(trainer, tmp_path):
    page = reproduce("fedpg-br/halfcheetah-attacks", tmp_path, train=trainer, seeds=1, console=quiet()).read_text()
    assert len(trainer.calls) == 9
    assert (
        "fedpg-br/halfcheetah",
        ("strategy=svrpg", "federation.agents=10", "attack=random-action", "attack.agents=3"),
        1,
    ) in (trainer.calls)
    assert "random-action: SVRPG" in page


def test_a_figure_that_was_not_digitised_shows_ours_alone(trainer, tmp_path):
    page = reproduce("fedpg-br/cartpole-attacks", tmp_path, train=trainer, seeds=1, console=quiet()).read_text()
    assert "were not digitised" in page
    assert "published (read off)" not in page
    with (tmp_path / "table.csv").open() as file:
        assert list(csv.DictReader(file)) == []


def test_an_unfinished_run_is_handed_on_and_refused_if_it_stays_so(trainer, tmp_path):
    trainer.finished = False
    with pytest.raises(FedraxError, match="was not finished"):
        reproduce("fedpg-br/cartpole", tmp_path, train=trainer, seeds=1, console=quiet())


@pytest.mark.parametrize(
    ("name", "seeds", "message"),
    [("fedpg-br/cartpol", 1, "did you mean 'fedpg-br/cartpole'"), ("fedpg-br/cartpole", 0, "at least 1")],
)
def test_bad_input_is_refused_before_anything_is_trained(trainer, tmp_path, name, seeds, message):
    with pytest.raises(FedraxError, match=message):
        reproduce(name, tmp_path, train=trainer, seeds=seeds)
    assert trainer.calls == []


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_names_what_exists(name):
    figure = FIGURES[name]
    assert figure.preset in presets()
    for setup in figure.setups:
        if figure.published is not None:
            assert setup.published is not None
            assert published.load(figure.published)[setup.published].x
        else:
            assert setup.published is None


@pytest.mark.parametrize("name", FIGURES)
def test_every_setup_resolves_to_what_its_label_says(name):
    for setup in FIGURES[name].setups:
        config = resolve(FIGURES[name].preset, setup.overrides)
        assert config.aggregator["kind"] == ("fedpg-filter" if config.strategy["kind"] == "fedpg-br" else "mean")
        reference = FIGURES[name].published
        if reference is not None and setup.published is not None:
            series = published.load(reference)[setup.published]
            assert config.strategy["kind"] == series.method
            assert config.federation.agents == series.agents
            assert config.attack["agents"] == series.byzantine
            assert config.attack["kind"] == (series.attack or "none")
