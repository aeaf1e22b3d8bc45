"""The HTML report: its numbers, that it needs nothing from outside, and that it escapes what it quotes."""

import dataclasses
import html
import html.parser
import json
import math
import re

import pytest

from fedrax.errors import FedraxError
from fedrax.report.html import write_report
from fedrax.report.runs import Group, History, load_run
from fedrax.report.tables import Estimate, bytes_text, cost_table, duration, number
from fedrax.report.templating import json_html, page, part


class Checker(html.parser.HTMLParser):
    """Collects tags, texts and ids, and sees that every element is closed."""

    VOID = {"meta", "br", "img", "link", "hr", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.text = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.ids += [value for key, value in attributes if key == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def without_scripts(page):
    """The page without what its scripts hold, and that."""
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, flags=re.DOTALL)
    return re.sub(r"(<script[^>]*>).*?(</script>)", r"\1\2", page, flags=re.DOTALL), "".join(scripts)


def test_the_report_holds_the_expected_numbers(write_run, tmp_path):
    write_run(tmp_path / "runs" / "a")
    page = write_report([tmp_path / "runs"], tmp_path / "out" / "report.html").read_text()
    cells = re.findall(r"<td>(.*?)</td>", page)
    assert cells[:5] == [
        "fedpg-br, CartPole-v1, 10 agents",
        "3",
        "410 [400, 420]",
        "410 [400, 420]",
        "finished",
    ]
    each = [["fedpg-br, CartPole-v1, 10 agents", str(seed), *[str(400 + 10 * seed)] * 2] for seed in (0, 1, 2)]
    assert cells[5:17] == [cell for line in each for cell in line]
    assert cells[17:27] == [
        "fedpg-br, CartPole-v1, 10 agents",
        "4",
        "400",
        "4,800",
        "8,000",
        "100,000",
        "20",
        "6.00 kB",
        "4.00 kB",
        "1 min 0 s",
    ]
    for said in (
        "CartPole-v1",
        "2026-01-02 10:00 to 2026-01-02 10:01",
        "1 min 12 s",
        "fedrax train",
        "jax 0.6.0",
    ):
        assert said in page


def test_the_report_is_one_file_that_loads_nothing(write_run, tmp_path):
    write_run(tmp_path / "runs" / "a", attack="sign-flipping", byzantine=3, filtering=True)
    write_run(tmp_path / "runs" / "b", attack="random-noise", byzantine=3, filtering=True)
    page = write_report([tmp_path / "runs"], tmp_path / "report.html").read_text()
    markup, scripts = without_scripts(page)
    assert not re.findall(r"https?://|//cdn|@import|url\((?!#)|src=", markup)
    assert not re.findall(r"\bfetch\(|XMLHttpRequest|import\(|importScripts|WebSocket|sendBeacon|localStorage", scripts)
    checked = Checker(page)
    assert not {"link", "img", "iframe"} & set(checked.tags)
    assert checked.tags.count("svg") == 4
    assert len(checked.ids) == len(set(checked.ids))
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


@pytest.mark.training
def test_everything_quoted_is_escaped(write_run, tmp_path):
    write_run(tmp_path / "<b>&", name='<script>alert("x")</script>')
    page = write_report([tmp_path / "<b>&"], tmp_path / "report.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    # That of the page, and the data of the chart of its curves.
    assert Checker(page).tags.count("script") == 2


@pytest.mark.parametrize("name", ["</script><b>", "<!--<script>", "a\u2028b", "&lt;", "'\"\\"])
def test_data_cannot_end_its_script(name):
    made = json_html({"label": name, "values": [math.nan, 1.5, math.inf]})
    assert not {"<", ">", "&", "\u2028"} & set(made)
    assert json.loads(made) == {"label": name, "values": [None, 1.5, None]}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("headline", (1, {"<b>": "<b>"}, ["<b>"])),
        ("table", (["<b>"], [["<b>"]], '"><b>')),
        ("noted_table", (["<b>"], [["<b>"]], "<b>")),
        ("folded_table", ("<b>", ["<b>"], [["<b>"]])),
        ("results", ("<b>", [("<b>", "<b>")], ["<b>"], "<b>")),
        ("figure", ("<b>",)),
        ("chart", ("<b>", "<b>")),
        ("video", ("<b>", '"><b>', "<b>")),
        ("paragraph", ("<b>",)),
        ("notes", (["<b>"],)),
        ("code", (["<b>"],)),
    ],
)
def test_a_template_escapes_whatever_is_no_markup(name, values):
    made = part(name, *values)
    assert "<b>" not in made
    assert made.count("&lt;b&gt;") == repr(values).count("<b>")
    assert str(made) in page(title="", headline=made, sections=[])
    assert "<b>" not in page(title="<b>", headline="<b>", sections=[{"heading": "<b>", "body": "<b>"}])


def test_costs_have_one_number_of_digits(write_run, tmp_path):
    groups = []
    for name, steps in (("a", 3), ("b", 1.25)):
        run = load_run(write_run(tmp_path / name, seeds=(0,), agents=2))
        last = dict(run.histories[0].rows[-1]) | {"agent_steps": steps, "gradient_steps": 8000 * steps}
        groups.append(Group(name, (dataclasses.replace(run, histories=(History(0, (last,), 2),)),)))
    headings, lines = cost_table(groups)
    cells = {heading: [line[place] for line in lines] for place, heading in enumerate(headings)}
    assert cells["steps per agent"] == ["1.500", "0.625"]
    assert cells["gradient steps"] == ["24,000", "10,000"]
    assert cells["up per agent"] == ["6.00 kB", "6.00 kB"]


