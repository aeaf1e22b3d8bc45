"""``fedrax status``: where the runs at a path are, as text."""

from __future__ import annotations

import time
from collections.abc import Callable

import rich.console
import rich.live
import rich.text

from fedrax.records.progress import clock_time
from fedrax.records.standing import STATES
from fedrax.watch.runs import Watched
from fedrax.wording import counted

UPDATE_SECONDS = 2.0


def standing_text(watched: Watched) -> tuple[str, bool]:
    """A line for each seed of a run, or for each run of a folder, and whether none trains any more.

    A sweep is over when its own process is, and not between two of its jobs.
    """
    watched.refresh()
    series = watched.data(watched.epoch, 0, ())["series"]
    counts = {state: sum(one["state"] == state for one in series) for state in STATES}
    told = [f"{count} {state}" for state, count in counts.items() if count]
    told += [f"{len(watched.damaged)} damaged"] if watched.damaged else []
    lines = [f"{watched.path}: {', '.join(told)}"]
    width = max((len(one["group"]) for one in series), default=0)
    for one in series:
        name = one["group"] if watched.single else f"{one['group']:{width}}  seed {one['seed']}"
        parts = [f"{one['state']:9}", f"{one['fraction']:4.0%}", counted(one["rounds"], "round")]
        if one["last_return"] is not None:
            parts.append(f"return {one['last_return']:.1f}, best {one['best_return']:.1f}")
        if one["left"] is not None:
            parts.append(f"left {clock_time(one['left'])}")
        lines.append(f"  {name}  {'  '.join(parts)}")
    lines += [f"  {why}" for why in watched.damaged.values()]
    return "\n".join(lines), not counts["training"] and not watched.sweeping


def follow(text: Callable[[], tuple[str, bool]], *, wait: Callable[[float], None] = time.sleep) -> None:
    """Shows a text again and again, until it says that nothing trains any more; on no terminal, where it changed."""
    console = rich.console.Console(highlight=False, soft_wrap=True)
    shown, over = text()
    if not console.is_terminal:
        print(shown, flush=True)
        while not over:
            wait(UPDATE_SECONDS)
            before = shown
            shown, over = text()
            if shown != before:
                print(shown, flush=True)
        return
    with rich.live.Live(rich.text.Text(shown), console=console, auto_refresh=False) as live:
        while not over:
            wait(UPDATE_SECONDS)
            shown, over = text()
            live.update(rich.text.Text(shown), refresh=True)
