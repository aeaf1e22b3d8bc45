"""Which policies an evaluation tests in which environments, and what their returns say of each agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Int

from fedrax.environments.success import LAST, SHARE, SUCCESS
from fedrax.evaluation.measure import Environments
from fedrax.seeds import host_seeds


class Pairs(NamedTuple):
    """``P`` policies, each tested in ``C`` environments."""

    environments: Int[np.ndarray, "P C"] | None
    """Whose environment each is, by policy; None: the registered one, and ``C`` is 1."""
    episodes: int
    """Of each pair, on the same initial states for all."""
    counted: tuple[int, ...]
    """Columns that count in the mean; another holds agents' own environments, where these were not drawn."""
    personal: bool
    """Whether there is a policy of every agent, or one that all share."""

    @property
    def columns(self) -> int:
        """``C``."""
        return 1 if self.environments is None else self.environments.shape[1]

    @property
    def own(self) -> Int[np.ndarray, " P"] | None:
        """The column of each agent's own environment; None where policies have no others beside it."""
        if self.environments is None or self.columns == 1:
            return None
        return np.argmax(self.environments == np.arange(len(self.environments))[:, None], axis=1)


class Evaluation(NamedTuple):
    """Episodes without learning: of one policy, or of every agent's."""

    table: dict[str, np.ndarray]
    """By name: ``return`` (undiscounted), ``length`` (steps) and, where the environment says so, ``success`` (in any
    step), ``success_last`` and ``success_share`` (of steps). Of one shape: ``[episodes]`` of a shared policy in the
    registered environment; ``[agents, episodes]`` of a shared policy in every agent's environment, or of each agent's
    policy in one environment; ``[policies, environments, episodes]`` of every agent's policy in several."""
    environments: np.ndarray | None = None
    """Whose environment each is, ``int[policies, environments]``; None: the registered one, or unseen ones."""
    own: np.ndarray | None = None
    """Returns ``[agents, episodes]`` of each agent's policy in its own environment, where others are beside it."""

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted."""
        return self.table["return"]

    @property
    def lengths(self) -> np.ndarray:
        """In steps."""
        return self.table["length"]

    @property
    def success(self) -> np.ndarray | None:
        """1 for episodes that reached the goal in any step, else 0; None where the environment does not say."""
        return self.table.get(SUCCESS)

    @property
    def agents(self) -> np.ndarray | None:
        """Each agent's mean return, ``float[agents]``: in its environment of a shared policy, else of its policy."""
        return None if self.returns.ndim == 1 else self.returns.reshape(len(self.returns), -1).mean(1)


