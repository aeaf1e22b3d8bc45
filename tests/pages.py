"""The code blocks of the documentation's pages, and what pages say of how they are tested.

A comment before a block, ``<!-- not run: REASON -->``, says why no test runs it. A page with
``<!-- test with: key=value ... -->`` is run whole, every training under these overrides.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parent.parent
PAGES = [
    *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((PROJECT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"(?ms)^```(\w*)([^\n]*)\n(.*?)^```$")
SNIPPET = re.compile(r"(?m)^--8<--\n(.*)\n--8<--$")
REASON = re.compile(r"<!-- not run: (.+?) -->\s*\Z")
OVERRIDES = re.compile(r"(?m)^<!-- test with: (.+?) -->$")
PROGRAMS = ("fedrax", "make", "pip", "python", ".", "flwr")
"""First words of lines that are commands, in blocks that name no language too."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file that it shows, if any, and why it is not run, if it is not."""

    line: int
    language: str
    file: str
    text: str
    reason: str

    def commands(self) -> list[list[str]]:
        """Each command's words: of a shell's block every line, of one without a language lines that begin as one."""
        if self.language not in ("", "bash", "console") or self.file:
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        found = [words for line in lines if _first(line, self.language) and (words := shlex.split(line, comments=True))]
        return [words[1:] if words[0] == "$" else words for words in found]


def _first(line: str, language: str) -> bool:
    return bool(language) or line.startswith(tuple(f"{program} " for program in PROGRAMS))


def blocks(page: Path) -> list[Block]:
    """A page's blocks in order, with the files that they include."""
    text = page.read_text()
    found = []
    for match in FENCE.finditer(text):
        reason, title = REASON.search(text[: match.start()]), re.search(r'title="(.+?)"', match[2])
        code = SNIPPET.sub(lambda snippet: (PROJECT / snippet[1]).read_text().rstrip("\n"), match[3])
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(line, match[1], title[1] if title else "", code, reason[1] if reason else ""))
    return found


def overrides(page: Path) -> list[str]:
    """What tests add to every training of a page; nothing: the page is not run whole."""
    found = OVERRIDES.search(page.read_text())
    return shlex.split(found[1]) if found else []


def inline(page: Path) -> list[str]:
    """What a page says in `code` outside of its blocks."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", FENCE.sub("", page.read_text()))
