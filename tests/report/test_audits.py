"""What a report says of audits: tables of what was found, the guarantee of every run, and returns beside setups."""

import json

import pytest

from fedrax.errors import FedraxError
from fedrax.records.audits import findings, setups_table, text
from fedrax.report.html import write_report

ATTACKS = {
    "A1": {"question": "was it <there>?", "headline": "auc"},
    "A6": {"question": "the same?", "headline": "as_run"},
}
RECORD = {
    "attacks": ATTACKS,
    "setups": [
        {
            "name": "as run",
            "overrides": [],
            "protection": {"privacy.clip": 1.0, "privacy.unit": None},
            "guarantee": None,
            "attacks": {
                "A1": {"answers": {"auc": 0.76123, "auc_margin": 0.0211, "epsilon_claimed": None}},
                "A6": {"answers": {"as_run": True}},
            },
        },
        {
            "name": "none",
            "overrides": [],
            "protection": {"privacy.clip": None},
            "guarantee": None,
            "attacks": {"A1": {"answers": {"auc": 1.0}}, "A6": {"inapplicable": "nothing is sent"}},
        },
        {"name": "secure sum", "overrides": [], "refused": "set aggregator=mean"},
    ],
}


def audited(path, record=RECORD, clip="1.0"):
    """Adds an audit, and a bound on updates, to a run that was written."""
    with (path / "config.toml").open("a") as file:
        file.write(f"[privacy]\nclip = {clip}\n")
    if record is not None:
        (path / "audit.json").write_text(json.dumps(record))
    return path


def test_findings_in_words():
    said = [(id, words) for id, _, words in findings(RECORD, RECORD["setups"][0])]
    assert said == [
        ("A1", "AUC 0.761 ± 0.021, no epsilon is claimed"),
        ("A6", "from the configuration the trajectories can be recomputed"),
    ]
    headings, lines = setups_table(RECORD)
    assert headings == ["", "A1 AUC", "A6 trajectories equal"]
    assert lines == [["as run", "0.761", "yes"], ["none", "1", "–"], ["secure sum", "–", "–"]]
    assert (text(None), text(False), text(0.00012345)) == ("–", "no", "0.000123")


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (
            {"as_run": True, "on_nodes_with_secrets": False},
            "from the configuration the trajectories can be recomputed, "
            "but not those of nodes that draw from secrets of their own",
        ),
        (
            {"as_run": False, "on_nodes_with_secrets": False},
            "from the configuration the trajectories cannot be recomputed",
        ),
        ({"epsilon_at_least": 1.5, "epsilon_claimed": 4.25}, "epsilon at least 1.5, epsilon claimed 4.25"),
        (
            {"releases": 16, "releases_guaranteed": 25, "epsilon_claimed": 6.13},
            "releases 16, epsilon claimed 6.13 for 16 of 25 releases",
        ),
        (
            {"releases": 4, "releases_guaranteed": 4, "epsilon_claimed": 6.13},
            "releases 4, epsilon claimed 6.13",
        ),
        ({"precision": None, "recall": 0.0}, "no word was guessed, recall 0"),
    ],
)
def test_what_an_attack_found_is_said_in_sentences(answers, said):
    ((_, _, words),) = findings({"attacks": ATTACKS}, {"attacks": {"A6": {"answers": answers}}})
    assert words == said


def test_a_page_shows_what_was_found_and_returns_of_runs_with_the_same_protection(write_run, tmp_path):
    audited(write_run(tmp_path / "runs" / "clipped"))
    write_run(tmp_path / "runs" / "plain", rounds=3)
    write_run(tmp_path / "runs" / "other", strategy="gpomdp", rounds=2)
    page = write_report([tmp_path / "runs"], tmp_path / "report.html").read_text()
    assert "was it &lt;there&gt;?" in page
    assert "secure sum cannot be had: set aggregator=mean" in page
    lines = [line for line in page.split("<tr>") if line.startswith(("<td>as run", "<td>none"))]
    assert "<td>410 [400, 420]</td>" in lines[0]
    assert "<td>310 [300, 320]</td>" in lines[1]


def test_every_run_says_what_is_guaranteed(write_run, tmp_path):
    run = write_run(tmp_path / "a")
    assert "guaranteed" not in write_report([run], tmp_path / "before.html").read_text()
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"privacy": {"text": "epsilon 4.38 per trajectory"}}))
    page = write_report([run], tmp_path / "report.html").read_text()
    assert "What is guaranteed of privacy" in page
    assert "<td>epsilon 4.38 per trajectory</td>" in page
    assert "What attacks" not in page


def test_a_damaged_audit_is_named(write_run, tmp_path):
    run = audited(write_run(tmp_path / "a"), record=None)
    setup = '{"attacks": {}, "setups": [{"name": "as run", "attacks": {"A1": {}}}]}'
    for damaged in ("{", "{}", '{"setups": []}', "[]", '{"attacks": {}, "setups": [1.5]}', setup):
        (run / "audit.json").write_text(damaged)
        check_named(run, tmp_path)


def check_named(run, tmp_path):
    with pytest.raises(FedraxError, match=r"the audit .*audit\.json is damaged"):
        write_report([run], tmp_path / "report.html")
