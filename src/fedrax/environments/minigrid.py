"""MiniGrid and BabyAI: an image and a sentence, and time limits of their own.

What the agent sees is the image alone, ``[7, 7, 3]``: object, colour and state of every cell in front of it. With
``mission`` it is a dictionary of ``image`` and ``mission``, the sentence as token ids. The direction is left out, as
in MiniGrid's own ImgObsWrapper.

A token is a word's place in ``VOCABULARY``, which begins with the padding and the unknown word. Punctuation is
dropped: no two missions differ by it alone.

The package ``minigrid`` is imported when one of its ids is first asked for, and never before.
"""

from __future__ import annotations

import functools
import importlib
import re
from typing import Any

import gymnasium
import jax
import numpy as np

from fedrax.environments.base import Box, Dict, Discrete, HostObservation, Spaces, Tokens
from fedrax.errors import FedraxError

PREFIXES = ("MiniGrid-", "BabyAI-")
"""What the ids begin with."""

IMAGE, MISSION = "image", "mission"
"""The parts of an observation, in MiniGrid's words."""

PADDING, UNKNOWN = 0, 1
"""Tokens that stand for no word, and for a word outside of the vocabulary."""

_COLOURS = "blue green grey purple red yellow"
_THINGS = "ball box door goal hallway key lava maze object opening room rooms square"
_VERBS = "avoid fetch find get go matching must open pick put reach traverse unlock use"
_OTHERS = "a after and at behind end from front in left near next of on right the then to up you your"

VOCABULARY = ("<padding>", "<unknown>", *f"{_COLOURS} {_THINGS} {_VERBS} {_OTHERS}".split())
"""Words by token. Trained policies hold an embedding of each, so a new word may only be put at the end."""

MISSION_LENGTHS = {"MiniGrid-": 20, "BabyAI-": 72}
"""Tokens of a mission by the id's prefix: BabyAI joins up to four instructions of seventeen words each."""

_TOKENS = {word: token for token, word in enumerate(VOCABULARY)}


def is_minigrid(id: str) -> bool:
    """Whether the environment is one of MiniGrid's, by its id."""
    return id.startswith(PREFIXES)


def load_minigrid(id: str) -> None:
    """Has MiniGrid register its environments with Gymnasium.

    Raises:
        FedraxError: it is not installed.
    """
    try:
        importlib.import_module("minigrid")
    except ImportError:
        raise FedraxError(
            f'environment {id!r} needs a package that is not installed: pip install "fedrax[minigrid]"'
        ) from None


def minigrid_spaces(
    id: str, observation: gymnasium.Space[Any], action: gymnasium.Space[Any], *, mission: bool
) -> Spaces:
    """Spaces of the environment ``id`` as this module observes it, from its own.

    Raises:
        FedraxError: it does not observe an image and a mission, or its actions are not Discrete.
    """
    image = observation["image"] if isinstance(observation, gymnasium.spaces.Dict) else None
    if not isinstance(image, gymnasium.spaces.Box) or not isinstance(action, gymnasium.spaces.Discrete):
        raise FedraxError(
            f"environment {id!r} has observations {observation} and actions {action}; "
            "of MiniGrid, only a Dict with an image and Discrete actions are supported"
        )
    low, high = (np.asarray(bound, float).ravel().tolist() for bound in (image.low, image.high))
    view = Box(image.shape, tuple(low), tuple(high))
    if not mission:
        return Spaces(view, Discrete(int(action.n)))
    length = next(length for prefix, length in MISSION_LENGTHS.items() if id.startswith(prefix))
    sentence = Tokens(length, len(VOCABULARY))
    return Spaces(Dict.of({IMAGE: view, MISSION: sentence}), Discrete(int(action.n)))


def mission_of(space: Box | Dict) -> Tokens | None:
    """The space of missions; None where none is told."""
    mission = space.tree.get(MISSION) if isinstance(space, Dict) else None
    return mission if isinstance(mission, Tokens) else None


def minigrid_time_limit(environment: gymnasium.Env) -> int:
    """Steps after which a made environment truncates: its own ``max_steps``, on which its rewards depend too.

    Most of BabyAI sets it with the mission. Where missions differ in length, this is the longest one's: the episodes
    of the others end before it.
    """
    level: Any = environment.unwrapped
    if hasattr(level, "instr_kinds") and not level.fixed_max_steps:
        # As BabyAI counts: a way to walk through all rooms for every thing named, and two things in a "put next to".
        instructions = 4 if "seq" in level.instr_kinds else 2 if "and" in level.instr_kinds else 1
        ways = instructions * (2 if "putnext" in level.action_kinds else 1)
        return int(level.room_size**2 * level.num_rows * level.num_cols * ways)
    environment.reset(seed=0)
    return int(level.max_steps)


@functools.lru_cache(maxsize=65536)
def mission_tokens(mission: str, length: int) -> np.ndarray:
    """The words of ``mission`` as ``int32[length]``, not to be written to; whatever is longer is cut off."""
    words = re.findall(r"[a-z]+", mission.lower())[:length]
    tokens = np.full(length, PADDING, np.int32)
    tokens[: len(words)] = [_TOKENS.get(word, UNKNOWN) for word in words]
    tokens.flags.writeable = False
    return tokens


