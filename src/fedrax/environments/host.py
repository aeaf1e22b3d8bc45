"""Host environments: copies stepped together by EnvPool (C++ threads) or by Gymnasium (one after the other).

Both reset in the step after an episode's last one, as :class:`HostEnvironments` demands. Actions go to the
environment as they are; one outside a Box's bounds means what the Gymnasium environment makes of it (most
clip it).

Gymnasium's vector environment runs in this process. One process per copy would cost a round trip per step
that is longer than the step of most environments, and forking is unsafe once JAX has started its threads;
where speed matters, EnvPool is the answer.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from fedrax.environments.base import HostEnvironments, Spaces
from fedrax.environments.crash import CrashReporting, crashes
from fedrax.environments.host_parameters import Parameters, host_physics, make_varied, with_noise
from fedrax.environments.minigrid import MiniGridPool, is_minigrid, make_minigrid
from fedrax.environments.registry import Backend, Description, describe_environment, uses_envpool
from fedrax.errors import FedraxError


def make_host(
    id: str,
    count: int,
    *,
    backend: Backend = "auto",
    threads: int | None = None,
    max_episode_steps: int | None = None,
    mission: bool = False,
    parameters: Sequence[Parameters] | None = None,
) -> HostEnvironments:
    """``count`` copies of the environment ``id``; reseed them before the first reset.

    Args:
        id: as registered with Gymnasium.
        count: number of copies.
        backend: who steps them; ``auto`` is EnvPool where it is installed and has the id.
        threads: EnvPool's threads; unset, one per core.
        max_episode_steps: an earlier time limit than the registered one, which is never exceeded.
        mission: whether the tokens of MiniGrid's mission follow its image in the observation.
        parameters: each copy's, all of :func:`host_defaults`; Gymnasium steps these copies. Unset, the registered
            environment.

    Raises:
        FedraxError: see :func:`describe_environment`; parameters with EnvPool, or noise that cannot be added.
    """
    if parameters is not None:
        if backend == "envpool":
            raise envpool_varies_nothing(id)
        backend = "gymnasium"
    described = describe_environment(id, native=False, backend=backend, mission=mission)
    time_limit = min(max_episode_steps or described.time_limit, described.time_limit)
    if uses_envpool(id, backend):
        return EnvPoolEnvironments(id, count, described, time_limit, threads)
    return GymnasiumEnvironments(id, count, described, time_limit, parameters)


def envpool_varies_nothing(id: str) -> FedraxError:
    """The error where EnvPool is asked for by name, and agents' environments differ."""
    return FedraxError(
        f"environment.backend = 'envpool' cannot vary {id!r}, as environment.heterogeneity asks: EnvPool has no "
        "parameters; set environment.backend=gymnasium, or remove environment.heterogeneity"
    )


def make_single(
    id: str,
    time_limit: int,
    *,
    mission: bool = False,
    render_mode: str | None = None,
    parameters: Parameters | None = None,
) -> gymnasium.Env:
    """One copy by Gymnasium, observed and acted on as agents do, for films; arguments as in :func:`make_host`."""
    described = describe_environment(id, native=False, mission=mission)
    environment: gymnasium.Env = CrashReporting(
        _make(id, described.spaces, time_limit, parameters, render_mode=render_mode), id
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
    *,
    render_mode: str | None = None,
) -> gymnasium.Env:
    settings: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    if is_minigrid(id):
        environment = make_minigrid(id, spaces, time_limit, **settings)
    else:
        settings |= {"max_episode_steps": time_limit, "disable_env_checker": True}
        if parameters is not None and id in host_physics:
            environment = make_varied(id, parameters, **settings)
        else:
            environment = gymnasium.make(id, **settings)
    return environment if parameters is None else with_noise(environment, parameters)


