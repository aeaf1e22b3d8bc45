"""Numbers of docs/claims.md are those of the recorded results."""

import json
import statistics
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
CLAIMS = (PROJECT / "docs" / "claims.md").read_text()


def row(*words):
    """The line of a claim that says all of these words."""
    (found,) = [line for line in CLAIMS.splitlines() if line.startswith("| ") and all(word in line for word in words)]
    return found


def recorded(name):
    return json.loads((PROJECT / "benchmarks" / "results" / f"{name}.json").read_text())["results"]


def steps(name, setup, agents="all"):
    """Steps until the threshold, of each seed, in millions as the page has them."""
    (found,) = [each for each in recorded(f"fedppo_{name}") if each["setup"] == setup]
    return [each / 1e6 for each in found[agents]["steps_per_agent_to_threshold"]]


def told(values):
    return f"{statistics.median(values):.2f}M"


def between(values):
    return f"{min(values):.2f}M to {max(values):.2f}M"


def test_linked_agents_and_agents_alone():
    linked, beside = (steps("simple-crossing", "mdpo", agents) for agents in ("pair", "solo"))
    line = row("learn sooner than one alone", "SimpleCrossing")
    assert f"{told(linked)} steps (median of ten seeds, {between(linked)})" in line
    assert f"{told(beside)} beside them (ten, {between(beside)})" in line
    first, second, third = sorted(steps("simple-crossing", "local", "pair"))
    assert f"{first:.2f}M, {second:.2f}M and {third:.2f}M (three seeds)" in line
    linked, alone = steps("lava-crossing", "mdpo"), steps("lava-crossing", "local")
    line = row("the same: LavaCrossing")
    assert f"linked {told(linked)} (median of five seeds, {between(linked)}), alone {told(alone)} (one seed)" in line
    assert (len(linked), len(alone), sum(each > alone[0] for each in linked)) == (5, 1, 4)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("simple-crossing", "SimpleCrossing"),
        ("doorkey", "DoorKey"),
        ("distshift", "DistShift2"),
        ("lava-crossing", "LavaCrossing"),
    ],
)
def test_averaging_and_the_divergence(name, shown):
    agents = "pair" if name == "simple-crossing" else "all"
    averaged, divergence = (steps(name, setup, agents) for setup in ("fedavg", "mdpo"))
    words = {1: "one", 3: "three", 4: "four", 5: "five", 10: "ten"}
    said = " and ".join(
        f"{told(each)} ({words[len(each)]}{' seeds' * (each is averaged and name == 'simple-crossing')})"
        for each in (averaged, divergence)
    )
    assert f"{shown} {said}" in row("A divergence from neighbours")
    assert told(averaged) <= told(divergence)


def test_gradient_steps_of_the_pendulums():
    costs = {
        name: each["costs"]["gradient_steps"] for name, each in recorded("fedtd3_pendulum_preset")["table"].items()
    }
    line = row("SCCD is better than FedAvg")
    assert f"{costs.pop('sccd'):,} against {costs['fedavg']:,} of each of the others" in line
    assert len(set(costs.values())) == 1


ATTACKS = {
    "random-noise": "random noise",
    "random-action": "random action",
    "sign-flipping": "sign flipping",
    "fedscspg": "collusion",
    "alie": "ALIE",
    "none": "none",
}
RULES = {
    "fedpg-trust": "filter with FLTrust",
    "fedpg-br": "filter",
    "fedpg-br calibrated": "filter, sigma estimated",
    "fedpg-br clipped": "filter, clipped",
    "fltrust": "FLTrust",
    "zeno": "Zeno",
    "svrpg": "none (SVRPG)",
}


def test_the_lander_under_attack():
    table = recorded("fedpg_br_attacks_lunarlander")["table"]

    def at_the_end(rule, attack):
        return f"{table[f'{rule} | {attack}']['mean_return']['7500']:.0f}"

    def recall(rule):
        return f"{table[f'{rule} | sign-flipping']['recall']:.2f}".removeprefix("0")

    line = row("The server's own gradient finds them")
    assert f"recall {recall('fedpg-trust')} where FedPG-BR's filter has {recall('fedpg-br')}" in line
    ends = [at_the_end("fedpg-trust", attack) for attack in ("random-action", "sign-flipping", "fedscspg", "alie")]
    assert "random action {}, sign flipping {}, collusion {}, ALIE {}".format(*ends) in line
    page = (PROJECT / "docs" / "algorithms" / "fedpg-br.md").read_text().splitlines()
    for setup, found in table.items():
        rule, attack = setup.split(" | ")
        if "7500" not in found["mean_return"]:
            continue
        start = f"| {ATTACKS[attack]} | {RULES[rule]} | {found['seeds']} |"
        (shown,) = [each for each in page if each.startswith(start)]
        assert f" {at_the_end(rule, attack)} " in shown
