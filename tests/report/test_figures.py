"""Figures: what is drawn, in which size, and that nothing is drawn that is not known."""

import json
import re

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from fedrax.errors import FedraxError
from fedrax.report import published
from fedrax.report.attack_figures import (
    attack_heatmap,
    attack_table,
    filter_quality_chart,
    filter_quality_figure,
    filter_quality_table,
)
from fedrax.report.attention import attention_chart, attention_figure, attention_lines, attention_of
from fedrax.report.curves import coinciding, summarise
from fedrax.report.figures import curves_figure, describe, panels_figure
from fedrax.report.runs import Group, group_runs, load_run, load_runs
from fedrax.report.style import inline_svg, save


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_saved_figure_has_its_size_and_ink(write_run, tmp_path):
    figure = curves_figure([Group("ours", (load_run(write_run(tmp_path / "a")),))], title="T")
    save(figure, tmp_path / "f.png", tmp_path / "f.svg")
    image = matplotlib.image.imread(tmp_path / "f.png")
    assert image.shape[:2] == (round(5.2 * 160), round(7.6 * 160))
    assert np.unique(image[..., :3].reshape(-1, 3), axis=0).shape[0] > 50
    assert (tmp_path / "f.svg").read_text().lstrip().startswith("<?xml")


def test_equal_runs_give_equal_files(write_run, tmp_path):
    group = Group("ours", (load_run(write_run(tmp_path / "a")),))
    for name in ("1.svg", "2.svg"):
        save(curves_figure([group]), tmp_path / name)
    assert (tmp_path / "1.svg").read_bytes() == (tmp_path / "2.svg").read_bytes()


def test_the_callers_settings_are_left_alone(write_run, tmp_path):
    before = dict(matplotlib.rcParams)
    curves_figure([Group("ours", (load_run(write_run(tmp_path / "a")),))])
    assert dict(matplotlib.rcParams) == before


def test_several_seeds_have_a_band_and_faint_lines_and_one_has_neither(write_run, tmp_path):
    several = curves_figure([Group("ours", (load_run(write_run(tmp_path / "a")),))]).axes[0]
    alone = curves_figure([Group("ours", (load_run(write_run(tmp_path / "b", seeds=(0,))),))]).axes[0]
    assert [isinstance(band, PolyCollection) for band in several.collections] == [True]
    assert len(several.lines) == 4
    assert len(alone.collections) == 0
    assert len(alone.lines) == 1


def test_the_caption_states_statistic_seeds_interval_and_smoothing(write_run, tmp_path):
    group = Group("ours", (load_run(write_run(tmp_path / "a")),))
    text = describe([summarise(group, "round", smoothing=5)])
    for stated in ("IQM of 3 seeds", "95 % stratified bootstrap", "5 last evaluations"):
        assert stated in text
    alone = Group("ours", (load_run(write_run(tmp_path / "b", seeds=(0,))),))
    assert "bootstrap" not in describe([summarise(alone, "round")])


def test_published_points_are_drawn_as_they_are_and_labelled(write_run, tmp_path):
    series = published.load("fedpg-br-cartpole")
    shown = {"ours": series["FedPG-BR K=10"], "GPOMDP K=1": series["GPOMDP K=1"]}
    figure = curves_figure([Group("ours", (load_run(write_run(tmp_path / "a", seeds=(0,))),))], published=shown)
    theirs, others, ours = figure.axes[0].lines
    assert tuple(theirs.get_ydata()) == shown["ours"].y
    assert theirs.get_color() == ours.get_color() != others.get_color()
    assert legend_texts(figure) == [
        "ours",
        "GPOMDP K=1, published (read off)",
        "published (read off), same colours",
    ]


def test_published_points_over_another_axis_are_refused(write_run, tmp_path):
    shown = {"ours": published.load("fedpg-br-cartpole")["FedPG-BR K=10"]}
    with pytest.raises(FedraxError, match="x='trajectories'"):
        curves_figure([Group("ours", (load_run(write_run(tmp_path / "a")),))], "round", shown)


