"""The table of how often agents reach their goals."""

import pytest

from fedrax.evaluation.statistics import wilson
from fedrax.report.runs import Group, History, Run
from fedrax.report.successes import episodes_of, success_table


def trained(strategy, where, *rows, episodes=20, agents=2):
    config = {
        "strategy": {"kind": strategy},
        "learner": {"kind": "td3"},
        "evaluation": {"environments": where, "episodes": episodes, "seed": 1},
        "federation": {"agents": agents},
        "environment": {"id": "PointReach-v0", "heterogeneity": {"length": [0.5] * agents}},
    }
    histories = tuple(History(seed, ({"round": 0, **row},), 2) for seed, row in enumerate(rows))
    return Group(strategy, (Run("run", config, {}, {}, histories),))


def shown(successes, trials):
    low, high = wilson(successes, trials)
    return f"{100 * successes / trials:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


@pytest.mark.parametrize(
    ("strategy", "where", "episodes", "agents", "counted"),
    [
        ("fedavg", "all", 20, 2, 20),
        ("fedavg", "all", 21, 2, 22),
        ("local", "all", 20, 2, 40),
        ("local", "own", 20, 2, 40),
        ("local", "all", 3, 5, 15),
    ],
)
def test_episodes_are_counted_as_evaluations_spread_them(strategy, where, episodes, agents, counted):
    assert episodes_of(trained(strategy, where, episodes=episodes, agents=agents)) == counted


def test_agents_without_goals_of_their_own_count_every_episode():
    group = trained("local", "own", episodes=20)
    group.runs[0].config["environment"] |= {"goals": "none", "held_out_goals": 0}
    assert episodes_of(group) == 40


@pytest.mark.parametrize(("where", "episodes", "counted"), [("all", 20, 20), ("all", 40, 20), ("own", 20, 20)])
def test_a_goal_is_one_trial_however_often_it_is_visited(where, episodes, counted):
    """Two agents' policies at ten goals: a greedy policy does there what it did before."""
    group = trained("local", where, episodes=episodes)
    group.runs[0].config["environment"] |= {"goals": 5, "held_out_goals": 10 if where == "own" else 5}
    assert episodes_of(group) == counted


def test_seeds_are_pooled_and_every_agent_has_an_interval():
    seeds = [
        {"success": 0.75, "success_last": 0.5, "agent_success": [1.0, 0.5], "agent_success_last": [0.9, 0.1]},
        {"success": 0.25, "success_last": 0.25, "agent_success": [0.5, 0.0], "agent_success_last": [0.5, 0.0]},
    ]
    headings, lines = success_table([trained("local", "own", *seeds)])
    assert headings == ["", "success", "all episodes", "worst agent", "agent 0", "agent 1"]
    assert lines == [
        ["local", "in any step", shown(40, 80), "25", shown(30, 40), shown(10, 40)],
        ["local", "in the last step", shown(30, 80), "5", shown(28, 40), shown(2, 40)],
    ]


def test_agents_of_federations_of_other_sizes_have_their_own_episodes():
    """Divided by the agents of the largest, an agent of two had half of its episodes."""
    two = trained("local", "own", {"success": 0.5, "agent_success": [1.0, 0.0]})
    four = trained("local", "own", {"success": 0.5, "agent_success": [1.0, 0.0, 1.0, 0.0]}, agents=4)
    _, (first, second) = success_table([two, four])
    assert first[4:] == [shown(20, 20), shown(0, 20), "–", "–"]
    assert second[4:] == [shown(20, 20), shown(0, 20)] * 2


def test_only_what_environments_tell_has_a_line():
    assert success_table([trained("local", "own", {"return": 1.0})]) is None
    old = trained("local", "own", {"success": 1.0, "success_last": 1.0, "agent_success": [1.0, 1.0]})
    _, lines = success_table([old])
    assert [line[3] for line in lines] == ["100", "–"]
    registered = trained("fedavg", "registered", {"success": 0.5, "success_share": 0.25})
    headings, lines = success_table([registered])
    assert headings == ["", "success", "all episodes"]
    assert [line[1] for line in lines] == ["in any step", "share of steps"]
    assert lines[0][2] == shown(10, 20)
