"""FedPer (Arivazhagan et al., 2019): the body of the networks is averaged, every agent keeps a head of its own."""

from __future__ import annotations

from fedrax.registry import option
from fedrax.strategies.base import strategies
from fedrax.strategies.fedavg import FedAvg


@strategies.register("fedper")
class FedPer(FedAvg):
    """Federated averaging of PPO's torso; its actor and critic stay with each agent.

    Every agent has a policy of its own, which is what is evaluated. Where the networks have other parts, say which are
    the body: ``strategy.average=["features"]`` for TD3, whose actor has no part in common with others then.
    """

    average: tuple[str, ...] = option(("torso",), "parts of the networks to average: the body")
