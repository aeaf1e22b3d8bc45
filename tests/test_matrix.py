"""Every learner, strategy, rule and attack together: one round works, or the combination is refused in one line."""

import contextlib
import dataclasses
import itertools
import re
import zlib
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from fedrax.aggregators.base import aggregators, preaggregators
from fedrax.attacks.base import Knowledge, attacks
from fedrax.compatibility import check_components
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.federation import Cohort
from fedrax.learners.base import learners
from fedrax.runtime.make import make_runtime
from fedrax.strategies.base import strategies
from pairs import overrides_of
from shipped import shipped

AGENTS = 12
EVERYWHERE = [f"federation.agents={AGENTS}", "environment.num_envs=2", "environment.horizon=4", "budget.rounds=1"]
TRACED, COMPUTED = 32, 20
"""One combination in so many is traced whole, and of what is traced one in so many is computed."""


def pair(learner, strategy):
    """The simulation of a learner and a strategy, small; raises FedraxError where they do not go together."""
    return make_runtime(resolve({}, [*EVERYWHERE, *overrides_of(learner, strategy)]))


def check_refusal(error, *names):
    text = str(error)
    assert "\n" not in text
    assert any(name in text for name in names), text


def chosen(share, *names):
    """One combination in ``share``, always the same."""
    return zlib.crc32(" ".join(names).encode()) % share == 0


def combined(federation, rule, mixing, attack):
    """The federation with these, or FedraxError."""
    attack = attacks.build(attack, {} if attack == "none" else {"agents": 2})
    mixing = preaggregators.build(mixing, {})
    rule = aggregators.build(rule, {"tolerated": attack.agents})
    check_components(
        federation.learner,
        federation.strategy,
        rule,
        mixing,
        attack,
        federation.protection,
        agents=federation.sites,
        participants=federation.participants,
        local_updates=federation.local_updates,
    )
    return dataclasses.replace(federation, aggregator=rule, preaggregator=mixing, attack=attack)


def check_attack_on_messages(federation, messages, key):
    """What an attack makes of messages has their shapes."""
    byzantine = jnp.arange(federation.agents) < 2
    knowledge = Knowledge(lambda vectors: vectors.mean(0))
    after = jax.eval_shape(lambda sent: federation.attack.applied(sent, byzantine, key, knowledge), messages)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), messages)


def traced_with_numbers(function, federation, *inputs):
    """Shapes of a function of a federation, whose numbers are a program's arguments: no branch may look at them."""
    numbers, constants = eqx.partition(federation, lambda leaf: isinstance(leaf, (int, float)))
    return jax.eval_shape(lambda numbers, *inputs: function(eqx.combine(numbers, constants), *inputs), numbers, *inputs)


def round_of(runtime, federation, *inputs):
    runtime._learn_from(federation)
    return runtime._rounds(*inputs)


def exchanged(runtime, federation, server, downlink, messages, key):
    cohort = Cohort(jnp.arange(federation.agents), jnp.arange(federation.agents) < 2, jnp.ones(federation.agents, bool))
    reference = None
    if federation.aggregator.needs_server_gradient:
        runtime.federation = federation
        reference = runtime._reference(server, downlink, key)
    return federation.exchange(server, downlink, cohort, messages, key, jnp.asarray(0), reference)


@pytest.mark.parametrize("strategy", shipped(strategies))
@pytest.mark.parametrize("learner", shipped(learners))
def test_every_combination_works_or_is_refused_in_one_line(learner, strategy):
    """Every combination is checked, and an eighth of the pairs' rounds is traced, the others' among the trainings. What
    an attack makes of messages has their shapes, and what it does in an agent's environment is the same under every
    strategy: so attacks and rules are traced one by one, each with some pairs, and a part of their products."""
    traced = chosen(8, learner, strategy)
    check_pair(learner, strategy, rules=5, products=5 * TRACED, acting=("ppo", "td3"), traced=traced)


def federation_of(strategy):
    """With some learner that it goes with."""
    for learner in shipped(learners):
        with contextlib.suppress(FedraxError):
            return pair(learner, strategy).federation
    raise AssertionError(strategy)


