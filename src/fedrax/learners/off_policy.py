"""What off-policy actor-critic learners have in common: replay, targets, and when which of them is updated."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fedrax.environments.base import Box, Spaces, Steps
from fedrax.errors import FedraxError
from fedrax.learners.base import Agent, Batch, Learner, Objective, UpdateContext
from fedrax.learners.critics.base import NOTHING, Critic, MLPCritic, Peers, Sight
from fedrax.learners.encoders import TORSO, TorsoKind, check_torso, is_image
from fedrax.learners.hindsight import Hindsight, HindsightReplay, empty_hindsight, hindsight_bytes
from fedrax.learners.mlp import MLPMaker
from fedrax.learners.moments import Normaliser
from fedrax.learners.networks import Activation, Initialisation
from fedrax.learners.replay import Replay, Transitions, empty_replay, replay_bytes
from fedrax.learners.twin_critic import TwinCritic, make_twin_critic
from fedrax.parts import NORMALISER, only, put_parts, take_parts
from fedrax.registry import Number, option

CRITIC = ("features", "head")
ACTOR = ("actor",)


class Memory(eqx.Module):
    """What an agent keeps between updates."""

    replay: Replay | HindsightReplay
    target: TwinCritic
    """The slowly following networks."""


class Training(NamedTuple):
    """What an update changes."""

    params: TwinCritic
    optimizer: dict[str, PyTree]
    target: TwinCritic
    notes: PyTree


class OffPolicy(Learner):
    """Twin critics learn from a replay, the actor and all targets less often if asked to."""

    provides: ClassVar[frozenset[str]] = frozenset({"critics", "peers", "representations", "targets"})
    body: ClassVar[tuple[str, ...]] = ("features",)
    policy_parts: ClassVar[tuple[str, ...]] = ACTOR
    trained: ClassVar[dict[str, tuple[str, ...]]] = {"critic": CRITIC, "actor": ACTOR}
    """The parts that each of the optimisers changes."""

    learning_rate: Number = option(3e-4, "step size, of actor and critics", minimum=0, argument=True)
    num_steps: int = option(16, "steps of each copy of the environment per update", unit="steps", minimum=1)
    updates_per_step: int | float = option(
        1, "critic updates for each of these steps; num_steps times it is a whole number", minimum=0, maximum=1_000_000
    )
    policy_delay: int = option(
        1, "critic updates between updates of the actor and of all targets", minimum=1, maximum=1000
    )
    batch_size: int = option(256, "transitions of a minibatch", unit="transitions", minimum=1)
    buffer_size: int = option(100_000, "capacity of the replay", unit="transitions", minimum=1)
    learning_starts: int = option(256, "no update before the replay holds so many", unit="transitions", minimum=1)
    discount: Number = option(0.99, "gamma", minimum=0, maximum=1, argument=True)
    tau: Number = option(0.005, "how far the targets move towards the networks", minimum=0, maximum=1, argument=True)
    scale_actions: bool = option(
        True,
        "critics see actions as shares of their range, -1 to 1; false: in units of the action itself (the reference)",
    )
    minimum_reward: float | None = option(
        None, "rewards below this are raised to it when they are stored (the reference stores the walker's -100 as -1)"
    )
    hindsight: Hindsight = option(
        "none",
        "goals of goal environments exchanged in minibatches for one that the episode achieved: at the same step or a "
        "later one (future), at its last (final), at any (episode), or as the TD3+HER reference does",
    )
    hindsight_ratio: float = option(
        0.8,
        "share of a minibatch whose goals are exchanged; k goals for each of its own is k / (k + 1)",
        minimum=0,
        maximum=1,
    )
    random_actions: float = option(0.0, "share of actions drawn uniformly in training", minimum=0, maximum=1)
    normalise: bool = option(
        False,
        "networks see observations less their running mean, divided by their running standard deviation, and clipped; "
        "strategies that average merge the moments of all agents exactly",
    )
    torso: TorsoKind = option("auto", TORSO)
    actor_layers: tuple[int, ...] = option((256, 256), "widths of the actor's hidden layers", minimum=1)
    feature_layers: tuple[int, ...] = option(
        (256,), "widths of each critic's features, its first layers (critic=mlp)", minimum=1
    )
    head_layers: tuple[int, ...] = option(
        (256,), "widths of the hidden layers of each critic's head, which follow (critic=mlp)", minimum=1
    )
    activation: Activation = option("relu", "activation of the hidden layers")
    initialisation: Initialisation = option(
        "fan-in",
        "distribution of the initial weights (fan-in: PyTorch's; lecun: Flax's; rlkit: the FedFormer reference's)",
    )
    critic: Critic = MLPCritic()
    """Makes the networks of each critic (:meth:`judged_by`)."""
    num_envs: int = eqx.field(static=True, default=1)
    """Copies of the environment that each agent has (:meth:`bind`)."""
    horizon: int = eqx.field(static=True, default=1)
    """Steps after which their episodes are cut."""

    @property
    def steps(self) -> int:
        """``num_steps``."""
        return self.num_steps

    @property
    def critic_updates(self) -> int:
        """Critic updates of one update."""
        return round(self.num_steps * self.updates_per_step)

    @property
    def gradient_steps(self) -> int:
        """Steps of both critics together, and of the actor."""
        return self.critic_updates + self.critic_updates // self.policy_delay

    @property
    def normalises(self) -> bool:
        """``normalise``."""
        return self.normalise

    @property
    def needs_goal_rule(self) -> bool:
        """For goals in place of the desired ones."""
        return self.hindsight != "none"

    def memory_bytes(self, spaces: Spaces) -> int:
        """One agent's replay."""
        of_kind = replay_bytes if self.hindsight == "none" else hindsight_bytes
        return of_kind(spaces, self.buffer_size)

    def check(self, spaces: Spaces) -> None:
        """Raises :class:`FedraxError` for settings that do not fit together, or not the environment."""
        check_torso(self.torso, spaces.observation)
        if self.hindsight != "none":
            self.check_goal(spaces, "hindsight", "none")
            if any(is_image(part) for part in jax.tree.leaves(spaces.observation.tree)):
                raise FedraxError("learner.hindsight keeps no images; set learner.hindsight=none")
            goal = spaces.goal
            if goal is not None and goal.ends and goal.threshold == 0 and self.hindsight != "reference":
                raise FedraxError(
                    "learner.hindsight cannot tell at which exchanged goals an episode would end, as rewards here do "
                    "not say when a goal is reached; set environment.terminate_on_success=false, or choose "
                    "the environment with sparse rewards"
                )
        if not self.feature_layers:
            raise FedraxError("learner.feature_layers = [] is not allowed: give at least one width")
        asked = self.num_steps * self.updates_per_step
        if self.critic_updates < 1 or not math.isclose(asked, self.critic_updates):
            raise FedraxError(
                f"learner.updates_per_step = {self.updates_per_step:g} makes {asked:g} critic updates of "
                f"learner.num_steps = {self.num_steps} steps; choose them so that it is a whole number, at least 1"
            )
        if self.critic_updates % self.policy_delay:
            raise FedraxError(
                f"learner.policy_delay = {self.policy_delay} does not divide the {self.critic_updates} critic updates "
                "of an update (learner.num_steps times learner.updates_per_step); choose a divisor"
            )

    def check_real_actions(self, spaces: Spaces, others: str) -> None:
        """Raises :class:`FedraxError` for actions without bounds, or discrete ones, which ``others`` are for."""
        if not isinstance(spaces.action, Box):
            raise FedraxError(f"learner {self.name!r} needs real actions (a Box); for discrete ones set {others}")
        widths = [high - low for low, high in zip(spaces.action.low, spaces.action.high, strict=True)]
        if not all(length < float(jnp.finfo(jnp.float32).max) for length in widths):
            raise FedraxError(
                f"learner {self.name!r} needs bounded actions, and this environment's are unbounded; set learner=ppo"
            )

    def check_goal(self, spaces: Spaces, asked: str, off: str) -> None:
        """Raises :class:`FedraxError` for an option of goals where there are none, or where their rule is not known."""
        if spaces.goal is None:
            raise FedraxError(
                f"learner.{asked} needs a goal environment: observations of observation, achieved_goal and "
                "desired_goal, and a reward known to follow from the distance between the goals, by one rule in all "
                f"tasks{f' (here {spaces.no_goal})' if spaces.no_goal else ''}; set learner.{asked}={off}"
            )

    def bind(self, spaces: Spaces, num_envs: int, horizon: int) -> OffPolicy:
        """Raises :class:`FedraxError` where one update's steps, or an episode, overflow the replay."""
        fresh = self.num_steps * num_envs
        if fresh > self.buffer_size:
            raise FedraxError(
                f"learner.buffer_size = {self.buffer_size} is less than the {fresh} transitions of one update; raise it"
            )
        least = num_envs * (self.num_steps + horizon)
        if self.hindsight != "none" and least > self.buffer_size:
            raise FedraxError(
                f"learner.buffer_size = {self.buffer_size} is less than the {least} transitions of one update and an "
                f"episode of {horizon} steps in each of {num_envs} copies of the environment, which learner.hindsight "
                "needs; raise it"
            )
        held, ended = self.buffer_size, ""
        if self.hindsight != "none":
            held, ended = (self.buffer_size // num_envs - horizon) * num_envs, " of episodes that have ended"
        if self.learning_starts > held:
            raise FedraxError(
                f"learner.learning_starts = {self.learning_starts} is more than the {held} transitions{ended} that the "
                f"replay is sure to hold when it is full (learner.buffer_size = {self.buffer_size}), so that agents "
                "might never learn; lower it, or raise learner.buffer_size"
            )
        return dataclasses.replace(self, num_envs=num_envs, horizon=horizon)

    def judged_by(self, critic: Critic) -> OffPolicy:
        """With this critic's networks."""
        return dataclasses.replace(self, critic=critic)

    def init(self, key: PRNGKeyArray, spaces: Spaces) -> Agent:
        """A fresh agent, its targets equal to its networks unless the critic has fresh ones start apart."""
        params = target = self.first_params(key, spaces)
        if self.critic.separate_targets and not jax.tree.leaves(self.networks):
            other = self.init_params(jax.random.fold_in(key, 2), spaces)
            target = put_parts(params, take_parts(other, CRITIC))
        step = self.transformation()
        optimizer = {name: step.init(only(params, parts)) for name, parts in self.trained.items()}
        return Agent(params, optimizer, Memory(self._empty_replay(spaces), target))

    def networks_of(self, key: PRNGKeyArray, spaces: Spaces, outputs: int | None = None) -> TwinCritic:
        """Fresh networks, the actor with so many outputs; unset, one for each component of an action."""
        return make_twin_critic(
            key,
            MLPMaker(spaces, self.torso, self.activation, self.initialisation),
            self.critic,
            actor=self.actor_layers,
            features=self.feature_layers,
            head=self.head_layers,
            scaled=self.scale_actions,
            normalised=self.normalise,
            outputs=outputs,
        )

    def _empty_replay(self, spaces: Spaces) -> Replay | HindsightReplay:
        if self.hindsight == "none":
            return empty_replay(spaces, self.buffer_size)
        return empty_hindsight(
            spaces,
            self.buffer_size,
            copies=self.num_envs,
            horizon=self.horizon,
            kind=self.hindsight,
            ratio=self.hindsight_ratio,
            minimum_reward=self.minimum_reward,
        )

    def acting(self, params: TwinCritic) -> TwinCritic:
        """The actor alone: few steps are taken with the same one, too few to store it in another way for them."""
        return only(params, (*ACTOR, NORMALISER))

    def explored(self, params: TwinCritic, action: Float[Array, "B a"], key: PRNGKeyArray) -> Float[Array, "B a"]:
        """The actions, :attr:`random_actions` of them replaced by uniform ones."""
        if self.random_actions == 0:
            return action
        chance_key, uniform_key = jax.random.split(jax.random.fold_in(key, 1))
        uniform = jnp.asarray(params.centre) + jnp.asarray(params.reach) * jax.random.uniform(
            uniform_key, action.shape, minval=-1.0, maxval=1.0
        )
        random = jax.random.bernoulli(chance_key, self.random_actions, action.shape[:-1])
        return jnp.where(random[..., None], uniform, action)

    def learn(
        self, agent: Agent, experience: Steps, objective: Objective, update_context: UpdateContext
    ) -> tuple[Agent, dict[str, Array]]:
        """Remembers the steps, then :attr:`critic_updates` minibatches; none before the replay is filled enough."""
        replay = agent.memory.replay.remember(experience, self.minimum_reward)
        params = observed(agent.params, experience)
        target = put_parts(agent.memory.target, take_parts(params, [NORMALISER]))
        training = Training(params, agent.optimizer, target, objective.start(params))
        # A strategy without peers has another context, which is not for critics.
        peers = update_context.context if isinstance(update_context.context, Peers) else None
        training, metrics = self.updates(training, replay, objective, update_context.key, peers)
        private = objective.keep(agent.private, training.notes)
        return Agent(training.params, training.optimizer, Memory(replay, training.target), private), metrics

    def updates(
        self,
        training: Training,
        replay: Replay | HindsightReplay,
        objective: Objective,
        key: PRNGKeyArray,
        peers: Peers | None = None,
    ) -> tuple[Training, dict[str, Array]]:
        """All steps of one update, and their mean metrics: NaN, and nothing changed, while the replay is too empty."""
        groups = self.critic_updates // self.policy_delay
        sample_key, noise_key = jax.random.split(key)
        batches = replay.sample(sample_key, (groups, self.policy_delay, self.batch_size))
        noises = self.noise(noise_key, batches)
        seen = Sight(peers, jax.random.fold_in(noise_key, 1) if self.critic.drops else None)

        def group(number: Array | int, training: Training) -> tuple[Training, dict[str, Array]]:
            reports = []
            # The targets stand still until the actor's step, so those of all minibatches before it are one product.
            minibatches, noise = jax.tree.map(lambda x: x[number], (batches, noises))
            sight = seen.folded(number)
            wanted = self.targets(training, minibatches, noise, sight)
            before = training.params
            for place in range(self.policy_delay):
                batch = jax.tree.map(lambda x, i=place: x[i], minibatches)
                training, report = self.critic_step(training, batch, wanted[place], objective, sight.folded(place + 1))
                reports.append(report)
            last = jax.tree.map(lambda x: x[-1], noise)
            training, report = self.actor_step(training, batch, last, objective, before, sight)
            return training, jax.tree.map(lambda *each: jnp.stack(each).mean(), *reports) | report

        def body(number: Array, carry: tuple[Training, dict[str, Array]]) -> tuple[Training, dict[str, Array]]:
            training, report = group(number, carry[0])
            return training, jax.tree.map(jnp.add, carry[1], report)

        # A loop without a turn leaves the networks where they lie; a conditional would copy them.
        count = jnp.where(replay.sampled >= self.learning_starts, groups, 0)
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(lambda: group(0, training)[1]))
        training, sums = jax.lax.fori_loop(0, count, body, (training, nothing))
        return training, jax.tree.map(lambda x: x / count, sums)

    @abc.abstractmethod
    def noise(self, key: PRNGKeyArray, batches: Transitions) -> PyTree:
        """What :meth:`targets` and :meth:`actor_step` draw actions with, leaves ``[*N, ...]`` as the batches'."""

    @abc.abstractmethod
    def targets(
        self, training: Training, batch: Transitions, noise: PyTree, sight: Sight = NOTHING
    ) -> Float[Array, "*N"]:
        """What values should be. Leaves of the batch, and of :meth:`noise`, are ``[*N, ...]``."""

    @abc.abstractmethod
    def actor_step(
        self,
        training: Training,
        batch: Transitions,
        noise: PyTree,
        objective: Objective,
        before: TwinCritic,
        sight: Sight = NOTHING,
    ) -> tuple[Training, dict[str, Array]]:
        """One step of the actor, then all targets follow; ``before`` are the networks before the critics' steps."""

    def critic_step(
        self,
        training: Training,
        batch: Transitions,
        wanted: Float[Array, " N"],
        objective: Objective,
        sight: Sight = NOTHING,
        *,
        share: float = 1.0,
    ) -> tuple[Training, dict[str, Array]]:
        """One step of both critics: ``share`` times their mean squared distance from ``wanted``, and the penalty."""

        def loss(critic: dict[str, PyTree]) -> tuple[Array, dict[str, Array]]:
            params = put_parts(training.params, critic)
            first, second = params.values(batch.observation, batch.action, sight)
            error = jnp.mean((first - wanted) ** 2) + jnp.mean((second - wanted) ** 2)
            penalty = jnp.asarray(objective.penalty(params, as_batch(batch)))
            values = {"value": first.mean(), "second_value": second.mean()}
            return share * error + penalty, {"critic_loss": error, **values, "critic_penalty": penalty}

        gradient, report = jax.grad(loss, has_aux=True)(take_parts(training.params, CRITIC))
        return self.stepped(training, gradient, "critic", objective), report

    def followed(self, training: Training) -> Training:
        """The targets, ``tau`` nearer to the networks."""
        target = jax.tree.map(lambda x, y: x + self.tau * (y - x), training.target, training.params)
        return training._replace(target=target)

    def stepped(
        self,
        training: Training,
        gradient: dict[str, PyTree],
        which: str,
        objective: Objective,
        *,
        scale: Number = 1.0,
    ) -> Training:
        """One optimiser step of the parts that the gradient is of, ``scale`` times as long."""
        masked = put_parts(only(training.params, ()), gradient)
        masked, notes = objective.correct(masked, training.params, training.notes)
        moved, optimizer = self.apply(only(training.params, gradient), training.optimizer[which], masked, scale=scale)
        params = put_parts(training.params, take_parts(moved, gradient))
        return Training(params, training.optimizer | {which: optimizer}, training.target, notes)

    def attention(self, agent: Agent, peers: Peers, key: PRNGKeyArray) -> Float[Array, " t"]:
        """How much the critics take of each token in a minibatch: the summary, the own, the peers'; 1 in total.

        Zeros while the replay holds too little to learn from.
        """
        replay = agent.memory.replay
        batch = replay.sample(key, (self.batch_size,))
        inputs = agent.params.inputs(batch.observation, batch.action)
        taken = agent.params.attention(inputs, Sight(peers))
        mean = taken.mean((0, *range(2, taken.ndim)))
        return jnp.where(replay.sampled >= self.learning_starts, mean, 0.0)

    def representations(self, params: TwinCritic, batch: Batch) -> tuple[Float[Array, "N f"], ...]:
        """The last hidden layers of the actor and of both critics."""
        first, second = params.represent(batch.observation, batch.action)
        heads = params.head[0].both(first)[0], params.head[1].both(second)[0]
        return params.actor.both(params.seen(batch.observation))[0], *heads


def observed(params: TwinCritic, experience: Steps) -> TwinCritic:
    """The networks with a collection's observations among those that they are normalised by."""
    if not isinstance(params.normaliser, Normaliser):
        return params
    return put_parts(params, {NORMALISER: params.normaliser.observe(experience.acted_on, experience.valid)})


def as_batch(batch: Transitions) -> Batch:
    """A minibatch as an objective sees it."""
    return Batch(batch.observation, batch.action, jnp.ones(batch.reward.shape, bool), None, None, ())
