"""One seed's environments that Python steps, and the collection of experience from them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from fedrax.environments.base import Experience, HostEnvironments
from fedrax.environments.crash import EnvironmentCrash, placed
from fedrax.environments.faults import NOTHING, Fault, host_faults, without
from fedrax.environments.host_collector import HostCollector
from fedrax.federation import Cohort, Federation
from fedrax.runtime.collectors import empty_experience, make_host_collector
from fedrax.runtime.places import Places
from fedrax.runtime.programs import Decider
from fedrax.seeds import host_seeds
from fedrax.strategies.base import Downlink


class SeedEnvironments:
    """One seed's environments: the agents', by the groups that act together, and the server's.

    ``members`` are the numbers of each group's agents, ``num_envs`` the copies of an agent, ``horizon`` the steps of an
    episode, ``position`` that of the seed among the seeds.
    """

    def __init__(
        self,
        federation: Federation,
        members: Sequence[range],
        groups: Sequence[HostEnvironments],
        server: HostCollector | None,
        *,
        seed: int,
        position: int,
        num_envs: int,
        horizon: int,
    ) -> None:
        self.federation, self.members, self.groups, self.server = federation, members, groups, server
        self.seed, self.position, self.num_envs, self.horizon = seed, position, num_envs, horizon
        self.agents = make_host_collector(federation, groups, num_envs=num_envs, horizon=horizon)

    @functools.cached_property
    def nothing(self) -> Experience:
        """One agent's experience in a round in which nobody takes part, as bare shapes."""

        def empty(key: PRNGKeyArray) -> Experience:
            return empty_experience(self.federation, self.federation.fresh(key, jnp.asarray(0)), self.num_envs)

        return jax.eval_shape(empty, jax.random.key(0))

    def collect(self, decide: Decider, cohort: Cohort, downlink: Downlink) -> tuple[Experience, Fault]:
        """The participants' experience of one local update, leaves ``[m, ...]``, and their faults, ``[m]``.

        Where there is a fault, the experience is zeros, and the agent's episodes start anew. It is zeros in the places
        of those who do not take part, whose environments stand still.
        """
        places = Places.of(cohort)
        with placed(lambda crash: self._place(crash, cohort)):
            if places is None:
                return self._collect(decide, np.asarray(cohort.ids), downlink)
            if not len(places.rows):
                experience = jax.tree.map(lambda x: np.zeros((places.number, *x.shape), x.dtype), self.nothing)
                return experience, host_faults(experience)
            taking = np.asarray(cohort.ids)[places.rows]
            return places.spread(self._collect(places.decider(decide), taking, downlink))

    def _collect(self, decide: Decider, agents: np.ndarray, downlink: Downlink) -> tuple[Experience, Fault]:
        """What :meth:`collect` returns, of these agents' environments."""
        ids = None if len(self.groups) == 1 else agents
        experience = self.agents.collect(decide, ids, int(downlink.episodes))
        faults = host_faults(experience)
        faulty = faults.kind != NOTHING
        if not faulty.any():
            return experience, faults
        self.agents.restart_agents(faulty, ids)
        return without(experience, faulty), faults

    def _place(self, crash: EnvironmentCrash, cohort: Cohort) -> str:
        """Whose copy crashed."""
        if len(self.groups) > 1:
            number = next(number for number, group in enumerate(self.groups) if group is crash.source)
        elif crash.copy is None:
            return ""
        else:
            number = int(cohort.ids[crash.copy // self.num_envs])
        return crash.of(f"agent {number}", self.num_envs)

    def reseed(self, index: int) -> None:
        """Starts every environment anew, as it will be at round ``index`` whoever gets there."""
        for members, environments in zip(self.members, self.groups, strict=True):
            # By the agent's number, whoever else takes part.
            each = [host_seeds((self.num_envs,), self.seed, "agents", index, agent) for agent in members]
            environments.reseed(np.concatenate(each))
        if self.server is not None:
            seeds = host_seeds((self.server.environments.count,), self.seed, "server", index)
            self.server.environments.reseed(seeds)
        self.agents.restart()

    def close(self) -> None:
        """Frees the environments."""
        for environments in self.groups:
            environments.close()
        if self.server is not None:
            self.server.environments.close()
