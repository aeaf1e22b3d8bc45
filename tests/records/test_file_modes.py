"""Every file of a run can be read by whom the user's other files can be read."""

import os
import stat

import jax.numpy as jnp
import pytest

from fedrax.records.checkpoint import save_checkpoint, save_policy
from fedrax.records.files import write_json


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_policies_and_checkpoints_have_the_mode_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        save_policy(tmp_path / "policy.safetensors", {"w": jnp.arange(3.0)})
        save_checkpoint(tmp_path, 1, {"w": jnp.arange(3.0)}, {})
        write_json(tmp_path / "summary.json", {})
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 3
    assert set(modes.values()) == {0o666 & ~mask}
