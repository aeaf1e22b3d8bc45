"""Runs that were evaluated differently share no axis and no table, and the report says which and why."""

import html
import json
import re

import numpy as np
import pytest
from matplotlib import pyplot

from fedrax.cli import main
from fedrax.config import resolve
from fedrax.environments.host import EnvPoolEnvironments, GymnasiumEnvironments
from fedrax.environments.wrappers import HostWrapper
from fedrax.errors import FedraxError
from fedrax.evaluation.measure import apart, measure, why_apart
from fedrax.report.attack_figures import filter_quality_figure
from fedrax.report.figures import curves_figure, panels_figure
from fedrax.report.html import write_report
from fedrax.report.reproduce import reproduce
from fedrax.report.runs import Group, group_runs, load_run, load_runs, parts_of
from fedrax.runtime.draws import engines
from fedrax.runtime.make import make_runtime

EVALUATION = '\n[evaluation]\nenvironments = "{}"\nhorizon = "none"\ngreedy = true\nseed = 90210\n'


@pytest.fixture
def two(write_run, tmp_path):
    """FedAvg and local on environments that differ, each evaluated as is said."""

    def write(first, second, heterogeneity="length = [0.5, 1.0]"):
        for name, text in (("fedavg", first), ("local", second)):
            path = write_run(tmp_path / "runs" / name, strategy=name) / "config.toml"
            text = text if "[" in text else EVALUATION.format(text)
            path.write_text(path.read_text() + f"\n[environment.heterogeneity]\n{heterogeneity}\n" + text)
        return tmp_path / "runs"

    return write


def sections(page):
    return re.findall(r"<h2>(.*?)</h2>", page)


SENTENCE = (
    "These runs were evaluated differently, so their returns are not drawn on one axis: "
    "fedavg with evaluation.environments = registered; local with evaluation.environments = own."
)


@pytest.mark.training
@pytest.mark.parametrize(
    "evaluations",
    [
        ("registered", "own"),
        # What earlier versions recorded: a shared policy in the registered environment, personal ones in their own.
        ("\n[evaluation]\nper_agent = false\n", "\n[evaluation]\nper_agent = false\n"),
    ],
)
def test_two_measures_have_two_axes(two, tmp_path, evaluations, capsys):
    runs = two(*evaluations)
    out = tmp_path / "report.html"
    assert main(["report", str(runs), "--out", str(out)]) == 0
    page = out.read_text()
    assert SENTENCE in page
    shown = capsys.readouterr().out
    assert SENTENCE in shown
    for part in ("registered", "own"):
        assert f"Learning curves: evaluation.environments = {part}" in sections(page)
    assert "report.png" in shown
    assert "report-2.png" in shown
    assert (tmp_path / "report-2.png").stat().st_size > 1000
    groups = group_runs(load_runs([runs]))
    for draw in (curves_figure, lambda both: panels_figure({"a": both[:1], "b": both[1:]})):
        with pytest.raises(FedraxError, match=re.escape(SENTENCE)):
            draw(groups)
    pyplot.close("all")


def test_returns_of_two_measures_stand_beside_parameters_apart(two, tmp_path):
    """One chart of them would draw both on one axis."""
    runs = two("registered", "own")
    for run in runs.iterdir():
        manifest = json.loads((run / "manifest.json").read_text())
        manifest["draws"] = [[{"length": 0.5 + agent / 10} for agent in range(10)]]
        (run / "manifest.json").write_text(json.dumps(manifest))
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        text = "".join(json.dumps(row | {"agent_returns": [row["return"]] * 10}) + "\n" for row in rows)
        (run / "metrics.jsonl").write_text(text)
    page = html.unescape(write_report([runs], tmp_path / "report.html").read_text())
    heading = "What each agent's environment is, and its return: evaluation.environments ="
    assert [each for each in sections(page) if each.startswith("What each")] == [
        f"{heading} registered",
        f"{heading} own",
    ]


def test_one_measure_has_one_axis_and_says_what_it_is(two, tmp_path):
    page = write_report([two("all", "all")], tmp_path / "report.html").read_text()
    assert "Learning curves" in sections(page)
    assert "evaluated differently" not in page
    assert "Every policy is evaluated in every agent's environment" in html.unescape(page)


