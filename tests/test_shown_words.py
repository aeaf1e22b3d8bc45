"""What is printed of the documentation in the source: no markup that only a page of it would resolve."""

import argparse
import re

import pytest

from fedrax import names
from fedrax.cli import COMMANDS
from fedrax.cli_grammar import grammar
from fedrax.describe import KINDS
from fedrax.describe_keys import all_keys
from fedrax.environments.distributions import joint_distributions
from fedrax.environments.native import native_environments
from fedrax.explain import explained
from fedrax.listing import overview
from fedrax.report.experiments import FIGURES
from fedrax.wording import plain

ROLE = re.compile(r":[a-z]+:`")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("the paper's (:func:`alie_z`), or", "the paper's (alie_z), or"),
        (":data:`fedrax.sweeps.flags.FLAGS` says", "fedrax.sweeps.flags.FLAGS says"),
        ("a :class:`~fedrax.environments.goals.Goal`.", "a Goal."),
        ("as :py:meth:`.order.Waiting` and :func:`this one <fedrax.of>`", "as order.Waiting and this one"),
        ("``key: [text]`` and `x`: `y`", "``key: [text]`` and `x`: `y`"),
    ],
)
def test_references_are_shown_as_names(text, shown):
    assert plain(text) == shown


def helps(parser):
    """The help of a command and of those in it."""
    yield parser.prog, parser.format_help()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from helps(inner)


def test_no_command_prints_references():
    components = [name for kind, registry in KINDS.items() for name in (kind, *registry)]
    others = [*native_environments, *joint_distributions, *FIGURES, *names.plain_tables(), *all_keys(), "sweep"]
    shown = {name: explained(name) for name in (*components, *others)}
    shown |= {"list": overview(names.components()), **dict(helps(grammar(COMMANDS)))}
    assert {name: found for name, text in shown.items() if (found := ROLE.findall(text))} == {}


def test_every_line_of_the_list_is_a_sentence():
    lines = {name: line for found in names.components().values() for name, line in found.items()}
    assert [name for name, line in lines.items() if not line.endswith(".")] == []
