"""A report as one HTML file that needs no network: results, figures, costs, settings, how to repeat it."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fedrax.evaluation.measure import said
from fedrax.records.files import check_writable
from fedrax.report.across import across_html
from fedrax.report.agents import agents_table, divergence_table, parameters_of
from fedrax.report.aggregation import NOTE as AGGREGATION
from fedrax.report.aggregation import aggregation_table
from fedrax.report.attack_figures import (
    attack_heatmap,
    attack_table,
    filter_quality_chart,
    filter_quality_figure,
    filter_quality_table,
)
from fedrax.report.attention import attention_chart, attention_figure, attention_lines, attention_of
from fedrax.report.audits import audits_html, guarantees_table
from fedrax.report.charts import curves_chart
from fedrax.report.comparisons import GAIN, comparison_html, gain_table
from fedrax.report.curves import AXES, STATISTICS, available_axes, evaluated_seeds
from fedrax.report.federations import attendance_html, clusters_html
from fedrax.report.figures import curves_figure
from fedrax.report.notes import notes_html
from fedrax.report.personal import returns_of
from fedrax.report.provenance import manifest_html, settings_html
from fedrax.report.published import Series
from fedrax.report.runs import Group, Run, difference, group_runs, load_runs, named_runs, parts_of
from fedrax.report.successes import NOTE as SUCCESSES
from fedrax.report.successes import success_table
from fedrax.report.tables import MISSING, Result, alike, cost_table, counted_of, duration, estimates, result
from fedrax.report.templating import Section, chart_html, figure_html, joined, page, part, table_html
from fedrax.report.videos import videos_html

FILTERING = (
    "Of finding Byzantine agents, the mean over seeds and neighbouring rounds: recall is the share of them that was "
    "rejected, precision their share among the rejected, in rounds that rejected somebody."
)
FILTERED = (
    "Over all rounds in which they are defined: the mean of each seed, and of these the mean over seeds; brackets: "
    "95 % stratified bootstrap over seeds. Two numbers of seeds are those of recall and of precision, which a seed "
    "that rejected nobody has not. They are filter_recall and filter_precision in metrics.jsonl."
)
ATTENDING = (
    "Means over seeds. Each map is the mean over a part of the rounds, the last part to the right; the lines are means "
    "over agents, of the attention to an agent's own encoding, to one peer's and to the summary token."
)
OWN_RETURNS, GAINS, REACHED, AROUND = "Agents", "Gain over learning alone", "Success", "What averaging costs"
"""Sections that have returns of agents' own policies in their own environments."""
PICTURE_POINTS = 150
"""Of a curve in the picture that stands for a chart: two a millimetre on paper."""


def write_report(
    paths: Iterable[Path | str],
    out: Path,
    *,
    title: str = "",
    statistic: str = "iqm",
    smoothing: int = 1,
) -> Path:
    """Writes the report of these run directories (or directories of runs) to the file ``out``.

    Runs that differ in nothing but seeds are one experiment. Unfinished runs are shown as far as they got.

    Raises:
        FedraxError: a path is no run, a run's files are damaged, or ``out`` cannot be written.
    """
    return write_page(group_runs(load_runs(paths)), out, title=title, statistic=statistic, smoothing=smoothing)


def write_page(
    groups: Sequence[Group], out: Path, *, title: str = "", statistic: str = "iqm", smoothing: int = 1
) -> Path:
    """As :func:`write_report`, of runs that are read already."""
    check_writable(out)
    out.write_text(
        report_html(groups, title=title, statistic=statistic, smoothing=smoothing, commands=commands(groups)),
        encoding="utf-8",
    )
    return out


