"""A3: an agent's episodes, made again from its message."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from scipy.optimize import linear_sum_assignment

from fedrax.audit.base import Answers, Effort, Leak
from fedrax.audit.dynamics import observes_states
from fedrax.audit.episodes import Sent, collected, part_of, sent_of
from fedrax.audit.inversion import (
    Guess,
    Known,
    first_layer,
    searched,
    weighted_observation,
)
from fedrax.audit.setting import Setting
from fedrax.environments.base import Box, Discrete, Episodes
from fedrax.learners.policy_gradient import PolicyGradient
from fedrax.seeds import derive
from fedrax.trees import unravel_like

COUNTS = (1, 4, 16)
"""Episodes in a message."""
FAR = 1e30
"""The squared distance of a guess that is no number."""
MESSAGES = 4
"""Of each kind, over which answers are means, as far as there are episodes."""


class Reconstruction(Leak):
    """A3: closed form, and gradient inversion, beside the best guess without the message."""

    id = "A3"
    question = "which states were visited?"
    headline = "state_error_1"

    def inapplicable(self, setting: Setting) -> str | None:
        """Where messages are no policy gradients, or the environment cannot be played by the attacker."""
        strategy, learner = setting.federation.strategy, setting.federation.learner
        if not strategy.sends or not strategy.means_of_episodes:
            return f"updates of strategy {strategy.name!r} are no gradients of episodes"
        if not isinstance(learner, PolicyGradient):
            return f"it is for learner 'policy-gradient', not {learner.name!r}"
        if setting.runtime is None:
            return "the environment is not in JAX"
        if not isinstance(setting.federation.spaces.observation, Box):
            return "observations have several parts"
        if first_layer(setting.downlink.params) is None:
            return "the policy's first layer is not dense"
        return None

    def answers(self, setting: Setting, effort: Effort, key: PRNGKeyArray) -> Answers:
        """Errors of states, and shares of actions, for messages of 1, 4 and 16 episodes; and for one of one step."""
        # Where the server sees rows, nobody else's matter.
        agents = setting.federation.participants
        steps = effort.steps
        everyone = collected(setting, key, agents=agents, episodes=COUNTS[-1], steps=steps)
        own = collected(
            setting,
            derive(key, "own"),
            agents=1,
            episodes=COUNTS[-1] * effort.restarts,
            steps=steps,
            own_physics=False,
        )
        guess = Population(jax.tree.map(lambda x: x[0], own))
        answers: Answers = {"steps": steps}
        for count in (0, *COUNTS):
            each = []
            for number in range(min(MESSAGES, COUNTS[-1] // max(count, 1))):
                chosen = slice(number * count, (number + 1) * count) if count else slice(number, number + 1)
                episodes = part_of(everyone, chosen, steps if count else 1)
                message = sent_of(setting, episodes, derive(key, "message", count, number))
                each.append(
                    self._searched(setting, message, guess, effort, count)
                    if count
                    else {"one_step_error": guess.error_of(message.episodes, *self._closed(setting, message))}
                )
            answers |= {name: float(np.mean([one[name] for one in each])) for name in each[0]}
        return answers

    @staticmethod
    def _closed(setting: Setting, message: Sent) -> tuple[Float[np.ndarray, "1 1 o"], Bool[np.ndarray, "1 1"]]:
        """The one observation that the message shows, or NaN; and that there is one."""
        gradient = unravel_like(setting.update_shapes, message.row)
        return np.asarray(weighted_observation(gradient))[None, None], np.ones((1, 1), bool)

    @staticmethod
    def _searched(setting: Setting, message: Sent, guess: Population, effort: Effort, count: int) -> dict[str, float]:
        federation, runtime = setting.federation, setting.runtime
        assert runtime is not None
        assert isinstance(federation.learner, PolicyGradient)
        space, episodes = federation.spaces.action, message.episodes
        discrete = isinstance(space, Discrete)
        observation, action = searched(
            setting.downlink.params,
            runtime.environment if observes_states(runtime.environment) else None,
            unravel_like(setting.update_shapes, message.row),
            guess.known(federation.learner.weights(episodes), episodes.valid),
            guess.starts(effort.restarts, count, space.n if isinstance(space, Discrete) else None),
            federation.protection.clips_episodes,
            effort.iterations,
        )
        valid = np.asarray(episodes.valid)
        answers = {f"state_error_{count}": guess.error_of(episodes, np.asarray(observation), valid)}
        if discrete:
            true = np.asarray(episodes.action)[valid]
            chosen = np.asarray(action).argmax(-1)[valid]
            rows, columns = guess.assigned(episodes, np.asarray(observation), valid)
            answers[f"action_accuracy_{count}"] = float((true[rows] == chosen[columns]).mean())
            answers[f"most_common_action_{count}"] = float(np.bincount(true).max() / len(true))
        return answers


class Population:
    """What the attacker knows without a message: observations of the broadcast policy in the registered environment."""

    def __init__(self, episodes: Episodes) -> None:
        valid, observation = np.asarray(episodes.valid), np.asarray(_flat(episodes))
        self.episodes, self.points = episodes, observation[valid]
        self.mean = self.points.mean(0)
        self.deviation = self.points.std(0) + 1e-6
        change = np.diff(observation, axis=0)[valid[1:]]
        self.change = change.std(0) + 1e-3 * self.deviation if len(change) else self.deviation

    def known(self, weights: Array, valid: Array) -> Known:
        """For a search."""
        return Known(weights, valid, *(jnp.asarray(x) for x in (self.mean, self.deviation, self.change)))

    def starts(self, searches: int, count: int, actions: int | None) -> Guess:
        """Where each search starts: so many of these episodes, each time others. ``actions``: of discrete ones."""

        def shared(x: Array) -> Array:
            """``[searches, T, count, ...]`` of ``[T, B, ...]``."""
            chosen = x[:, : searches * count].reshape(x.shape[0], searches, count, *x.shape[2:])
            return jnp.moveaxis(chosen, 1, 0)

        observation = (shared(_flat(self.episodes)) - self.mean) / self.deviation
        action = shared(self.episodes.action)
        scores = action if actions is None else 2.0 * jax.nn.one_hot(action, actions)
        return Guess(observation, scores.reshape(*observation.shape[:-1], -1))

    def error_of(self, episodes: Episodes, guessed: np.ndarray, valid: np.ndarray) -> float:
        """The guess's error over that of the best one without the message; 1 where there is none, or nothing to find.

        That is the better of the mean observation and of observations of other episodes. An error is the root mean
        square over steps and components, in the component's deviations, when guesses are assigned to steps so that
        it is least.
        """
        true = self._standard(np.asarray(_flat(episodes))[valid])
        others = self.points[np.linspace(0, len(self.points) - 1, len(true)).astype(int)]
        nothing = min(self._error(true, np.broadcast_to(self.mean, others.shape)), self._error(true, others))
        if nothing == 0 or not np.isfinite(guessed).all():
            return 1.0
        return self._error(true, guessed[valid]) / nothing

    def assigned(self, episodes: Episodes, guessed: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which guess stands for which step."""
        true, guess = self._standard(np.asarray(_flat(episodes))[valid]), self._standard(guessed[valid])
        rows, columns = linear_sum_assignment(np.nan_to_num(_squares(true, guess), nan=FAR, posinf=FAR))
        return rows, columns

    def _error(self, true: np.ndarray, guessed: np.ndarray) -> float:
        squares = _squares(true, self._standard(guessed))
        return math.sqrt(squares[linear_sum_assignment(squares)].mean() / true.shape[1])

    def _standard(self, observation: np.ndarray) -> np.ndarray:
        # A guess may be so far off that its square is too large for 32 bits.
        standard: np.ndarray = (observation.astype(np.float64) - self.mean) / self.deviation
        return standard


def _flat(episodes: Episodes) -> Any:
    """Observations ``[T, B, o]``."""
    assert not isinstance(episodes.observation, dict)
    return episodes.observation.reshape(*episodes.valid.shape, -1)


def _squares(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Squared distances ``[n, m]``."""
    squares: np.ndarray = ((one[:, None] - other[None]) ** 2).sum(-1)
    return squares
