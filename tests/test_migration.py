"""Names of earlier versions: their runs go on, and whoever writes such a name is told the present one."""

import json
import shutil
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

import fedrax
from fedrax.config import resolve
from fedrax.errors import FedraxError
from fedrax.learners.base import Agent
from fedrax.migration import KEYS, present_arrays, present_keys, present_leaf
from fedrax.records.checkpoint import load_checkpoint, save_checkpoint
from fedrax.report.runs import load_run
from fedrax.runtime.make import make_runtime

SMALL = (
    *("budget.rounds=2", "checkpoint.every=1", "federation.agents=2", "evaluation.episodes=2", "seeds=1"),
    *("budget.trajectories=none", "budget.steps=none", "budget.steps_per_agent=none"),
    *("environment.num_envs=3", "environment.heterogeneity.distribution=fedtd3"),
    *("learner.actor_layers=[4]", "learner.feature_layers=[4]", "learner.head_layers=[4]", "learner.buffer_size=256"),
)


@pytest.mark.parametrize(
    ("override", "present"),
    [
        ("environment.copies=4", "environment.num_envs = 4"),
        ("environment.heterogeneity.law=fedtd3", "environment.heterogeneity.distribution = 'fedtd3'"),
        ("runtime.save_every=4", "runtime.flower.save_every = 4"),
    ],
)
def test_a_former_key_is_refused_with_the_present_one(override: str, present: str, tmp_path: Path) -> None:
    key = override.split("=")[0]
    with pytest.raises(FedraxError, match=rf"{key} is not allowed: it is now \S+; set {present} instead"):
        resolve("fedtd3/pendulum", [override])
    *tables, name = key.split(".")
    value = override.split("=")[1]
    file = tmp_path / "config.toml"
    file.write_text(f"[{'.'.join(tables)}]\n{name} = {value if value.isdigit() else repr(value)}\n")
    with pytest.raises(FedraxError, match=f"set {present} instead"):
        resolve(file, ["budget.rounds=1"])


def test_every_former_key_is_read_under_its_present_name_in_its_place() -> None:
    former = {
        "environment": {"copies": 3, "id": "x", "heterogeneity": {"law": "fedtd3", "l": [1.0]}},
        "copies": 1,
        "runtime": {"kind": "flower", "quorum": 0.5, "fast": True},
    }
    assert present_keys(former) == {
        "environment": {"num_envs": 3, "id": "x", "heterogeneity": {"distribution": "fedtd3", "l": [1.0]}},
        "copies": 1,
        "runtime": {"kind": "flower", "flower": {"quorum": 0.5, "fast": True}},
    }
    assert list(present_keys(former)["environment"]) == ["num_envs", "id", "heterogeneity"]


def _former(value: object) -> object:
    """Recorded tables as an earlier version wrote them."""
    names = {"num_envs": "copies", "distribution": "law"}
    if isinstance(value, dict):
        if "runtime" in value:
            runtime = {key: item for key, item in value["runtime"].items() if key != "shared_seeds"}
            flower = {key: item for key, item in runtime.pop("flower").items() if key != "max_failures"}
            value = {**value, "runtime": {**runtime, **flower}}
        return {names.get(key, key): _former(item) for key, item in value.items()}
    return value


def _as_earlier(path: Path) -> None:
    """Makes a run's directory one of an earlier version."""
    config = path / "config.toml"
    text = config.read_text()
    assert all(f"{present.split('.')[-1]} = " in text for present in KEYS.values())
    text = text.replace("\n[runtime.flower]\n", "").replace("shared_seeds = false\n", "")
    text = text.replace("max_failures = 2\n", "")
    config.write_text(text.replace("num_envs = ", "copies = ").replace('distribution = "fedtd3"', 'law = "fedtd3"'))
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "config": _former(manifest["config"])}))
    run = fedrax.load(path)
    runtime = make_runtime(run.config)
    saved = load_checkpoint(path / "checkpoints", runtime.init())
    runtime.close()
    assert saved is not None
    state, meta = saved
    save_checkpoint(path / "checkpoints", meta["round"], state, {**meta, "config": _former(meta["config"])})


@pytest.mark.training
def test_a_run_of_an_earlier_version_loads_resumes_evaluates_and_reports(tmp_path: Path) -> None:
    run = fedrax.train("fedtd3/pendulum", SMALL, out=tmp_path / "run", progress=False)
    expected = run.config
    returns = run.evaluate(episodes=2)
    _as_earlier(run.path)

    loaded = fedrax.load(run.path)
    assert loaded.config == expected
    assert loaded.config.environment.num_envs == 3
    again = loaded.evaluate(episodes=2)
    assert {seed: each.returns.tolist() for seed, each in again.items()} == {
        seed: each.returns.tolist() for seed, each in returns.items()
    }
    assert load_run(run.path).settings["environment.num_envs"] == 3
    assert resolve(run.path / "config.toml") == expected, "a run's configuration can be trained again"

    fedrax.resume(run.path, ["budget.rounds=3"], progress=False)
    assert load_run(run.path).summary["rounds"] == 3
    assert "copies" not in (run.path / "config.toml").read_text()
    assert "[runtime.flower]" in (run.path / "config.toml").read_text()


