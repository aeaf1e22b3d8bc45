"""Pages of measured results: every file of ``benchmarks/results`` as tables, with its date and machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GROUPS = {
    "fedpg_br": "FedPG-BR",
    "fedppo": "Federated PPO",
    "fedtd3": "FedTD3",
    "td3_her": "TD3 with hindsight",
    "sac": "Soft actor-critic",
    "fedformer": "FedFormer",
    "aggregation": "Averaging and its cost",
    "privacy": "Privacy",
    "federation": "A real federation",
    "own_environments": "Environments of one's own",
    "speed": "Speed and scale",
}
"""Pages, by what the names of their results begin with."""
ELSEWHERE = {
    "compression": "privacy",
    "first_minute": "speed",
    "report_speed": "speed",
    "revisions": "speed",
    "scale": "speed",
    "secure": "privacy",
    "sweep_speed": "speed",
    "transport": "federation",
}
CURVES = ("runs", "curves", "curve")
"""Keys whose values are whole learning curves, which tables leave out."""
LONGEST = 12
"""Numbers of a list that a cell shows."""
WIDEST = 24
"""Columns of a table, beyond which it is cut into one for each row."""


def benchmark_pages(project: Path) -> dict[str, str]:
    """The pages' Markdown, by path."""
    folder = project / "benchmarks"
    readme = (folder / "README.md").read_text()
    grouped: dict[str, list[Path]] = {group: [] for group in GROUPS}
    for path in sorted((folder / "results").glob("*.json")):
        grouped[_group(path.stem)].append(path)
    pages = {"benchmarks/index.md": _overview(readme, grouped)}
    for group, paths in grouped.items():
        parts = [
            f"---\ntitle: {GROUPS[group]}\n---\n\n# {GROUPS[group]}: measured results",
            "Generated from `benchmarks/results`. Brackets are 95 % intervals where the column says so. Learning "
            "curves of single runs are in the files and not shown here.",
        ]
        parts += [_result(path, readme) for path in paths]
        pages[f"benchmarks/{group}.md"] = "\n\n".join(parts)
    return pages


def _group(stem: str) -> str:
    for start, group in [*((group, group) for group in GROUPS), *ELSEWHERE.items()]:
        if stem.startswith(start):
            return group
    raise ValueError(f"benchmarks/results/{stem}.json is on no page: add it to tools/site/results.py")


def _overview(readme: str, grouped: dict[str, list[Path]]) -> str:
    rows = ["| result | date | machine |", "|---|---|---|"]
    for group, paths in grouped.items():
        for path in paths:
            machine = json.loads(path.read_text())["machine"]
            rows.append(f"| [{path.stem}]({group}.md#{path.stem}) | {machine['date']} | {_machine(machine)} |")
    scripts = readme.replace("# Benchmarks\n", "", 1)
    return "\n\n".join(["# Measured results", "\n".join(rows), "## Scripts", scripts])


def _machine(machine: dict[str, Any]) -> str:
    device = machine.get("device", "cpu")
    return f"{machine['processor']}, {machine['cores']} cores" + ("" if device == "cpu" else f", {device}")


