"""What other libraries call functions, attributes, arguments and commands, and what does the same here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from fedrax.errors import nearest
from fedrax.other_names import component_called, keys_called, plain, registered_names

_ACTS = "run.policy() is a policy that acts: run.policy()(observation)"
_GOES_ON = "fedrax.resume(run.path, ...) continues a run, or extends it by a larger budget"
_WRITTEN = "everything of a run is written to its folder, run.path, as it trains"
_EXPORTED = "to write its policy for other programs: fedrax export RUN --to onnx"
_LOADED = "fedrax.load(RUN) reads a run that is there"
_DRAWN = "run.figure() draws the learning curve, and fedrax report writes a page of one or several runs"
_MEASURED = "run.metrics() has a row per seed and round, and run.frame() has them for pandas"
_EVALUATED = "run.evaluate(episodes=100) measures every seed's policy"
_STEPPED = "a run is no environment: act in one of Gymnasium's by run.policy()(observation)"
OF_A_RUN: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("predict", "act", "getaction", "selectaction", "computesingleaction", "forward"), _ACTS),
        **dict.fromkeys(("model", "agent", "actor", "network", "getpolicy"), _ACTS),
        **dict.fromkeys(("learn", "train", "fit", "continue", "resume", "extend"), _GOES_ON),
        **dict.fromkeys(("save", "savemodel", "checkpoint"), f"{_WRITTEN}; {_EXPORTED}"),
        **dict.fromkeys(("export", "toonnx", "parameters", "statedict", "getparameters"), _EXPORTED),
        **dict.fromkeys(("load", "restore"), _LOADED),
        **dict.fromkeys(("plot", "curve", "plotresults", "report"), _DRAWN),
        **dict.fromkeys(("history", "rows", "logs", "results", "monitor"), _MEASURED),
        **dict.fromkeys(("dataframe", "df", "todataframe", "topandas"), _MEASURED),
        **dict.fromkeys(("evaluatepolicy", "test", "eval", "score"), _EVALUATED),
        **dict.fromkeys(("render", "video", "recordvideo"), "fedrax render RUN records videos of a run's policy"),
        **dict.fromkeys(("env", "environment", "getenv", "step"), _STEPPED),
        **dict.fromkeys(("args", "hparams", "hyperparameters", "settings"), "run.config holds what was configured"),
        **dict.fromkeys(("dir", "folder", "out", "logdir"), "run.path is the folder of the run"),
    }
)
"""What does on a run what others' attributes of this name do, as :func:`plain` writes them."""

_CALLED = "a policy is called: policy(observation)"
OF_A_POLICY: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("predict", "act", "getaction", "selectaction", "computesingleaction", "forward"), _CALLED),
        **dict.fromkeys(("action", "step", "sample"), _CALLED),
        **dict.fromkeys(("save", "export", "toonnx", "statedict", "parameters"), _EXPORTED),
        **dict.fromkeys(("learn", "train", "fit"), "a policy is done; fedrax.resume(RUN, ...) continues its run"),
        **dict.fromkeys(("evaluate", "evaluatepolicy", "test"), f"its run is measured: {_EVALUATED}"),
        **dict.fromkeys(("seed", "setseed", "setrandomseed"), "policy.reset(random_seed=0) begins its draws anew"),
    }
)
"""The same of a policy that acts."""

