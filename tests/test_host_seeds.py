"""Several seeds on host environments: one program, in turn, over the memory of replays that nobody needs any more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faulty_runs import HOST, configured, equal, plain
from fedrax.runtime.make import make_runtime

SAC = [
    *("learner.kind=sac-discrete", "learner.num_steps=3", "learner.batch_size=4", "learner.learning_starts=4"),
    *("learner.buffer_size=40", *(f"learner.{part}_layers=[4]" for part in ("actor", "feature", "head"))),
    *("checkpoint.every=3", "evaluation.every=3"),
]
SOME = "federation.participation=0.67"
CHANCE = (SOME, "federation.sampling=poisson")
CASES = {"everyone": [], "in two groups": ["runtime.agents_per_batch=2"], "some": [SOME], "by chance": CHANCE}


def calls(*overrides, number=1, state=None, first=0):
    """What so many calls yield, and the last states, of a runtime that is then closed.

    A third of all episodes have a reward that is not finite, for which an agent's round is lost.
    """
    runtime = make_runtime(configured(*HOST, *SAC, "environment.id=TestSeldom-v0", *overrides))
    state = runtime.init() if state is None else state
    yielded = []
    for _ in range(number):
        yielded.append(list(runtime.advance(state, first)))
        state, first = yielded[-1][-1][0], runtime.until(first)
    runtime.close()
    return yielded, state


def metrics(yielded):
    """Every round's, ``[seeds, rounds, ...]``, but for seconds."""
    rows = [row for call in yielded for _, row in call]
    return {name: np.concatenate([row[name] for row in rows], 1) for name in rows[0] if name != "seconds"}


def of_seed(tree, position):
    return jax.tree.map(lambda x: x[position], tree)


@pytest.mark.training
@pytest.mark.parametrize("case", CASES)
def test_every_seed_is_as_if_alone(case):
    yielded, state = calls(*CASES[case], "seed=3", "seeds=3", number=2)
    assert metrics(yielded)["dropped"].any(), "as is to be tested"
    own, alone = calls(*CASES[case], "seed=4", number=2)
    assert equal(of_seed(plain(state), 1), of_seed(plain(alone), 0))
    assert equal(of_seed(metrics(yielded), 1), of_seed(metrics(own), 0))


@pytest.mark.training
def test_states_come_with_the_last_rounds_metrics():
    """A state that is looked at must outlive the rounds after it: copies of whole replays."""
    yielded, _ = calls("seed=3", "seeds=2", number=2)
    for call in yielded:
        assert [state is None for state, _ in call] == [True, True, False]
        assert call[-1][0].tally.rounds.shape == (2,)


@pytest.mark.training
def test_states_come_with_the_last_rounds_that_a_budget_allows():
    """Seeds whose agents take part by chance have used up a budget of steps after different rounds."""
    settings = (*CHANCE, "budget.steps=40", "checkpoint.every=20", "evaluation.every=20", "seed=3")
    (yielded,), state = calls(*settings, "seeds=4")
    rounds = state.tally.rounds.tolist()
    assert len(set(rounds)) > 1, "as is to be tested"
    assert max(rounds) == len(yielded) < 20
    assert [after is None for after, _ in yielded] == [True] * (len(yielded) - 1) + [False]
    active = metrics([yielded])["active"]
    assert active.tolist() == [[number < own for number in range(len(yielded))] for own in rounds]
    shortest = rounds.index(min(rounds))
    _, alone = calls(*settings[:-1], f"seed={3 + shortest}")
    assert equal(of_seed(plain(state), shortest), of_seed(plain(alone), 0))


@pytest.mark.training
def test_a_seed_that_is_ahead_waits_for_the_others():
    _, behind = calls("seed=3", number=1)
    _, ahead = calls("seed=4", number=2)
    together = jax.tree.map(lambda *x: jnp.concatenate(x), behind, ahead)
    (first, second), state = calls("seed=3", "seeds=2", number=2, state=together, first=3)
    assert metrics([first])["active"].tolist() == [[True] * 3, [False] * 3]
    assert metrics([second])["active"].all()
    for position, seed in enumerate((3, 4)):
        _, alone = calls(f"seed={seed}", number=3)
        assert equal(of_seed(plain(state), position), of_seed(plain(alone), 0))


@pytest.mark.training
def test_replays_stay_where_they_are():
    """Two memories take turns; a third would be written for the first time, which takes several times as long."""
    every = ["checkpoint.every=12", "evaluation.every=12"]
    runtime = make_runtime(configured(*HOST, *SAC, "environment.id=TestSound-v0", *every))
    seen, real = [], runtime.programs.put

    def put(agents, ids, rows):
        after = real(agents, ids, rows)
        seen.append({leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(after.memory) if leaf.size > 100})
        return after

    runtime.programs.put = put
    list(runtime.advance(runtime.init(), 0))
    runtime.close()
    assert len(seen) == 12
    assert len(set.union(*seen[2:])) <= 2 * len(seen[0])
