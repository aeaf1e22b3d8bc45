"""A critic that attends over its peers' encoders (FedFormer: Hebert, Golab, Poupart and Cohen, 2023).

Every agent encodes an observation and an action with its own encoder and with those of its peers, which it does not
train. A transformer over these encodings and a summary token says what they come to; the value is made of that and of
the agent's own encoding.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from fedrax.errors import FedraxError
from fedrax.learners.critics.base import Critic, View, critics
from fedrax.learners.mlp import MLP, MLPMaker
from fedrax.learners.networks import Dense, make_dense
from fedrax.registry import MOST_ITEMS, option

EPSILON = 1e-5
"""Added to variances (PyTorch's)."""
ALONE = View()


def standardised(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Less its mean over the last axis, divided by its standard deviation."""
    # Means as products: XLA does not vectorise sums over the last axis on a CPU.
    mean = jnp.full((x.shape[-1], 1), 1 / x.shape[-1])
    centred = x - x @ mean
    return centred * jax.lax.rsqrt(centred**2 @ mean + EPSILON)


class LayerNorm(eqx.Module):
    """Standardised over the last axis, then scaled and shifted (Ba et al., 2016)."""

    weight: Float[Array, " d"]
    bias: Float[Array, " d"]

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        """Applies it."""
        return standardised(x) * self.weight + self.bias


class AttentionLayer(eqx.Module):
    """One layer of a transformer's encoder (Vaswani et al., 2017), as PyTorch has it."""

    query: Dense
    key: Dense
    value: Dense
    output: Dense
    expand: Dense
    contract: Dense
    first: LayerNorm
    second: LayerNorm
    heads: int = eqx.field(static=True)
    norm_first: bool = eqx.field(static=True)
    dropout: float = eqx.field(static=True)

    def __call__(
        self,
        asking: Float[Array, "q ... d"],
        tokens: Float[Array, "t ... d"],
        shown: Bool[Array, " t"],
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "q ... d"], Float[Array, "q t ... h"]]:
        """The tokens that ask after attending to all that are shown, and how much of each of these every head took.

        With dropout where there is a key.
        """
        keys = [None] * 4 if key is None else list(jax.random.split(key, 4))
        before = (self.first(asking), self.first(tokens)) if self.norm_first else (asking, tokens)
        seen, weights = self.attend(*before, shown, keys[0])
        asking = asking + self._dropped(seen, keys[1])
        asking = asking if self.norm_first else self.first(asking)
        hidden = jax.nn.relu(self.expand(self.second(asking) if self.norm_first else asking))
        asking = asking + self._dropped(self.contract(self._dropped(hidden, keys[2])), keys[3])
        return asking if self.norm_first else self.second(asking), weights

    def _dropped(self, x: Array, key: PRNGKeyArray | None) -> Array:
        if key is None or self.dropout == 0:
            return x
        return jnp.where(jax.random.bernoulli(key, 1 - self.dropout, x.shape), x / (1 - self.dropout), 0.0)

    def attend(
        self,
        asking: Float[Array, "q ... d"],
        tokens: Float[Array, "t ... d"],
        shown: Bool[Array, " t"],
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "q ... d"], Float[Array, "q t ... h"]]:
        """Scaled dot-product attention of several heads, and how much each took before dropout."""
        if asking.shape[0] > 1:
            return self._attend_all(asking, tokens, shown, key)
        # One token asks: its query times the keys' weights is compared with the tokens as they are, and the values'
        # weights are applied to what it takes of all tokens, in place of keys and values of each.
        # A bias of the keys adds the same to all scores, and nothing to their softmax.
        query = self._by_head(self.query(asking[0]), -1)
        key_weight, value_weight = (self._by_head(each.weight, 0) for each in (self.key, self.value))
        sought = jnp.einsum("...he,hed->...hd", query, key_weight) / math.sqrt(query.shape[-1])
        weights = self._softmax(jnp.einsum("...hd,t...d->...ht", sought, tokens), shown)
        taken = self._dropped(weights, key)
        seen = jnp.einsum("...hd,hed->...he", jnp.einsum("...ht,t...d->...hd", taken, tokens), value_weight)
        if self.value.bias is not None:
            seen = seen + taken.sum(-1, keepdims=True) * self._by_head(self.value.bias, 0)
        output = self.output(seen.reshape(asking.shape[1:]))
        return output[None], jnp.moveaxis(weights, -1, 0)[None]

    def _by_head(self, x: Array, axis: int) -> Array:
        """With an axis of heads before this one."""
        axis %= x.ndim
        return x.reshape(*x.shape[:axis], self.heads, -1, *x.shape[axis + 1 :])

    def _attend_all(
        self,
        asking: Float[Array, "q ... d"],
        tokens: Float[Array, "t ... d"],
        shown: Bool[Array, " t"],
        key: PRNGKeyArray | None,
    ) -> tuple[Float[Array, "q ... d"], Float[Array, "q t ... h"]]:
        """Every token asks."""
        queries = self._by_head(self.query(asking), -1)
        keys, values = self._by_head(self.key(tokens), -1), self._by_head(self.value(tokens), -1)
        scores = jnp.einsum("q...he,t...he->q...ht", queries, keys) / math.sqrt(queries.shape[-1])
        weights = self._softmax(scores, shown)
        mixed = jnp.einsum("q...ht,t...he->q...he", self._dropped(weights, key), values)
        return self.output(mixed.reshape(asking.shape)), jnp.moveaxis(weights, -1, 1)

    def _softmax(self, scores: Float[Array, "... t"], shown: Bool[Array, " t"]) -> Float[Array, "... t"]:
        """Over the tokens that are shown."""
        return jax.nn.softmax(jnp.where(shown, scores, -jnp.inf))


