"""What can be had of the pendulums of FedTD3's published draws, by methods that know their physics.

    python benchmarks/fedtd3_bound.py

``own``: every agent's best possible mean return, by dynamic programming on a grid of states and torques; it may know
what agent it is. ``shared``: what one policy of the three observations comes to in all five environments of a draw,
found by evolution strategies (Salimans et al., 2017) on the mean over the agents' returns. A federation that averages
actors looks for such a policy; the best one may be better than the one found here, not worse.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray

from fedrax.config import resolve
from fedrax.environments.native.pendulum import MAX_SPEED, MAX_TORQUE, Pendulum, PendulumState
from fedrax.runtime.draws import physics_draws

from common import save

DRAWS = 5
HORIZON = 200
ANGLES, SPEEDS, TORQUES = 360, 241, 21
"""The grid's."""
PAIRS, STARTS, SPREAD, RATE, WIDTH = 64, 8, 0.1, 0.1, 16
"""Of evolution: antithetic pairs, episodes for each agent, standard deviation, Adam's step size, hidden units."""
TESTS = 1000
ENVIRONMENT = Pendulum()


def main() -> None:
    """Both bounds for every draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=int, default=1000, help="of evolution")
    options = parser.parse_args()
    results = {}
    for draw in range(1, DRAWS + 1):
        started = time.perf_counter()
        config = resolve("fedtd3/pendulum", [f"environment.heterogeneity.trial={draw}"])
        # Draws in the configuration override what an environment is by itself.
        agents = [ENVIRONMENT.physics() | physics for physics in physics_draws(config)]
        physics = {name: jnp.asarray([agent[name] for agent in agents]) for name in ENVIRONMENT.physics()}
        own = jax.lax.map(best_return, physics)
        shared = evolved(physics, options.generations, jax.random.key(draw))
        results[str(draw)] = {
            "own": rounded(own),
            "own_mean": round(float(own.mean()), 1),
            "shared": rounded(shared),
            "shared_mean": round(float(shared.mean()), 1),
        }
        print(draw, results[str(draw)], f"{time.perf_counter() - started:.0f} s", flush=True)
    means = {
        kind: round(float(np.mean([each[f"{kind}_mean"] for each in results.values()])), 1)
        for kind in ("own", "shared")
    }
    save("fedtd3_bound", {"draws": results, "mean": means, "generations": options.generations})


def rounded(returns: Array) -> list[float]:
    """For a file."""
    return [round(float(x), 1) for x in returns]


@jax.jit
def best_return(physics: dict[str, Array]) -> Array:
    """Of one pendulum, over the start states, with the best torques of the grid."""
    angles = jnp.linspace(-jnp.pi, jnp.pi, ANGLES, endpoint=False)
    speeds = jnp.linspace(-MAX_SPEED, MAX_SPEED, SPEEDS)
    torques = jnp.linspace(-MAX_TORQUE, MAX_TORQUE, TORQUES)[:, None]
    key = jax.random.key(0)

    def outcome(angle: Array, speed: Array, torque: Array) -> tuple[PendulumState, Array]:
        transition = ENVIRONMENT.step(PendulumState(angle, speed), torque, key, physics)
        return transition.state, transition.reward

    over = jax.vmap(jax.vmap(jax.vmap(outcome, (None, None, 0)), (None, 0, None)), (0, None, None))
    after, reward = over(angles, speeds, torques)
    row = (after.theta + jnp.pi) / (2 * jnp.pi) * ANGLES
    column = jnp.clip((after.theta_dot + MAX_SPEED) / (2 * MAX_SPEED) * (SPEEDS - 1), 0, SPEEDS - 1)
    low, left = jnp.floor(row), jnp.minimum(jnp.floor(column), SPEEDS - 2)
    up, right = row - low, column - left
    below = low.astype(jnp.int32) % ANGLES
    above, left = (below + 1) % ANGLES, left.astype(jnp.int32)

    def back(_: int, value: Array) -> Array:
        lower = (1 - right) * value[below, left] + right * value[below, left + 1]
        upper = (1 - right) * value[above, left] + right * value[above, left + 1]
        return (reward + (1 - up) * lower + up * upper).max(-1)

    value = jax.lax.fori_loop(0, HORIZON, back, jnp.zeros((ANGLES, SPEEDS)))
    slow = (jnp.abs(speeds) <= 1)[None].astype(jnp.float32)
    return (value * slow).mean() / slow.mean()


def policy(params: list[tuple[Array, Array]], observation: Array) -> Array:
    """A torque, by a small network."""
    x = observation * jnp.asarray([1.0, 1.0, 1 / MAX_SPEED])
    for weight, bias in params[:-1]:
        x = jnp.tanh(x @ weight + bias)
    weight, bias = params[-1]
    return MAX_TORQUE * jnp.tanh(x @ weight + bias)


def fresh(key: PRNGKeyArray) -> list[tuple[Array, Array]]:
    """Its first weights."""
    sizes = (3, WIDTH, WIDTH, 1)
    pairs = zip(sizes[:-1], sizes[1:], jax.random.split(key, len(sizes) - 1), strict=True)
    return [(jax.random.normal(k, (n, m)) / jnp.sqrt(n), jnp.zeros(m)) for n, m, k in pairs]


def returned(params: list[tuple[Array, Array]], physics: dict[str, Array], key: PRNGKeyArray) -> Array:
    """Of one episode."""
    state, observation = ENVIRONMENT.reset(key, physics)

    def step(carry: tuple[PendulumState, Array], _: None) -> tuple[tuple[PendulumState, Array], Array]:
        state, observation = carry
        transition = ENVIRONMENT.step(state, policy(params, observation), key, physics)
        return (transition.state, transition.observation), transition.reward

    return jax.lax.scan(step, (state, observation), None, length=HORIZON)[1].sum()


def evolved(physics: dict[str, Array], generations: int, key: PRNGKeyArray) -> Array:
    """Mean test returns of one evolved policy in each of the environments."""
    start_key, evolve_key, test_key = jax.random.split(key, 3)
    vector, unravel = ravel_pytree(fresh(start_key))
    adam = optax.adam(RATE)

    def scores(vector: Array, keys: PRNGKeyArray) -> Array:
        """By agent, over episodes that start alike everywhere."""
        episodes = jax.vmap(partial(returned, unravel(vector)), (None, 0))
        return jax.vmap(episodes, (0, None))(physics, keys).mean(1)

    def generation(carry: tuple[Array, optax.OptState], key: PRNGKeyArray) -> tuple[tuple[Array, optax.OptState], None]:
        vector, optimizer = carry
        noise_key, episode_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, (PAIRS, vector.size))
        tried = vector + SPREAD * jnp.concatenate((noise, -noise))
        fitness = jax.vmap(lambda v: scores(v, jax.random.split(episode_key, STARTS)).mean())(tried)
        rank = fitness.argsort().argsort() / (2 * PAIRS - 1) - 0.5
        gradient = (rank[:PAIRS] - rank[PAIRS:]) @ noise / (2 * PAIRS * SPREAD)
        updates, optimizer = adam.update(-gradient, optimizer)
        return (optax.apply_updates(vector, updates), optimizer), None

    evolve: Callable[..., tuple[tuple[Array, optax.OptState], None]] = jax.jit(partial(jax.lax.scan, generation))
    (vector, _), _ = evolve((vector, adam.init(vector)), jax.random.split(evolve_key, generations))
    return jax.jit(scores)(vector, jax.random.split(test_key, TESTS))


if __name__ == "__main__":
    main()
