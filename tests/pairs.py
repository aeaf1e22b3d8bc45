"""Every learner with every strategy, as small as they can be."""

from fedrax.registry import options_of
from fedrax.strategies.base import strategies

OFF_POLICY = [
    *("learner.actor_layers=[2]", "learner.feature_layers=[3]", "learner.head_layers=[2]"),
    *("learner.batch_size=4", "learner.buffer_size=64", "learner.num_steps=2"),
    "learner.learning_starts=4",
]
SMALL = {
    "policy-gradient": ["learner.hidden=[2]", "environment=CartPole-v1"],
    "ppo": ["learner.hidden=[2]", "learner.num_steps=4", "environment=CartPole-v1"],
    "td3": [*OFF_POLICY, "environment=Pendulum-v1"],
    "sac": [*OFF_POLICY, "environment=Pendulum-v1"],
    "sac-discrete": [*OFF_POLICY, "environment=CartPole-v1"],
}
SETTINGS = {
    "distillation": ["strategy.epochs=1", "strategy.local_steps=1"],
    "fedpg-br": ["strategy.batch_min=2", "strategy.batch_max=2"],
    "gossip": ["strategy.average=[]"],
    "fedformer": [
        *("critic.dim=2", "critic.heads=1", "critic.encoder_layers=[2]", "critic.decoder_layers=[2]"),
        "critic.feedforward=2",
    ],
    "fedrep": ["federation.local_updates=2"],
}
PARTS = {"ppo": '["torso", "actor", "critic"]'}
PARTS |= dict.fromkeys(("td3", "sac", "sac-discrete"), '["features", "head", "actor"]')


def overrides_of(learner, strategy):
    """Settings of the two, and of an environment; not every pair goes together."""
    own = list(SETTINGS.get(strategy, []))
    if strategy == "gossip":
        own = [f"strategy.average={PARTS[learner]}"] if learner in PARTS else []
    if SMALL[learner][0] == OFF_POLICY[0] and strategy in ("fedper", "fedrep"):
        own.append('strategy.average=["features"]')
    if learner == "policy-gradient" and "batch" in options_of(strategies[strategy]):
        own.append("strategy.batch=2")
    if strategy == "central":
        own.append("environment.num_envs=1")
    return [f"learner={learner}", f"strategy={strategy}", *SMALL[learner], *own]
