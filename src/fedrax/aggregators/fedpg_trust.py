"""FedPG-BR's filter, and a gradient of the server's own for what no distance can tell."""

from __future__ import annotations

from jaxtyping import Array, Float

from fedrax.aggregators.base import Aggregate, aggregators
from fedrax.aggregators.fedpg_filter import Choice, NearMajority
from fedrax.aggregators.server_gradient import ServerGradientRule, trusted


@aggregators.register("fedpg-trust")
class FedPGTrust(NearMajority, ServerGradientRule):
    """FLTrust (Cao et al., NDSS 2021) among the gradients that FedPG-BR's filter (Fan et al., NeurIPS 2021) accepts.

    The two see different things. A gradient that is far from the others is left out by the filter, also when its
    cosine with the server's noisy own happens to be positive. Where gradients are shorter than the radii, the filter
    accepts the opposite of one like any other, and its cosine gives it away. Those whose cosine is positive count by
    it, all with the length of the server's own gradient; nobody is accepted where it is positive for none.
    """

    def combined(self, vectors: Float[Array, "n d"], choice: Choice) -> Aggregate:
        """The accepted, weighed by their cosines with the server's gradient; ``trust_median`` joins the metrics."""
        return trusted(vectors, choice.present, choice.accepted, self.known.vector, choice.metrics)
