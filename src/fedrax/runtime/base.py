"""What training needs of a runtime: states by seed, rounds forward, and rows of metrics."""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Iterator, Set
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fedrax.config import Config
from fedrax.environments.base import Episodes
from fedrax.errors import FedraxError
from fedrax.evaluation.measure import Environments
from fedrax.evaluation.pairs import Evaluation, Pairs, choose_pairs, full_pairs, scores
from fedrax.federation import Federation, State, Tally
from fedrax.message import Period, periods, travelling
from fedrax.privacy.guarantee import guarantee
from fedrax.runtime.draws import same_environments, unseen_draws
from fedrax.runtime.memory import replay_memory
from fedrax.strategies.base import Strategy
from fedrax.trees import tree_bytes


class Runtime(abc.ABC):
    """A federation in this process, several seeds at once. States have a leading axis ``[seeds]``."""

    compiles_ahead: ClassVar[bool] = False
    """Whether :meth:`compile` leaves nothing to compile in the first rounds."""

    def __init__(self, config: Config, federation: Federation) -> None:
        self.config = config
        self.federation = federation
        pooled = federation.sites // federation.agents
        self.num_envs = config.environment.num_envs * pooled
        """Copies of the environment that one learner's steps are collected from."""
        self.replay_bytes = replay_memory(config, federation)
        """Memory of all replays."""
        self.guarantee = guarantee(config.privacy, config.federation)
        """What the noise amounts to; None without a unit of privacy."""
        self.limits = {
            "rounds": config.budget.rounds,
            "trajectories": config.budget.trajectories,
            "steps": config.budget.steps,
            "agent_steps": config.budget.steps_per_agent and config.budget.steps_per_agent * federation.sites,
        }
        """The budget by what is counted of a seed (:class:`Tally`), None without a limit; traced inside a program that
        takes it as an argument."""
        self.training_horizon: int
        self.evaluation_horizon: int

    @abc.abstractmethod
    def init(self, initial: PyTree = ()) -> State:
        """The states before the first round.

        ``initial`` are networks that agents start from, leaves ``[seeds, agents, ...]``; () for fresh ones.
        """

    @abc.abstractmethod
    def shapes(self) -> State:
        """:meth:`init` as bare shapes: nothing is computed, and :meth:`init` itself cannot be traced."""

    @abc.abstractmethod
    def compile(self, state: State) -> None:
        """Compiles everything :meth:`advance` runs, so that compiling and training are timed apart."""

    @abc.abstractmethod
    def advance(self, state: State, first: int) -> Iterator[tuple[State | None, dict[str, np.ndarray]]]:
        """Runs the rounds from ``first`` on to :meth:`until`.

        Yields metrics ``[seeds, rounds, ...]`` as often as it has them, and with the last of them the states; before
        them, None. Metric ``active`` is False for rounds past a seed's budget, whose state does not change.
        """

    @property
    def rounds_per_call(self) -> int:
        """Rounds between two checkpoints."""
        return self.config.checkpoint.every

    def until(self, first: int) -> int:
        """The round before which a call of :meth:`advance` from round ``first`` on ends.

        Checkpoints follow the same rounds whether or not a run goes on from an end in between.
        """
        return first - first % self.rounds_per_call + self.rounds_per_call

    def starts_at(self, rounds: Set[int]) -> bool:
        """Whether seeds that have done so many rounds, one number for all or several, go on as if never stopped."""
        return True

    def outputs(self, state: State) -> PyTree:
        """What every seed's run hands out, ``[seeds, ...]``; () where that is not in this process."""
        return jax.vmap(self.federation.output)(state.server, state.agents)

    def reseed(self, index: int) -> None:  # noqa: B027  (native environments draw from keys)
        """Starts environments whose state cannot be saved anew, as they are at round ``index`` whoever gets there."""

    @abc.abstractmethod
    def reference(self, server: PyTree, downlink: Any, key: PRNGKeyArray) -> Episodes | None:
        """One seed's server's own trajectories at the broadcast policy; None where the rule needs none."""

    @abc.abstractmethod
    def refine(self, server: PyTree, key: PRNGKeyArray) -> tuple[PyTree, dict[str, Any]]:
        """One seed's server after its own steps in a round, and the trajectories and steps these took."""

    def evaluation_of_round(self, params: PyTree, index: int, position: int = 0) -> dict[str, Any]:
        """One seed's evaluation in the rounds that have one, NaN in the others."""
        if (index + 1) % self.config.evaluation.every:
            pairs = self.pairs(self.config.evaluation.episodes, self.config.evaluation.seed)
            nothing = np.zeros((self.policies, pairs.columns, 1))
            empty = self.scores({"return": nothing, "length": nothing}, pairs)
            return {name: np.full(np.shape(x), np.nan) for name, x in empty.items()}
        return self.measured(params, position)

    def measured(self, params: PyTree, position: int = 0) -> dict[str, Any]:
        """One seed's evaluation as configured, by name of the metric: see :func:`fedrax.evaluation.pairs.scores`."""
        settings = self.config.evaluation
        pairs = self.pairs(settings.episodes, settings.seed)
        table = self.evaluate_pairs(params, pairs, seed=settings.seed, position=position)
        return self.scores(table, pairs)

    def scores(self, table: dict[str, np.ndarray], pairs: Pairs) -> dict[str, Any]:
        """What an evaluation comes to."""
        return scores(table, pairs)

    @property
    def policies(self) -> int:
        """How many policies a run hands out: one, or every agent's."""
        return self.federation.sites if self.federation.personal else 1

    @property
    @abc.abstractmethod
    def differ(self) -> bool:
        """Whether agents' environments are others than the registered one."""

    @property
    def environments(self) -> Environments:
        """In which environments policies are evaluated."""
        where = self.config.evaluation.environments
        return where if where is not None and self.differ else "registered"

    def pairs(self, episodes: int, seed: int) -> Pairs:
        """Which policies an evaluation of ``episodes`` episodes of each tests in which environments."""
        federation = self.federation
        pairs = choose_pairs(
            self.environments, personal=federation.personal, agents=federation.sites, episodes=episodes, seed=seed
        )
        if pairs.environments is not None:
            self._check_goals(pairs.episodes, episodes, shared=federation.sites if self.environments == "all" else 1)
        return pairs

    def _check_goals(self, each: int, episodes: int, *, shared: int = 1) -> None:
        """Raises :class:`FedraxError` where ``each`` episodes, of all ``episodes`` in ``shared`` environments, visit
        some goal of an environment more often than another."""
        settings = self.config.environment
        tested = settings.held_out_goals or settings.goals
        if tested is not None and each % tested:
            raise FedraxError(
                f"{episodes} evaluation episodes are {each} in each agent's environment, no multiple of its {tested} "
                f"goals, which would not count alike: have {tested * shared}, or twice or three times as many "
                "(evaluation.episodes, or --episodes)"
            )

    @property
    def aggregation_pairs(self) -> Pairs:
        """Every agent's networks in its own environment, or in the registered one where these do not differ."""
        where: Environments = "own" if self.differ else "registered"
        settings = self.config.evaluation
        return choose_pairs(
            where, personal=True, agents=self.federation.agents, episodes=settings.episodes, seed=settings.seed
        )

    def evaluate(self, params: PyTree, *, episodes: int, seed: int, position: int = 0) -> Evaluation:
        """What a run hands out, ``episodes`` episodes of each policy, on the initial states that ``seed`` stands for.

        ``position`` is that of the run's seed among its seeds, whose environments these are.
        """
        pairs = self.pairs(episodes, seed)
        table = self.evaluate_pairs(params, pairs, seed=seed, position=position)
        personal, counted = self.federation.personal, list(pairs.counted)

        def shaped(array: np.ndarray) -> np.ndarray:
            known = array[:, counted]
            if personal:
                return known[:, 0] if len(counted) == 1 else known
            return known[0, 0] if pairs.environments is None else known[0]

        own = pairs.own if personal else None
        return Evaluation(
            {name: shaped(array) for name, array in table.items()},
            None if pairs.environments is None else pairs.environments[:, counted],
            None if own is None else table["return"][np.arange(len(own)), own],
        )

    def evaluate_across(
        self, params: PyTree, *, episodes: int, seed: int, position: int = 0, unseen: int = 0
    ) -> Evaluation:
        """Every policy in every agent's environment, ``[policies, environments, episodes]``; a shared one is one row.

        With ``unseen``, in so many environments that no agent has: further draws from the heterogeneity table.

        Raises:
            FedraxError: the agents' environments do not differ, or nothing can be drawn anew.
        """
        draws = unseen_draws(self.config, unseen, position) if unseen else None
        if draws is None and not self.differ:
            raise same_environments(self.config)
        environments = unseen or self.federation.sites
        self._check_goals(episodes, episodes)
        pairs = full_pairs(self.policies, environments, episodes, personal=self.federation.personal)
        table = self.evaluate_pairs(params, pairs, seed=seed, position=position, draws=draws)
        return Evaluation(table, None if unseen else pairs.environments)

    @abc.abstractmethod
    def evaluate_pairs(
        self,
        params: PyTree,
        pairs: Pairs,
        *,
        seed: int,
        position: int = 0,
        draws: list[dict[str, float]] | None = None,
    ) -> dict[str, np.ndarray]:
        """Named arrays ``[policies, environments, episodes]`` of what a run hands out, as :attr:`Evaluation.table`.

        Every pair meets the same initial states, those that ``seed`` stands for. With ``draws``, the environments are
        these instead of the agents'.
        """

    def sites_of_envs(self, num_envs: int) -> np.ndarray:
        """Which of a learning agent's sites each of so many copies is at, ``int[num_envs]``: equal shares, in order.

        Raises:
            FedraxError: fewer copies than sites, which only whole episodes can be.
        """
        sites = self.federation.sites // self.federation.agents
        if num_envs < sites:
            raise FedraxError(
                f"{num_envs} episodes a round cannot visit the differing environments of {sites} agents: set "
                f"strategy.batch={sites} or more, or remove environment.heterogeneity"
            )
        return np.arange(num_envs) * sites // num_envs

    @property
    def never_ends(self) -> str | None:
        """Why no training episode lasts until its last step, and what to do, in one line; None where they do."""
        return None

    def close(self) -> None:  # noqa: B027  (a runtime without environments to free needs none)
        """Frees environments."""

    def active(self, tally: Tally) -> Array:
        """Whether a seed has budget left for another round; bool."""
        limits = self.limits
        left = jnp.asarray(True)
        if limits["rounds"] is not None:
            left &= tally.rounds < limits["rounds"]
        if limits["trajectories"] is not None:
            # At most, not less than: the reference stops once its count exceeds the budget.
            left &= tally.trajectories <= limits["trajectories"]
        if limits["steps"] is not None:
            left &= tally.steps < limits["steps"]
        if limits["agent_steps"] is not None:
            left &= tally.agent_steps < limits["agent_steps"]
        if self.guarantee is not None and self.guarantee.limit is not None:
            left &= tally.rounds < self.guarantee.limit
        return left

    def progress(self, tally: Tally, update: Array | int) -> Float[Array, ""]:
        """How much of the budget is used before local update ``update`` of a round that starts with this tally."""
        limits, federation = self.limits, self.federation
        share = update / federation.local_updates
        used = [jnp.asarray(0.0)]
        if limits["rounds"] is not None:
            used.append((tally.rounds + share) / limits["rounds"])
        if limits["trajectories"] is not None:
            used.append(tally.trajectories / limits["trajectories"])
        fresh = update * (federation.learner.steps or 0) * self.num_envs * federation.mean_participants
        if limits["steps"] is not None:
            used.append((tally.steps + fresh) / limits["steps"])
        if limits["agent_steps"] is not None:
            used.append((tally.agent_steps + fresh) / limits["agent_steps"])
        return jnp.clip(jnp.stack(used).max(), 0.0, 1.0)

    def fraction_done(self, rounds: int, trajectories: float, steps: float, agent_steps: float) -> float:
        """How much of the budget is used, 0 to 1, by whichever limit is nearest."""
        budget = self.config.budget
        pairs = (
            (rounds, budget.rounds),
            (trajectories, budget.trajectories),
            (steps, budget.steps),
            (agent_steps / self.federation.sites, budget.steps_per_agent),
            (rounds, self.guarantee.limit if self.guarantee is not None else None),
        )
        return min(1.0, max(used / limit for used, limit in pairs if limit is not None))

    def message_bytes(self, round: int) -> tuple[int, float]:
        """Bytes of an agent's message in a round, and of what an agent receives at its start, the mean over agents."""
        return self._bytes[round % len(self._bytes)]

    @functools.cached_property
    def _bytes(self) -> list[tuple[int, float]]:
        """What :meth:`message_bytes` returns, of as many rounds as pass until it repeats."""
        message, downlinks = self._shapes
        repeats = math.lcm(*jax.tree.leaves(periods((message, downlinks), self.period)))
        return [
            (
                tree_bytes(travelling(message, self.period, turn + 1)),
                sum(tree_bytes(travelling(downlink, self.period, turn)) for downlink in downlinks) / len(downlinks),
            )
            for turn in range(repeats)
        ]

    @property
    def period(self) -> Period:
        """How often each array of messages and broadcasts travels."""
        return self.federation.strategy.period

    @functools.cached_property
    def _shapes(self) -> tuple[PyTree, list[PyTree]]:
        """An agent's message, and what each agent receives (one for all where it is the same), as bare shapes."""
        message, downlink = self.federation.shapes()
        strategy, agents = self.federation.strategy, self.federation.agents
        if type(strategy).outgoing is Strategy.outgoing:
            return message, [downlink]
        return message, [jax.eval_shape(partial(strategy.outgoing, index=k), downlink) for k in range(agents)]
