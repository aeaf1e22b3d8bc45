"""With partial participation, what an agent does in a round does not depend on who else takes part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.config import resolve
from fedrax.federation import Cohort, Federation
from fedrax.runtime import compiling
from fedrax.runtime.make import make_runtime

SMALL = (
    *("strategy=local", "federation.agents=4", "federation.participation=0.5", "budget.rounds=2", "checkpoint.every=2"),
    *("evaluation.every=2", "evaluation.episodes=2", "environment=CartPole-v1", "environment.num_envs=2"),
    *("environment.horizon=30", "federation.local_updates=2", "attack=random-action", "attack.agents=1"),
)
STEPS = ("learner=ppo", "learner.num_steps=8")
EPISODES = ("learner=policy-gradient", "strategy.batch=3")
GYMNASIUM = ("environment.native=false", "environment.backend=gymnasium")
CASES = {
    "native steps": STEPS,
    "native episodes": EPISODES,
    "host steps": (*STEPS, *GYMNASIUM),
    "host episodes": (*EPISODES, *GYMNASIUM),
}


def trained_with(other, settings, monkeypatch):
    """Agent 0's parameters after two rounds in which it and ``other`` take part; agent 3 is Byzantine."""

    def together(self, key):
        ids = jnp.asarray([0, other])
        return Cohort(ids, ids == 3, jnp.ones(2, bool))

    monkeypatch.setattr(Federation, "cohort", together)
    # To the bit as in a user's run: without its emitters XLA rounds programs with other constants otherwise.
    settings_of_xla = {compiling.LEVEL: 0, compiling.EMITTERS: True}
    monkeypatch.setattr(compiling, "compiler_options", lambda quick: settings_of_xla)
    runtime = make_runtime(resolve({}, [*SMALL, *settings]))
    before = jax.tree.map(lambda x: np.array(x[0, 0]), runtime.init().agents.params)
    *_, (state, _) = runtime.advance(runtime.init(), 0)
    runtime.close()
    return before, jax.tree.map(lambda x: np.array(x[0, 0]), state.agents.params)


@pytest.mark.training
@pytest.mark.parametrize("case", CASES)
def test_an_agents_numbers_are_its_own(case, monkeypatch):
    before, after = trained_with(1, CASES[case], monkeypatch)
    _, same = trained_with(3, CASES[case], monkeypatch)
    jax.tree.map(np.testing.assert_array_equal, after, same)
    changes = jax.tree.map(lambda x, y: np.abs(x - y).max(), before, after)
    assert max(jax.tree.leaves(changes)) > 1e-4
