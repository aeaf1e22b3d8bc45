"""What is said of words that the command line does not take: one line, and where to see what it takes."""

import pytest

from fedrax.cli import COMMANDS, main
from fedrax.cli_words import apart


def refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("fedrax")
    return error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "fedrax: the following arguments are required: COMMAND; fedrax --help shows all"),
        ("trian", "fedrax: unknown command 'trian' (did you mean 'train'?); fedrax --help shows all"),
        ("train", "fedrax train: the following arguments are required: PRESET; fedrax train --help shows all"),
        ("train --out", "fedrax train: argument --out: expected one argument; fedrax train --help shows all"),
        ("evaluate", "arguments are required: RUN; fedrax evaluate --help shows all"),
        ("evaluate x --policy foo", "--policy: 'foo' is none of last, best and a number of rounds; fedrax evaluate "),
        ("evaluate x --environments foo", "invalid choice: 'foo' (choose from 'all', 'own', 'registered'); fedrax"),
        ("evaluate x --episodes abc", "fedrax evaluate: argument --episodes: 'abc' is no whole number; fedrax ev"),
        ("evaluate x --episode 3", "unrecognized arguments: --episode 3 (did you mean --episodes?); fedrax evaluate "),
        ("sweep x --dryrun", "(did you mean --dry-run?); fedrax sweep --help shows all"),
        ("report a --table csv --figure pdf", "--figure: not allowed with argument --table; fedrax report "),
    ],
)
def test_what_the_grammar_refuses_is_one_line(words, said, capsys):
    assert said in refused(capsys, *words.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_prints_its_usage_with_an_error(command, capsys):
    error = refused(capsys, command, "--nonsense", "x" * 5000)
    assert "usage:" not in error
    assert f"; fedrax {command} --help shows all" in error
    assert len(error) < 1000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("describe fedppo/cartpole learner.discount = 0.9", "learner.discount = 0.9 is 3 words; give one, without spa"),
        ("train fedppo/cartpole learner.discount = 0.9 --quiet", "without spaces or in quotes: learner.discount=0.9;"),
        ("train learner.discount = 0.9", "quotes: learner.discount=0.9;"),
        (
            "train fedppo/cartpole seed=1 learner.hidden=[64, 64]",
            "is 2 words; give one, without spaces or in quotes: 'l",
        ),
        ("resume x budget.rounds =3", "budget.rounds =3 is 2 words"),
        ("import fedppo/cartpole a.pth seed= 3", "quotes: seed=3;"),
        ("node environment.horizon = 3", "quotes: environment.horizon=3;"),
    ],
)
def test_a_setting_that_spaces_took_apart_is_put_together(words, said, capsys):
    assert said in refused(capsys, *words.split())


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["fedppo/cartpole"],
        ["fedppo/cartpole", "learner.discount = 0.9", "name=", "seed=3"],
        ["a=1", "b=2"],
        ["=", "0.9"],
        ["p", "learner.hidden=[64, 64]", "x"],
        ["p", "name=a=b", "x"],
        ["p", "name="],
    ],
)
def test_words_that_stand_alone_are_not_put_together(words):
    assert apart(words) == ""


def test_spaces_around_the_sign_in_quotes_are_no_matter(capsys):
    assert main(["describe", "fedppo/cartpole", "learner.discount = 0.875"]) == 0
    assert "discount = 0.875" in capsys.readouterr().out
