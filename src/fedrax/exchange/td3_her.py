"""Networks of the TD3+HER reference (Soheil66ir/FRL) and ours: the same functions, their numbers in other places.

The reference has two state dictionaries: of an actor, which sees ``[observation, desired_goal]``, and of two critics in
one, which see ``[observation, desired_goal, action]``; each is a perceptron of three hidden ReLU layers. Ours see all
parts of an observation in the order of their names, ``[achieved_goal, desired_goal, observation]`` (then the action),
so columns change places, and those of parts that the reference does not see are 0.

All of this is NumPy: PyTorch is needed for the files alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fedrax.environments.base import Box, Dict, Spaces
from fedrax.environments.goals import ACHIEVED, DESIRED, OBSERVATION
from fedrax.errors import FedraxError
from fedrax.learners.encoders import Flatten
from fedrax.learners.mlp import MLP
from fedrax.learners.networks import Dense
from fedrax.learners.twin_critic import TwinCritic
from fedrax.strategies.statistics import normaliser_of

State = Mapping[str, np.ndarray]
"""A network by the names of its arrays: ``LAYER.weight`` ``[out, in]`` and ``LAYER.bias`` ``[out]``, float32."""
Layers = list[tuple[np.ndarray, np.ndarray]]
"""Weights and biases, layer by layer."""

ACTOR = ("fc1", "fc2", "fc3", "action_out")
CRITICS = (("fc1_1", "fc1_2", "fc1_3", "q1_out"), ("fc2_1", "fc2_2", "fc2_3", "q2_out"))
NETWORKS = {"actor": (ACTOR,), "critic": CRITICS}
"""The layers of the perceptrons in each state dictionary, in their order."""
HIDDEN = (256, 256, 256)
"""Widths of the reference's hidden layers; its classes have no others."""