def report_html(
    groups: Sequence[Group],
    *,
    title: str = "",
    statistic: str = "iqm",
    smoothing: int = 1,
    commands: Sequence[str],
    published: Mapping[str, Series] | None = None,
    lead: Sequence[Section] = (),
) -> str:
    """The whole page.

    Args:
        groups: what to report, in the order of the table and of the colours.
        title: of the page; unset, the runs' own name.
        statistic: ``iqm`` or ``mean`` over seeds.
        smoothing: trailing evaluations averaged in the figures.
        commands: shell commands that repeat the runs.
        published: points to draw beside ours, by group label.
        lead: sections before the result table.
    """
    runs = named_runs(groups)
    title = title or str(runs[0][1].config.get("name", runs[0][1].name))
    sections = [
        *lead,
        Section("Results", _results(groups, statistic)),
        *_figures(groups, statistic, smoothing, published or {}),
        *_agents(groups, statistic),
        *_optional("Who was averaged together", clusters_html(groups)),
        *_optional("Who took part", attendance_html(groups)),
        *_privacy(groups, statistic),
        *_optional("Videos", videos_html(groups)),
        Section("Notes", notes_html(groups, statistic)),
        Section("Repeat it", part("code", commands)),
        Section("Settings", joined(settings_html(*run) for run in runs)),
        Section("Versions and machine", joined(manifest_html(*run) for run in runs if run[1].manifest)),
    ]
    return page(title=title, headline=_headline(groups), sections=sections)


def commands(groups: Sequence[Group]) -> list[str]:
    """Shell commands that repeat each run from its resolved configuration, or finish it where it stopped."""
    runs = [run for group in groups for run in group.runs]
    again = [f"fedrax train {shlex.quote(str(run.path / 'config.toml'))}" for run in runs]
    return again + [f"fedrax resume {shlex.quote(str(run.path))}" for run in runs if not run.finished]


def _headline(groups: Sequence[Group]) -> Markup:
    runs = [run for group in groups for run in group.runs]
    unfinished = [name for name, run in named_runs(groups) if not run.finished]
    times = [time for run in runs for key in ("started", "ended") if (time := _time(run.manifest.get(key)))]
    begun = [group for group in groups if group.histories]
    facts = {
        "Environment": _distinct(run.kind("environment") for run in runs),
        "Strategy": _distinct(run.kind("strategy") for run in runs),
        "Agents": _distinct(run.settings.get("federation.agents") for run in runs),
        "Attack": _distinct(run.kind("attack") for run in runs),
        "Byzantine agents": _distinct(run.settings.get("attack.agents") or None for run in runs),
        "Seeds": _distinct(_evaluated(len(evaluated_seeds(group)), len(group.seeds)) for group in begun),
        "Ran on": _distinct(_machine(run.manifest) for run in runs),
        "When": " to ".join(dict.fromkeys(f"{t:%Y-%m-%d %H:%M}" for t in (min(times), max(times))))
        if times
        else MISSING,
        "Took": _took(runs),
    }
    dropped = sum(len(row.get("dropped", ())) for run in runs for history in run.histories for row in history.rows)
    if dropped:
        facts["Collections dropped"] = f"{dropped}, whose numbers, or what was learned from them, were not finite"
    if facts["Byzantine agents"] == MISSING:
        del facts["Byzantine agents"]
    return part("headline", len(runs), facts, unfinished)


def _evaluated(seeds: int, begun: int) -> str:
    """As the tables count seeds; in words where there is no number yet."""
    return counted_of(seeds, begun) if seeds else f"none of {begun} evaluated yet"


def _took(runs: Sequence[Run]) -> str:
    """The time from start to end of all runs together, and how many are not in it."""
    times = [(_time(run.manifest.get("started")), _time(run.manifest.get("ended"))) for run in runs]
    each = [(ended - started).total_seconds() for started, ended in times if started and ended]
    if not sum(each):
        return MISSING
    left = len(runs) - len(each)
    told = f"; {left} that {'has' if left == 1 else 'have'} not ended {'is' if left == 1 else 'are'} left out"
    return f"{duration(sum(each))}, the sum over runs{told if left else ''}"


