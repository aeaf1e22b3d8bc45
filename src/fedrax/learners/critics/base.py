"""What a critic is: features of an observation and an action, and a head that makes a value of them."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from fedrax.environments.base import Observation
from fedrax.learners.mlp import MLP, MLPMaker
from fedrax.registry import Registry


class Peers(eqx.Module):
    """What a strategy lets critics see of ``k`` other agents: a context, frozen in a round."""

    features: tuple[PyTree, PyTree]
    """Of both critics of each, leaves ``[k, ...]``."""
    target_features: tuple[PyTree, PyTree]
    """Those that target values are made with."""
    ids: Int[Array, " k"]
    """Their numbers among all agents."""
    known: Bool[Array, " k"]
    """Whose features count."""
    index: Int[Array, ""]
    """The own number."""


class View(eqx.Module):
    """What a head sees beside its own features."""

    encodings: Float[Array, "k ... f"] | None = None
    """What the peers' features make of the same observation and action; None where no peers are shown."""
    peers: Peers | None = None
    key: PRNGKeyArray | None = None
    """For dropout; None: without."""


class Sight(eqx.Module):
    """What the critics of an agent may look at while it learns; nothing by default."""

    peers: Peers | None = None
    key: PRNGKeyArray | None = None
    """For dropout; None: without."""

    def folded(self, number: Array | int) -> Sight:
        """With a dropout of its own."""
        return Sight(self.peers, None if self.key is None else jax.random.fold_in(self.key, number))

    def of_targets(self) -> Sight:
        """With the features that target values are made with."""
        peers = self.peers
        if peers is not None:
            peers = dataclasses.replace(peers, features=peers.target_features)
        return Sight(peers, self.key).folded(0)

    def view(self, which: int, *inputs: Any) -> View:
        """What the head of one of the two critics sees; ``inputs`` are the observation, and the action if any."""
        key = None if self.key is None else jax.random.fold_in(self.key, which)
        if self.peers is None:
            return View(key=key)
        return View(peers_features(self.peers.features[which], *inputs), self.peers, key)


NOTHING = Sight()
"""No peers and no dropout."""


class Critic(eqx.Module):
    """Makes the networks of one critic; learners have two of each."""

    name: ClassVar[str]
    separate_targets: bool = eqx.field(static=True, default=False)
    """Whether targets start from other random networks."""
    attends: ClassVar[bool] = False
    """Whether heads look at what peers' features make of an observation and an action (:class:`View`)."""

    @property
    def drops(self) -> bool:
        """Whether learning needs keys for dropout."""
        return False

    def bind(self, agents: int) -> Critic:
        """The critic for a federation of so many agents."""
        return self

    @abc.abstractmethod
    def features(self, key: PRNGKeyArray, make: MLPMaker, actions: int, widths: tuple[int, ...]) -> MLP:
        """From an observation and so many numbers of an action; ``widths`` are the learner's ``feature_layers``."""

    @abc.abstractmethod
    def head(self, key: PRNGKeyArray, make: MLPMaker, inputs: int, widths: tuple[int, ...], values: int) -> Any:
        """From so many features to values: ``head(features[..., f], view)``, and ``head.both`` as of :class:`MLP`.

        ``widths`` are the learner's ``head_layers``.
        """


critics: Registry[Critic] = Registry("critic", "fedrax.learners.critics")


@critics.register("mlp")
class MLPCritic(Critic):
    """Dense layers, as wide as ``learner.feature_layers`` and ``learner.head_layers`` say."""

    def features(self, key: PRNGKeyArray, make: MLPMaker, actions: int, widths: tuple[int, ...]) -> MLP:
        """The first layers."""
        return make.seeing(key, actions, widths, activate_last=True)

    def head(self, key: PRNGKeyArray, make: MLPMaker, inputs: int, widths: tuple[int, ...], values: int) -> MLP:
        """The layers that follow."""
        return make.mlp(key, (inputs, *widths, values))


def peers_features(
    features: PyTree, observation: Observation, *action: Float[Array, "... a"]
) -> Float[Array, "k ... f"]:
    """What each of ``k`` peers' features, leaves ``[k, ...]``, make of the same inputs: one batched product a layer."""
    return jax.vmap(lambda one: one(observation, *action))(features)
