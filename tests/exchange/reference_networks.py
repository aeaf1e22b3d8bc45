"""The TD3+HER reference's networks in NumPy: random ones in its layout, and what they compute."""

import numpy as np

from fedrax.exchange.td3_her import Networks


def perceptron(generator, names, sizes):
    """Layers of these sizes under these names."""
    state = {}
    for name, inputs, outputs in zip(names, sizes[:-1], sizes[1:], strict=True):
        state[f"{name}.weight"] = generator.normal(0, inputs**-0.5, (outputs, inputs)).astype(np.float32)
        state[f"{name}.bias"] = generator.normal(0, 0.1, outputs).astype(np.float32)
    return state


def made(observation, goal, actions, widths=(256, 256, 256), seed=0):
    """Networks for observations, goals and actions of these sizes."""
    generator = np.random.default_rng(seed)
    seen = observation + goal
    actor = perceptron(generator, ("fc1", "fc2", "fc3", "action_out"), (seen, *widths, actions))
    critic = {}
    for number in (1, 2):
        names = (*(f"fc{number}_{layer}" for layer in (1, 2, 3)), f"q{number}_out")
        critic |= perceptron(generator, names, (seen + actions, *widths, 1))
    return Networks(actor, critic)


def forward(state, names, x):
    for name in names[:-1]:
        x = np.maximum(x @ state[f"{name}.weight"].T + state[f"{name}.bias"], 0)
    return x @ state[f"{names[-1]}.weight"].T + state[f"{names[-1]}.bias"]


def act(networks, observation, goal):
    """The actor on ``cat[observation, goal]``."""
    return np.tanh(
        forward(networks.actor, ("fc1", "fc2", "fc3", "action_out"), np.concatenate([observation, goal], -1))
    )


def values(networks, observation, goal, action):
    """Both critics on ``cat[observation, goal, action]``."""
    x = np.concatenate([observation, goal, action], -1)
    return [forward(networks.critic, (f"fc{n}_1", f"fc{n}_2", f"fc{n}_3", f"q{n}_out"), x)[..., 0] for n in (1, 2)]