def test_one_seed_is_shown_without_interval_and_says_so(write_run, tmp_path):
    page = write_report([write_run(tmp_path / "a", seeds=(7,))], tmp_path / "report.html").read_text()
    assert re.findall(r"<td>(.*?)</td>", page)[1:4] == ["1", "470", "470"]
    assert "One seed has no interval" in page


def test_unfinished_runs_are_marked_and_can_be_resumed(write_run, tmp_path):
    path = write_run(tmp_path / "a b", finished=False)
    page = write_report([path], tmp_path / "report.html").read_text()
    assert "Not finished: a b" in page
    assert f"fedrax resume '{path}'" in html.unescape(page)
    assert "<td>unfinished</td>" in page


def test_a_run_without_any_row_still_makes_a_report(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text('name = "new"\n')
    page = write_report([tmp_path / "run"], tmp_path / "report.html").read_text()
    assert "No evaluation has been recorded yet" in page


def test_missing_columns_are_left_out(write_run, tmp_path):
    path = write_run(tmp_path / "a", without=("bytes_up", "bytes_down", "gradient_steps"))
    page = write_report([path], tmp_path / "report.html").read_text()
    assert "gradient steps" not in page
    assert "up per agent" not in page
    assert "100,000" in page


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(FedraxError, match="is no run"):
        write_report([tmp_path / "nothing"], tmp_path / "report.html")


def test_numbers_are_written_for_people():
    assert [number(value) for value in (float("nan"), 0.123456, 487.26, 12345.6, -1500)] == [
        "–",
        "0.1235",
        "487.3",
        "12,346",
        "-1,500",
    ]
    assert str(Estimate(-22.06, -23.451, -15.8)) == "-22.06 [-23.45, -15.80]"
    assert str(Estimate(491.87, 475.6, 500)) == "491.9 [475.6, 500.0]"
    assert str(Estimate(410, 400, 420)) == "410 [400, 420]"
    assert str(Estimate(0.5, 0, 1)) == "0.5 [0.0, 1.0]"
    assert str(Estimate(0, 0, 0)) == "0 [0, 0]"
    assert str(Estimate(9.4, 0.00012345, 11.2)) == "9.40 [0.00, 11.20]"
    assert str(Estimate(900, 3, 12345.6)) == "900 [3, 12,346]"
    assert str(Estimate(1e-9, 0, 2e-9)) == "1e-09 [0, 2e-09]"
    assert str(Estimate(1, -float("inf"), 2)) == "1 [-inf, 2]"
    assert [bytes_text(value) for value in (0, 20, 999, 999.9, 1500, 999_900, 2.5e6, 300_000, 3e12)] == [
        "0 B",
        "20 B",
        "999 B",
        "1.00 kB",
        "1.50 kB",
        "1.00 MB",
        "2.50 MB",
        "300 kB",
        "3,000 GB",
    ]
    assert [duration(value) for value in (0, 0.42, 3.20173, 59.9, 59.97, 72, 7500)] == [
        "0 s",
        "0.420 s",
        "3.20 s",
        "59.9 s",
        "1 min 0 s",
        "1 min 12 s",
        "2 h 5 min",
    ]
    assert str(Estimate(410, 400, 420)) == "410 [400, 420]"
    assert str(Estimate(410, float("nan"), float("nan"))) == "410"


def test_the_report_counts_collections_that_were_dropped(write_run, tmp_path):
    run = write_run(tmp_path / "a")
    page = tmp_path / "report.html"
    assert "Collections dropped" not in write_report([run], page).read_text()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    entry = {"agent": 2, "what": "reward", "step": 7, "copy": 0}
    rows = [json.loads(line) | ({"dropped": [entry, entry]} if number < 2 else {}) for number, line in enumerate(lines)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert (
        "<dt>Collections dropped</dt><dd>4, whose numbers, or what was learned from them, were not finite</dd>"
        in write_report([run], page).read_text()
    )


@pytest.mark.parametrize(
    ("unfinished", "told"),
    [
        (0, "2 min 24 s, the sum over runs"),
        (1, "2 min 24 s, the sum over runs; 1 that has not ended is left out"),
        (2, "2 min 24 s, the sum over runs; 2 that have not ended are left out"),
    ],
)
def test_the_time_of_all_runs_says_what_is_not_in_it(write_run, tmp_path, unfinished, told):
    for seed in range(2 + unfinished):
        write_run(tmp_path / "runs" / str(seed), seeds=(seed,), finished=seed < 2)
    page = write_report([tmp_path / "runs"], tmp_path / "report.html").read_text()
    assert f"<dt>Took</dt><dd>{told}</dd>" in page


def test_setups_without_an_evaluation_are_named(write_run, tmp_path):
    write_run(tmp_path / "runs" / "a", seeds=(0,))
    page = tmp_path / "report.html"
    assert "no evaluation has been recorded yet" not in write_report([tmp_path / "runs"], page).read_text()
    write_run(tmp_path / "runs" / "b", seeds=(0,), strategy="svrpg", without=("return",))
    made = write_report([tmp_path / "runs"], page).read_text()
    assert "<dt>Seeds</dt><dd>1, none of 1 evaluated yet</dd>" in made
    assert "<li>Each line with returns rests on 1 seed. Seeds" in made
    assert "<li>svrpg: no evaluation has been recorded yet, so there are no returns.</li>" in made
    alone = write_report([tmp_path / "runs" / "b"], page).read_text()
    assert "<li>No evaluation has been recorded yet. Seeds" in alone
    assert "so there are no returns" not in alone