def test_a_line_that_lies_upon_another_is_dotted_and_said(write_run, tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", strategy="svrpg")
    write_run(tmp_path / "c", strategy="gpomdp", seeds=(5, 6, 7))
    groups = group_runs(load_runs([tmp_path]))
    curves = [summarise(group) for group in groups]
    assert coinciding(curves) == {"svrpg": ["fedpg-br"]}
    assert "svrpg (dotted) lies on fedpg-br" in describe(curves)
    lines = [line for line in curves_figure(groups).axes[0].lines if line.get_linewidth() == 1.7]
    assert [line.get_linestyle() for line in lines] == ["-", "--", "-"]


def test_a_run_without_evaluation_draws_empty_axes(write_run, tmp_path):
    group = Group("ours", (load_run(write_run(tmp_path / "a", without=("return",))),))
    figure = curves_figure([group])
    save(figure, tmp_path / "f.png")
    assert [text.get_text() for text in figure.axes[0].texts] == ["no evaluation yet"]


def test_panels_share_colours(write_run, tmp_path):
    a = Group("FedPG-BR", (load_run(write_run(tmp_path / "a", seeds=(0,))),))
    b = Group("SVRPG", (load_run(write_run(tmp_path / "b", seeds=(0,), strategy="svrpg")),))
    figure = panels_figure({"noise": [a, b], "flip": [b]})
    first, second = figure.axes
    assert first.lines[1].get_color() == second.lines[0].get_color() != first.lines[0].get_color()
    assert [axes.get_title("left") for axes in figure.axes] == ["noise", "flip"]


def test_filter_quality_leaves_undefined_precision_out(write_run, tmp_path):
    run = load_run(write_run(tmp_path / "a", attack="sign-flipping", byzantine=3, filtering=True))
    figure = filter_quality_figure([Group("ours", (run,))])
    assert figure is not None
    recall, precision = figure.axes[0].lines
    assert recall.get_xydata().tolist() == [[1, 0.25], [2, 0.5], [3, 0.75], [4, 1.0]]
    assert precision.get_xydata().tolist() == [[2, 0.75], [3, 0.75], [4, 0.75]]
    heights = [[bar.get_height() for bar in bars] for bars in figure.axes[1].containers]
    assert np.sum(heights, axis=0).tolist() == [1, 1, 1, 1]
    assert heights[0] == [1, 0, 0, 1]
    chart = filter_quality_chart([Group("ours", (run,))])
    (line,) = chart["groups"]
    assert [name for name, _ in chart["y"]] == ["filter_recall", "filter_precision", "rule 0", "rule 1", "rule 2"]
    assert line["values"]["x"] == [1, 2, 3, 4]
    assert line["values"]["filter_recall"] == [0.25, 0.5, 0.75, 1]
    assert np.array_equal(line["values"]["filter_precision"], [np.nan, 0.75, 0.75, 0.75], equal_nan=True)
    assert line["values"]["rule 1"] == [1, 0, 0, 1]


def test_recall_and_precision_are_means_of_seeds_over_the_rounds_that_have_them(write_run, tmp_path):
    path = write_run(tmp_path / "a", seeds=(0, 1), attack="sign-flipping", byzantine=3, filtering=True)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if row["seed"] == 1:  # It never rejected anybody.
            row |= {"filter_recall": 0.0, "filter_precision": float("nan")}
    # Another number of rounds gives a seed no other weight.
    kept = [row for row in rows if row["seed"] == 0 or row["round"] < 2]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    filtered, plain = Group("ours", (load_run(path),)), Group("plain", (load_run(write_run(tmp_path / "b")),))
    headings, lines = filter_quality_table([filtered, plain])
    assert headings == ["", "seeds", "mean recall", "mean precision"]
    assert lines == [["ours", "2 and 1", "0.3125 [0.0000, 0.6250]", "0.75"]]
    assert filter_quality_table([plain]) is None


def test_where_nobody_attacks_the_filters_quality_has_no_panel(write_run, tmp_path):
    quiet = write_run(tmp_path / "a", filtering=True)
    rows = [json.loads(line) for line in (quiet / "metrics.jsonl").read_text().splitlines()]
    kept = (
        {key: value for key, value in row.items() if key not in ("filter_recall", "filter_precision")} for row in rows
    )
    (quiet / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    write_run(tmp_path / "b", attack="sign-flipping", byzantine=3, filtering=True)
    figure = filter_quality_figure(group_runs(load_runs([tmp_path])))
    assert [axes.get_visible() for axes in figure.axes] == [False, True, True, True]
    assert [axes.get_ylabel() for axes in figure.axes[:2]] == ["", "precision, recall"]


def test_filter_quality_needs_its_columns(write_run, tmp_path):
    assert filter_quality_figure([Group("ours", (load_run(write_run(tmp_path / "a")),))]) is None


def test_attack_table_and_heat_map(write_run, tmp_path):
    write_run(tmp_path / "a", attack="random-noise", byzantine=3)
    write_run(tmp_path / "b", attack="sign-flipping", byzantine=3, rounds=2)
    write_run(tmp_path / "c", attack="random-noise", byzantine=3, strategy="svrpg", rounds=1)
    table = attack_table(group_runs(load_runs([tmp_path])))
    assert table is not None
    assert table.rules == ("fedpg-br + fedpg-filter", "svrpg + mean")
    assert table.attacks == ("random-noise", "sign-flipping")
    assert np.array_equal(table.returns, [[410, 210], [110, np.nan]], equal_nan=True)
    figure = attack_heatmap(table)
    assert [text.get_text() for text in figure.axes[0].texts] == ["410", "210", "110", "–"]


def test_no_attack_makes_no_table(write_run, tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", strategy="svrpg")
    assert attack_table(group_runs(load_runs([tmp_path]))) is None


def test_inline_svg_is_themed_and_its_ids_are_its_own(write_run, tmp_path):
    figure = curves_figure([Group("ours", (load_run(write_run(tmp_path / "a")),))])
    text = inline_svg(figure, "first", 'a "quoted" <description>')
    assert text.startswith('<svg role="img" aria-label="a &quot;quoted&quot; &lt;description&gt;"')
    assert "var(--ink)" in text
    assert 'id="first-' in text
    assert 'id="figure' not in text
    assert "url(#first-" in text
    assert "http" not in text


def test_numbers_that_a_figure_says_keep_their_digits(write_run, tmp_path):
    """Coordinates are shortened to a tenth; ticks and labels were, too, and 0.25 and 0.20 became one."""
    figure = curves_figure([Group("learning_rate=0.0003", (load_run(write_run(tmp_path / "a")),))])
    figure.axes[0].set_yticks([0.05, 0.1, 0.15], ["0.05", "0.10", "0.15"])
    text = inline_svg(figure, "first", "x")
    said = re.findall(r">([^<>]+)</text>", text)
    assert {"0.05", "0.10", "0.15", "learning_rate=0.0003"} <= set(said)
    assert not re.findall(r'[ "(]\d+\.\d\d', "".join(re.findall(r"<[^!][^>]*>", text)))


def with_attention(path, shares):
    """The run at ``path`` as of critics that attend; ``shares`` by round, None where there are none."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    rows = [row | {"attention": shares(row["round"])} for row in lines]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Group("attending", (load_run(path),))


def test_attention_is_drawn_by_agent_and_over_rounds(write_run, tmp_path):
    shares = [[0.4, 0.1, 0.2], [0.1, 0.3, 0.3], [0.0, 0.5, 0.2]]
    nothing = np.zeros((3, 3)).tolist()
    late = np.transpose(shares).tolist()
    by_round = {**dict.fromkeys(range(3), nothing), 3: shares, 4: shares}
    group = with_attention(write_run(tmp_path / "a", rounds=11), lambda number: by_round.get(number, late))
    known = attention_of([group, Group("not", (load_run(write_run(tmp_path / "b")),))])
    figure, (lines,) = attention_figure(known), attention_lines(known).axes
    shown = figure.axes[0]
    assert [text.get_text() for text in shown.texts] == ["40", "10", "20", "10", "30", "30", "0", "50", "20"]
    values = {line.get_label(): line.get_ydata() for line in lines.lines}
    np.testing.assert_allclose(values["own encoding"], 0.3)
    np.testing.assert_allclose(values["one peer's encoding (mean)"], (0.7 - 0.3) / 2)
    np.testing.assert_allclose(values["summary"], 0.3)
    # Rounds in which nobody had learned are left out.
    assert min(lines.lines[0].get_xdata()) == 4
    (line,) = attention_chart(known)["groups"]
    np.testing.assert_allclose(line["values"]["peer"], (0.7 - 0.3) / 2)
    # A map for each quarter of the rounds, in one scale.
    placed, *_, last = [each.placed() for each in figure.maps]
    assert placed["values"] == (100 * np.array(shares)).tolist()
    assert last["values"] == (100 * np.array(late)).tolist()
    titles = [title for axes in figure.axes if (title := axes.get_title(loc="left"))]
    assert titles[0] == "attending\nrounds 4 to 5"
    assert len(titles) == len(figure.maps) == 4
    bar = figure.axes[-1]
    assert bar.get_ylabel() == "share of attention, %"
    assert bar.get_ylim()[1] == pytest.approx(50)
    assert (placed["rows"][1], placed["columns"][2]) == ("agent 1", "encodings of agent 2")


def test_without_attention_nothing_is_drawn(write_run, tmp_path):
    assert attention_of([Group("not", (load_run(write_run(tmp_path / "b")),))]) == {}
