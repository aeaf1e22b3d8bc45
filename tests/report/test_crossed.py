"""Tables with the values of one setting as rows and those of another as columns."""

import csv
import json

import pytest

from fedrax.cli import main


@pytest.fixture
def robust(write_run, tmp_path):
    """Two strategies by three attacks, but for one; a return of 400 and 10 a seed, of the last attack 300."""
    out = tmp_path / "robust"
    for attack, rounds in (("random-noise", 4), ("sign-flipping", 4), ("alie", 3)):
        for strategy in ("fedpg-br", "svrpg"):
            if (attack, strategy) != ("sign-flipping", "svrpg"):
                folder = out / f"{strategy},attack.kind={attack}" / "seeds-0-2"
                write_run(folder, strategy=strategy, attack=attack, byzantine=3, rounds=rounds)
    return out


def told(capsys, *words):
    assert main(["report", *map(str, words)]) == 0
    return capsys.readouterr().out.splitlines()


def refused(capsys, *words):
    assert main(["report", *map(str, words)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_latex_table_of_strategies_by_attacks(robust, capsys):
    lines = told(capsys, robust, "--table", "latex", "--rows", "strategy.kind", "--columns", "attack.kind")
    assert lines == [
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        r" & \multicolumn{3}{c}{attack.kind} \\",
        r"\cmidrule(lr){2-4}",
        r"strategy.kind & alie & random-noise & sign-flipping \\",
        r"\midrule",
        r"fedpg-br & 310 [300, 320] & 410 [400, 420] & 410 [400, 420] \\",
        r"svrpg & 310 [300, 320] & 410 [400, 420] & -- \\",
        r"\bottomrule",
        r"\multicolumn{4}{l}{\footnotesize final return, IQM [95 \%] of 3 seeds} \\",
        r"\multicolumn{4}{l}{\footnotesize [95 \%]: bootstrap over seeds, too narrow with fewer than 5 seeds} \\",
        r"\end{tabular}",
    ]


def test_a_cell_is_what_the_line_of_the_other_table_says(robust, capsys):
    flat = {line["name"]: line for line in csv.DictReader(told(capsys, robust, "--table", "csv"))}
    table = csv.DictReader(told(capsys, robust, "--table", "csv", "--rows", "strategy", "--columns", "attack"))
    rows = {line["strategy.kind"]: line for line in table}
    assert list(rows) == ["fedpg-br", "svrpg"]
    for strategy, row in rows.items():
        for attack in ("random-noise", "sign-flipping", "alie"):
            line = flat.get(f"{strategy},attack.kind={attack}", {})
            for here, there in (
                ("IQM", "final return, IQM"),
                ("low", "final return, low"),
                ("high", "final return, high"),
                ("seeds", "seeds"),
                ("seeds begun", "seeds begun"),
                ("state", "state"),
            ):
                assert row[f"{attack}, {here}"] == line.get(there, "")


def test_an_unfinished_cell_is_marked(robust, capsys):
    (robust / "svrpg,attack.kind=alie" / "seeds-0-2" / "summary.json").unlink()
    lines = told(capsys, robust, "--table", "latex", "--rows", "strategy.kind", "--columns", "attack.kind")
    assert r"svrpg & 310 [300, 320]$^\dagger$ & 410 [400, 420] & -- \\" in lines
    assert r"\multicolumn{4}{l}{\footnotesize $^\dagger$ unfinished: as far as recorded} \\" in lines


def test_several_keys_make_a_row(robust, capsys):
    words = ["--rows", "strategy.kind,aggregator.kind", "--columns", "attack.kind"]
    lines = told(capsys, robust, "--table", "latex", *words)
    assert r"strategy.kind & aggregator.kind & alie & random-noise & sign-flipping \\" in lines
    assert r"svrpg & mean & 310 [300, 320] & 410 [400, 420] & -- \\" in lines


def test_environments_may_be_columns_or_have_a_table_each(write_run, tmp_path, capsys):
    """Returns of other environments stand in columns of their own, and else in tables of their own."""
    for environment in ("CartPole-v1", "Pendulum-v1"):
        for strategy in ("fedpg-br", "svrpg"):
            run = write_run(tmp_path / "out" / f"{strategy}-{environment}", strategy=strategy)
            text = (run / "config.toml").read_text()
            (run / "config.toml").write_text(text.replace("CartPole-v1", environment))
    lines = told(capsys, tmp_path / "out", "--table", "latex", "--rows", "strategy", "--columns", "environment")
    assert lines.count(r"\end{tabular}") == 1
    assert r"svrpg & 410 [400, 420] & 410 [400, 420] \\" in lines
    words = ["--rows", "strategy,environment", "--columns", "attack"]
    assert told(capsys, tmp_path / "out", "--table", "latex", *words).count(r"\end{tabular}") == 1
    error = refused(capsys, tmp_path / "out", "--table", "latex", "--rows", "strategy", "--columns", "attack")
    assert "which differ in environment.id: add that to one side, as --rows strategy.kind,environment.id" in error


@pytest.mark.parametrize(
    ("words", "needle"),
    [
        (["--rows", "strategy.kind"], "--rows is not allowed without a table: add --table latex or csv"),
        (["--table", "csv", "--columns", "attack"], "--columns is not allowed alone: give --rows too"),
        (["--table", "csv", "--rows", "strategy.kin", "--columns", "attack"], "did you mean 'strategy.kind'"),
        (
            ["--table", "csv", "--rows", "seed", "--columns", "attack"],
            "--rows seed is not allowed: the runs of one setup are one result, over all of its seeds; give a setting: "
            "these setups differ in strategy.kind, attack.kind",
        ),
        (
            ["--table", "csv", "--rows", "attack", "--columns", "n_agents"],
            "'n_agents' (did you mean 'federation.agents'",
        ),
        (
            ["--table", "csv", "--rows", "attack", "--columns", "final_return"],
            "unknown setting in --columns 'final_return': these setups differ in strategy.kind, attack.kind",
        ),
        (["--table", "csv", "--rows", "attack", "--columns", "attack.kind"], "both have attack.kind"),
        (["--table", "csv", "--rows", "attack,attack", "--columns", "strategy"], "it has attack.kind twice"),
        (
            ["--table", "csv", "--rows", "aggregator", "--columns", "federation.agents"],
            "aggregator.kind = fedpg-filter, federation.agents = 10 (fedpg-br,attack.kind=alie, fedpg-br,attack.kind=",
        ),
        (["--table", "csv", "--rows", "aggregator", "--columns", "federation.agents"], "differ in attack.kind: add"),
    ],
)
def test_what_cannot_be_crossed_is_refused_in_one_line(robust, capsys, words, needle):
    assert needle in refused(capsys, robust, *words)


def test_setups_with_the_same_settings_are_named(write_run, tmp_path, capsys):
    for setup in ("plain", "again"):
        write_run(tmp_path / "sweep" / setup / "seeds-0-2")
    (tmp_path / "sweep" / "sweep.json").write_text(json.dumps({"jobs": []}))
    error = refused(capsys, tmp_path / "sweep", "--table", "csv", "--rows", "strategy", "--columns", "attack")
    assert "(again, plain), with the same settings: give the folders of those" in error