@pytest.mark.parametrize("strategy", shipped(strategies))
def test_what_the_refusal_of_a_rule_tells_to_set_is_allowed(strategy):
    federation, told = federation_of(strategy), set()
    for rule in shipped(aggregators):
        try:
            combined(federation, rule, "none", "none")
        except FedraxError as error:
            words = set(re.split(r"[ ,()=;]+", str(error).partition("; set ")[2]))
            told |= {(other, strategy) for other in words & set(shipped(aggregators))}
            told |= {(rule, other) for other in words & set(shipped(strategies))}
    assert told or not (federation.strategy.weighs or federation.strategy.shows_peers)
    for rule, other in sorted(told):
        assert combined(federation_of(other), rule, "none", "none")


def all_pairs():
    """Every learner with every strategy; a third of the pairs, with each of both among them, are not slow."""
    for (row, learner), (column, strategy) in itertools.product(
        enumerate(shipped(learners)), enumerate(shipped(strategies))
    ):
        yield pytest.param(learner, strategy, marks=[pytest.mark.slow] if (row + column) % 3 else [])


@pytest.mark.training
@pytest.mark.parametrize(("learner", "strategy"), list(all_pairs()))
def test_every_rule_with_every_pair_and_more_of_the_products(learner, strategy):
    check_pair(learner, strategy, rules=1, products=TRACED, acting=shipped(learners))


def check_pair(learner, strategy, *, rules, products, acting, traced=True):
    """One rule in ``rules`` and one product in so many are traced; attacks on environments with learners ``acting``."""
    try:
        runtime = pair(learner, strategy)
        fresh = runtime.shapes() if traced else None
    except FedraxError as error:
        check_refusal(error, strategy, "strategy.average")
        return
    federation, key = runtime.federation, jax.random.key(0)
    # The agents' half, and the whole round without an attack.
    for name in shipped(attacks):
        attack = attacks.build(name, {} if name == "none" else {"agents": 2})
        if traced and not attack.on_messages and (name == "none" or (strategy == "fedavg" and learner in acting)):
            runtime.federation = dataclasses.replace(federation, attack=attack)
            after, _ = traced_with_numbers(partial(round_of, runtime), runtime.federation, fresh, jnp.asarray(0))
            assert jax.tree.structure(after) == jax.tree.structure(fresh)
    if not federation.strategy.sends:
        return
    # The server's half.
    if traced:
        state = jax.jit(federation.init)(key)
        downlink = federation.strategy.broadcast(state.server, key)
        shapes, _ = federation.shapes()
        messages = jax.tree.map(lambda x: jnp.ones((AGENTS, *x.shape), x.dtype), shapes)
    ran = 0
    for rule, mixing, attack in itertools.product(shipped(aggregators), shipped(preaggregators), shipped(attacks)):
        try:
            together = combined(federation, rule, mixing, attack)
        except FedraxError as error:
            check_refusal(error, rule, mixing, attack)
            continue
        ran += 1
        if not traced:
            continue
        names = (learner, strategy, rule, mixing, attack)
        if (rule, mixing) == ("mean", "none"):
            check_attack_on_messages(together, messages, key)
        share = rules if (attack, mixing) == ("none", "none") else products * (1 if mixing == "none" else 10)
        if not chosen(share, *names):
            continue
        half, arguments = partial(exchanged, runtime), (together, state.server, downlink, messages, key)
        computed = chosen(COMPUTED, "computed", *names)
        after, _ = half(*arguments) if computed else traced_with_numbers(half, *arguments)
        assert jax.tree.structure(after) == jax.tree.structure(state.server)
        assert [x.shape for x in jax.tree.leaves(after)] == [x.shape for x in jax.tree.leaves(state.server)]
    # A strategy that weighs agents goes with the few rules that heed weights, one that averages nothing with those that
    # reject.
    assert ran > (30 if federation.strategy.weighs or federation.strategy.shows_peers else 400)
