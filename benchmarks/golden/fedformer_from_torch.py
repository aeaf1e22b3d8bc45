"""FedFormer's value by PyTorch's own transformer, for ``tests/learners/test_fedformer_critic.py``.

    python benchmarks/golden/fedformer_from_torch.py    # needs torch

The critic is written down as the paper's code has it: every encoder on the same observation and action, a summary
token before their encodings, identities added, ``torch.nn.TransformerEncoderLayer`` twice, and a decoder of the summary
and the agent's own encoding. Weights and inputs are sines, which the test makes again.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

AGENTS, OWN, INPUTS, HIDDEN, DIM, HEADS, FEEDFORWARD, LAYERS, DECODER, BATCH = 3, 1, 5, 6, 8, 2, 16, 2, 7, 4


class Sines:
    """Numbers in an order that the test repeats."""

    def __init__(self) -> None:
        self.start = 0

    def __call__(self, *shape: int) -> torch.Tensor:
        """The next of them."""
        count = int(np.prod(shape))
        numbers = 0.4 * np.sin(1.7 * np.arange(self.start, self.start + count))
        self.start += count
        return torch.tensor(numbers.reshape(shape), dtype=torch.float64)


def filled(module: nn.Module, sines: Sines, names: list[str]) -> nn.Module:
    parameters = dict(module.named_parameters())
    assert set(names) == set(parameters)
    with torch.no_grad():
        for name in names:
            parameters[name].copy_(sines(*parameters[name].shape))
    return module


def mlp(sines: Sines, *widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [filled(nn.Linear(inputs, outputs).double(), sines, ["weight", "bias"]), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def layer(sines: Sines, *, norm_first: bool) -> nn.Module:
    made = nn.TransformerEncoderLayer(DIM, HEADS, FEEDFORWARD, dropout=0.0, norm_first=norm_first).double()
    attention = ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"]
    others = [f"{name}.{part}" for name in ("linear1", "linear2", "norm1", "norm2") for part in ("weight", "bias")]
    return filled(made, sines, [f"self_attn.{name}" for name in attention] + others)


def value(*, norm_first: bool) -> dict[str, list[float]]:
    sines = Sines()
    encoders = [mlp(sines, INPUTS, HIDDEN, DIM) for _ in range(AGENTS)]
    identities, summary = sines(AGENTS + 1, DIM), sines(DIM)
    layers = [layer(sines, norm_first=norm_first).eval() for _ in range(LAYERS)]
    decoder = mlp(sines, 2 * DIM, DECODER, 1)
    x = sines(BATCH, INPUTS).requires_grad_()
    encodings = torch.stack([encoder(x) for encoder in encoders])
    tokens = torch.cat([summary.expand(1, BATCH, DIM), encodings]) + identities[:, None]
    for each in layers:
        tokens = each(tokens)
    values = decoder(torch.cat([tokens[0], encodings[OWN]], -1))[:, 0]
    values.sum().backward()
    assert x.grad is not None
    return {"values": values.tolist(), "gradient": x.grad.ravel().tolist()}


if __name__ == "__main__":
    golden = {"post": value(norm_first=False), "pre": value(norm_first=True), "torch": torch.__version__}
    path = Path(__file__).parents[2] / "tests" / "learners" / "golden_fedformer.json"
    path.write_text(json.dumps(golden, indent=1) + "\n")
