"""What fedrax report writes, of which runs, and what it refuses."""

import csv
import json

import pytest

from fedrax.cli import main
from fedrax.report.cells import latex, latex_numbers
from fedrax.report.html import write_report
from fedrax.report.runs import group_runs, load_runs
from fedrax.report.tables import Estimate, alike, estimates


@pytest.fixture
def sweep(write_run, tmp_path):
    """A sweep's folder: two setups of two seeds, of which one differs in no setting that a label would show."""
    out = tmp_path / "sweep"
    for setup, strategy in (("plain", "fedpg-br"), ("plain_again", "fedpg-br"), ("without filter", "svrpg")):
        for seed in (0, 1):
            write_run(out / setup / f"seed-{seed}", seeds=(seed,), strategy=strategy)
        (out / setup / "seed-0.log").write_text("")
    jobs = [{"setup": setup, "seed": seed} for seed in (0, 1) for setup in ("without filter", "plain", "plain_again")]
    (out / "sweep.json").write_text(json.dumps({"file": "sweep.toml", "jobs": jobs}))
    return out


SETUPS = {"plain": [0, 1], "plain_again": [0, 1], "without filter": [0, 1]}


def seeds_by_label(*paths):
    return {group.label: [history.seed for history in group.histories] for group in group_runs(load_runs(paths))}


def test_a_sweeps_folder_stands_for_its_setups(sweep):
    assert seeds_by_label(sweep) == SETUPS


def test_setups_stand_in_the_order_of_the_sweeps_file(sweep):
    assert list(seeds_by_label(sweep)) == ["without filter", "plain", "plain_again"]


def test_setups_are_known_by_their_folders_and_runs_too(sweep):
    assert seeds_by_label(sweep / "plain", sweep / "without filter" / "seed-1") == {
        "plain": [0, 1],
        "without filter": [1],
    }


def test_a_sweep_under_way_has_no_record_yet(sweep):
    (sweep / "sweep.json").unlink()
    assert seeds_by_label(sweep) == SETUPS


def test_a_sweep_may_keep_a_setups_seeds_in_one_run(write_run, tmp_path):
    for setup in ("a", "b"):
        write_run(tmp_path / setup, seeds=(0, 1))
    (tmp_path / "sweep.json").write_text("{}")
    assert seeds_by_label(tmp_path) == {"a": [0, 1], "b": [0, 1]}


@pytest.mark.parametrize("text", ["{", "null", '{"jobs": [3, {"setup": {}}]}', '{"jobs": {}}'])
def test_a_sweep_is_reported_whose_record_is_damaged(sweep, text):
    (sweep / "sweep.json").write_text(text)
    assert seeds_by_label(sweep) == SETUPS


def test_runs_of_sweeps_and_others_are_labelled_by_their_settings(sweep, write_run, tmp_path):
    labels = seeds_by_label(sweep / "plain", write_run(tmp_path / "other", strategy="svrpg"))
    assert list(labels) == ["fedpg-br", "svrpg"]