class AttendingHead(eqx.Module):
    """From an agent's own features, and those that its peers make of the same, to values."""

    identities: Float[Array, "ids d"]
    """Added to tokens: the first row to the summary's, the others by agent."""
    summary: Float[Array, " d"]
    """The token that says what all of them come to."""
    layers: tuple[AttentionLayer, ...]
    decoder: MLP
    one_query: bool = eqx.field(static=True)
    standardise: bool = eqx.field(static=True)

    def __call__(self, own: Float[Array, "... d"], view: View = ALONE) -> Float[Array, "... v"]:
        """Values."""
        return self.both(own, view)[1]

    def both(
        self, own: Float[Array, "... d"], view: View = ALONE
    ) -> tuple[Float[Array, "... h"], Float[Array, "... v"]]:
        """The decoder's last hidden layer, and values."""
        summary, _ = self.attend(own, view)
        return self.decoder.both(jnp.concatenate([summary, own], -1))

    def attend(
        self, own: Float[Array, "... d"], view: View = ALONE
    ) -> tuple[Float[Array, "... d"], Float[Array, "t ..."]]:
        """The summary, and how much it takes of each token: itself, the own, the peers'; means over layers and heads.

        An agent that is shown no peers attends to itself, by the first identity.
        """
        tokens, ids, shown = own[None], jnp.ones(1, jnp.int32), jnp.ones(2, bool)
        if view.peers is not None and view.encodings is not None:
            tokens = jnp.concatenate([tokens, view.encodings])
            ids = jnp.concatenate([view.peers.index[None], view.peers.ids]) + 1
            shown = jnp.concatenate([shown, view.peers.known])
        if self.standardise:
            tokens = standardised(tokens)
        tokens = tokens + jnp.expand_dims(self.identities[ids], tuple(range(1, tokens.ndim - 1)))
        summary = jnp.broadcast_to(self.summary + self.identities[0], (1, *own.shape))
        tokens = jnp.concatenate([summary, tokens])
        taken = []
        for number, layer in enumerate(self.layers):
            key = None if view.key is None else jax.random.fold_in(view.key, number)
            if self.one_query:
                after, weights = layer(tokens[:1], tokens, shown, key)
                tokens = jnp.concatenate([after, tokens[1:]])
            else:
                tokens, weights = layer(tokens, tokens, shown, key)
            taken.append(weights[0].mean(-1))
        return tokens[0], sum(taken[1:], taken[0]) / len(taken)


