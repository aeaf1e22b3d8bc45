"""Byzantine agents under protection: final return by attack, of a plain mean and of chains that clip at the server.

    python benchmarks/privacy_attacks.py

A hundred agents, ten of them Byzantine, learn CartPole as in privacy_returns.py; attackers ignore the clip of honest
agents, and the server clips again. Five seeds train in one program.
"""

from __future__ import annotations

import argparse

from privacy_returns import ends, summarised, trained

from common import read_runs, record_runs

NAME = "privacy_attacks"
BASE = ["federation.agents=100", "strategy.batch=1", "budget.rounds=25", "learner.learning_rate=0.05", *ends(25)]
UNIT = ["privacy.unit=agent", "privacy.clip=1"]
CHAINS = {
    "plain mean": [],
    "clipped": ["privacy.clip=1"],
    "clipped, central noise, epsilon 8": [*UNIT, "privacy.epsilon=8"],
    "median": ["aggregator=median"],
    "clipped, median": ["privacy.clip=1", "aggregator=median"],
    "local noise 0.1, median": [*UNIT, "privacy.model=local", "privacy.noise=0.1", "aggregator=median"],
}
ATTACKS = {
    "none": [],
    **{
        attack: [f"attack={attack}", "attack.agents=10"]
        for attack in ("random-noise", "large-noise", "sign-flipping", "alie")
    },
}


def main() -> None:
    """Every chain under every attack."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    setups = {f"{chain}; {attack}": [*BASE, *CHAINS[chain], *ATTACKS[attack]] for chain in CHAINS for attack in ATTACKS}
    for setup, overrides in setups.items():
        if setup not in read_runs(NAME):
            record_runs(NAME, setup, trained(overrides), order=list(setups), row=summarised)
            print(setup, summarised(setup, read_runs(NAME)), flush=True)


if __name__ == "__main__":
    main()