def test_a_table_is_printed_or_written_as_numbers(sweep, tmp_path, capsys):
    assert main(["report", str(sweep), "--table", "csv"]) == 0
    printed = capsys.readouterr().out
    (first, *_) = csv.DictReader(printed.splitlines())
    assert first["name"] == "without filter"
    assert (first["final return, IQM"], first["final return, low"], first["final return, high"]) == (
        "405",
        "400",
        "410",
    )
    assert (first["seeds"], first["state"], first["up per agent, bytes"]) == ("2", "finished", "6000")
    out = tmp_path / "table.csv"
    assert main(["report", str(sweep), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert out.read_text() == printed


def test_numbers_of_a_filter_are_empty_where_there_is_none(write_run, tmp_path, capsys):
    write_run(tmp_path / "a", attack="sign-flipping", byzantine=3, filtering=True)
    write_run(tmp_path / "b", attack="sign-flipping", byzantine=3, strategy="svrpg")
    assert main(["report", str(tmp_path), "--table", "csv"]) == 0
    lines = {line["name"]: line for line in csv.DictReader(capsys.readouterr().out.splitlines())}
    found = {name: (line["filter_recall"], line["filter_precision"]) for name, line in lines.items()}
    assert found == {"fedpg-br": ("0.625", "0.75"), "svrpg": ("", "")}
    page = write_report([tmp_path], tmp_path / "report.html").read_text()
    assert "<td>fedpg-br</td><td>3</td><td>0.625 [0.625, 0.625]</td><td>0.75 [0.75, 0.75]</td>" in page


def test_a_latex_table_is_one_of_booktabs(sweep, capsys):
    assert main(["report", str(sweep), "--table", "latex"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == r"\begin{tabular}{lrrr}"
    assert lines[2] == r" & seeds & final return, IQM [95 \%] & steps per agent \\"
    assert lines[6] == r"plain\_again & 2 & 405 [400, 410] & 8,000 \\"
    assert lines[-1] == r"\end{tabular}"


@pytest.fixture
def stopped(sweep):
    """The same, where the second seed of one setup had no evaluation yet, and that of another no round."""
    for setup, kept in (("plain", 1), ("without filter", 0)):
        run = sweep / setup / "seed-1"
        (run / "summary.json").unlink()
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()[:kept]]
        lines = [{key: value for key, value in row.items() if key != "return"} for row in rows]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        text = (run / "config.toml").read_text()
        (run / "config.toml").write_text(text.replace("seed = 0", "seed = 1"))
    return sweep


def test_curves_are_smoothed_as_asked(sweep, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert main(["report", str(sweep), "--out", str(out), "--smoothing", "2"]) == 0
    page = out.read_text()
    assert "mean of the 2 last evaluations" in page
    assert '"smoothing":2' in page
    plain = out.with_suffix(".png").read_bytes()
    assert main(["report", str(sweep), "--out", str(out)]) == 0
    assert '"smoothing":1' in out.read_text()
    assert out.with_suffix(".png").read_bytes() != plain


def test_only_evaluated_seeds_count_in_tables(stopped, capsys):
    """Their costs as their returns: those of a seed without a return would make the line's return look cheap."""
    assert main(["report", str(stopped), "--table", "csv"]) == 0
    lines = {line["name"]: line for line in csv.DictReader(capsys.readouterr().out.splitlines())}
    for name in ("plain", "without filter"):
        line = lines[name]
        assert (line["seeds"], line["seeds begun"], line["state"]) == ("1", "2", "unfinished")
        assert (line["final return, IQM"], line["final return, low"]) == ("400", "")
        assert (line["rounds"], line["steps per agent"]) == ("4", "8000")
    assert (lines["plain_again"]["seeds"], lines["plain_again"]["seeds begun"]) == ("2", "2")


def test_a_latex_table_marks_what_is_unfinished_and_what_rests_on_few_seeds(stopped, capsys):
    assert main(["report", str(stopped), "--table", "latex"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert r"plain$^\dagger$ & 1 of 2 & 400 & 8,000 \\" in lines
    assert r"plain\_again & 2 & 405 [400, 410] & 8,000 \\" in lines
    below = lines[lines.index(r"\bottomrule") + 1 :]
    assert [line.removeprefix(r"\multicolumn{4}{l}{\footnotesize ") for line in below] == [
        r"$^\dagger$ unfinished: as far as recorded} \\",
        r"lines are of the seeds that were evaluated} \\",
        r"[95 \%]: bootstrap over seeds, too narrow with fewer than 5 seeds} \\",
        r"\end{tabular}",
    ]


def test_a_column_has_one_number_of_digits():
    nan = float("nan")
    column = [Estimate(-617.04, -1070.4, -163.9), Estimate(-171.93, -180.01, -160.2), Estimate(-5.25, nan, nan)]
    assert estimates(column) == ["-617 [-1,070, -164]", "-172 [-180, -160]", "-5"]
    assert estimates([Estimate(9.5, 9, 10), Estimate(nan, nan, nan)]) == ["9.5 [9.0, 10.0]", "–"]
    assert estimates([]) == []
    assert alike(60.85, 0.5937) == ["60.85", "0.59"]
    assert alike(60.85, 0.00001) == ["60.85", "0.00"]
    assert alike(1e-6, 2e-9) == ["1e-06", "2e-09"]


def test_the_page_says_of_how_many_seeds_its_lines_are(stopped, tmp_path):
    page = write_report([stopped], tmp_path / "report.html").read_text()
    assert "<td>plain</td><td>1 of 2</td><td>400</td>" in page
    assert "Each line rests on 1 to 2 seeds" in page
    assert "plain: of 2 seeds 1 was evaluated; the others are in none of its numbers." in page
    assert "<dt>Seeds</dt><dd>1 of 2, 2</dd>" in page


def test_a_page_names_runs_by_setup_and_seed(stopped, tmp_path):
    page = write_report([stopped], tmp_path / "report.html").read_text()
    assert "Not finished: without filter, seed 1; plain, seed 1; shown" in page
    for setup in SETUPS:
        for seed in (0, 1):
            assert page.count(f"<summary>{setup}, seed {seed}</summary>") == 2, "settings, and versions and machine"
    assert "seed-1</summary>" not in page


def test_latex_shows_every_sign():
    assert latex(r"a_b & 50 % {x} \y ~^ $1 #2 –") == (
        r"a\_b \& 50 \% \{x\} \textbackslash{}y \textasciitilde{}\textasciicircum{} \$1 \#2 --"
    )


@pytest.mark.parametrize(
    ("told", "written"),
    [
        ("-92.06 [-94.21, -89.26]", "$-92.06$ [$-94.21$, $-89.26$]"),
        ("-1,070 [-12,345, 20]", "$-1{,}070$ [$-12{,}345$, 20]"),
        ("-1e-09 [-inf, 2e-09]", "$-1e-09$ [$-inf$, 2e-09]"),
        ("410 [400, 420]", "410 [400, 420]"),
        ("–", "--"),
    ],
)
def test_negative_numbers_have_a_minus_sign_in_latex(told, written):
    assert latex_numbers(told) == written


def test_a_latex_table_has_minus_signs(sweep, capsys):
    for run in sweep.glob("*/seed-*/metrics.jsonl"):
        rows = [json.loads(line) for line in run.read_text().splitlines()]
        run.write_text("".join(json.dumps(row | {"return": -row["return"]}) + "\n" for row in rows))
    assert main(["report", str(sweep), "--table", "latex"]) == 0
    assert r"plain\_again & 2 & $-405$ [$-410$, $-400$] & 8,000 \\" in capsys.readouterr().out
    words = ["--table", "latex", "--rows", "strategy.kind", "--columns", "attack.kind"]
    assert main(["report", str(sweep / "plain"), *words]) == 0
    assert r"fedpg-br & $-405$ [$-410$, $-400$] \\" in capsys.readouterr().out


@pytest.mark.parametrize(("suffix", "begins"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_a_figure_is_written_in_each_format(suffix, begins, sweep, tmp_path, capsys):
    out = tmp_path / f"figure.{suffix}"
    assert main(["report", str(sweep), "--figure", suffix, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    first = out.read_bytes()
    assert first.startswith(begins)
    main(["report", str(sweep), "--out", str(out)])
    assert out.read_bytes() == first
    assert main(["report", str(sweep / "plain"), "--figure", suffix]) == 0
    assert (sweep / "plain" / f"report.{suffix}").read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "a.txt"], "--out a.txt is not allowed: a report is written as .html, a table as .csv or .tex"),
        (["--out", "a"], "--out a is not allowed"),
        (["--table", "csv", "--out", "a.tex"], "not allowed with --table: it must end in .csv"),
        (["--smoothing", "0"], "--smoothing 0 is not allowed: it must be between 1 and"),
        (["--smoothing", "2", "--table", "csv"], "--smoothing is not allowed with a table"),
        (["--figure", "pdf", "--out", "a.html"], "not allowed with --figure: it must end in .pdf"),
    ],
)
def test_other_suffixes_are_refused_in_one_line(words, message, sweep, capsys):
    assert main(["report", str(sweep), *words]) == 1
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
