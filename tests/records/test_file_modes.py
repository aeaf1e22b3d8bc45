"""Files of a run are read by whom the user's other files are read; those that nodes' words are in, by the user."""

import os
import stat

import jax.numpy as jnp
import pytest

from fedrax.records.checkpoint import save_checkpoint, save_policy
from fedrax.records.files import keep_private, owner_only, write_json


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


@pytest.mark.parametrize("existed", [False, True])
def test_private_files_are_their_owners_alone_whatever_they_were(tmp_path, existed):
    paths = [tmp_path / "members.json", tmp_path / "exchanges.jsonl", tmp_path / "node.json"]
    before = os.umask(0o022)
    try:
        if existed:
            for path in paths:
                path.write_text("{}\n")
        write_json(paths[0], {"a": 1}, private=True)
        with open(paths[1], "a", opener=owner_only) as file:
            file.write("{}\n")
        paths[2].touch()
        keep_private(paths[2])
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o600] * 3
    assert paths[1].read_text() == "{}\n" * (2 if existed else 1)
