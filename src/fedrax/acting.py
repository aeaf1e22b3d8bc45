"""Trained policies that act: NumPy in and out, one observation or a batch, wherever the run was trained.

All that is needed lies in the run's directory. The environment's package need not be installed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import gymnasium
import jax
import numpy as np
from jaxtyping import PyTree

from fedrax.arguments import flag, read_argument, takes, whole
from fedrax.config import Config
from fedrax.environments.base import Box, Dict, Discrete, Spaces, Tokens
from fedrax.environments.minigrid import IMAGE, MISSION, is_minigrid, mission_tokens
from fedrax.environments.spaces import of_gymnasium, read
from fedrax.environments.tasks import Mixture, mix
from fedrax.errors import FedraxError, shown
from fedrax.other_calls import OF_A_POLICY, no_attribute
from fedrax.records.checkpoint import load_networks
from fedrax.records.manifest import read_manifest
from fedrax.records.rundir import RunDirectory
from fedrax.registry import LARGEST
from fedrax.runtime.draws import describe_run, task_ids
from fedrax.runtime.make import make_learner


@dataclasses.dataclass(frozen=True)
class Chosen:
    """One policy of a run."""

    params: PyTree
    """All of the learner's networks, leaves ``[...]`` without axes of seeds and agents."""
    spaces: Spaces
    """What its networks see, of all tasks where there are several, and the environment's actions."""
    mixture: Mixture | None
    """The tasks, where agents have different ones."""
    seed: int
    agent: int | None
    """Whose it is; None where all agents share it."""


def choose(
    config: Config,
    directory: RunDirectory,
    path: Path,
    *,
    seed: int | None,
    agent: int | None,
    otherwise: Callable[[], dict[int, PyTree]],
) -> Chosen:
    """One seed's policy, and one agent's where each has its own.

    Args:
        config: of the run.
        directory: of the run.
        path: the file of all seeds' policies: leaves ``[seeds, ...]``, or ``[seeds, agents, ...]``.
        seed: which of the run's; unset, the first.
        agent: whose; needed where each of several agents has its own.
        otherwise: every seed's policy by seed from elsewhere, where there is no such file: leaves ``[...]``, or
            ``[agents, ...]`` where each agent has its own.

    Raises:
        FedraxError: one line: there is no such seed or agent, no policy, or the agents' policies are elsewhere.
    """
    seeds, agents = config.all_seeds, config.federation.agents
    seed = config.seed if seed is None else seed
    if seed not in seeds:
        raise FedraxError(f"seed = {shown(seed)} is not allowed: the run has seeds {seeds[0]} to {seeds[-1]}")
    if agent is not None and not 0 <= agent < agents:
        raise FedraxError(f"agent = {shown(agent)} is not allowed: the run has agents 0 to {agents - 1}")
    personal = config.hands_out_own()
    if personal and config.runtime.kind == "flower":
        raise FedraxError(f"the policies of {directory.path} are their agents' own, and are on the nodes")
    if personal and agent is None and agents == 1:
        agent = 0
    if personal and agent is None:
        raise FedraxError(
            f"every agent of {directory.path} has a policy of its own: give agent=0 to agent={agents - 1} "
            f"(fedrax export: --agent 0 to --agent {agents - 1})"
        )
    spaces, mixture = known_spaces(config, directory)
    if path.is_file():
        learner = make_learner(config)
        network = jax.eval_shape(lambda: learner.init_params(jax.random.key(0), spaces))
        stacked, _ = load_networks(path, network)
        params = jax.tree.map(lambda x: x[seeds.index(seed)], stacked)
    else:
        params = otherwise()[seed]
    if personal:
        params = jax.tree.map(lambda x: x[agent], params)
    return Chosen(jax.device_put(params), spaces, mixture, seed, agent if personal else None)


