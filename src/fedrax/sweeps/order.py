"""Which job comes next: so that no two processes compile the same program at once, and few load another."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable

from fedrax.runtime.library import shape_of
from fedrax.sweeps.attempts import may_share
from fedrax.sweeps.tasks import Task


class Waiting:
    """The jobs that wait, in the order of the plan."""

    def __init__(self, tasks: Iterable[Task], *, sharing: bool = True, compiled: set[str] | None = None) -> None:
        """Args:
        tasks: in the order of the plan.
        sharing: whether their processes use each other's programs.
        compiled: shapes of which a program exists, to which are added those that will.
        """
        self._tasks = list(tasks)
        self._shapes = {id(task): _shape(task) if sharing else None for task in self._tasks}
        self._compiled: set[str] = set() if compiled is None else compiled
        counts: collections.Counter[str] = collections.Counter()
        self._turns: dict[int, float] = {}
        """How many runs of its setup come before each."""
        for task in self._tasks:
            self._turns[id(task)] = counts[task.job.setup.name]
            counts[task.job.setup.name] += 1

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, task: Task) -> None:
        """One that is tried again, after all others."""
        self._tasks.append(task)
        self._turns[id(task)] = math.inf

    def compiled(self, task: Task) -> None:
        """Takes note that the task's process has compiled its program."""
        if (shape := self.shape(task)) is not None:
            self._compiled.add(shape)

    def shape(self, task: Task) -> str | None:
        """What jobs have in common that may use each other's programs; None for one that shares nothing."""
        if id(task) not in self._shapes:  # Of an earlier plan, whose process goes on.
            self._shapes[id(task)] = _shape(task)
        return self._shapes[id(task)]

    def take(self, running: Iterable[Task], last: Task | None) -> Task | None:
        """The next for a process whose ``last`` job has ended, or for a new one; None where all must wait.

        One that can use what the process has compiled, unless another setup still waits for so many runs as that one's
        has; else the first whose program nobody is compiling just now: it will be in JAX's cache when that is done.
        """
        compiling = {self.shape(task) for task in running} - {None, *self._compiled}
        turn = min((self._turns[id(task)] for task in self._tasks), default=0)
        mine = None if last is None else self.shape(last)
        first = (task for task in self._tasks if self._turns[id(task)] == turn)
        own = (task for task in first if mine is not None and self.shape(task) == mine)
        others = (task for task in self._tasks if self.shape(task) not in compiling)
        task = next(own, None) or next(others, None)
        if task is not None:
            self._tasks.remove(task)
        return task


def _shape(task: Task) -> str | None:
    return shape_of(task.job.config) if may_share(task.job.config) else None
