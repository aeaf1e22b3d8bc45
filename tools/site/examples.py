"""Pages of the examples: each script, folder or notebook of ``examples`` with its code."""

from __future__ import annotations

import ast
import json
from pathlib import Path

LANGUAGES = {".py": "python", ".toml": "toml"}


def example_pages(project: Path) -> dict[str, str]:
    """The pages' Markdown, by path; the first is the table of all."""
    pages: dict[str, str] = {}
    rows = ["| example | shows |", "|---|---|"]
    for path in sorted((project / "examples").iterdir()):
        if path.suffix == ".py":
            summary, page = _script(path)
        elif path.is_dir() and not path.name.startswith((".", "_")):
            summary, page = _folder(path)
        else:
            continue
        pages[f"examples/{path.stem}.md"] = page
        rows.append(f"| [{path.name}]({path.stem}.md) | {summary} |")
    told = [
        "# Examples",
        "Scripts of the folder `examples`, each under 60 lines. They run from the project's folder, as in "
        "`python examples/robustness_table.py`; a number behind it is a budget in rounds "
        "(`python examples/robustness_table.py 20`). Tests run every one of them with a small budget.",
        "\n".join(rows),
    ]
    return {"examples/index.md": "\n\n".join(told), **pages}


def _script(path: Path) -> tuple[str, str]:
    text = path.read_text()
    told = ast.get_docstring(ast.parse(text)) or ""
    summary, _, rest = told.partition("\n")
    code = text.split('"""', 2)[2].strip()
    parts = [f"# {path.name}", summary, rest.strip(), f"```python\n{code}\n```"]
    return summary, "\n\n".join(part for part in parts if part)


def _folder(path: Path) -> tuple[str, str]:
    parts, summaries = [f"# {path.name}"], []
    for file in sorted(path.iterdir()):
        if file.suffix in LANGUAGES:
            parts += [f"## {file.name}", f"```{LANGUAGES[file.suffix]}\n{file.read_text().strip()}\n```"]
        elif file.suffix == ".ipynb":
            parts += [f"## {file.name}", _notebook(file)]
        else:
            continue
        summaries.append(f"`{file.name}`")
    return ", ".join(summaries), "\n\n".join(parts)


def _notebook(path: Path) -> str:
    """A notebook's cells without their outputs; its headings stay below the page's."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            parts.append("\n".join(f"##{line}" if line.startswith("#") else line for line in source.splitlines()))
        elif cell["cell_type"] == "code" and source:
            parts.append(f"```python\n{source}\n```")
    return "\n\n".join(parts)