def known_spaces(config: Config, directory: RunDirectory) -> tuple[Spaces, Mixture | None]:
    """What agents see and do, as the run recorded it; of runs of earlier versions, as the environment says.

    Raises:
        FedraxError: what it recorded is damaged; or it did not record it, and the environment cannot be asked.
    """
    recorded = read_manifest(directory).get("spaces") if directory.manifest.exists() else None
    if recorded is None:
        described, mixture = describe_run(config)
        return described.spaces, mixture
    ids = task_ids(config)
    try:
        each = [read(recorded[id]) for id in ids]
    except (LookupError, TypeError, ValueError):
        raise FedraxError(
            f"{directory.manifest} is damaged: its table spaces does not say what is seen and done in "
            f"{', '.join(ids)}; take the file from a copy of the run, or remove the table to have the environment asked"
        ) from None
    if not config.environment.tasks:
        return each[0], None
    mixture = mix(ids, each, identity=config.environment.task_identity)
    return mixture.spaces, mixture


class TrainedPolicy:
    """A policy that acts: ``action = policy(observation)``.

    An observation has the shape of :attr:`observation_space`; a batch has one more axis before it, and gets as many
    actions. Observations of several parts are dictionaries of arrays. Actions are the environment's own: within its
    range, in its shape and its type.
    """

    def __init__(
        self,
        config: Config,
        chosen: Chosen,
        *,
        task: int | None = None,
        deterministic: bool | None = None,
        random_seed: int = 0,
    ) -> None:
        """Args:
        config: of the run.
        chosen: the policy.
        task: in which of the tasks it acts, whose own observations it is then given; unset, it is given them as they
            are made alike.
        deterministic: whether actions are the most likely ones (the mean of real actions), unless a call says
            otherwise; else drawn, by policies without a distribution with the noise that they explore with. Unset, as
            the run was evaluated (``evaluation.greedy``).
        random_seed: of what is drawn.
        """
        self._learner = make_learner(config)
        self._spaces, self._mixture = chosen.spaces, chosen.mixture
        self._task = task if chosen.mixture is not None else None
        own = chosen.spaces if self._mixture is None or self._task is None else self._mixture.tasks[self._task]
        self._seen: Box | Dict = own.observation
        self._actions = self._learner.actions(chosen.spaces)
        self._params = chosen.params
        self._act = jax.jit(self._learner.act)
        self._id = task_ids(config)[self._task or 0]
        self.deterministic = config.evaluation.greedy if deterministic is None else deterministic
        self.observation_space: gymnasium.Space[Any] = of_gymnasium(own.observation)
        """What one observation is, as Gymnasium says it."""
        self.action_space: gymnasium.Space[Any] = of_gymnasium(chosen.spaces.action)
        """What one action is."""
        self.reset(random_seed)
        self._name = f"seed {chosen.seed}" + ("" if chosen.agent is None else f", agent {chosen.agent}")

    if not TYPE_CHECKING:  # Who checks types is told of unknown names by that.

        def __getattr__(self, name: str) -> NoReturn:
            """Only for names that a policy does not have: what other libraries call so is here."""
            raise no_attribute(self, name, OF_A_POLICY, dir(type(self)))

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} of {self._learner.name}, {self._name}: {self.observation_space} -> "
            f"{self.action_space}>"
        )

    @takes(random_seed=whole(0, LARGEST))
    def reset(self, random_seed: int = 0) -> None:
        """What is drawn from now on is what a fresh policy with this seed would draw.

        Raises:
            FedraxError: it is no whole number from 0 on that JAX takes.
        """
        self._key, self._calls = jax.random.key(random_seed), 0

    def __call__(self, observation: Any, *, deterministic: bool | None = None) -> Any:
        """The action for an observation, or those for a batch ``[n, ...]``, as NumPy arrays of the action space.

        Args:
            observation: an array or, where there are several parts, a dictionary of arrays. Of MiniGrid, the
                observation as it comes will do.
            deterministic: as for the policy itself; unset, as it was made.

        Raises:
            FedraxError: one line: an observation of another shape or type than the policy sees, or ``deterministic``
                that is neither true nor false.
        """
        if deterministic is not None:
            deterministic = read_argument("deterministic", deterministic, flag())
        batch, alone = _arranged(self._seen, self._own(observation))
        if self._mixture is not None and self._task is not None:
            batch = self._mixture.seen(self._task, batch)
        count = len(jax.tree.leaves(batch)[0])
        key = None
        if not (self.deterministic if deterministic is None else deterministic):
            key, self._calls = jax.random.fold_in(self._key, self._calls), self._calls + 1
        # Few sizes, as every new one is compiled.
        size = 1 << max(count - 1, 0).bit_length()
        padded = jax.tree.map(lambda x: np.concatenate([x, np.zeros((size - count, *x.shape[1:]), x.dtype)]), batch)
        emitted = np.asarray(self._act(self._params, padded, key))[:count]
        action = self._actions.host(emitted)
        if isinstance(self._spaces.action, Discrete):
            action = action.astype(np.int64) + self._spaces.action.start
        return action[0] if alone else action

    def _own(self, observation: Any) -> Any:
        """MiniGrid's observations as the policy sees them; others as they are."""
        if not (is_minigrid(self._id) and isinstance(observation, Mapping)):
            return observation
        if isinstance(self._seen, Box):
            return observation.get(IMAGE, observation)
        words = self._seen.tree.get(MISSION)
        parts = {name: observation[name] for name in self._seen.tree if name in observation}
        if isinstance(words, Tokens) and isinstance(parts.get(MISSION), str):
            parts[MISSION] = mission_tokens(parts[MISSION], words.length)
        return parts


