"""What privacy costs: a hundred agents on CartPole, with no noise and with noise for three bounds on epsilon.

One episode of one agent is protected (``privacy.unit=trajectory``), and the server adds the noise. Prints the final
return and the guarantee of each; with a budget of 60 it begins, for example,

    no noise     return   195.1   no guarantee
    epsilon 8    return   200.0   epsilon 8 (delta 1e-05) per trajectory (replace-one), central: ...

An argument is the budget in rounds; without one, a run takes about a minute.
"""

import sys

import fedrax

BASE = [
    *("strategy=gpomdp", "federation.agents=100", "environment.horizon=200", "evaluation.horizon=200"),
    *("learner.normalisation=trajectories", "learner.baseline=none", "learner.learning_rate=0.01"),
]


def main(rounds: int | None) -> None:
    """Trains each and prints its line."""
    budget = [f"budget.rounds={100 if rounds is None else rounds}", "budget.trajectories=none"]
    for epsilon in (None, 8, 4, 1):
        private = [] if epsilon is None else ["privacy.unit=trajectory", "privacy.clip=1", f"privacy.epsilon={epsilon}"]
        run = fedrax.train("fedpg-br/cartpole", [*BASE, *private, *budget], progress=False)
        summary = run.summary()
        said = summary["privacy"]["text"] if "privacy" in summary else "no guarantee"
        name = "no noise" if epsilon is None else f"epsilon {epsilon}"
        print(f"{name:12} return {summary['final_return']:7.1f}   {said}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