class AgentOnly(eqx.Module):
    agent: Agent


class Snapshot(eqx.Module):
    agent: dict[str, object]
    collector_state: object


def test_an_agent_that_an_earlier_version_saved_on_its_node_loads(tmp_path: Path) -> None:
    class Former(eqx.Module):
        agent: dict[str, object]
        front: object

    save_checkpoint(tmp_path, 4, {"standing": Former({"w": jnp.arange(3.0)}, jnp.ones(2)), "reply": jnp.zeros(1)}, {})
    template = {"snapshot": Snapshot({"w": jnp.zeros(3)}, jnp.zeros(2)), "reply": jnp.zeros(1)}
    saved = load_checkpoint(tmp_path, template)
    assert saved is not None
    assert saved[0]["snapshot"].agent["w"].tolist() == [0, 1, 2]
    assert saved[0]["snapshot"].collector_state.tolist() == [1, 1]
    assert present_leaf(".agents.private['standing']") == ".agents.private['standing']"


@pytest.mark.parametrize("place", [".environments", "['standing'].front"])
def test_episodes_that_an_earlier_version_left_running_have_reached_no_goal(place: str) -> None:
    present = present_arrays({f"{place}.over": np.array([[True, False]])}, {})
    (name,) = (name for name in present if name.endswith(".reached"))
    assert name.removesuffix(".reached") in (".environments", "['snapshot'].collector_state")
    assert present[name].tolist() == [[False, False]]
    present[name][:] = True
    assert present_arrays(present, {})[name].all(), "what this version stored stays"


EARLIER = Path(__file__).parent / "earlier"
"""Runs of two rounds, and the rows of the two that followed: two from before messages had parts, the others from before
contexts were the strategy's."""


@pytest.mark.parametrize(("strategy", "name"), [("scaffold", "server"), ("distillation", "teacher")])
def test_the_servers_networks_that_an_earlier_version_stored_are_left_out(strategy: str, name: str) -> None:
    former = EARLIER / strategy / "checkpoints"
    with safe_open(former / "checkpoint-2.safetensors", framework="numpy") as file:
        assert any(key.startswith(f".agents.private.{name}") for key in file.keys())  # noqa: SIM118 - not a dictionary
    runtime = make_runtime(resolve(EARLIER / strategy / "config.toml"))
    saved = load_checkpoint(former, runtime.init())
    runtime.close()
    assert saved is not None
    assert not hasattr(saved[0].agents.private, name)


def test_neighbours_networks_that_an_earlier_version_stored_are_left_out(tmp_path: Path) -> None:
    former = EARLIER / "neighbours" / "checkpoints"
    with safe_open(former / "checkpoint-2.safetensors", framework="numpy") as file:
        assert ".agents.private.peers.actor.weight" in set(file.keys())
        assert ".agents.private.weights" in set(file.keys())
    runtime = make_runtime(resolve(EARLIER / "neighbours" / "config.toml"))
    saved = load_checkpoint(former, runtime.init())
    runtime.close()
    assert saved is not None
    private = saved[0].agents.private
    assert len(jax.tree.leaves(private)) == len(jax.tree.leaves(private.sent)) + 2

    class Kept(eqx.Module):
        peers: jnp.ndarray
        weights: jnp.ndarray

    # Another strategy's leaves of these names are its own.
    own = {"snapshot": AgentOnly(Agent((), (), (), Kept(jnp.arange(2.0), jnp.ones(1))))}
    save_checkpoint(tmp_path, 1, own, {})
    saved = load_checkpoint(tmp_path, jax.tree.map(jnp.zeros_like, own))
    assert saved is not None
    assert saved[0]["snapshot"].agent.private.peers.tolist() == [0, 1]
    saved = load_checkpoint(tmp_path, {"snapshot": AgentOnly(Agent((), ()))})
    assert saved is not None, "a node's neighbours are left out too"
    save_checkpoint(tmp_path, 2, {"snapshot": AgentOnly(Agent(jnp.ones(1), ()))}, {})
    with pytest.raises(FedraxError, match="has no place here"):
        load_checkpoint(tmp_path, {"snapshot": AgentOnly(Agent((), ()))})


@pytest.mark.training
@pytest.mark.parametrize("strategy", sorted(path.name for path in EARLIER.iterdir()))
def test_a_run_that_an_earlier_version_began_goes_on_to_the_same_numbers(strategy: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(EARLIER / strategy, run)
    expected = [json.loads(line) for line in (run / "expected.jsonl").read_text().splitlines()]
    fedrax.resume(run, progress=False)
    rows = fedrax.load(run).metrics()[2:]
    for row, other in zip(rows, expected, strict=True):
        # Bytes count what travels, which earlier versions estimated.
        for name in other.keys() - {"seconds", "bytes_down", "bytes_up"}:
            ours, theirs = (np.array(each[name], float) for each in (row, other))
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6, err_msg=name)
