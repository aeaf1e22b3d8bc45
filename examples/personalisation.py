"""A policy for each agent: poles that differ, learned alone, with neighbours, and in part together.

Prints, for each strategy, the mean return of agents' policies in their own environment and in the others'; with a
budget of 2, for example,

    strategy         own    others
    local          303.4     295.3
    neighbours     333.9     316.6
    fedper         319.9     310.4

An argument is the budget in rounds; without one, a strategy takes about a minute.
"""

import sys

import fedrax

STRATEGIES = ("local", "neighbours", "fedper")


def main(rounds: int | None) -> None:
    """Trains each and prints the table."""
    budget = [] if rounds is None else [f"budget.rounds={rounds}", "budget.steps_per_agent=none"]
    print(f"{'strategy':12}{'own':>8}{'others':>10}")
    for strategy in STRATEGIES:
        settings = [f"strategy={strategy}", "evaluation.environments=all", *budget]
        run = fedrax.train("fedppo/cartpole", settings, progress=False)
        # [policy, environment]: agent k's policy is at home in environment k.
        returns = run.evaluate_across(episodes=20)[0].returns.mean(-1)
        own = returns.diagonal().mean()
        others = (returns.sum() - returns.trace()) / (returns.size - len(returns))
        print(f"{strategy:12}{own:8.1f}{others:10.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
