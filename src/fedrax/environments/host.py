"""Host environments: copies stepped together by EnvPool (C++ threads) or by Gymnasium (one after the other).

Both reset in the step after an episode's last one, as :class:`HostEnvironments` demands. Actions go to the
environment as they are: what a learner emits is made an action of the environment before
(:mod:`fedrax.environments.actions`).

Gymnasium's vector environment runs in this process. One process per copy would cost a round trip per step
that is longer than the step of most environments, and forking is unsafe once JAX has started its threads;
where speed matters, EnvPool is the answer.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import gymnasium
import jax
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from fedrax.environments.base import Box, Dict, Discrete, HostEnvironments, HostObservation, Spaces, shapes
from fedrax.environments.constructor import cannot_make, envpool_options, given
from fedrax.environments.crash import CrashReporting, crashes
from fedrax.environments.cycles import free_closed
from fedrax.environments.goal_sets import GoalSet
from fedrax.environments.host_goals import SeededPools, SeededResets
from fedrax.environments.host_joined import JoinedEnvironments
from fedrax.environments.host_parameters import Parameters, arguments_among, host_physics, make_varied, with_noise
from fedrax.environments.minigrid import MiniGridPool, is_minigrid, make_minigrid
from fedrax.environments.noise import NOISE
from fedrax.environments.registry import Backend, Description, describe_environment, uses_envpool
from fedrax.environments.robotics import envpool_defaults
from fedrax.environments.success import SUCCESS, told
from fedrax.errors import FedraxError
from fedrax.seeds import host_seeds


def make_host(
    id: str,
    count: int,
    *,
    backend: Backend = "auto",
    threads: int | None = None,
    max_episode_steps: int | None = None,
    mission: bool = False,
    parameters: Sequence[Parameters] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    goals: Sequence[GoalSet | None] | None = None,
) -> HostEnvironments:
    """``count`` copies of the environment ``id``; reseed them before the first reset.

    Args:
        id: as registered with Gymnasium.
        count: number of copies.
        backend: who steps them; ``auto`` is EnvPool where it is installed and has the id.
        threads: EnvPool's threads; unset, one per core.
        max_episode_steps: an earlier time limit than the registered one, which is never exceeded; needed where there
            is none.
        mission: whether the tokens of MiniGrid's mission follow its image in the observation.
        parameters: each copy's, all of :func:`host_defaults`; Gymnasium steps these copies, or EnvPool where they
            only differ by options that it has. Unset, the registered environment.
        kwargs: arguments of the constructor, the same for all copies.
        goals: that each copy's episodes start at, for all copies or for none; unset, anywhere.

    Raises:
        FedraxError: see :func:`describe_environment`; parameters that EnvPool does not have, or noise that cannot be
            added.
    """
    kwargs = dict(kwargs or {})
    if parameters is not None:
        backend = engine(id, backend, parameters[0])
    described = describe_environment(id, native=False, backend=backend, mission=mission, kwargs=kwargs)
    time_limit = described.horizon(max_episode_steps)
    own = [kwargs] * count if parameters is None else [kwargs | arguments_among(id, each) for each in parameters]
    # A pool is made with one set of options.
    pools = [list(copies) for _, copies in itertools.groupby(own)]
    sets = [each for each in goals or () if each is not None]
    if sets and len(sets) != count:
        raise ValueError(f"{count} copies need as many sets of goals, or none, not {len(sets)}")
    if stepped_by(id, backend, parameters or (), kwargs) == "gymnasium":
        return GymnasiumEnvironments(id, count, described, time_limit, parameters, kwargs, sets)
    made: list[HostEnvironments] = []
    first = 0
    for copies in pools:
        of_pool = partial(
            EnvPoolEnvironments,
            id,
            described=described,
            time_limit=time_limit,
            threads=threads,
            options=copies[0],
        )
        own_goals = sets[first : first + len(copies)]
        first += len(copies)
        made.append(
            SeededPools(own_goals, described.spaces, time_limit, of_pool) if own_goals else of_pool(len(copies))
        )
    return made[0] if len(made) == 1 else JoinedEnvironments(made)


def engine(id: str, backend: Backend, parameters: Parameters) -> Backend:
    """Who steps environments that differ by ``parameters``: EnvPool knows options alone, no noise and no physics.

    Raises:
        FedraxError: EnvPool is asked for by name, and cannot.
    """
    if id not in host_physics and not parameters.keys() & NOISE.keys():
        return backend
    if backend == "envpool":
        raise FedraxError(
            f"environment.backend = 'envpool' cannot vary {id!r}, as environment.heterogeneity asks: EnvPool has "
            "options, and neither physical parameters nor noise; set environment.backend=gymnasium, or remove "
            "environment.heterogeneity"
        )
    return "gymnasium"


def stepped_by(
    id: str, backend: Backend, parameters: Sequence[Parameters], kwargs: Mapping[str, Any]
) -> Literal["envpool", "gymnasium"]:
    """Who steps copies as :func:`make_host` makes them; ``parameters`` are empty where none are given there.

    Raises:
        FedraxError: as there.
    """
    if parameters:
        backend = engine(id, backend, parameters[0])
    copies = [{**kwargs, **arguments_among(id, each)} for each in parameters] or [dict(kwargs)]
    return "envpool" if all(uses_envpool(id, backend, each) for each in copies) else "gymnasium"


def make_single(
    id: str,
    time_limit: int,
    *,
    mission: bool = False,
    render_mode: str | None = None,
    parameters: Parameters | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> gymnasium.Env:
    """One copy by Gymnasium, observed and acted on as agents do, for videos; arguments as in :func:`make_host`."""
    described = describe_environment(id, native=False, mission=mission, kwargs=kwargs)
    environment: gymnasium.Env = CrashReporting(
        _make(id, described.spaces, time_limit, parameters, kwargs, render_mode=render_mode), id
    )
    actions = environment.action_space
    if isinstance(actions, gymnasium.spaces.Discrete) and actions.start != 0:
        first = int(actions.start)
        spaces = gymnasium.spaces.Discrete(int(actions.n))
        return gymnasium.wrappers.TransformAction(environment, lambda action: action + first, spaces)
    return environment


def _make(
    id: str,
    spaces: Spaces,
    time_limit: int,
    parameters: Parameters | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    render_mode: str | None = None,
) -> gymnasium.Env:
    settings: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    own = arguments_among(id, parameters or {})
    arguments = given({**(kwargs or {}), **own})
    try:
        if is_minigrid(id):
            environment = make_minigrid(id, spaces, time_limit, **settings, **arguments)
        else:
            settings |= {"max_episode_steps": time_limit, "disable_env_checker": True}
            if parameters is not None and id in host_physics:
                environment = make_varied(id, parameters, arguments, **settings)
            else:
                environment = gymnasium.make(id, **settings, **arguments)
    except FedraxError:
        raise
    except Exception as error:
        raise cannot_make(id, arguments, error) from error
    if own:
        _check_alike(id, environment, spaces, own)
    return environment if parameters is None else with_noise(environment, parameters)


def _check_alike(id: str, environment: gymnasium.Env, spaces: Spaces, own: Mapping[str, Any]) -> None:
    """Refuses an agent's environment whose observations or actions have another form than the federation's.

    Raises:
        FedraxError: names the agent's arguments.
    """
    observation, action = _form(environment.observation_space), environment.action_space
    count = int(action.n) if isinstance(action, gymnasium.spaces.Discrete) else None
    expected = spaces.action.n if isinstance(spaces.action, Discrete) else None
    if (observation, action.shape, count) != (shapes(spaces.observation), spaces.action.shape, expected):
        environment.close()
        shown = ", ".join(f"{name} = {value!r}" for name, value in own.items())
        raise FedraxError(
            f"environment.heterogeneity makes environments of different forms: with {shown}, {id!r} has observations "
            f"of shape {observation} and actions {action}, and all agents share one policy's; vary other arguments"
        )


def _form(space: gymnasium.Space[Any]) -> Any:
    """The shape of a space, by name where it has parts."""
    return (
        {name: part.shape for name, part in space.items()} if isinstance(space, gymnasium.spaces.Dict) else space.shape
    )


def seen_as(space: Box | Dict, observation: HostObservation) -> HostObservation:
    """The observation in the types of its space."""
    return jax.tree.map(lambda part, x: narrowed(x, part.seen), space.tree, observation)


def narrowed(array: np.ndarray, type: np.dtype[Any]) -> np.ndarray:
    """The array in this type; what is too large for it becomes infinite, and is dealt with as such, not warned of."""
    with np.errstate(over="ignore"):
        return array.astype(type, copy=False)


class EnvPoolEnvironments(HostEnvironments):
    """Copies in one EnvPool, which exists from the first :meth:`reset` on: agents may wait long for their turn.

    An episode that reaches a terminal state in the very step of EnvPool's time limit is reported as truncated only,
    where Gymnasium reports both: EnvPool does not tell the two apart.
    """

    def __init__(
        self,
        id: str,
        count: int,
        described: Description,
        time_limit: int,
        threads: int | None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.spaces, self.count, self.time_limit = described.spaces, count, time_limit
        self._settings: dict[str, Any] = {"num_threads": threads or 0} | envpool_defaults(id)
        if options:
            # EnvPool takes a whole number for a real one amiss.
            self._settings |= {name: type(envpool_options(id)[name])(value) for name, value in options.items()}
        self._minigrid = is_minigrid(id)
        if not self._minigrid:
            self._settings["max_episode_steps"] = time_limit
        self._id = id
        self._pool: Any = None
        self._seeds = np.zeros(count, np.int64)
        self._success: np.ndarray | None = None
        self._over = np.zeros(count, bool)
        """Copies whose next step is a reset."""

    @property
    def success(self) -> np.ndarray | None:
        """By the pool's infos; in MiniGrid, a reward at the end."""
        return self._success

    def reseed(self, seeds: np.ndarray) -> None:
        """The next reset makes the pool anew: EnvPool takes seeds only then (some milliseconds per MuJoCo copy)."""
        self.close()
        self._seeds = seeds

    def _make_pool(self) -> None:
        import envpool

        self._pool = envpool.make_gymnasium(
            self._id, num_envs=self.count, seed=[int(seed) for seed in self._seeds], **self._settings
        )
        with warnings.catch_warnings():
            # EnvPool makes its spaces when they are first looked at, in a precision that Gymnasium warns of.
            warnings.simplefilter("ignore", UserWarning)
            _ = self._pool.observation_space, self._pool.action_space
        if self._minigrid:
            self._pool = MiniGridPool(self._pool, self.count, self.spaces, self.time_limit)

    def reset(self, chosen: np.ndarray | None = None) -> HostObservation:
        """Starts a fresh episode in every copy, or the chosen ones."""
        if self._pool is None:
            self._make_pool()
        self._over[slice(None) if chosen is None else chosen] = False
        with crashes(self._id, "reset", self):
            if chosen is None:
                return seen_as(self.spaces.observation, self._pool.reset()[0])
            ids = np.flatnonzero(chosen).astype(np.int32)
            return self._spread(seen_as(self.spaces.observation, self._pool.reset(ids)[0]), ids)

    def step(
        self, actions: np.ndarray, active: np.ndarray | None = None
    ) -> tuple[HostObservation, np.ndarray, np.ndarray, np.ndarray]:
        """One step of every active copy, or its reset; the others stand still."""
        if active is None or active.all():
            with crashes(self._id, "step", self):
                return self._results(self._pool.step(actions), slice(None))
        ids = np.flatnonzero(active).astype(np.int32)
        with crashes(self._id, "step", self):
            observation, reward, terminated, truncated = self._results(self._pool.step(actions[ids], ids), ids)
        if self._success is not None:
            self._success = self._spread(self._success, ids)
        return (
            self._spread(observation, ids),
            self._spread(reward, ids),
            self._spread(terminated, ids),
            self._spread(truncated, ids),
        )

    def _spread(self, rows: Any, ids: np.ndarray) -> Any:
        """Rows of some copies as rows of all, zero for the others."""

        def one(part: np.ndarray) -> np.ndarray:
            whole = np.zeros((self.count, *part.shape[1:]), part.dtype)
            whole[ids] = part
            return whole

        return jax.tree.map(one, rows)

    def _results(
        self, returned: Any, ids: np.ndarray | slice
    ) -> tuple[HostObservation, np.ndarray, np.ndarray, np.ndarray]:
        """What a step of these copies returned."""
        observation, reward, terminated, truncated, info = returned
        # Meta-World's resets have the reward of standing still.
        reward = np.where(self._over[ids], 0, reward)
        self._over[ids] = terminated | truncated
        success = terminated & (reward > 0) if self._minigrid else told(info)
        self._success = None if success is None else np.asarray(success) > 0
        return (
            seen_as(self.spaces.observation, observation),
            narrowed(reward, np.dtype(np.float32)),
            terminated,
            truncated,
        )

    def close(self) -> None:
        """Ends the pool's threads."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


class GymnasiumEnvironments(HostEnvironments):
    """Copies in this process, stepped one after the other; with ``parameters``, each copy's own."""

    def __init__(
        self,
        id: str,
        count: int,
        described: Description,
        time_limit: int,
        parameters: Sequence[Parameters] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        goals: Sequence[GoalSet] = (),
    ) -> None:
        if parameters is not None and len(parameters) != count:
            raise ValueError(f"{count} copies need as many sets of parameters, not {len(parameters)}")
        self.spaces, self.count, self.time_limit = described.spaces, count, time_limit
        every: Sequence[Parameters | None] = [None] * count if parameters is None else parameters
        self._id, self._kwargs, self._goals = id, kwargs, goals
        free_closed()
        makers = [partial(self._copy, copy, each) for copy, each in enumerate(every)]
        self._environments = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)
        # Gymnasium's discrete actions may start elsewhere than at 0, ours never do.
        actions = self._environments.single_action_space
        self._offset = actions.start if isinstance(actions, gymnasium.spaces.Discrete) else 0
        self._seeds = np.zeros(count, np.int64)
        self._resets = 0
        """Of all copies, since they were seeded."""
        self._success: np.ndarray | None = None

    @property
    def success(self) -> np.ndarray | None:
        """By the environments' infos."""
        return self._success

    def reseed(self, seeds: np.ndarray) -> None:
        """Takes effect at the next reset of all copies."""
        self._seeds, self._resets = seeds, 0

    def _copy(self, copy: int, parameters: Parameters | None) -> gymnasium.Env:
        made = _make(self._id, self.spaces, self.time_limit, parameters, self._kwargs)
        if self._goals:
            made = SeededResets(made, self._goals[copy])
        return CrashReporting(made, self._id, copy, reward_is_success=is_minigrid(self._id))

    def reset(self, chosen: np.ndarray | None = None) -> HostObservation:
        """Starts a fresh episode in every copy, or the chosen ones."""
        with crashes(self._id, "reset", self):
            if chosen is None:
                observation, _ = self._environments.reset(seed=self._fresh_seeds())
            else:
                observation, _ = self._environments.reset(options={"reset_mask": chosen})
        return seen_as(self.spaces.observation, observation)

    def _fresh_seeds(self) -> list[int | None]:
        """One for every copy, of its own seed and the number of resets alone.

        A copy whose agent is done is stepped along until all are, and starts episodes that nobody asked for: what it
        draws next must not depend on how many.
        """
        number, self._resets = self._resets, self._resets + 1
        if number == 0:
            return [int(seed) for seed in self._seeds]
        return [int(host_seeds((), int(seed), "reset", number)) for seed in self._seeds]

    def step(
        self, actions: np.ndarray, active: np.ndarray | None = None
    ) -> tuple[HostObservation, np.ndarray, np.ndarray, np.ndarray]:
        """One step of every copy, or its reset; Gymnasium cannot leave some out."""
        actions = actions + self._offset if self._offset else actions
        with crashes(self._id, "step", self):
            observation, reward, terminated, truncated, info = self._environments.step(actions)
        self._success = info.get(SUCCESS)
        observation = seen_as(self.spaces.observation, observation)
        return observation, narrowed(reward, np.dtype(np.float32)), terminated, truncated

    def close(self) -> None:
        """Frees the copies."""
        self._environments.close()