BASE = {
    "environment": {"id": "CartPole-v1", "horizon": "none", "native": True},
    "federation": {"agents": 4},
    "evaluation": {"environments": "registered", "horizon": "none", "greedy": True, "seed": 1, "episodes": 10},
    "runtime": {"kind": "simulation"},
}
DIFFER = {"heterogeneity": {"length": [0.5, 1.0]}}


def changed(**tables):
    return {section: table | tables.get(section, {}) for section, table in BASE.items()}


@pytest.mark.parametrize(
    ("other", "telling"),
    [
        (changed(evaluation={"greedy": False}), {"evaluation.greedy": "false"}),
        (changed(evaluation={"seed": 2}), {"evaluation.seed": "2"}),
        (changed(evaluation={"horizon": 100}), {"steps of an episode": "100"}),
        (changed(environment={"horizon": 100}), {"steps of an episode": "100"}),
        (changed(environment={"id": "Acrobot-v1"}), {"environment.id": "Acrobot-v1"}),
        (changed(environment={"native": False}), {"environment.native": "false"}),
        # What changes nothing about the quantity.
        (changed(evaluation={"episodes": 20}), None),
        (changed(federation={"agents": 9}), None),
        (changed(evaluation={"environments": "all"}), None),  # all are the registered one
        (changed(environment=DIFFER), None),  # trained elsewhere, evaluated alike
    ],
)
def test_what_sets_measures_apart(other, telling):
    parts = apart([("a", measure(BASE, personal=False)), ("b", measure(other, personal=False))])
    assert len(parts) == (1 if telling is None else 2)
    if telling is not None:
        assert parts[1] == (telling, ["b"])
        assert next(iter(telling)) in why_apart(parts)


def test_engines_draw_other_initial_states(write_run, tmp_path):
    """With ``environment.backend=auto`` one configuration is stepped by what is installed."""
    for name, engine in (("one", "envpool"), ("two", "gymnasium"), ("three", "envpool")):
        manifest = write_run(tmp_path / "runs" / name) / "manifest.json"
        known = json.loads(manifest.read_text())
        manifest.write_text(json.dumps(known | {"engines": {"CartPole-v1": engine}}))
    groups = group_runs(load_runs([tmp_path / "runs"]))
    assert [[run.name for run in group.runs] for group in groups] == [["one", "three"], ["two"]]
    (envpool, gymnasium) = parts_of(groups)
    assert envpool[0] == {"engine of the environment": "envpool"}
    assert gymnasium[0] == {"engine of the environment": "gymnasium"}


@pytest.mark.parametrize(
    ("settings", "engine"),
    [
        (["environment.id=CartPole-v1"], "jax"),
        (["environment.id=CartPole-v1", "environment.native=false"], "envpool"),
        (["environment.id=CartPole-v1", "environment.native=false", "environment.backend=gymnasium"], "gymnasium"),
        (["environment.id=LunarLander-v3", "environment.heterogeneity.gravity=[-9, -8, -7]"], "gymnasium"),
        (["environment.id=LunarLander-v3"], "envpool"),
    ],
)
def test_a_run_records_who_steps_its_environments(settings, engine):
    pytest.importorskip("envpool")
    config = resolve(None, ["learner=ppo", "strategy=fedavg", "federation.agents=3", "budget.rounds=1", *settings])
    assert engines(config) == {config.environment.id: engine}
    runtime = make_runtime(config)
    if engine != "jax":
        made = runtime._make(2, 5, runtime.parameters([0], 2))
        while isinstance(made, HostWrapper):
            made = made.inner
        assert type(made) is {"envpool": EnvPoolEnvironments, "gymnasium": GymnasiumEnvironments}[engine]
    runtime.close()


def test_other_agents_environments_are_another_measure():
    """Where policies are evaluated in agents' environments, it matters which agents there are."""
    where = {"environments": "all"}
    four, nine = (changed(environment=DIFFER, evaluation=where, federation={"agents": k}) for k in (4, 9))
    assert measure(four, personal=False) != measure(nine, personal=False)
    wider = changed(environment={"heterogeneity": {"length": [0.1, 2.0]}}, evaluation=where)
    assert measure(four, personal=False) != measure(wider, personal=False)


