"""Methods by attacks: a LaTeX table of final returns on CartPole, three of ten agents Byzantine, five seeds of each.

Prints a row for each method; with a budget of 2, for example,

    svrpg & 9 [9, 13] & 9 [9, 11] & 9 [9, 11] \\\\

with the interquartile mean over seeds and its 95 % interval by a bootstrap over seeds. An argument is the budget in
rounds; without one, a cell takes one or two minutes.
"""

import sys

import fedrax
from fedrax.evaluation.statistics import iqm, stratified_bootstrap

METHODS = {
    "fedpg-br": ["strategy=fedpg-br"],
    "svrpg": ["strategy=svrpg"],
    "gpomdp, median": ["strategy=gpomdp", "aggregator=median"],
}
ATTACKS = ("none", "random-noise", "sign-flipping")


def cell(settings: list[str], attack: str, rounds: int | None) -> str:
    """Trains five seeds in one program, and says what their final returns are."""
    budget = [] if rounds is None else [f"budget.rounds={rounds}", "budget.trajectories=none"]
    lying = [] if attack == "none" else [f"attack={attack}", "attack.agents=3"]
    run = fedrax.train("fedpg-br/cartpole", [*settings, *lying, *budget], seeds=5, progress=False)
    returns = run.summary()["final_return"]
    low, high = stratified_bootstrap(returns, iqm)
    return f"{float(iqm(returns)):.0f} [{float(low):.0f}, {float(high):.0f}]"


def main(rounds: int | None) -> None:
    """Prints the table, row by row."""
    print(r"\begin{tabular}{l" + "r" * len(ATTACKS) + "}")
    print(" & ".join(["method", *ATTACKS]), r"\\ \hline")
    for method, settings in METHODS.items():
        print(" & ".join([method, *(cell(settings, attack, rounds) for attack in ATTACKS)]), r"\\")
    print(r"\end{tabular}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
