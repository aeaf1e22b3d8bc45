"""What an evaluation measures: in whose environments, and whether two runs' returns may be compared.

Everything here reads the plain tables of a configuration, so that runs of earlier versions can be read as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from fedrax.errors import FedraxError
from fedrax.plugin_code import SHOWN

Environments = Literal["all", "own", "registered"]
"""Where policies are evaluated: in every agent's environment, each agent's in its own, or in the registered one."""

SENTENCES: dict[str, str] = {
    "all": "Every policy is evaluated in every agent's environment: the return is the mean over these, and the worst "
    "agent's is the lowest mean of an agent's environment (of an agent's policy, where agents keep their own).",
    "own": "Each agent's policy (or the one all share) is evaluated in that agent's environment: the return is the "
    "mean over agents.",
    "registered": "Every policy is evaluated in the registered environment.",
}
"""What a report says of each."""

Item = TypeVar("Item")


def resolved_evaluation(config: Mapping[str, Any], *, personal: bool) -> Any:
    """The table ``evaluation`` of a configuration with ``environments`` said, by the user or by default.

    What is no table stays as it is, for the configuration's model to refuse.

    The default is ``all`` where the agents' environments are set apart (``environment.heterogeneity``,
    ``environment.tasks``, ``environment.goals``), else ``registered``. Over Flower, personal policies never leave their
    nodes, so the default is ``own``.

    ``per_agent``, which runs of earlier versions have in its place, is read as what it did: a shared policy in every
    agent's environment or in the registered one, and personal policies each in its agent's own.

    Args:
        config: tables as in TOML.
        personal: whether agents hand out policies of their own.

    Raises:
        FedraxError: ``per_agent`` that is neither true nor false.
    """
    evaluation = config.get("evaluation", {})
    if not isinstance(evaluation, Mapping):
        return evaluation
    evaluation = dict(evaluation)
    former = evaluation.pop("per_agent", None)
    if evaluation.get("environments", "none") not in (None, "none"):
        return evaluation
    differ = _differ(_table(config, "environment"))
    flower = _table(config, "runtime").get("kind") == "flower"
    if former not in (None, True, False):
        raise renamed(former)
    if former or (personal and flower) or (former is False and personal and differ):
        return evaluation | {"environments": "own"}
    return evaluation | {"environments": "all" if differ and former is None else "registered"}


def renamed(value: Any) -> FedraxError:
    """The error for the option's former name."""
    return FedraxError(
        f"evaluation.per_agent = {value!r} is not allowed: the option is now evaluation.environments; set "
        "evaluation.environments=own (each agent's policy in its environment), all (every policy in every agent's "
        "environment) or registered"
    )


CODE = "code of the environment"
ENGINE = "engine of the environment"
"""The parts of a measure that its configuration does not say."""


def measure(config: Mapping[str, Any], *, personal: bool, manifest: Mapping[str, Any] | None = None) -> dict[str, str]:
    """What decides which quantity a run's returns are, and from which initial states, by setting.

    Runs with equal measures may be compared. The number of episodes is no part of it: fewer are only less exact.

    Args:
        config: tables as in TOML.
        personal: whether agents hand out policies of their own.
        manifest: of the run, which says whether its environment is of a plugin, and what was in that, and who steps it
            outside of JAX: from one seed EnvPool and Gymnasium draw other initial states. None: it is not asked.
    """
    evaluation = resolved_evaluation(config, personal=personal)
    environment = _table(config, "environment")
    where = str(evaluation["environments"])
    differ = _differ(environment)
    if not differ and _table(config, "runtime").get("kind") != "flower":
        where = "registered"
    horizon = _said(evaluation.get("horizon")) or _said(environment.get("horizon"))
    measured = {
        "environment.id": environment.get("id"),
        "environment.kwargs": environment.get("kwargs") or None,
        "environment.native": environment.get("native"),
        "evaluation.environments": where,
        "evaluation.greedy": evaluation.get("greedy"),
        "evaluation.seed": evaluation.get("seed"),
        "steps of an episode": horizon or "the environment's own",
    }
    if where != "registered" and differ:
        measured |= {
            "environment.heterogeneity": environment.get("heterogeneity") or None,
            "environment.draws": environment.get("draws"),
            "federation.agents": _table(config, "federation").get("agents"),
        }
        optional = ("environment.tasks", "environment.goals", "environment.held_out_goals")
        measured |= {key: value for key in optional if (value := _said(environment.get(key.split(".")[1])))}
    if manifest is not None:
        # A plugin that an environment is not of, such as one with a strategy, changes no measure.
        codes = [_text(code) for code in recorded_code(manifest, "environment_code") if code]
        measured[CODE] = ", then ".join(codes) or "none recorded"
        measured[ENGINE] = recorded_engine(manifest) or "none recorded"
    return {key: _text(value) for key, value in measured.items()}


