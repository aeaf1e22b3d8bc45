"""What is said of returns where agents keep their own policies: whose environments they are in decides ranks."""

import csv
import json
import re

import pytest

from fedrax.cli import main
from fedrax.config import resolve
from fedrax.parsing import parsed_toml
from fedrax.report.html import write_report
from fedrax.report.personal import keeps_own
from fedrax.report.runs import Group, Run

ALL = "the mean of each agent's own policy over all agents' environments"
ELSEWHERE = "; of each in its own agent's environment alone: table Agents of the HTML report"


@pytest.fixture
def both(write_run, tmp_path):
    """A shared policy beside agents that learn alone, all in two agents' environments."""
    out = tmp_path / "runs"
    for strategy in ("fedavg", "local"):
        run = write_run(out / strategy, strategy=strategy, agents=2)
        config = (run / "config.toml").read_text()
        config += "\n[environment.heterogeneity]\nlength = [0.5, 1.0]\n\n[evaluation]\nenvironments = 'all'\n"
        (run / "config.toml").write_text(config)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for row in rows:
            row["agent_returns"] = [row["return"] - 1.5, row["return"] + 1.5]
            if strategy == "local":
                row["agent_own_returns"] = [row["return"] + 10, row["return"] + 20]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return out


def told(capsys, *words):
    assert main(["report", *map(str, words)]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_page_says_it_under_its_results(both, tmp_path):
    page = write_report([both], tmp_path / "report.html").read_text()
    (results,) = re.findall(r"<h2[^>]*>Results</h2>(.*?)<h3>What it cost", page, flags=re.DOTALL)
    assert "local: the return is the mean of each agent&#39;s own policy over all agents&#39; environments" in results
    assert "environment alone: Agents and Gain over learning alone." in results
    assert "fedavg: the return is" not in page
    page = write_report([both / "fedavg"], tmp_path / "report.html").read_text()
    assert "own policy over" not in page


def test_the_tables_for_papers_say_it(both, capsys):
    lines = told(capsys, both, "--table", "latex")
    assert lines[0] == f"% local: the return is {ALL}{ELSEWHERE}"
    assert rf"\multicolumn{{4}}{{l}}{{\footnotesize local: the return is {ALL}}} \\" in lines
    rows = {line["name"]: line["return of"] for line in csv.DictReader(told(capsys, both, "--table", "csv"))}
    assert rows == {"fedavg": "the policy that all agents share", "local": ALL + ELSEWHERE}
    for words in (["csv"], ["latex"]):
        text = "\n".join(told(capsys, both / "fedavg", "--table", *words))
        assert "return of" not in text
        assert "polic" not in text


def test_the_crossed_tables_say_it(both, capsys):
    words = ["--rows", "strategy", "--columns", "environment"]
    assert told(capsys, both, "--table", "latex", *words)[0] == f"% local: {ALL}{ELSEWHERE}"
    rows = csv.DictReader(told(capsys, both, "--table", "csv", *words))
    assert {line["strategy.kind"]: line["evaluated with"] for line in rows} == {
        "fedavg": "",
        "local": f"local: {ALL}{ELSEWHERE}",
    }


@pytest.mark.parametrize(
    ("strategy", "own"),
    [("fedavg", False), ("fedrep", True), ("fedper", True), ("local", True), ("clustered", True), ("fedformer", True)],
)
def test_whose_policies_they_are_follows_from_a_runs_configuration(strategy, own, tmp_path):
    words = ["environment=Pendulum-v1", "learner=sac", "federation.agents=2", "budget.rounds=1"]
    config = resolve({}, [*words, f"strategy={strategy}"])
    run = Run(tmp_path, parsed_toml(config.to_toml()), {}, {}, ())
    assert keeps_own(Group("ours", (run,))) is own