def _results(groups: Sequence[Group], statistic: str) -> Markup:
    results = [result(group, statistic) for group in groups]
    lines = {id(group): line for group, line in zip(groups, results, strict=True)}
    parts = parts_of(groups)
    returns = [
        (said(telling) if len(parts) > 1 else "", _returns([lines[id(group)] for group in members], statistic))
        for telling, members in parts
    ]
    elsewhere = [OWN_RETURNS, *[GAINS for _, members in parts if gain_table(members) is not None][:1]]
    notes = returns_of(groups, " and ".join(elsewhere))
    return part("results", difference(groups), returns, [f"{note}." for note in notes], table_html(*cost_table(groups)))


def _returns(results: Sequence[Result], statistic: str) -> Markup:
    """Final and best returns of groups that were evaluated alike, over seeds, and each seed's."""
    name = STATISTICS[statistic][0]
    final, best = estimates([line.final for line in results]), estimates([line.best for line in results])
    returns = table_html(
        ["", "seeds", f"final return, {name}", f"best return, {name}", "state"],
        [
            [line.label, line.counted, *values, "finished" if line.finished else "unfinished"]
            for line, *values in zip(results, final, best, strict=True)
        ],
    )
    seeds = [(line.label, str(seed)) for line in results for seed, *_ in line.each]
    finals = alike(*(each for line in results for _, each, _ in line.each))
    bests = alike(*(each for line in results for *_, each in line.each))
    single = [[*seed, *ends] for seed, *ends in zip(seeds, finals, bests, strict=True)]
    if all(line.seeds < 2 for line in results):
        return returns
    return returns + part("folded_table", "Each seed", ["", "seed", "final return", "best return"], single)


def _figures(groups: Sequence[Group], statistic: str, smoothing: int, published: Mapping[str, Series]) -> list[Section]:
    sections = []
    parts = parts_of(groups)
    for place, (telling, members) in enumerate(parts):
        sections += _returns_figures(
            members,
            statistic,
            smoothing,
            published,
            heading=f": {said(telling)}" if len(parts) > 1 else "",
            prefix=f"-{place}" if place else "",
        )
    filtering = filter_quality_figure(groups)
    if filtering is not None:
        chart = filter_quality_chart(groups)
        drawn = chart_html(chart, filtering, "filter", "Precision and recall of the filter")
        table = filter_quality_table(groups)
        means = [] if table is None else [part("noted_table", *table, FILTERED)]
        sections.append(Section("What the filter did", joined([*means, drawn, part("small", FILTERING)])))
    attending = attention_of(groups)
    if attending:
        described = "Share of attention of each agent to each other's encodings"
        drawn = joined(
            [
                figure_html(attention_figure(attending), "attention", described),
                part("small", ATTENDING),
                chart_html(
                    attention_chart(attending), attention_lines(attending), "attending", "Attention over rounds"
                ),
            ]
        )
        sections.append(Section("Who attends to whom", drawn))
    return sections


def _returns_figures(
    groups: Sequence[Group],
    statistic: str,
    smoothing: int,
    published: Mapping[str, Series],
    *,
    heading: str,
    prefix: str,
) -> list[Section]:
    """Everything that draws returns, of groups that were evaluated alike."""
    axes = available_axes(groups)
    if not axes:
        return [Section(f"Learning curves{heading}", part("paragraph", "No evaluation has been recorded yet."))]
    first = axes[0]
    labels = {group.label for group in groups}
    published = {label: series for label, series in published.items() if not heading or label in labels}
    shown = {label: series for label, series in published.items() if series.axis == first}
    curves = curves_figure(groups, first, shown, statistic=statistic, smoothing=smoothing, points=PICTURE_POINTS)
    chart = curves_chart(groups, published, statistic=statistic, smoothing=smoothing)
    drawn = chart_html(chart, curves, f"curves{prefix}", f"Return over {AXES[first].label}")
    sections = [Section(f"Learning curves{heading}", drawn)]
    sections += _optional(f"Which is better, and how sure{heading}", comparison_html(groups, statistic, prefix))
    table = attack_table(groups, statistic)
    if table is not None:
        drawn = figure_html(attack_heatmap(table), f"attacks{prefix}", "Return by attack")
        sections.append(Section(f"Return under attack{heading}", drawn))
    return sections