def recorded_engine(manifest: Mapping[str, Any]) -> str:
    """Who stepped a run's environments outside of JAX; empty where nobody did, or a run of an earlier version."""
    engines = manifest.get("engines")
    stepping = set(map(str, engines.values())) - {"jax"} if isinstance(engines, Mapping) else set()
    return ", ".join(sorted(stepping))


def recorded_code(manifest: Mapping[str, Any], key: str) -> list[dict[str, str]]:
    """What a run's plugins were, one after the other where they were edited while it was trained; short digests.

    Args:
        manifest: of the run; those of earlier versions say nothing.
        key: ``plugins``, or ``environment_code`` for those alone that environments are of.
    """
    history = manifest.get("history")
    former = [one for one in history if isinstance(one, Mapping)] if isinstance(history, list) else []
    # What was edited before the first checkpoint trained nothing.
    each = [one.get(key) for one in former if one.get("rounds")] + [manifest.get(key)]
    found: list[dict[str, str]] = []
    for table in each:
        if isinstance(table, Mapping):
            short = {str(name): str(digest)[:SHOWN] for name, digest in table.items()}
            if short not in found[-1:]:
                found.append(short)
    return found


def _differ(environment: Mapping[str, Any]) -> bool:
    """Whether agents' environments are set apart."""
    names = ("heterogeneity", "tasks", "goals")
    return any(environment.get(name) not in (None, "none", {}, []) for name in names)


def apart(items: Iterable[tuple[Item, Mapping[str, str]]]) -> list[tuple[dict[str, str], list[Item]]]:
    """Items by measure, in order of appearance, each part with the settings in which the parts differ."""
    parts: list[tuple[Mapping[str, str], list[Item]]] = []
    for item, its in items:
        for known, members in parts:
            if known == its:
                members.append(item)
                break
        else:
            parts.append((its, [item]))
    keys = dict.fromkeys(key for its, _ in parts for key in its)
    # A setting that some do not have, such as whose environments, follows from one that they do.
    telling = [key for key in keys if len({its[key] for its, _ in parts if key in its}) > 1]
    return [({key: its[key] for key in telling if key in its}, members) for its, members in parts]


def why_apart(parts: Sequence[tuple[Mapping[str, str], Sequence[str]]]) -> str:
    """One sentence: which runs were evaluated how, and that they are therefore not compared."""
    each = "; ".join(f"{', '.join(labels)} with {said(telling)}" for telling, labels in parts)
    return f"These runs were evaluated differently, so their returns are not drawn on one axis: {each}."


def said(telling: Mapping[str, str]) -> str:
    """Settings as ``key = value``."""
    return ", ".join(f"{key} = {value}" for key, value in telling.items())


def _table(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    table = config.get(key, {})
    return table if isinstance(table, Mapping) else {}


def _said(value: Any) -> Any:
    return None if value == "none" else value


def _text(value: Any) -> str:
    """A setting as one line; tables by key, so that their order does not matter."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_text(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_text, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)
