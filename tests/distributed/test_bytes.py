"""The bytes that the simulation counts are those that travel over the wire."""

import pytest

from fedrax.config import resolve
from fedrax.runtime.distributed.envelopes import WORK, WORKED, from_bytes
from fedrax.runtime.make import make_runtime
from fedrax.strategies.base import strategies
from fedrax.trees import tree_bytes
from shipped import shipped

from federations import SMALL, configured, distributed, rounds_of

TD3 = {
    "fedavg": ("strategy.actor_every=2", 'strategy.average=["head", "actor"]', "strategy.return_temperature=1.0"),
    "fedper": ('strategy.average=["features"]',),
    "fedrep": ('strategy.average=["features"]', "federation.local_updates=2"),
    "clustered": ("strategy.average_targets=true", "learner.normalise=true"),
    "similarity": (),
    "fedprox": (),
    "moon": (),
    "scaffold": ("strategy.actor_every=2",),
    "distillation": ("strategy.version=sccd", "learner.normalise=true"),
    "distillation statistics": ("strategy.version=statistics", "strategy.rank=2"),
    "distillation representations": ("strategy.version=representations",),
    "local": (),
    "fedformer": ("critic.dim=8", "critic.encoder_layers=[8]", "critic.decoder_layers=[8]", "critic.feedforward=8"),
    "fedformer without exchange": (
        *("strategy.exchange=none", "critic.dim=8", "critic.encoder_layers=[8]", "critic.decoder_layers=[8]"),
        "critic.feedforward=8",
    ),
}
NEIGHBOURS = {"neighbours": ("strategy.topology=ring",), "gossip": ()}
GRADIENTS = {"fedpg-br": (), "svrpg": ("strategy.batch=2",), "gpomdp": ("strategy.batch=2",)}
FAST = ("distillation", "neighbours")


def configuration(name):
    kind = name.split()[0]
    common = ["evaluation.every=100", "evaluation.environments=own"]
    if kind in TD3:
        case = ["fedavg-td3", f"strategy={kind}", "federation.agents=2", "federation.local_updates=1", *TD3[name]]
    elif kind in NEIGHBOURS:
        case = ["neighbours-ppo", f"strategy={kind}", "federation.local_updates=1", *NEIGHBOURS[name]]
    elif kind == "fedpg-br":
        case = ["fedpg-br", "federation.agents=2"]
    else:
        # Other estimators have other options than the preset's.
        gradients = [f"strategy={kind}", *GRADIENTS[name], "environment.horizon=40", "attack=none", "attack.agents=0"]
        return resolve("fedpg-br/cartpole", [*SMALL, *gradients, *common])
    return configured(*case, *common)


@pytest.mark.training
@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in [*TD3, *NEIGHBOURS, *GRADIENTS]],
)
def test_what_is_counted_is_what_travels(name, tmp_path):
    config = configuration(name)
    seen = []
    federation, _, _ = distributed(config, tmp_path, observe=lambda data: seen.append(from_bytes(data)))
    rounds_of(federation, 3)
    runtime = make_runtime(config)
    report = tree_bytes(federation.screening.report)
    agents = config.federation.agents
    for index in range(3):
        down = [len(each.payload) for each in seen if each.kind == WORK and each.fields["round"] == index]
        up = [len(each.payload) - report for each in seen if each.kind == WORKED and each.fields["round"] == index]
        assert len(up) == len(down) == agents
        sent, received = runtime.message_bytes(index)
        assert set(up) == {sent}
        assert sum(down) == pytest.approx(agents * received)
    if "strategy.actor_every=2" in TD3.get(name, ()) or name.startswith("distillation"):
        assert runtime.message_bytes(0)[0] < runtime.message_bytes(1)[0], "the actor goes up in odd rounds"
        assert runtime.message_bytes(0)[1] > runtime.message_bytes(1)[1], "and down in even ones"


def test_every_strategy_is_measured():
    tried = {name.split()[0] for name in [*TD3, *NEIGHBOURS, *GRADIENTS]}
    assert tried | {"central"} >= set(shipped(strategies)), "one whose agents are in one place sends nothing"
