"""What encodings leave out is sent later: on a problem where that decides, and at its edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedrax.compression.base import compressions, no_residual, with_feedback

OWN, SHARED = jax.random.key(1), jax.random.key(2)
TERMS = jnp.array([[-3.0, 2.0, 2.0], [2.0, -3.0, 2.0], [2.0, 2.0, -3.0]])


def distance(name, steps=300, rate=0.05, **options):
    """|x| after gradient descent of three agents on the mean of <a_i, x>^2 + |x|^2 / 4, from (1, 1, 1)."""
    compression = compressions.build(name, {"share": 1 / 3, **options} if name != "int8" else options)

    def step(carry, number):
        x, residuals = carry
        shared = jax.random.fold_in(SHARED, number)

        def agent(term, residual, own):
            gradient = 2 * (term @ x) * term + x / 2
            if not compression.remembers:
                return compression.decode(compression.encode(gradient, own, shared), gradient, shared), residual
            encoded, residual = with_feedback(compression, gradient, residual, jnp.asarray(True), own, shared)
            return compression.decode(encoded, gradient, shared), residual

        sent, residuals = jax.vmap(agent)(TERMS, residuals, jax.random.split(jax.random.fold_in(OWN, number), 3))
        return (x - rate * sent.mean(0), residuals), None

    start = (jnp.ones(3), jnp.zeros((3, 3)))
    (x, _), _ = jax.jit(lambda start: jax.lax.scan(step, start, jnp.arange(steps)))(start)
    return float(jnp.linalg.norm(x))


def test_the_largest_alone_diverge_and_with_feedback_converge():
    """Beznosikov et al., On biased compression for distributed learning, JMLR 2023, example 1: each agent's largest
    component points the wrong way, and x grows by 1 + 11 rate / 6 in every step."""
    assert distance("top-k", steps=20, error_feedback=False) == pytest.approx(
        np.sqrt(3) * (1 + 11 / 6 * 0.05) ** 20, rel=1e-3
    )
    assert distance("top-k") < 1e-3


def test_random_components_with_feedback_converge_and_so_does_int8():
    assert distance("random-k", steps=1500, rate=0.01, error_feedback=True) < 1e-3
    assert distance("int8", error_feedback=True) < 1e-3


def test_all_that_is_left_out_arrives_in_the_end():
    """The sum of what was sent is the sum of the updates, but for the last residual."""
    compression = compressions.build("top-k", {"share": 0.1})
    updates = jax.random.normal(OWN, (50, 40))
    residual, total = jnp.zeros(40), jnp.zeros(40)
    for update in updates:
        encoded, residual = with_feedback(compression, update, residual, True, OWN, SHARED)
        total += compression.decode(encoded, update, SHARED)
    np.testing.assert_allclose(total + residual, updates.sum(0), atol=1e-4)
    assert jnp.abs(residual).max() < 8, "small numbers are not put off for ever"


def test_what_int8_leaves_out_stays_below_a_126th_of_the_largest():
    compression = compressions.build("int8", {"error_feedback": True})

    def step(residual, key):
        update = jax.random.uniform(key, (200,), minval=-1.0, maxval=1.0)
        residual = with_feedback(compression, update, residual, True, key, SHARED)[1]
        return residual, jnp.abs(residual).max()

    _, sizes = jax.lax.scan(step, jnp.zeros(200), jax.random.split(OWN, 500))
    assert 0 < sizes.max() <= 1 / 126 * 1.0001


def test_an_array_that_does_not_travel_keeps_its_residual():
    compression = compressions.build("float16", {"error_feedback": True})
    update = {"a": jnp.full(3, 1 / 3), "b": jnp.full(3, 1 / 3), "count": jnp.arange(2)}
    residual = no_residual(update)
    residual["b"] += 0.25
    travels = {"a": jnp.asarray(True), "b": jnp.asarray(False), "count": None}
    encoded, after = with_feedback(compression, update, residual, travels, OWN, SHARED)
    np.testing.assert_array_equal(after["a"], update["a"] - encoded["a"].astype(jnp.float32))
    assert np.any(after["a"])
    np.testing.assert_array_equal(after["b"], 0.25)
    assert after["count"] is None
    np.testing.assert_array_equal(encoded["count"], [0, 1])


@pytest.mark.parametrize("name", ["float16", "int8", "top-k", "random-k"])
def test_an_update_that_is_not_finite_leaves_the_residual_as_it_was(name):
    compression = compressions.build(name, {"error_feedback": True})
    residual = jnp.full(30, 0.5)
    _, after = with_feedback(compression, jnp.ones(30).at[4].set(jnp.nan), residual, True, OWN, SHARED)
    np.testing.assert_array_equal(after, residual)