class MiniGridObservation(gymnasium.ObservationWrapper):
    """One of MiniGrid's Gymnasium environments, observed as ``spaces`` say."""

    def __init__(self, environment: gymnasium.Env, spaces: Spaces) -> None:
        super().__init__(environment)
        self._mission = mission_of(spaces.observation)
        tree: Any = spaces.observation.tree
        box = tree if self._mission is None else tree[IMAGE]
        low, high = (np.reshape(np.asarray(bound, np.float32), box.shape) for bound in (box.low, box.high))
        image = gymnasium.spaces.Box(low, high, dtype=np.float32)
        if self._mission is None:
            self.observation_space = image
        else:
            words = gymnasium.spaces.Box(0, self._mission.vocabulary - 1, self._mission.shape, np.int32)
            self.observation_space = gymnasium.spaces.Dict({IMAGE: image, MISSION: words})

    def observation(self, observation: dict[str, Any]) -> HostObservation:
        """The image, or image and mission."""
        image = observation[IMAGE].astype(np.float32)
        if self._mission is None:
            return image
        return {IMAGE: image, MISSION: mission_tokens(observation[MISSION], self._mission.length)}


def make_minigrid(id: str, spaces: Spaces, time_limit: int, **settings: Any) -> gymnasium.Env:
    """The environment ``id`` by Gymnasium, observed as ``spaces`` say and truncated after ``time_limit`` steps.

    The limit is laid around the environment, whose own stays as it is: rewards are measured against that one.
    """
    made = gymnasium.make(id, max_episode_steps=time_limit, disable_env_checker=True, **settings)
    return MiniGridObservation(made, spaces)


class MiniGridPool:
    """One of MiniGrid's EnvPools, observed as ``spaces`` say, whose episodes end after ``time_limit`` steps at most.

    It has those methods of a pool that :class:`~fedrax.environments.host.EnvPoolEnvironments` calls. The pool's own
    ``max_episode_steps`` is no use here, since EnvPool measures rewards against it. So this class calls the episode
    truncated, and resets the copy in the next step as the pool would.
    """

    def __init__(self, pool: Any, count: int, spaces: Spaces, time_limit: int) -> None:
        self._pool = pool
        self._mission = mission_of(spaces.observation)
        self._time_limit = time_limit
        self._everyone = np.arange(count, dtype=np.int32)
        self._cut = np.zeros(count, bool)
        """Copies whose episode was ended here, of which the pool knows nothing."""

    def reset(self, ids: np.ndarray | None = None) -> tuple[HostObservation, dict[str, Any]]:
        """Starts a fresh episode in the copies ``int32[n]``, in all by default; observations, leaves ``[n, ...]``."""
        ids = self._everyone if ids is None else ids
        observation, _ = self._pool.reset(ids)
        self._cut[ids] = False
        return self._observe(observation), {}

    def step(
        self, actions: np.ndarray, ids: np.ndarray | None = None
    ) -> tuple[HostObservation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step, or reset, of the copies ``int32[n]``, of all by default; observations and the rest ``[n, ...]``."""
        ids = self._everyone if ids is None else ids
        due = self._cut[ids]
        if not due.any():
            return self._advance(actions, ids)
        fresh = self._observe(self._pool.reset(ids[due])[0])
        n = len(ids)
        columns = (
            jax.tree.map(lambda part: np.zeros((n, *part.shape[1:]), part.dtype), fresh),
            np.zeros(n, np.float32),
            np.zeros(n, bool),
            np.zeros(n, bool),
        )

        def put(chosen: np.ndarray, whole: Any, rows: Any) -> None:
            for each, part in zip(jax.tree.leaves(whole), jax.tree.leaves(rows), strict=True):
                each[chosen] = part

        put(due, columns[0], fresh)
        if not due.all():
            put(~due, columns, self._advance(actions[~due], ids[~due])[:4])
        self._cut[ids[due]] = False
        return (*columns, {})

    def close(self) -> None:
        """Ends the pool's threads."""
        self._pool.close()

    def _advance(
        self, actions: np.ndarray, ids: np.ndarray
    ) -> tuple[HostObservation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self._pool.step(actions, ids)
        late = info["elapsed_step"] >= self._time_limit
        self._cut[ids] = late & ~(terminated | truncated)
        return self._observe(observation), reward, terminated, truncated | late, {}

    def _observe(self, observation: dict[str, np.ndarray]) -> HostObservation:
        image = observation[IMAGE].astype(np.float32)
        if self._mission is None:
            return image
        tokens = [_decoded(sentence.tobytes(), self._mission.length) for sentence in observation[MISSION]]
        return {IMAGE: image, MISSION: np.stack(tokens)}


@functools.lru_cache(maxsize=65536)
def _decoded(sentence: bytes, length: int) -> np.ndarray:
    """Tokens of EnvPool's mission: ASCII, filled up with zeros."""
    return mission_tokens(sentence.rstrip(b"\0").decode("ascii", "replace"), length)
