"""Networks: small Equinox modules whose leaves are all arrays, so a module is its own parameter pytree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from fedrax.environments.base import Box, Observation
from fedrax.learners.distributions import Distribution

Activation = Literal["relu", "tanh", "linear"]
Initialisation = Literal["uniform", "orthogonal", "fan-in", "lecun", "xavier", "rlkit"]


def activate(name: Activation, x: Array) -> Array:
    """The activation function ``name`` applied to ``x``."""
    functions: dict[str, Callable[[Array], Array]] = {"relu": jax.nn.relu, "tanh": jnp.tanh, "linear": lambda y: y}
    return functions[name](x)


class Dense(eqx.Module):
    """An affine map over the last axis: ``[..., in] -> [..., out]``.

    Weights are stored by input, ``[in, out]``, or by output, ``[out, in]``: that way round, a CPU computes the
    gradient of a wide layer on many rows in two thirds of the time, and takes longer to map few rows.
    """

    weight: Float[Array, "rows columns"]
    bias: Float[Array, " out"] | None
    by_output: bool = eqx.field(static=True, default=False)

    def __call__(self, x: Float[Array, "... in"]) -> Float[Array, "... out"]:
        """Applies the map."""
        y = jax.lax.dot_general(x, self.weight, (((x.ndim - 1,), (1 if self.by_output else 0,)), ((), ())))
        return y if self.bias is None else y + self.bias


def make_dense(
    key: PRNGKeyArray,
    inputs: int,
    outputs: int,
    initialisation: Initialisation,
    *,
    gain: float = 2**0.5,
    bias: bool = True,
    by_output: bool = False,
) -> Dense:
    """A fresh layer.

    ``uniform`` is the FedPG-BR reference's distribution: weights U(+-1/sqrt(in)), biases U(+-1/sqrt(out)). ``fan-in``
    is PyTorch's default: both U(+-1/sqrt(in)). ``orthogonal`` takes ``gain`` and zero biases (Saxe et al., 2014).
    ``lecun`` is Flax's default, normal numbers of variance 1/in, cut off at two deviations, with zero biases.
    ``xavier`` is U(+-sqrt(6 / (in + out))) with zero biases (Glorot and Bengio, 2010). ``rlkit`` is what rlkit gives
    hidden layers, U(+-1/sqrt(out)) with zero biases: it takes the outputs of PyTorch's weights for their inputs.
    """
    weight_key, bias_key = jax.random.split(key)
    bounds = {"xavier": (6 / (inputs + outputs)) ** 0.5, "rlkit": outputs**-0.5}
    if initialisation == "orthogonal":
        weight = gain * orthogonal(weight_key, inputs, outputs)
        offsets = jnp.zeros(outputs)
    elif initialisation == "lecun":
        weight = jax.nn.initializers.lecun_normal()(weight_key, (inputs, outputs))
        offsets = jnp.zeros(outputs)
    elif initialisation in bounds:
        bound = bounds[initialisation]
        weight = jax.random.uniform(weight_key, (inputs, outputs), minval=-bound, maxval=bound)
        offsets = jnp.zeros(outputs)
    else:
        numbers = outputs if initialisation == "uniform" else inputs
        weight = jax.random.uniform(weight_key, (inputs, outputs), minval=-1, maxval=1) / inputs**0.5
        offsets = jax.random.uniform(bias_key, (outputs,), minval=-1, maxval=1) / numbers**0.5
    return Dense(weight.T if by_output else weight, offsets if bias else None, by_output)


def by_input(network: PyTree) -> PyTree:
    """The same network with every layer's weights by input, for a loop that maps few rows at a time.

    The transposed weights are kept from the compiler, which would otherwise transpose them in every step again.
    """

    def turned(layer: Any) -> Any:
        if not (isinstance(layer, Dense) and layer.by_output):
            return layer
        return Dense(jax.lax.optimization_barrier(layer.weight.T), layer.bias)

    return jax.tree.map(turned, network, is_leaf=lambda part: isinstance(part, Dense))


def orthogonal(key: PRNGKeyArray, rows: int, columns: int) -> Float[Array, "rows columns"]:
    """A uniformly random matrix with orthonormal rows or columns, whichever are fewer (Saxe et al., 2014).

    The Q of a Gaussian matrix's QR decomposition with positive diagonal, by Gram and Schmidt's method, each column
    done twice for precision. JAX's own decomposition, mapped over agents, waits in a thread of XLA's pool for other
    threads of the pool: with two cores, two layers at once wait for ever (jaxlib 0.10.2).
    """
    longer, fewer = max(rows, columns), min(rows, columns)
    basis = gram_schmidt(jax.random.normal(key, (longer, fewer)))
    return basis if rows >= columns else basis.T


@jax.jit
def gram_schmidt(matrix: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """Orthonormal columns that span the same spaces as the first 1, 2, ... k; 0 for a column that adds nothing."""
    places = jnp.arange(matrix.shape[1])

    def settle(place: Array, basis: Array) -> Array:
        column = basis[:, place]
        length = jnp.linalg.norm(column)
        for _ in range(2):
            column = column - basis @ jnp.where(places < place, column @ basis, 0.0)
        left = jnp.linalg.norm(column)
        return basis.at[:, place].set(jnp.where(left > 1e-6 * length, column / left, 0.0))

    return jax.lax.fori_loop(0, matrix.shape[1], settle, matrix)


class Policy(eqx.Module):
    """What a learner's ``act`` and ``loss`` need of a policy network."""

    def __call__(self, observation: Observation) -> Distribution:
        """The action distribution for observations, leaves ``[..., *o]``."""
        raise NotImplementedError


def flat_size(box: Box) -> int:
    """Numbers in one element of ``box``."""
    size = 1
    for length in box.shape:
        size *= length
    return size