def test_a_figure_whose_setups_differ_is_refused_before_anything_is_trained(tmp_path):
    """Figure 1 compares 10, 3 and 1 agents, whose environments would be others."""

    def train(*arguments):
        raise AssertionError("nothing is to be trained")

    text = "environment.heterogeneity.length={distribution='uniform', low=0.3, high=0.9}"
    with pytest.raises(FedraxError, match=r"evaluated differently.*federation.agents = 3"):
        reproduce("fedpg-br/cartpole", tmp_path, train=train, overrides=[text])


def test_seeds_of_several_runs_are_counted_together(write_run, tmp_path):
    for seed in range(3):
        write_run(tmp_path / "runs" / f"seed-{seed}", seeds=(seed,))
    page = write_report([tmp_path / "runs"], tmp_path / "report.html").read_text()
    assert "<dt>Seeds</dt><dd>3</dd>" in page
    assert re.findall(r"<td>(.*?)</td>", page)[1] == "3"


def test_rounds_are_counted_as_on_the_terminal(write_run, tmp_path):
    path = write_run(tmp_path / "a")
    rounds = json.loads((path / "summary.json").read_text())["rounds"]
    page = write_report([path], tmp_path / "report.html").read_text()
    (costs,) = re.findall(r"What it cost.*?<tbody><tr><td>.*?</td><td>(.*?)</td>", page)
    assert costs == str(rounds) == "4"


def test_the_evaluation_after_the_last_round_is_the_final_one(write_run, tmp_path):
    """Of a run that ends between two evaluations, or before the first, the summary holds it."""
    path = write_run(tmp_path / "a", without=("return",))
    assert "No evaluation has been recorded yet" in write_report([path], tmp_path / "r.html").read_text()
    summary = json.loads((path / "summary.json").read_text())
    (path / "summary.json").write_text(json.dumps(summary | {"final_return": [7.0, 8.0, 9.0]}))
    page = write_report([path], tmp_path / "r.html").read_text()
    assert "No evaluation" not in page
    assert re.findall(r"<td>(.*?)</td>", page)[1:4] == ["3", "8 [7, 9]", "8 [7, 9]"]


def test_evaluations_without_a_common_cost_are_drawn_as_points(write_run, tmp_path):
    """Nine evaluations of three seeds that share no range of trajectories are not "no evaluation yet"."""
    paths = []
    for seed in range(3):
        path = write_run(tmp_path / f"seed-{seed}", seeds=(seed,), rounds=3)
        rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        rows = [row | {"trajectories": row["trajectories"] + 1000 * seed} for row in rows]
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        paths.append(path)
    (group,) = group_runs(load_runs(paths))
    figure = curves_figure([group])
    (axes,) = figure.axes
    assert not axes.texts
    drawn = np.concatenate([line.get_xydata() for line in axes.lines if line.get_marker() == "o"])
    assert sorted(drawn[:, 0]) == [100, 200, 300, 1100, 1200, 1300, 2100, 2200, 2300]
    assert "no cost in common" in figure.legends[0].get_title().get_text().replace("\n", " ")
    pyplot.close("all")


def test_a_mean_has_no_filter_to_draw(write_run, tmp_path):
    """Earlier versions recorded a recall of 0 for rules that reject nobody."""
    mean = write_run(tmp_path / "mean", strategy="svrpg", attack="alie", byzantine=3, filtering=True)
    group = Group("mean", (load_run(mean),))
    assert filter_quality_figure([group]) is None
    krum = write_run(tmp_path / "krum", strategy="svrpg", attack="alie", byzantine=3, filtering=True)
    config = krum / "config.toml"
    config.write_text(config.read_text().replace('kind = "mean"', 'kind = "krum"').replace("'mean'", "'krum'"))
    figure = filter_quality_figure([Group("krum", (load_run(krum),))])
    recall = figure.axes[0].lines[0].get_xydata()
    np.testing.assert_allclose(recall, [[1, 0.25], [2, 0.5], [3, 0.75], [4, 1.0]])
    pyplot.close("all")


def test_groups_of_one_measure_are_one_part(write_run, tmp_path):
    groups = [Group(name, (load_run(write_run(tmp_path / name, agents=k)),)) for name, k in (("a", 3), ("b", 9))]
    assert parts_of(groups) == [({}, groups)]