class Networks(NamedTuple):
    """What one checkpoint holds."""

    actor: State
    critic: State

    @property
    def widths(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of the hidden layers, of the actor and of each critic."""
        actor, critic = (layers_of(state, names) for state, names in ((self.actor, ACTOR), (self.critic, CRITICS[0])))
        return tuple(len(bias) for _, bias in actor[:-1]), tuple(len(bias) for _, bias in critic[:-1])


def networks_in(contents: Sequence[tuple[str, Any]]) -> Networks:
    """The one actor and the one critic in the contents of these files, each with the file's name.

    A file holds one state dictionary, or ``{"actor": ..., "critic": ...}``.

    Raises:
        FedraxError: one line: anything else, two of a kind, or arrays whose shapes do not follow from each other.
    """
    found: dict[str, State] = {}
    for label, content in contents:
        whole = isinstance(content, Mapping) and set(content) == set(NETWORKS)
        for state in content.values() if whole else (content,):
            kind = _kind(label, state)
            if kind in found:
                raise FedraxError(f"{label} holds a second {kind}; give one actor and one critic")
            found[kind] = state
            for names in NETWORKS[kind]:
                _check_layers(label, state, names)
    missing = [kind for kind in NETWORKS if kind not in found]
    if missing:
        raise FedraxError(
            f"no file holds the {missing[0]}: give the files of both networks, or one that holds both "
            "(model_round_N.pth)"
        )
    networks = Networks(found["actor"], found["critic"])
    _check_together(networks)
    return networks


def _kind(label: str, state: Any) -> str:
    """Whether a state dictionary is of an actor or of the critics."""
    names = set(state) if isinstance(state, Mapping) else set()
    wanted = {
        kind: {f"{layer}.{part}" for perceptron in perceptrons for layer in perceptron for part in ("weight", "bias")}
        for kind, perceptrons in NETWORKS.items()
    }
    for kind, keys in wanted.items():
        if names == keys:
            return kind
    kind = max(wanted, key=lambda kind: len(wanted[kind] & names))
    differing = sorted(map(str, wanted[kind] ^ names))
    raise FedraxError(
        f"{label} is no network of the TD3+HER reference: the arrays {', '.join(differing[:3])} are "
        f"{'missing' if differing[0] not in names else 'not of its layout'}; an actor has {', '.join(ACTOR)}, a critic "
        f"{', '.join(name for perceptron in CRITICS for name in perceptron)}"
    )


def _check_layers(label: str, state: State, names: Sequence[str]) -> None:
    before: int | None = None
    for name in names:
        if any(isinstance(state[f"{name}.{part}"], Mapping) for part in ("weight", "bias")):
            raise FedraxError(f"{label}: {name} holds a table in place of an array; the file is not what it says")
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        fits = weight.ndim == 2 and bias.shape == weight.shape[:1] and before in (None, weight.shape[1])
        if not fits or 0 in weight.shape:
            raise FedraxError(
                f"{label}: {name} has a weight of {list(weight.shape)} and a bias of {list(bias.shape)}, where "
                f"[out, {'in' if before is None else before}] and [out] are expected; the file is not what it says"
            )
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise FedraxError(f"{label}: {name} holds numbers that are not finite; give another checkpoint")
        before = weight.shape[0]


def _check_together(networks: Networks) -> None:
    """Raises :class:`FedraxError` where actor and critics are of different environments or widths."""
    first, second = (layers_of(networks.critic, names) for names in CRITICS)
    if [weight.shape for weight, _ in first] != [weight.shape for weight, _ in second] or len(first[-1][1]) != 1:
        raise FedraxError("the two critics are not of one shape with one value each; give another checkpoint")
    actor = layers_of(networks.actor, ACTOR)
    seen, actions, judged = actor[0][0].shape[1], len(actor[-1][1]), first[0][0].shape[1]
    if judged != seen + actions:
        raise FedraxError(
            f"actor and critic are of different environments: the actor sees {seen} numbers and has {actions} actions, "
            f"and the critic sees {judged} numbers, not {seen + actions}; give two files of one training"
        )


def layers_of(state: State, names: Sequence[str]) -> Layers:
    """The layers of one perceptron."""
    return [(state[f"{name}.weight"], state[f"{name}.bias"]) for name in names]


class Places(NamedTuple):
    """Where the numbers of an observation are among the inputs of our networks."""

    seen: list[int]
    """Those that the reference sees, in its order."""
    others: dict[str, list[int]]
    """Of the parts that it does not see, by name."""
    size: int


def places(spaces: Spaces, id: str) -> Places:
    """Where our networks see what, in the environment called ``id``.

    Raises:
        FedraxError: it has no goals, or observations that are not vectors of real numbers.
    """
    parts = dict(spaces.observation.parts) if isinstance(spaces.observation, Dict) else {}
    if not {OBSERVATION, DESIRED} <= set(parts):
        raise FedraxError(
            "the TD3+HER reference's networks need a goal environment, whose observations have the parts "
            f"{OBSERVATION!r} and {DESIRED!r}, and {id!r} is none; choose one like FetchPush-v4"
        )
    found: dict[str, list[int]] = {}
    start = 0
    for name, part in sorted(parts.items()):
        if len(part.shape) != 1 or not isinstance(part, Box):
            raise FedraxError(
                f"the TD3+HER reference's networks see vectors alone, and the part {name!r} of {id!r}'s observations "
                "is none; choose an environment like FetchPush-v4"
            )
        found[name] = list(range(start, start + part.shape[0]))
        start += part.shape[0]
    seen = [*found.pop(OBSERVATION), *found.pop(DESIRED)]
    return Places(seen, found, start)


def check_actions(params: TwinCritic, id: str) -> None:
    """Raises :class:`FedraxError` for actions whose range is not one number to both sides of 0.

    The reference's actor is ``max_action * tanh``, and its critics see actions in the environment's units.
    """
    reach = set(params.reach)
    if any(params.centre) or len(reach) != 1 or (params.scaled and reach != {1.0}):
        raise FedraxError(
            "the TD3+HER reference's actions lie between -a and a, the same a for all of them (and "
            f"learner.scale_actions = false where a is not 1), and those of {id!r} do not; choose another environment"
        )


def to_params(networks: Networks, params: TwinCritic, spaces: Spaces, id: str) -> TwinCritic:
    """Our networks that compute what the reference's do; ``params`` are any of their form.

    Raises:
        FedraxError: the environment called ``id`` has other observations, goals or actions.
    """
    where = places(spaces, id)
    check_actions(params, id)
    actor = layers_of(networks.actor, ACTOR)
    inputs, actions = actor[0][0].shape[1], len(actor[-1][1])
    if (inputs, actions) != (len(where.seen), len(params.reach)):
        raise FedraxError(
            f"the networks see {inputs} numbers of observation and goal and have {actions} actions, and {id!r} has "
            f"{len(where.seen)} and {len(params.reach)}; choose the environment that they were trained in "
            "(environment.id=...)"
        )
    critics = [layers_of(networks.critic, names) for names in CRITICS]
    depth = len(params.features[0].layers)
    (first, second), (first_head, second_head) = params.features, params.head
    return dataclasses.replace(
        params,
        features=(_filled(first, critics[0][:depth], where), _filled(second, critics[1][:depth], where)),
        head=(_filled(first_head, critics[0][depth:], None), _filled(second_head, critics[1][depth:], None)),
        actor=_filled(params.actor, actor, where),
    )


def _filled(mlp: MLP, layers: Layers, where: Places | None) -> MLP:
    """``mlp`` with these numbers; ``where`` says how its first layer sees observations, None that it sees none."""
    (weight, bias), *others = layers
    if where is not None:
        others_seen = weight.shape[1] - len(where.seen)
        columns = [*where.seen, *range(where.size, where.size + others_seen)]
        spread = np.zeros((weight.shape[0], where.size + others_seen), weight.dtype)
        spread[:, columns] = weight
        weight = spread
    filled = [
        Dense(jnp.asarray(weight if layer.by_output else weight.T), jnp.asarray(bias), layer.by_output)
        for layer, (weight, bias) in zip(mlp.layers, [(weight, bias), *others], strict=True)
    ]
    return dataclasses.replace(mlp, layers=tuple(filled))


def from_params(params: Any, spaces: Spaces, id: str, achieved_at: Callable[[], int | None]) -> Networks:
    """The reference's networks that compute what ours do.

    Args:
        params: one network's.
        spaces: of the environment.
        id: what it is called.
        achieved_at: says from which number of the part ``observation`` on the achieved goal stands there too, so that
            our networks' weights of the goal can be added to those of these numbers; None where it does not.

    Raises:
        FedraxError: one line: the reference has no networks of this form.
    """
    # Other learners have networks derived from these, whose actors return more.
    if type(params) is not TwinCritic:
        raise _no_form("the run's learner is not td3")
    if params.attends:
        raise _no_form("the run's critics attend over their peers' encoders")
    if normaliser_of(params) is not None:
        raise _no_form("learner.normalise = true, and the reference's see observations as they are")
    where = places(spaces, id)
    check_actions(params, id)
    mlps = {
        "actor": [[params.actor]],
        "critic": [list(pair) for pair in zip(params.features, params.head, strict=True)],
    }
    for kind, perceptrons in mlps.items():
        _check_form(kind, perceptrons[0])
    states: dict[str, dict[str, np.ndarray]] = {}
    for kind, perceptrons in mlps.items():
        states[kind] = {}
        for names, parts in zip(NETWORKS[kind], perceptrons, strict=True):
            layers = [layer for mlp in parts for layer in mlp.layers]
            for number, (name, layer) in enumerate(zip(names, layers, strict=True)):
                weight = np.asarray(layer.weight if layer.by_output else layer.weight.T)
                states[kind][f"{name}.weight"] = weight if number else _gathered(weight, where, achieved_at)
                states[kind][f"{name}.bias"] = np.asarray(layer.bias)
    return Networks(**states)


def _check_form(kind: str, mlps: list[MLP]) -> None:
    widths = tuple(layer.weight.shape[0 if layer.by_output else 1] for mlp in mlps for layer in mlp.layers)[:-1]
    if widths != HIDDEN:
        raise _no_form(f"the {kind}'s hidden layers are {list(widths)}, and the reference's {list(HIDDEN)}")
    if mlps[0].activation != "relu":
        raise _no_form(f"learner.activation = {mlps[0].activation!r}, and the reference's is relu")
    if not isinstance(mlps[0].encoder, Flatten) and not all(
        isinstance(encoder, Flatten) for encoder in getattr(mlps[0].encoder, "parts", {}).values()
    ):
        raise _no_form("they see images or words")


def _gathered(weight: np.ndarray, where: Places, achieved_at: Callable[[], int | None]) -> np.ndarray:
    """A first layer's weights for what the reference sees."""
    kept = weight[:, [*where.seen, *range(where.size, weight.shape[1])]]
    for name, columns in where.others.items():
        unseen = weight[:, columns]
        if not unseen.any():
            continue
        offset = achieved_at() if name == ACHIEVED else None
        if offset is None:
            raise _no_form(f"they see the part {name!r} of observations, which the reference's do not")
        kept[:, offset : offset + len(columns)] += unseen
    return kept


def _no_form(why: str) -> FedraxError:
    return FedraxError(f"the TD3+HER reference has no networks of this form: {why}; export to safetensors instead")
