"""FedPer (Arivazhagan et al., 2019): the body of the networks is averaged, every agent keeps a head of its own."""

from __future__ import annotations

from fedrax.errors import FedraxError
from fedrax.learners.base import Learner
from fedrax.registry import option
from fedrax.strategies.base import strategies
from fedrax.strategies.fedavg import FedAvg

BODY = ("torso",)


@strategies.register("fedper")
class FedPer(FedAvg):
    """Federated averaging of PPO's torso; its actor and critic stay with each agent.

    Every agent has a policy of its own, which is what is evaluated. Where the networks have other parts, say which are
    the body: ``strategy.average=["features"]`` for TD3, whose actor has no part in common with others then.
    """

    average: tuple[str, ...] = option(BODY, "parts of the networks to average: the body")

    def check(self, learner: Learner) -> None:
        """Raises :class:`FedraxError` for a learner whose body is another than PPO's and not named."""
        super().check(learner)
        if self.average != BODY or learner.body == BODY:
            return
        if not learner.body:
            raise FedraxError(
                f"strategy {self.name!r} needs networks of named parts, and learner {learner.name!r} has none; set "
                "another learner, or strategy=fedavg"
            )
        names = ", ".join(f'"{part}"' for part in learner.body)
        raise FedraxError(
            f"strategy {self.name!r} averages PPO's torso unless told otherwise; for learner {learner.name!r} set "
            f"strategy.average='[{names}]'"
        )