class EnvPoolEnvironments(HostEnvironments):
    """Copies in one EnvPool, which exists from the first :meth:`reseed` on.

    An episode that reaches a terminal state in the very step of EnvPool's time limit is reported as truncated only,
    where Gymnasium reports both: EnvPool does not tell the two apart.
    """

    def __init__(self, id: str, count: int, described: Description, time_limit: int, threads: int | None) -> None:
        self.spaces, self.count, self.time_limit = described.spaces, count, time_limit
        self._settings = {"num_threads": threads or 0}
        self._minigrid = is_minigrid(id)
        if not self._minigrid:
            self._settings["max_episode_steps"] = time_limit
        self._id = id
        self._pool: Any = None

    def reseed(self, seeds: np.ndarray) -> None:
        """Makes the pool anew, since EnvPool takes seeds only then (some milliseconds per MuJoCo copy)."""
        import envpool

        self.close()
        self._pool = envpool.make_gymnasium(
            self._id, num_envs=self.count, seed=[int(seed) for seed in seeds], **self._settings
        )
        with warnings.catch_warnings():
            # EnvPool makes its spaces when they are first looked at, in a precision that Gymnasium warns of.
            warnings.simplefilter("ignore", UserWarning)
            _ = self._pool.observation_space, self._pool.action_space
        if self._minigrid:
            self._pool = MiniGridPool(self._pool, self.count, self.spaces, self.time_limit)

    def reset(self, chosen: np.ndarray | None = None) -> np.ndarray:
        """Starts a fresh episode in every copy, or the chosen ones."""
        with crashes(self._id, "reset", self):
            if chosen is None:
                return self._pool.reset()[0].astype(np.float32, copy=False)
            ids = np.flatnonzero(chosen).astype(np.int32)
            return self._spread(self._pool.reset(ids)[0].astype(np.float32, copy=False), ids)

    def step(
        self, actions: np.ndarray, active: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """One step of every active copy, or its reset; the others stand still."""
        if active is None or active.all():
            with crashes(self._id, "step", self):
                return self._results(self._pool.step(actions))
        ids = np.flatnonzero(active).astype(np.int32)
        with crashes(self._id, "step", self):
            observation, reward, terminated, truncated = self._results(self._pool.step(actions[ids], ids))
        return (
            self._spread(observation, ids),
            self._spread(reward, ids),
            self._spread(terminated, ids),
            self._spread(truncated, ids),
        )

    def _spread(self, part: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Rows of some copies as rows of all, zero for the others."""
        whole = np.zeros((self.count, *part.shape[1:]), part.dtype)
        whole[ids] = part
        return whole

    @staticmethod
    def _results(returned: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        observation, reward, terminated, truncated, _ = returned
        return (
            observation.astype(np.float32, copy=False),
            reward.astype(np.float32, copy=False),
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
    ) -> None:
        if parameters is not None and len(parameters) != count:
            raise ValueError(f"{count} copies need as many sets of parameters, not {len(parameters)}")
        self.spaces, self.count, self.time_limit = described.spaces, count, time_limit
        every: Sequence[Parameters | None] = [None] * count if parameters is None else parameters
        self._id = id
        makers = [partial(self._copy, copy, each) for copy, each in enumerate(every)]
        self._environments = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)
        # Gymnasium's discrete actions may start elsewhere than at 0, ours never do.
        actions = self._environments.single_action_space
        self._offset = actions.start if isinstance(actions, gymnasium.spaces.Discrete) else 0
        self._seeds: list[int | None] | None = None

    def reseed(self, seeds: np.ndarray) -> None:
        """Takes effect at the next reset."""
        self._seeds = [int(seed) for seed in seeds]

    def _copy(self, copy: int, parameters: Parameters | None) -> gymnasium.Env:
        return CrashReporting(_make(self._id, self.spaces, self.time_limit, parameters), self._id, copy)

    def reset(self, chosen: np.ndarray | None = None) -> np.ndarray:
        """Starts a fresh episode in every copy, or the chosen ones."""
        options = None if chosen is None else {"reset_mask": chosen}
        with crashes(self._id, "reset", self):
            observation, _ = self._environments.reset(seed=self._seeds, options=options)
        self._seeds = None
        return observation.astype(np.float32, copy=False)

    def step(
        self, actions: np.ndarray, active: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """One step of every copy, or its reset; Gymnasium cannot leave some out."""
        actions = actions + self._offset if self._offset else actions
        with crashes(self._id, "step", self):
            observation, reward, terminated, truncated, _ = self._environments.step(actions)
        return observation.astype(np.float32, copy=False), reward.astype(np.float32), terminated, truncated

    def close(self) -> None:
        """Frees the copies."""
        self._environments.close()