def _arranged(space: Box | Dict, observation: Any) -> tuple[Any, bool]:
    """A batch of observations, leaves ``[n, *o]`` as networks see them, and whether one alone was given."""
    if isinstance(space, Box):
        array, alone = _array(space, observation, "the observation")
        return array, alone
    if not isinstance(observation, Mapping):
        raise FedraxError(
            f"the observation is {_kind(observation)}, and the policy sees a dictionary of "
            f"{', '.join(space.tree)}; give one"
        )
    missing = [name for name in space.tree if name not in observation]
    strange = [name for name in observation if name not in space.tree]
    if missing or strange:
        wrong = f"has no {', '.join(missing)}" if missing else f"has {', '.join(map(str, strange))}"
        raise FedraxError(f"the observation {wrong}, and the policy sees {', '.join(space.tree)}; give these parts")
    each = {name: _array(part, observation[name], f"the observation's {name}") for name, part in space.tree.items()}
    batches = {name: None if alone else len(array) for name, (array, alone) in each.items()}
    if len(set(batches.values())) > 1:
        counts = ", ".join(f"{name} {'one' if n is None else f'a batch of {n}'}" for name, n in batches.items())
        raise FedraxError(f"the parts of the observation are of different batches: {counts}; give as many of each")
    return {name: array for name, (array, _) in each.items()}, None in batches.values()


def _array(space: Box | Tokens, given: Any, what: str) -> tuple[np.ndarray, bool]:
    """``[n, *o]`` in the type that networks see, and whether one alone was given."""
    try:
        array = np.asarray(given)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "fiub":
        raise FedraxError(
            f"{what} is {_kind(given)}, and the policy sees numbers of shape {space.shape}; give an array"
        )
    if array.shape != space.shape and array.shape[1:] != space.shape:
        raise FedraxError(
            f"{what} has the shape {array.shape}, and the policy sees {space.shape}, or (n, "
            f"{', '.join(map(str, space.shape))}) for a batch; give one of these"
        )
    if array.dtype.kind == "f" and space.seen.kind != "f":
        raise FedraxError(f"{what} has real numbers ({array.dtype}), and the policy sees {space.seen}; give these")
    with np.errstate(over="ignore", invalid="ignore"):
        seen = array.astype(space.seen, copy=False)
    if seen.dtype.kind == "f" and not np.isfinite(seen).all():
        raise FedraxError(f"{what} has numbers that are not finite as {space.seen}; give finite ones")
    highest = space.vocabulary - 1 if isinstance(space, Tokens) else np.inf
    if seen.dtype.kind != "f" and ((seen != array) | (seen < 0) | (seen > highest)).any():
        highest = min(highest, np.iinfo(seen.dtype).max)
        raise FedraxError(
            f"{what} has numbers from {array.min()} to {array.max()}, and the policy sees 0 to {highest}; give these"
        )
    alone = array.ndim == len(space.shape)
    return (seen[None] if alone else seen), alone


def _kind(given: Any) -> str:
    return f"{type(given).__name__} {given.dtype}" if isinstance(given, np.ndarray) else type(given).__name__
