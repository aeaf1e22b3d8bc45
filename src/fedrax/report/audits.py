"""What protects runs' messages, and what attacks on them come to where runs were audited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from fedrax.records.audits import Record, findings, read_audit, refusals, setups_table
from fedrax.report.curves import STATISTICS
from fedrax.report.runs import REPETITION, Group, Run, named_runs
from fedrax.report.tables import MISSING, result
from fedrax.report.templating import joined, part, table_html

PROTECTION = ("privacy.", "compression.")
"""How settings start that tell protections apart."""
UNSET = (None, "none")
"""What a configuration and its file say of what is not set."""
NOTE = (
    "What known attacks find, and not what none can. AUC: the chance that a release with the person scores above one "
    "without; 0.5 tells nothing. State error: over that of the best guess without the message. docs/audit.md says what "
    "each number is. Returns are those of the reported runs that differ from the audited one in their protection alone."
)


def guarantees_table(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]] | None:
    """Headings, and of each run with a unit of privacy what its summary says in one line; None where there is none."""
    lines = [group.label if len(group.runs) == 1 else "" for group in groups for _ in group.runs]
    told = [
        [line or name, str(run.summary["privacy"]["text"])]
        for line, (name, run) in zip(lines, named_runs(groups), strict=True)
        if isinstance(run.summary.get("privacy"), Mapping) and "text" in run.summary["privacy"]
    ]
    return (["", "guarantee"], told) if told else None


def audits_html(groups: Sequence[Group], statistic: str) -> Markup | None:
    """Of each audited run, every attack on it, and every setup's headlines with its return; None where none was.

    Raises:
        FedraxError: an audit is damaged.
    """
    audited = [(name, run) for name, run in named_runs(groups) if (run.path / "audit.json").is_file()]
    if not audited:
        return None
    each = [_audit(*one, read_audit(one[1].path / "audit.json"), groups, statistic) for one in audited]
    return joined([*each, part("small", NOTE)])


def _audit(name: str, run: Run, record: Record, groups: Sequence[Group], statistic: str) -> Markup:
    own, *others = record["setups"]
    rows = [[id, question, said] for id, question, said in findings(record, own)]
    found = part("headed", name, table_html(["", "question", "found"], rows, "told"))
    if not others:
        return found
    headings, lines = setups_table(record)
    returns = [_return_of(run, setup, groups, statistic) for setup in record["setups"]]
    column = f"final return, {STATISTICS[statistic][0]}"
    table = table_html([*headings, column], [[*line, told] for line, told in zip(lines, returns, strict=True)])
    refused = [f"{attack} cannot be had: {why}" for attack, why in refusals(record)]
    return joined([found, table, part("notes", refused)] if refused else [found, table])


def _return_of(run: Run, setup: Mapping[str, Any], groups: Sequence[Group], statistic: str) -> str:
    """The final return of the group that is the audited run but for this protection; a dash where there is none."""
    wanted = setup.get("protection")
    if wanted is None:
        return MISSING
    for group in groups:
        other = group.runs[0].settings
        alike = _apart_from_protection(other) == _apart_from_protection(run.settings)
        if alike and _protection(other) == _protection(wanted):
            return str(result(group, statistic).final)
    return MISSING


def _protection(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: x for key, x in settings.items() if key.startswith(PROTECTION) and x not in UNSET}


def _apart_from_protection(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: x for key, x in settings.items() if key not in REPETITION and not key.startswith(PROTECTION)}
