"""What must be known of a report's numbers to read them, as the list at its end."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from fedrax.evaluation.measure import SENTENCES
from fedrax.records.metrics import spans
from fedrax.report.curves import evaluated_seeds
from fedrax.report.draws import drawn_apart
from fedrax.report.runs import Group, named_runs, parts_of
from fedrax.report.tables import FEW
from fedrax.report.templating import part


def notes_html(groups: Sequence[Group], statistic: str) -> Markup:
    """The notes as a list."""
    counts = [len(evaluated_seeds(group)) for group in groups]
    notes = [
        f"{_rests(counts)} Seeds differ in initial weights, environments and draws.",
        *_measured(groups),
        "Curves hold a seed at its last evaluation and stop where the first seed stops: nothing is "
        "interpolated or extrapolated.",
        "Best return is the highest of many noisy evaluations and therefore too high; compare final returns.",
    ]
    if statistic == "iqm":
        notes.insert(1, "IQM is the mean without the lowest and highest quarter of seeds; below four seeds, the mean.")
    notes += [
        f"{group.label}: of {len(group.seeds)} seeds {count} {'was' if count == 1 else 'were'} evaluated; the others "
        "are in none of its numbers."
        for group, count in zip(groups, counts, strict=True)
        if 0 < count < len(group.seeds)
    ]
    if 1 in counts:
        notes.append("One seed has no interval: how much another seed would differ is unknown, and no band is drawn.")
    if any(1 < count < FEW for count in counts):
        notes.append(f"With fewer than {FEW} seeds a bootstrap interval is too narrow; read it as a lower bound.")
    without = [group.label for group, count in zip(groups, counts, strict=True) if not count]
    if 0 < len(without) < len(groups):
        notes.append(f"{', '.join(without)}: no evaluation has been recorded yet, so there are no returns.")
    if any(group.repeated for group in groups):
        notes.append("A seed that was run twice in one configuration counts once, by its longer record.")
    if apart := drawn_apart(groups):
        notes.append(apart)
    return part("notes", [*notes, *lost_records(groups)])


def lost_records(groups: Sequence[Group]) -> list[str]:
    """Of every seed whose rows are not all there, which it lacks."""
    return [
        f"{name} lacks the records of {', '.join(missing)} of seed {history.seed}."
        for name, run in named_runs(groups)
        for history in run.histories
        if (missing := spans(history.missing))
    ]


def _measured(groups: Sequence[Group]) -> list[str]:
    """What the returns are returns of, and what training time leaves out."""
    parts = parts_of(groups)
    notes = [
        (f"{', '.join(group.label for group in members)}: " if len(parts) > 1 else "")
        + SENTENCES[members[0].measure["evaluation.environments"]]
        + " All of them start from the same initial states."
        for _, members in parts
    ]
    kinds = {run.kind("runtime") for group in groups for run in group.runs}
    flower = " Over Flower it contains what nodes compile, for which the server waits." if "flower" in kinds else ""
    return [*notes, f"Training time leaves out compiling.{flower}"]


def _rests(counts: Sequence[int]) -> str:
    """On how many seeds the lines rest that have any."""
    some = [count for count in counts if count]
    if not some:
        return "No evaluation has been recorded yet."
    number = " to ".join(map(str, dict.fromkeys((min(some), max(some)))))
    line = "Each line" if len(some) == len(counts) else "Each line with returns"
    return f"{line} rests on {number} seed{'s' * (max(some) != 1)}."