def choose_pairs(where: Environments, *, personal: bool, agents: int, episodes: int, seed: int) -> Pairs:
    """The pairs of an evaluation of ``episodes`` episodes of each policy.

    ``own`` and ``registered``: every policy has all of them in one environment. ``all``: they are spread evenly over
    all agents' environments, at least one in each, so that the mean over agents' environments costs no more than an
    evaluation in one. Where personal policies are more than ``episodes``, not all pairs can be afforded: policy k then
    meets agent (k + o)'s environment (modulo the number of agents) for ``episodes`` offsets o, drawn once from
    ``seed`` without replacement and the same in every round. Every policy is in equally many environments and every
    environment meets equally many policies, nobody's own is favoured, and the mean over these pairs estimates the mean
    over all pairs without bias over draws of the offsets. Agents' own environments are tested beside them.

    Args:
        where: which environments.
        personal: whether there is a policy of every agent, or a shared one.
        agents: number of agents, and of their environments.
        episodes: of each policy.
        seed: that of the evaluation.
    """
    if where == "registered":
        return Pairs(None, episodes, (0,), personal)
    everyone = np.arange(agents)
    if where == "own":
        table = everyone[:, None] if personal else everyone[None]
        return Pairs(table, episodes, tuple(range(table.shape[1])), personal)
    met = min(agents, episodes) if personal else agents
    each = -(-episodes // met)
    if met == agents:
        return full_pairs(agents if personal else 1, agents, each, personal=personal)
    draws = np.random.default_rng(host_seeds((2,), seed, "environments"))
    offsets = np.sort(draws.choice(agents, met, replace=False))
    beside = int(offsets[0] != 0)
    if beside:
        offsets = np.concatenate([[0], offsets])
    table = (everyone[:, None] + offsets) % agents
    return Pairs(table, each, tuple(range(beside, len(offsets))), personal)


def full_pairs(policies: int, environments: int, episodes: int, *, personal: bool) -> Pairs:
    """Every policy in every environment, ``episodes`` episodes each."""
    table = np.broadcast_to(np.arange(environments), (policies, environments))
    return Pairs(table, episodes, tuple(range(environments)), personal)


def scores(
    table: Mapping[str, Any],
    pairs: Pairs,
    *,
    mean: Callable[..., Any] = np.mean,
    least: Callable[..., Any] = np.min,
) -> dict[str, Any]:
    """What an evaluation's arrays ``[policies, environments, episodes]`` come to, by name of the metric.

    ``return``, ``episode_length`` and the kinds of ``success`` are means over agents' environments, and policies;
    ``return_worst`` is the lowest of ``agent_returns``: a shared policy's mean return in each agent's environment, or
    each agent's policy's mean return over environments. ``agent_own_returns`` are those of agents' policies in their
    own environments, where ``agent_returns`` are over others too; of every kind of success, ``agent_success``,
    ``success_worst`` and ``agent_own_success`` are as these.

    Args:
        table: as in :class:`Evaluation`, numpy or JAX.
        pairs: what they are of.
        mean: of an array; over an axis, too.
        least: of an array.
    """
    counted, personal = list(pairs.counted), pairs.personal
    known = {name: array[:, counted] for name, array in table.items()}

    def by_agent(array: Any) -> Any:
        return mean(array, axis=(1, 2)) if personal else mean(array[0], axis=1)

    measured: dict[str, Any] = {"return": mean(known["return"])}
    measured["episode_length"] = mean(known["length"].astype(np.float32))
    measured |= {name: mean(known[name]) for name in (SUCCESS, LAST, SHARE) if name in known}
    if personal or pairs.environments is not None:
        each = by_agent(known["return"])
        measured |= {"return_worst": least(each), "agent_returns": each}
        for name in (SUCCESS, LAST, SHARE):
            if name in known:
                each = by_agent(known[name])
                measured |= {f"{name}_worst": least(each), f"agent_{name}": each}
    if personal and pairs.own is not None:
        successes = [(name, f"agent_own_{name}") for name in (SUCCESS, LAST, SHARE)]
        for name, metric in (("return", "agent_own_returns"), *successes):
            if name in table:
                rows: Array | np.ndarray = table[name][np.arange(len(pairs.own)), pairs.own]
                measured[metric] = mean(rows, axis=1)
    return measured


BEFORE, AFTER = "before", "after"
"""An aggregation: an agent's networks as they left its learning, and as the next broadcast makes them."""
AROUND = ("return", "agent_returns", *(f"{of}{kind}" for kind in (SUCCESS, LAST) for of in ("", "agent_")))
"""What is recorded of both."""


def around(
    tables: Mapping[str, Mapping[str, Any]],
    pairs: Pairs,
    *,
    mean: Callable[..., Any] = np.mean,
    least: Callable[..., Any] = np.min,
) -> dict[str, Any]:
    """What evaluations of every agent's networks :data:`BEFORE` and :data:`AFTER` come to: metrics with these endings.

    They are ``return``, ``success`` and ``success_last``, means over agents, and ``agent_returns``, ``agent_success``
    and ``agent_success_last``.

    Args:
        tables: as in :class:`Evaluation`, for both.
        pairs: what they are of.
        mean: of an array; over an axis, too.
        least: of an array.
    """
    found = {when: scores(table, pairs, mean=mean, least=least) for when, table in tables.items()}
    return {f"{name}_{when}": each[name] for when, each in found.items() for name in AROUND if name in each}
