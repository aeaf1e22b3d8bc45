"""A strategy of one's own: federated averaging that brings a new policy in slowly, by half of what averaging would.

Prints its final return beside that of plain averaging; with a budget of 2, for example,

    fedavg         return 347.7
    slow-average   return 207.3

As a plugin it works on the command line too:

    fedrax train fedppo/cartpole plugins='["examples/own_strategy.py"]' strategy=slow-average strategy.share=0.5

An argument is the budget in rounds; without one, a strategy takes about a minute.
"""

import sys

import equinox as eqx
import jax

import fedrax
from fedrax.registry import option
from fedrax.strategies.base import strategies
from fedrax.strategies.fedavg import FedAvg


@strategies.register("slow-average")
class SlowAverage(FedAvg):
    """Federated averaging whose server moves by a share of each change."""

    share: float = option(0.5, "share of the averaged change that the server takes over", minimum=0, maximum=1)

    def combine(self, learner, server, downlink, messages, weights, tools):
        """The server between where it was and where averaging would bring it."""
        averaged, verdict = super().combine(learner, server, downlink, messages, weights, tools)
        arrays, rest = eqx.partition(averaged.params, eqx.is_inexact_array)
        former = eqx.filter(server.params, eqx.is_inexact_array)
        moved = jax.tree.map(lambda new, old: old + self.share * (new - old), arrays, former)
        return eqx.tree_at(lambda s: s.params, averaged, eqx.combine(moved, rest)), verdict


def main(rounds: int | None) -> None:
    """Trains both and prints their returns."""
    budget = [] if rounds is None else [f"budget.rounds={rounds}", "budget.steps_per_agent=none"]
    for strategy in ("fedavg", "slow-average"):
        run = fedrax.train("fedppo/cartpole", [f"strategy={strategy}", *budget], progress=False)
        print(f"{strategy:14} return {run.summary()['final_return']:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
