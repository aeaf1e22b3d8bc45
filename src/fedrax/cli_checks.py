"""What the command line refuses before it loads anything: numbers and texts that no command could do anything with."""

from __future__ import annotations

import argparse

from fedrax.errors import FedraxError, shown

MANY_EPISODES, MOST_EPISODES = 1_000_000, 100_000_000
"""Of one command, over all policies and environments: more than the first are asked about, as they may take days; more
than the second would not fit into memory."""
MOST_NODES = 1000
"""That keys are made for at once."""
LONGEST_TITLE = 200
MOST_SMOOTHING = 10_000
LEAST_REPETITIONS, MOST_REPETITIONS = 100, 1_000_000
"""Of an audit."""


def check_between(name: str, value: int | None, least: int, most: int) -> None:
    """Raises :class:`FedraxError` for an argument's whole number outside these bounds; None is not given."""
    if value is not None and not least <= value <= most:
        raise FedraxError(f"--{name} {shown(value)} is not allowed: it must be between {least} and {most}")


def check_audit(options: argparse.Namespace) -> None:
    """Raises :class:`FedraxError` for numbers that no audit can have."""
    from fedrax import registry

    check_between("repetitions", options.repetitions, LEAST_REPETITIONS, MOST_REPETITIONS)
    check_between("seed", options.seed, 0, registry.LARGEST)


def check_smoothing(options: argparse.Namespace, suffix: str) -> None:
    """Raises :class:`FedraxError` for a number that smooths nothing, and where nothing is drawn."""
    check_between("smoothing", options.smoothing, 1, MOST_SMOOTHING)
    if options.smoothing is not None and suffix in (".csv", ".tex"):
        raise FedraxError("--smoothing is not allowed with a table, which has final returns; leave it out")


def check_crossing(options: argparse.Namespace, suffix: str) -> None:
    """Raises :class:`FedraxError` for rows without columns or the other way round, and for those of no table."""
    given = [f"--{name}" for name in ("rows", "columns") if getattr(options, name) is not None]
    if given and suffix not in (".csv", ".tex"):
        raise FedraxError(f"{given[0]} is not allowed without a table: add --table latex or csv")
    if len(given) == 1:
        other = "--columns" if given == ["--rows"] else "--rows"
        raise FedraxError(
            f"{given[0]} is not allowed alone: give {other} too, as in --rows aggregator.kind --columns attack.kind"
        )


def check_title(title: str) -> None:
    """Raises :class:`FedraxError` for what cannot be a heading."""
    if len(title) > LONGEST_TITLE or not title.isprintable():
        raise FedraxError(
            f"--title {shown(title)} is not allowed: it must be one line of at most {LONGEST_TITLE} characters"
        )


def check_evaluation(options: argparse.Namespace) -> None:
    """Raises :class:`FedraxError` for numbers that no evaluation can have."""
    from fedrax import registry

    check_between("episodes", options.episodes, 1, registry.MOST_EPISODES)
    check_between("unseen", options.unseen, 0, registry.MOST_UNSEEN)
    check_between("evaluation-seed", options.evaluation_seed, 0, registry.LARGEST)


def check_effort(episodes: int, policies: int, environments: int, *, agreed: bool) -> None:
    """Raises :class:`FedraxError` where an evaluation has more episodes than anybody may mean, unless ``agreed``.

    Args:
        episodes: of a policy in an environment.
        policies: how many are evaluated.
        environments: that each meets with all of its episodes.
        agreed: whether the user has said ``--yes``.
    """
    total = episodes * policies * environments
    each = f" in each of {environments} environments" if environments > 1 else ""
    counted = f"{episodes} episodes of {policies} policies{each} are {total} episodes"
    if total > MOST_EPISODES:
        raise FedraxError(f"{counted}, and at most {MOST_EPISODES} are counted at once; give fewer --episodes")
    if total > MANY_EPISODES and not agreed:
        raise FedraxError(f"{counted}, more than {MANY_EPISODES}; give fewer --episodes, or --yes to go on")
