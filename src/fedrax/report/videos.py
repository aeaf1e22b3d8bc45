"""Videos of runs, as a part of the page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from fedrax.report.runs import Group, named_runs
from fedrax.report.tables import bytes_text
from fedrax.report.templating import joined, part

MOST_BYTES = 300_000
"""Of one video; base64 makes a third more of it."""
MOST_ALTOGETHER = 600_000
"""Of all videos of a page, of which the first are taken."""


def videos_html(groups: Sequence[Group]) -> Markup | None:
    """What ``fedrax render`` left in the runs: small videos themselves, others by name; None where there are none."""
    parts, left, used = [], [], 0
    for name, run in named_runs(groups):
        for path in sorted(run.path.glob("*.mp4")):
            size = path.stat().st_size
            if size > MOST_BYTES or used + size > MOST_ALTOGETHER:
                left.append(f"{path} ({bytes_text(size)})")
                continue
            used += size
            parts.append(part("video", f"{name}: {path.name}", _data(path), bytes_text(size)))
    if left:
        most = f"{bytes_text(MOST_BYTES)} each and {bytes_text(MOST_ALTOGETHER)} in all"
        parts.append(part("small", f"Not in this page, which takes videos of up to {most}: {', '.join(left)}."))
    return joined(parts) if parts else None


def _data(path: Path) -> str:
    return f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