@critics.register("fedformer")
class FedFormerCritic(Critic):
    """An own encoder, a transformer over its encodings and its peers', and a decoder.

    Strategies that show no peers (``local``, ``fedavg``) leave it to attend to itself: the control of equal capacity.
    """

    attends: ClassVar[bool] = True

    dim: int = option(128, "numbers of an encoding", minimum=1)
    encoder_layers: tuple[int, ...] = option((128, 128), "widths of the encoder's hidden layers", minimum=1)
    layers: int = option(1, "layers of the transformer", minimum=1, maximum=MOST_ITEMS)
    heads: int = option(4, "heads of each layer's attention, which divide dim", minimum=1)
    feedforward: int = option(256, "width of each layer's hidden layer", minimum=1)
    decoder_layers: tuple[int, ...] = option((128, 128), "widths of the decoder's hidden layers", minimum=1)
    queries: Literal["one", "all"] = option(
        "one",
        "who attends: the summary token alone, whose output is all that is used, or every token in every layer (the "
        "reference); with one layer it is the same",
    )
    standardise: bool = option(
        True,
        "encodings are standardised before identities are added to them; false (the reference): at first they are so "
        "small that attention sees identities alone",
    )
    dropout: float = option(
        0.0,
        "share of numbers that each layer drops while it learns, in values, targets and the actor's loss alike (the "
        "reference: 0.1)",
        minimum=0,
        maximum=0.9,
    )
    separate_targets: bool = option(
        False, "targets start from other random networks (the reference); false: from the critics"
    )
    norm_first: bool = option(False, "layers normalise what they are given; false: what they return (the reference)")
    identities: int | None = option(
        None, "agents that the critic can tell apart; none: those of the federation", minimum=1
    )

    @property
    def drops(self) -> bool:
        """Whether there is dropout."""
        return self.dropout > 0

    def bind(self, agents: int) -> FedFormerCritic:
        """With an identity for each agent.

        Raises:
            FedraxError: heads that do not divide the encoding.
        """
        if self.dim % self.heads:
            raise FedraxError(f"critic.heads = {self.heads} does not divide critic.dim = {self.dim}; choose a divisor")
        if self.identities is not None and self.identities < agents:
            raise FedraxError(
                f"critic.identities = {self.identities} is too few for {agents} agents whose encoders are seen "
                "(federation.agents, and strategy.saved_peers); raise it, or set critic.identities=none"
            )
        return self if self.identities is not None else dataclasses.replace(self, identities=agents)

    def features(self, key: PRNGKeyArray, make: MLPMaker, actions: int, widths: tuple[int, ...]) -> MLP:
        """The encoder, whose last layer is without activation."""
        return make.seeing(key, actions, (*self.encoder_layers, self.dim), activate_last=False)

    def head(
        self, key: PRNGKeyArray, make: MLPMaker, inputs: int, widths: tuple[int, ...], values: int
    ) -> AttendingHead:
        """Transformer and decoder, initialised as PyTorch does."""
        identity_key, summary_key, layers_key, decoder_key = jax.random.split(key, 4)
        return AttendingHead(
            identities=jax.random.normal(identity_key, ((self.identities or 1) + 1, self.dim)),
            summary=jax.random.normal(summary_key, (self.dim,)),
            layers=tuple(self._layer(k) for k in jax.random.split(layers_key, self.layers)),
            decoder=make.mlp(decoder_key, (2 * self.dim, *self.decoder_layers, values)),
            one_query=self.queries == "one",
            standardise=self.standardise,
        )

    def _layer(self, key: PRNGKeyArray) -> AttentionLayer:
        keys = jax.random.split(key, 6)
        # Glorot's uniform distribution of the three matrices as one.
        bound = math.sqrt(6 / (self.dim + 3 * self.dim))

        def projection(key: PRNGKeyArray) -> Dense:
            weight = jax.random.uniform(key, (self.dim, self.dim), minval=-bound, maxval=bound)
            return Dense(weight, jnp.zeros(self.dim), True)

        def dense(key: PRNGKeyArray, inputs: int, outputs: int) -> Dense:
            return make_dense(key, inputs, outputs, "fan-in", by_output=True)

        output = dense(keys[3], self.dim, self.dim)
        return AttentionLayer(
            query=projection(keys[0]),
            key=projection(keys[1]),
            value=projection(keys[2]),
            output=Dense(output.weight, jnp.zeros(self.dim), True),
            expand=dense(keys[4], self.dim, self.feedforward),
            contract=dense(keys[5], self.feedforward, self.dim),
            first=LayerNorm(jnp.ones(self.dim), jnp.zeros(self.dim)),
            second=LayerNorm(jnp.ones(self.dim), jnp.zeros(self.dim)),
            heads=self.heads,
            norm_first=self.norm_first,
            dropout=self.dropout,
        )
