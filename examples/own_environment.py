"""Four masses, each agent with its own: one policy for all, one for each, and one that sees everybody's steps.

Trains on PointMass of examples/point-mass and prints, for each strategy, the mean return of its policy (of local
learning: of each agent's own) in each agent's environment; with a budget of 2, for example,

    strategy     mass 0.5    mass 1    mass 2    mass 4
    fedavg          -97.4    -133.8    -182.2    -253.4
    local           -91.9    -133.3    -200.0    -248.4
    central         -93.4    -128.6    -177.2    -249.2

An argument is the budget in rounds; without one, a strategy takes about a minute.
"""

import sys
from pathlib import Path

import fedrax

EXPERIMENT = Path(__file__).parent / "point-mass" / "experiment.toml"
MASSES = (0.5, 1.0, 2.0, 4.0)


def main(rounds: int | None) -> None:
    """Trains the three and prints the table."""
    budget = [] if rounds is None else [f"budget.rounds={rounds}", "budget.steps_per_agent=none"]
    settings = [f"environment.heterogeneity.mass={list(MASSES)}", "evaluation.environments=own", *budget]
    print("strategy  ", "".join(f"{f'mass {mass:g}':>10}" for mass in MASSES))
    for strategy in ("fedavg", "local", "central"):
        run = fedrax.train(EXPERIMENT, [f"strategy={strategy}", *settings], progress=False)
        returns = run.evaluate(episodes=20)[0].returns.mean(-1)
        print(f"{strategy:10}", "".join(f"{value:10.1f}" for value in returns))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
