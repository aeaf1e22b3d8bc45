"""Published figures that one command trains anew and draws beside the originals."""

from __future__ import annotations

import dataclasses

from fedrax.errors import unknown


@dataclasses.dataclass(frozen=True)
class Setup:
    """One curve of a figure."""

    label: str
    """In the legend."""
    overrides: tuple[str, ...]
    """``key=value`` on top of the experiment's preset."""
    published: str | None = None
    """The series of the published figure, where it was digitised."""
    panel: str = ""
    """The figure's panel; empty in a figure of one."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One published figure: what to train, and what to draw beside it."""

    title: str
    preset: str
    setups: tuple[Setup, ...]
    published: str | None = None
    """The figure's name in :mod:`fedrax.report.published`."""
    seeds: int = 10
    note: str = ""

    @property
    def panels(self) -> tuple[str, ...]:
        """The panels in order; one empty name in a figure without panels."""
        return tuple(dict.fromkeys(setup.panel for setup in self.setups))


METHODS = {"FedPG-BR": "fedpg-br", "SVRPG": "svrpg", "GPOMDP": "gpomdp"}
"""What the paper compares: its name -> the strategy's."""
ATTACKS = ("random-noise", "random-action", "sign-flipping")


def _speed_up(*published: str) -> tuple[Setup, ...]:
    """Figure 1: more agents against one, and the baselines alone; ``published`` undoes what FedPG-BR's preset adds."""
    federated = tuple(
        Setup(f"FedPG-BR K={agents}", (*published, f"federation.agents={agents}"), f"FedPG-BR K={agents}")
        for agents in (10, 3, 1)
    )
    return federated + tuple(
        Setup(f"{name} K=1", (f"strategy={METHODS[name]}", "federation.agents=1"), f"{name} K=1")
        for name in ("SVRPG", "GPOMDP")
    )


def _attacked(digitised: bool) -> tuple[Setup, ...]:
    """Figure 2: ten agents, three of them Byzantine, one panel per attack."""
    return tuple(
        Setup(
            name,
            (f"strategy={strategy}", "federation.agents=10", f"attack={attack}", "attack.agents=3"),
            f"{name} {attack}" if digitised else None,
            attack,
        )
        for attack in ATTACKS
        for name, strategy in METHODS.items()
    )


FIGURES: dict[str, Experiment] = {
    "fedpg-br/cartpole": Experiment(
        "FedPG-BR on CartPole (figure 1)", "fedpg-br/cartpole", _speed_up(), "fedpg-br-cartpole"
    ),
    "fedpg-br/cartpole-attacks": Experiment(
        "FedPG-BR on CartPole, 3 of 10 agents Byzantine",
        "fedpg-br/cartpole",
        _attacked(digitised=False),
        note="The paper's returns on CartPole under attack were not digitised: only ours are drawn.",
    ),
    "fedpg-br/lunarlander": Experiment(
        "FedPG-BR on LunarLander (figure 1)",
        "fedpg-br/lunarlander",
        _speed_up("strategy.filter=fedpg-filter"),
        "fedpg-br-lunarlander",
    ),
    "fedpg-br/halfcheetah": Experiment(
        "FedPG-BR on HalfCheetah (figure 1)", "fedpg-br/halfcheetah", _speed_up(), "fedpg-br-halfcheetah"
    ),
    "fedpg-br/halfcheetah-attacks": Experiment(
        "FedPG-BR on HalfCheetah, 3 of 10 agents Byzantine (figure 2)",
        "fedpg-br/halfcheetah",
        _attacked(digitised=True),
        "fedpg-br-halfcheetah-attacks",
    ),
}


def experiment(name: str) -> Experiment:
    """The experiment by name, or a :class:`fedrax.errors.FedraxError` naming the nearest one."""
    if name not in FIGURES:
        raise unknown("figure", name, FIGURES, "fedrax list")
    return FIGURES[name]
