"""A4: the parameters of an agent's environment, from its message."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fedrax.audit.base import Answers, Effort, Leak
from fedrax.audit.setting import Setting
from fedrax.audit.sight import check_finite, play, seen_of
from fedrax.environments.base import stack_physics
from fedrax.errors import FedraxError
from fedrax.federation import Tally
from fedrax.runtime.draws import ASSIGNED, unseen_draws
from fedrax.runtime.native import NativeRuntime
from fedrax.seeds import derive

PENALTIES = np.geomspace(1e-4, 1e4, 25)
"""Of the ridge regression, over the mean square of its features."""
TESTED = 3
"""Every so many-th agent is tested, and not learned from."""


class EnvironmentParameters(Leak):
    """A4: ridge regression on the messages of the attacker's own agents (the idea: Pan et al., 2019)."""

    id = "A4"
    question = "what are the agent's physics?"
    headline = "r2"

    def inapplicable(self, setting: Setting) -> str | None:
        """Where agents' environments do not differ, or no others of their kind can be made."""
        strategy, settings = setting.federation.strategy, setting.config.environment
        if setting.without_updates:
            return setting.without_updates
        if setting.runtime is None:
            return "the environment is not in JAX"
        if not settings.heterogeneity:
            return "environments do not differ (environment.heterogeneity)"
        if strategy.needs.pooled or strategy.personal_with(setting.federation.learner):
            return f"agents of strategy {strategy.name!r} do not start from a broadcast policy"
        try:
            unseen_draws(setting.config, 1)
        except FedraxError as error:
            return f"no environments of their kind can be drawn: {error}"
        return None

    def answers(self, setting: Setting, effort: Effort, key: PRNGKeyArray) -> Answers:
        """Over the parameters that differ, the mean of R^2 and of the share of pairs of agents put in order."""
        draws = unseen_draws(setting.config, effort.shadows)
        rows = np.asarray(rows_of(setting, stack_physics([draws]), effort.shadows, key))
        features = np.concatenate([rows, np.linalg.norm(rows, axis=1, keepdims=True)], 1)
        tested = np.arange(len(rows)) % TESTED == 0
        answers: Answers = {"agents": len(rows)}
        for name in draws[0]:
            values = np.array([draw[name] for draw in draws])
            if name in ASSIGNED or np.ptp(values) == 0:
                continue
            guessed = ridge(features[~tested], values[~tested], features[tested])
            answers[f"r2_{name}"] = determination(values[tested], guessed)
            answers[f"ranked_{name}"] = ranked(values[tested], guessed)
        for measure in ("r2", "ranked"):
            each = [value for name, value in answers.items() if name.startswith(f"{measure}_")]
            answers[measure] = float(np.mean(np.array(each, float))) if each else None
        return answers


def rows_of(setting: Setting, physics: dict[str, Array], shadows: int, key: PRNGKeyArray) -> Float[Array, "shadows d"]:
    """What a server sees where each of these agents in turn takes part with others of them, drawn anew."""
    runtime, federation = setting.runtime, setting.federation
    assert runtime is not None
    table = jax.tree.map(lambda x: x[0], physics)
    updates = _updates(runtime, setting, table, jax.random.split(derive(key, "shadows"), shadows))
    check_finite(updates)
    m = federation.participants

    def one(inputs: tuple[Array, PRNGKeyArray]) -> Array:
        index, own = inputs
        others = jax.random.randint(derive(own, "others"), (m - 1,), 0, shadows)
        chosen = jax.tree.map(lambda x: x[jnp.concatenate([index[None], others])], updates)
        return seen_of(federation, setting.fresh, chosen, jnp.asarray(setting.episodes), own, setting.whole_round)[0]

    keys = jax.random.split(derive(key, "rounds"), shadows)
    rows: Array = jax.jit(lambda inputs: jax.lax.map(one, inputs))((jnp.arange(shadows), keys))
    return rows


def _updates(runtime: NativeRuntime, setting: Setting, physics: dict[str, Array], keys: Array) -> PyTree:
    """The updates of agents in these environments, before protection, leaves ``[n, ...]``."""
    federation, downlink = setting.federation, setting.downlink
    zero = jnp.asarray(0)
    tally = Tally(jnp.asarray(setting.rounds), zero, zero, zero, zero)
    sending = federation.sending(downlink, tally.rounds, setting.key, federation.protection.first_clip)

    def one(inputs: tuple[dict[str, Array], PRNGKeyArray]) -> PyTree:
        own, key = inputs
        running = runtime.collector.start(derive(key, "environment"), own)
        before = (federation.fresh(setting.key, zero), zero, jnp.asarray(False), None, own, running)
        _, _, update = play(runtime, before, key, downlink=downlink, sending=sending, tally=tally)
        return update

    return jax.jit(lambda inputs: jax.lax.map(one, inputs))((physics, keys))


def ridge(features: np.ndarray, values: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Values ``[k]`` at features ``[k, d]``, by ridge regression on features ``[n, d]`` and values ``[n]``.

    The penalty is the one whose leave-one-out error on what is learned from is least; it is solved in the space of the
    n agents, since an update has more numbers than there are agents.
    """
    centre, scale = features.mean(0), features.std(0)
    kept = scale > 1e-12 * max(scale.max(), 1e-300)
    learned, asked = ((x - centre)[:, kept] / scale[kept] for x in (features, tested))
    mean = values.mean()
    eigenvalues, basis = np.linalg.eigh(learned @ learned.T)
    turned = basis.T @ (values - mean)

    def solved(penalty: float) -> tuple[float, np.ndarray]:
        inverse = 1 / (np.maximum(eigenvalues, 0) + penalty)
        dual = basis @ (inverse * turned)
        # The error at a point left out is its dual number over the inverse's diagonal (Allen, 1974).
        return float(np.square(dual / (basis**2 @ inverse)).mean()), dual

    size = max(float(eigenvalues.mean()), 1e-12)
    _, dual = min((solved(size * penalty) for penalty in PENALTIES), key=lambda each: each[0])
    guessed: np.ndarray = mean + asked @ (learned.T @ dual)
    return guessed


def determination(values: np.ndarray, guessed: np.ndarray) -> float:
    """R^2: the share of the variance that the guesses explain; below 0 where the mean would have been closer."""
    return float(1 - np.square(values - guessed).sum() / np.square(values - values.mean()).sum())


def ranked(values: np.ndarray, guessed: np.ndarray) -> float:
    """The share of pairs that the guesses put in the right order; a half by chance."""
    one, other = np.triu_indices(len(values), 1)
    differ = values[one] != values[other]
    right = np.sign(values[one] - values[other]) == np.sign(guessed[one] - guessed[other])
    return float(right[differ].mean())