def _optional(heading: str, body: Markup | None) -> list[Section]:
    return [] if body is None else [Section(heading, body)]


def _agents(groups: Sequence[Group], statistic: str) -> list[Section]:
    differences = divergence_table(groups)
    sections = []
    parts = parts_of(groups)
    for telling, members in parts:
        returns = agents_table(members, statistic)
        if returns is not None:
            note = (
                "Last evaluation of each seed; the deviation is over agents, brackets are over seeds. The second "
                "column says what stands under agent 0, 1 ..., and what the mean and the worst agent are of."
            )
            if any(run.settings.get("attack.agents") for group in members for run in group.runs):
                note += " The agents that attack, the first ids, are among them."
            heading = f"{OWN_RETURNS}: {said(telling)}" if len(parts) > 1 else OWN_RETURNS
            sections.append(Section(heading, part("noted_table", *returns, note)))
        reached = success_table(members)
        if reached is not None:
            heading = f": {said(telling)}" if len(parts) > 1 else ""
            sections.append(Section(f"{REACHED}{heading}", part("noted_table", *reached, SUCCESSES)))
        averaged = aggregation_table(members, statistic)
        if averaged is not None:
            heading = f": {said(telling)}" if len(parts) > 1 else ""
            sections.append(Section(f"{AROUND}{heading}", part("noted_table", *averaged, AGGREGATION)))
        gains = gain_table(members)
        if gains is not None:
            heading = f": {said(telling)}" if len(parts) > 1 else ""
            sections.append(Section(f"{GAINS}{heading}", part("noted_table", *gains, GAIN)))
    sections += _optional("Every policy in every agent's environment", across_html(groups))
    for place, (telling, members) in enumerate(parts):
        heading = f": {said(telling)}" if len(parts) > 1 else ""
        sections += _optional(
            f"What each agent's environment is, and its return{heading}", _parameters(members, f"parameters-{place}")
        )
    if differences is not None:
        note = (
            "Standard deviation over agents, divided by the default where it is not 0; "
            "in bits, the mean Jensen-Shannon divergence of all pairs of agents."
        )
        sections.append(Section("Environments", part("noted_table", *differences, note)))
    return sections


def _parameters(groups: Sequence[Group], prefix: str) -> Markup | None:
    """Returns beside what was drawn, of groups that were evaluated alike; each draw of the environments by itself."""
    found = parameters_of(groups)
    parts = []
    for place, each in enumerate(found):
        drawn = chart_html(each.chart(), each.figure(), f"{prefix}-{place}", "Final return by parameter")
        body = joined([drawn, part("folded_table", "Every agent", *each.table())])
        seeds = f"Environments of seed{'s' if len(each.seeds) > 1 else ''} {', '.join(map(str, each.seeds))}"
        parts.append(part("headed", seeds, body) if len(found) > 1 else body)
    return joined(parts) if parts else None


def _privacy(groups: Sequence[Group], statistic: str) -> list[Section]:
    sections = []
    guaranteed, audited = guarantees_table(groups), audits_html(groups, statistic)
    if guaranteed is not None:
        sections.append(Section("What is guaranteed of privacy", table_html(*guaranteed, "told")))
    if audited is not None:
        sections.append(Section("What attacks on messages find", audited))
    return sections


def _machine(manifest: Mapping[str, Any]) -> str | None:
    """The device that computed, and the processors beside it."""
    device, processors = manifest.get("device"), manifest.get("cpus")
    if not isinstance(device, Mapping):
        return None
    if device.get("platform") == "cpu":
        return f"{processors} CPU cores" if processors else "CPU"
    return f"{device.get('count')} x {device.get('kind')}"


def _distinct(values: Iterable[Any]) -> str:
    known = dict.fromkeys(str(value) for value in values if value is not None)
    return ", ".join(known) or MISSING


def _time(value: Any) -> datetime.datetime | None:
    try:
        time = datetime.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=datetime.UTC)