_MADE = "training makes its environment: fedrax.train(SOURCE, ['environment.id=CartPole-v1'])"
_TRAINED = "fedrax.train(SOURCE, overrides) trains, with the learner and the environment as settings of it"
_FROM_THE_SHELL = "that is a command: fedrax {} {} (fedrax {} --help)"
OF_FEDRAX: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("make", "makeenv", "makevecenv", "gym"), _MADE),
        **dict.fromkeys(("learn", "fit", "run", "start", "startsimulation", "runsimulation", "simulate"), _TRAINED),
        **dict.fromkeys(("algorithm", "algo", "agent", "model", "learner"), _TRAINED),
        **dict.fromkeys(
            ("list", "listpresets", "listmodels", "components", "envs"),
            "fedrax.presets() has the presets; the command fedrax list shows everything that has a name",
        ),
        **dict.fromkeys(
            ("evaluatepolicy", "eval", "test"), "a run has it: fedrax.load(RUN).evaluate(episodes=100) measures"
        ),
        **dict.fromkeys(("loadmodel", "loadpolicy", "frompretrained", "open"), f"{_LOADED}; {_ACTS}"),
        **dict.fromkeys(("predict",), _ACTS),
        **dict.fromkeys(("save", "savemodel"), f"{_WRITTEN}; {_EXPORTED}"),
        **dict.fromkeys(("plot", "plotresults"), f"a run has it: {_DRAWN}"),
        **dict.fromkeys(("tune", "optimize", "gridsearch", "hyperopt"), "fedrax.sweep(FILE) runs sweeps and searches"),
        **dict.fromkeys(("describe", "explain"), "the command fedrax describe NAME explains a name or a key"),
        **{
            name: _FROM_THE_SHELL.format(name, "RUN", name)
            for name in ("render", "export", "report", "status", "watch")
        },
        **{name: _FROM_THE_SHELL.format(name, "PRESET", name) for name in ("server", "deploy")},
        "reproduce": _FROM_THE_SHELL.format("reproduce", "FIGURE", "reproduce"),
    }
)
"""What does in this package what others' functions of this name do."""

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("run", "fit", "learn", "execute", "simulate"), ("train", "trains a preset or a file")),
        **dict.fromkeys(("continue", "restart", "extend"), ("resume", "continues or extends a run")),
        **dict.fromkeys(("eval", "test", "enjoy", "score"), ("evaluate", "measures a run's policy")),
        **dict.fromkeys(("play", "video", "record", "show"), ("render", "records videos of a run's policy")),
        **dict.fromkeys(("plot", "curve", "figure", "compare", "results"), ("report", "draws and compares runs")),
        **dict.fromkeys(("start", "serve", "superlink", "serverapp"), ("server", "starts a federation's server")),
        **dict.fromkeys(("client", "join", "supernode", "worker", "agent"), ("node", "joins a federation")),
        **dict.fromkeys(("tune", "search", "grid", "hyperopt", "optimize"), ("sweep", "runs sweeps and searches")),
        **dict.fromkeys(("dashboard", "ui", "tensorboard"), ("watch", "shows a run's curves as it trains")),
        **dict.fromkeys(("ls", "presets", "envs", "algos"), ("list", "shows everything that has a name")),
        **dict.fromkeys(("info", "explain", "config"), ("describe", "explains a name, a key or a preset")),
        **dict.fromkeys(("ps", "progress", "state"), ("status", "says how far a run is")),
        **dict.fromkeys(("save", "convert"), ("export", "writes a run's policy for other programs")),
        **dict.fromkeys(("keys", "certs", "keygen"), ("certificates", "makes certificates and keys for a trial")),
    }
)
"""Commands by what other tools call them, and what each does."""

ARGUMENTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys(("neval", "numepisodes", "nepisodes", "ntrials"), ("episodes",)),
        **dict.fromkeys(("seed", "randomseed", "evalseed"), ("evaluation_seed", "random_seed", "seed")),
        **dict.fromkeys(("which", "checkpoint", "policyname"), ("policy",)),
        **dict.fromkeys(("greedy", "stochastic"), ("deterministic",)),
        **dict.fromkeys(("outdir", "outputdir", "logdir", "savepath", "savedir"), ("out",)),
        **dict.fromkeys(("verbose", "quiet", "progressbar"), ("progress",)),
        **dict.fromkeys(("config", "preset", "name", "model"), ("source", "run", "path")),
    }
)
"""Arguments of functions by what others call them: the first that a function has is meant."""


def attribute_hint(name: str, ways: Mapping[str, str], own: Iterable[str]) -> str:
    """What does what is looked for under an unknown name, after "no attribute ..."; empty where nobody can tell.

    Args:
        name: ``predict``.
        ways: one of the tables above.
        own: the names that there are, one of which may be misspelt.
    """
    # Python and notebooks look for names that begin so, and want no answer.
    if name.startswith("_"):
        return ""
    way = ways.get(plain(name), "")
    return f"; {way}" if way else nearest(name, own)


def no_attribute(owner: object, name: str, ways: Mapping[str, str], own: Iterable[str]) -> AttributeError:
    """The error for an attribute that an object does not have; arguments as of :func:`attribute_hint`."""
    text = f"{type(owner).__name__!r} object has no attribute {name!r}{attribute_hint(name, ways, own)}"
    return AttributeError(text, name=name, obj=owner)


def package_hint(name: str, own: Iterable[str]) -> str:
    """The same of the package itself, where classes of other libraries are components: ``fedrax.PPO``."""
    # Modules, which Python looks for here before it imports them, are in lower case.
    if name[:1].isupper() and plain(name) not in OF_FEDRAX and (said := component_called(name, registered_names())):
        return f"; {said}, as in fedrax.train(SOURCE, [{_first_setting(said)!r}])" if "; set " in said else f"; {said}"
    return attribute_hint(name, OF_FEDRAX, own)


def _first_setting(said: str) -> str:
    return said.partition("; set ")[2].partition(" or ")[0]


def argument_called(name: str, allowed: Iterable[str]) -> str:
    """The argument, of those ``allowed``, that is meant by another library's name for it; empty where none is."""
    allowed = list(allowed)
    keys = [key.rpartition(".")[2] for key in keys_called(name)]
    return next((each for each in (*ARGUMENTS.get(plain(name), ()), *keys) if each in allowed), "")


def command_hint(word: str, commands: Iterable[str]) -> str:
    """What is meant by a command that there is not: another tool's, or a misspelt one of ours."""
    if plain(word) in COMMANDS:
        command, does = COMMANDS[plain(word)]
        return f" (did you mean {command!r}, which {does}?)"
    return nearest(word, commands)
