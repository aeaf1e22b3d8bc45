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
        (
            "train x --out=",
            "fedrax train: argument --out: '' is no path; give one, such as . for this folder; fedrax tr",
        ),
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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed", "==", "3"], "seed == 3 is 3 words; give one, without spaces or in quotes: seed=..."),
        (["seed", "=", "=", "3"], "seed = = 3 is 4 words; give one, without spaces or in quotes: seed=..."),
        (["seed", "="], "seed = is 2 words; give one, without spaces or in quotes: seed=..."),
        (["seed", "=", "learner.discount=1"], "seed = is 2 words; give one, without spaces or in quotes: seed=..."),
        (["environment.kwargs", "=", "{a=1,", "b=2}"], "in quotes: 'environment.kwargs={a=1, b=2}'"),
        (["lr", "=", "3"], "lr = 3 is 3 words; give one, without spaces or in quotes: KEY=VALUE"),
        (["learner.foo", "=", "3"], "in quotes: KEY=VALUE"),
    ],
)
def test_no_setting_is_put_together_that_would_be_refused(words, said):
    assert apart(["fedppo/cartpole", *words]).endswith(said)


@pytest.mark.parametrize("sign", ["=", "=3", "=="])
@pytest.mark.parametrize("command", ["describe", "train", "import"])
def test_a_sign_after_a_preset_belongs_to_nothing(command, sign, capsys):
    assert main([command, "fedppo/cartpole", sign, *(["b"] if command == "import" else [])]) == 1
    assert capsys.readouterr().err.startswith(f"fedrax: {sign!r} is not of the form key=value, for example ")


@pytest.mark.parametrize(("words", "said"), [("describe fedppo/cartpole _ = 3", "''"), ("resume _x =", "no run at _x")])
def test_a_sign_after_no_key_belongs_to_nothing(words, said, capsys):
    assert main(["" if word == "_" else word for word in words.split()]) == 1
    assert said in capsys.readouterr().err


P = "fedpg-br/cartpole"
GIVEN = "; settings are given as "


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", P, "--lr", "0.1", "--lr", "0.2"], f"{GIVEN}learner.learning_rate=0.1, learner.learning_rate=0.2; "),
        (["train", "--lr", "0.1", P], f"{GIVEN}learner.learning_rate=0.1; "),
        (["train", P, "--hidden", "[64,", "64]"], f"{GIVEN}'learner.hidden=[64, 64]'; "),
        (["train", P, "--hidden=[64,", "64]", "--seed", "3"], f"{GIVEN}'learner.hidden=[64, 64]', seed=3; "),
        (["train", "--env-kwargs", "{a=1}", P], f"{GIVEN}'environment.kwargs={{a=1}}'; "),
        (["train", P, "--name=$(rm)"], f"{GIVEN}'name=$(rm)'; "),
        (["train", P, "--lr=$(rm)"], f"{GIVEN}learner.learning_rate=...; "),
        (["train", P, "--fraction-evaluate", "0.5"], f"{GIVEN}evaluation.every=... or evaluation.episodes=...; "),
        (["train", P, "--gamma", "seed=3"], f"{GIVEN}learner.discount=...; "),
        (["train", "--gamma", P], f"{GIVEN}learner.discount=...; "),
        (["train", P, "--capture-video", "true"], "true; videos are recorded every so many rounds: video.every=100 "),
        (["train", P, "--track"], "--track; every run is recorded in its folder; Weights & Biases is a logger: "),
        (["describe", P, "--batch-size", "8"], f"{GIVEN}strategy.batch_min=8 or strategy.batch_max=8; "),
        (["train", P, "--buffer-size", "9"], "9; learner.buffer_size is of learner sac, sac-discrete or td3; "),
        (["train", P, "--buffer-size", "900", "learner=sac"], f"{GIVEN}learner.buffer_size=900; "),
        (["train", P, "--buffer-size", "900", "--algo", "sac"], f"{GIVEN}learner.buffer_size=900, learner=sac; "),
        (["train", "nothing", "--gamma", "7"], f"{GIVEN}learner.discount=...; "),
        (["train", P, "seed=x", "--gamma", "0.5"], f"{GIVEN}learner.discount=0.5; "),
        (["reproduce", "fig1", "--plugins", "x" * 300], f"{GIVEN}plugins=...; "),
        (["train", P, "--lr", "1", "plugins=" + "x" * 300], f"{GIVEN}learner.learning_rate=1; "),
        (["node", "--seed", "3"], "; a node sets environment.KEY=VALUE alone, and seed is the server's to say; "),
        (["node", "--horizon", "3"], f"{GIVEN}environment.horizon=3; "),
        (["resume", "x", "--lr", "3"], "; learner.learning_rate stays as it is when a run goes on: another value "),
        (["resume", "x", "--num-rounds", "3"], f"{GIVEN}budget.rounds=3; "),
        (["evaluate", "x", "--device", "cuda"], "cuda; no setting has the device: JAX takes a GPU where "),
    ],
)
def test_an_option_is_answered_with_settings_that_can_be_given(words, said, capsys):
    assert said in refused(capsys, *words)


def test_spaces_around_the_sign_in_quotes_are_no_matter(capsys):
    assert main(["describe", "fedppo/cartpole", "learner.discount = 0.875"]) == 0
    assert "discount = 0.875" in capsys.readouterr().out