def _result(path: Path, readme: str) -> str:
    content = json.loads(path.read_text())
    machine = content["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [f"**{machine['date']}**, {_machine(machine)}, {machine['memory_gib']} GiB; {versions}."]
    if measures := _measures(path.stem, readme):
        lines.append(f"Measures {measures}.")
    if note := content.get("note"):
        lines.append(f"*{note}*")
    parts = [f"## {path.stem} {{ #{path.stem} }}", "  \n".join(lines)]
    for heading, table in _tables("", content["results"]):
        parts += [*([f"**{heading}**"] if heading else []), table]
    return "\n\n".join(parts)


def _measures(stem: str, readme: str) -> str:
    """What the script that wrote a result measures, as the table of scripts says."""
    best = ""
    found = ""
    for scripts, measures in re.findall(r"(?m)^\| (`[^|]+) \| ([^|]+) \|", readme):
        # `federation.py faults` writes federation_faults.json.
        for name, mode in re.findall(r"(\w+)\.py(?: ([a-z][a-z-]*))?`", scripts):
            for start in (f"{name}_{mode}" if mode else name, name):
                if stem.startswith(start) and len(start) > len(best):
                    best, found = start, measures
    return found


def _tables(heading: str, node: Any) -> Iterator[tuple[str, str]]:
    """Tables of a result, each with its heading: of rows that are alike one, of all else one for each part."""
    if isinstance(node, dict) and len(parts := {key: part for key, part in node.items() if key not in CURVES}) == 1:
        (key, only), *_ = parts.items()
        if _nested(only):
            yield from _tables(heading if key == "table" else _words(key), only)
            return
    rows = _rows(node)
    if rows is not None:
        columns = list(dict.fromkeys(key for _, row in rows for key in row))
        if len(columns) <= WIDEST or len(rows) == 1:
            yield heading, _table(rows, columns)
            return
    if isinstance(node, dict) and 0 < len(cells := _flat(node)) <= WIDEST and not _lists_tables(node):
        yield heading, _table([("", cells)], list(cells))
        return
    if not isinstance(node, dict):
        node = {str(number): part for number, part in enumerate(node, start=1)}
    plain = {key: value for key, value in node.items() if not _nested(value)}
    if plain:
        yield heading, _table([("", _flat(plain))], list(_flat(plain)))
    for key, value in node.items():
        if _nested(value) and key not in CURVES:
            yield from _tables(f"{heading}: {_words(key)}" if heading else _words(key), value)


def _nested(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(part, dict) for part in value))


def _lists_tables(node: Any) -> bool:
    """Whether a list of tables is somewhere in a node, which a table of single cells cannot hold."""
    if isinstance(node, dict):
        return any(_lists_tables(part) for key, part in node.items() if key not in CURVES)
    return isinstance(node, list) and any(isinstance(part, dict) for part in node)


def _rows(node: Any) -> list[tuple[str, dict[str, str]]] | None:
    """Named rows, where a node is a list of tables or a table of tables."""
    if isinstance(node, list):
        return [
            (str(part.get("setup", "")), _flat({key: part[key] for key in part if key != "setup"})) for part in node
        ]
    parts = {key: value for key, value in node.items() if key not in CURVES}
    if parts and all(isinstance(value, dict) for value in parts.values()):
        return [(_words(key), _flat(value)) for key, value in parts.items()]
    return None


def _flat(table: dict[str, Any], before: str = "") -> dict[str, str]:
    """A table's cells by the path to each, whole curves left out."""
    cells: dict[str, str] = {}
    for key, value in table.items():
        name = f"{before}, {_words(key)}" if before else _words(key)
        if key in CURVES:
            continue
        if isinstance(value, dict):
            cells |= _flat(value, name)
        else:
            cells[name] = _shown(value)
    return cells


def _words(key: str) -> str:
    return key.replace("_", " ")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, list):
        if len(value) > LONGEST:
            return f"{len(value)} values"
        return f"[{', '.join(map(_shown, value))}]"
    return str(value).replace("|", "\\|")


def _table(rows: list[tuple[str, dict[str, str]]], columns: list[str]) -> str:
    """Markdown: a row for each, or, where there are more columns than rows, a column for each."""
    names = [name.replace("|", "\\|") for name, _ in rows]
    cells = [[row.get(column, "") for column in columns] for _, row in rows]
    if len(columns) > len(rows):
        body = [[column, *column_cells] for column, *column_cells in zip(columns, *cells, strict=True)]
        if len(rows) > 1 and not any(names):
            (corner, *head), *body = body
        else:
            corner, head = "", names if any(names) else ["value"]
    else:
        head, corner = columns, ""
        body = [[name, *row] for name, row in zip(names, cells, strict=True)]
        if not any(names):
            head, corner, body = columns[1:], columns[0], cells
    lines = [f"| {' | '.join([corner, *head])} |", "|---" * (len(head) + 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in body)])
