"""The two small files that say how a run was made and what came of it."""

from __future__ import annotations

import json
import math
import subprocess
from datetime import datetime
from pathlib import Path

import jax
import numpy as np
import pytest

import fedrax
from fedrax.errors import FedraxError
from fedrax.records import manifest as manifests
from fedrax.records.manifest import commit_of, finish_manifest, read_manifest, write_manifest
from fedrax.records.rundir import RunDirectory
from fedrax.records.summary import KEYS, read_summary, write_summary


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def test_a_manifest_says_how_to_make_the_run_again(run: RunDirectory) -> None:
    draws = [{"length": np.float32(0.5)}, {"length": np.float32(0.75)}]
    command = ["fedrax", "train", "my preset"]
    config = {"budget": {"rounds": 4}}
    write_manifest(
        run, config=config, config_hash="abc", seeds=[0, 1], draws=draws, divergence={"g": 0.2}, command=command
    )
    manifest = read_manifest(run)
    assert manifest["command"] == "fedrax train 'my preset'"
    assert manifest["divergence"] == {"g": 0.2}
    assert manifest["draws"] == [{"length": 0.5}, {"length": 0.75}]
    assert (manifest["config"], manifest["config_hash"], manifest["seeds"]) == (config, "abc", [0, 1])
    assert manifest["versions"]["jax"] == jax.__version__
    assert manifest["versions"]["numpy"] == np.__version__
    assert set(manifest["versions"]) == {
        *("fedrax", "python", "jax", "jaxlib", "equinox", "optax", "gymnasium", "numpy", "envpool")
    }
    assert manifest["device"]["count"] == jax.device_count()
    assert manifest["threads"] >= 1
    assert datetime.fromisoformat(manifest["started"]).tzinfo is not None
    assert manifest["ended"] is None


def test_a_missing_package_has_no_version(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "PACKAGES", ("fedrax-without-such-a-package",))
    write_manifest(run, config={}, config_hash="", seeds=[0], draws=[], divergence={})
    assert read_manifest(run)["versions"]["fedrax-without-such-a-package"] is None


def test_finishing_adds_the_end_and_keeps_the_rest(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(["2026-01-31T23:59:58+00:00", "2026-02-01T00:01:00.500000+00:00"])
    monkeypatch.setattr(manifests, "_now", lambda: datetime.fromisoformat(next(moments)))
    write_manifest(run, config={}, config_hash="", seeds=[4], draws=[], divergence={})
    finish_manifest(run)
    manifest = read_manifest(run)
    assert manifest["seconds"] == 62.5
    assert manifest["ended"] == "2026-02-01T00:01:00.500000+00:00"
    assert (manifest["started"], manifest["seeds"]) == ("2026-01-31T23:59:58+00:00", [4])


def test_the_commit_is_that_of_our_own_checkout_only(tmp_path: Path) -> None:
    package = tmp_path / "src" / "fedrax"
    installed = tmp_path / "venv" / "fedrax"
    for folder in (package, installed):
        folder.mkdir(parents=True)
        (folder / "a.py").write_text("a = 1\n")
    assert commit_of(package) is None
    identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "One"]):
        subprocess.run(["git", "-C", str(tmp_path), *identity, *command], check=True)
    commit = commit_of(package)
    assert commit is not None
    assert len(commit) == 40
    assert commit_of(installed) is None
    (package / "a.py").write_text("a = 2\n")
    assert commit_of(package) == f"{commit}-dirty"


def test_no_git_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert commit_of(Path(fedrax.__path__[0])) is None


@pytest.mark.parametrize("content", ["{", "[]", "\xff", '{"history": null}', '{"history": [{"rounds": 1}]}'])
def test_a_damaged_file_is_named(run: RunDirectory, content: str) -> None:
    run.manifest.write_bytes(content.encode("latin-1"))
    with pytest.raises(FedraxError, match=r"the manifest .*manifest\.json is damaged"):
        read_manifest(run)


def test_a_missing_manifest_is_named(run: RunDirectory) -> None:
    with pytest.raises(FedraxError, match=r"cannot read the manifest .*: No such file"):
        finish_manifest(run)


def test_a_summary_comes_back_with_plain_numbers(run: RunDirectory) -> None:
    summary = dict.fromkeys(KEYS, 1) | {
        "final_return": [np.float32(471.5), math.nan],
        "rounds": np.array([305, 301]),
        "seeds": [0, 1],
    }
    write_summary(run, summary)
    read = read_summary(run)
    assert read["final_return"][0] == 471.5
    assert math.isnan(read["final_return"][1])
    assert read["rounds"] == [305, 301]
    assert read["gradient_steps"] == 1
    # Other programs' readers know no NaN.
    assert json.loads(run.summary.read_text(), parse_constant=pytest.fail)["final_return"] == [471.5, "NaN"]


def test_an_incomplete_summary_is_refused(run: RunDirectory) -> None:
    summary = dict.fromkeys(KEYS, 1)
    del summary["bytes_up"], summary["seeds"]
    with pytest.raises(FedraxError, match="lacks bytes_up, seeds"):
        write_summary(run, summary)


def test_an_unfinished_run_has_no_summary(run: RunDirectory) -> None:
    with pytest.raises(FedraxError, match="cannot read the summary"):
        read_summary(run)
    run.write_config("")
    with pytest.raises(FedraxError, match="is not finished; resume it"):
        read_summary(run)
