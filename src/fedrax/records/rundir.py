"""A run's directory: which file lies where, and whether a new run can be kept there at all."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import time
from pathlib import Path

from fedrax.errors import FedraxError, nearest
from fedrax.records.files import reason, write_all, write_atomic
from fedrax.records.lock import LOCK

MEBIBYTE = 1 << 20
SWEEP = "sweep.json"
"""What a sweep writes into its folder: the state of every job, by setup and seed."""
LONGEST = 50
"""Characters of a run's name that its folder's has."""
LEFTOVERS = frozenset({LOCK, ".probe", ".config.tmp.toml"})
"""What a process that was killed before its run's first file leaves."""


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The paths of one run. A directory is a run once it holds ``config.toml``."""

    path: Path

    @classmethod
    def create(cls, path: Path | str, *, resume: bool = False, free_mebibytes: int = 64) -> RunDirectory:
        """The directory of a new run, made if it does not exist; proves that a run can be written there.

        Args:
            path: an empty directory, or one that does not exist yet.
            resume: accept a directory that holds a run already.
            free_mebibytes: how much must be free for this user, as the file system reports it. One byte is really
                written (and removed), because that report knows nothing of permissions and of a quota used up.

        Raises:
            FedraxError: ``path`` holds something else, cannot be written to, or has too little space.
        """
        directory = cls(Path(path))
        try:
            if directory.path.exists() and not directory.path.is_dir():
                raise FedraxError(f"{path} is not a directory; choose another path for the run")
            directory.path.mkdir(parents=True, exist_ok=True)
            occupied = any(path.name not in LEFTOVERS for path in directory.path.iterdir())
        except OSError as error:
            raise FedraxError(f"cannot make the run directory {path}: {reason(error)}; choose another path") from None
        if occupied and not directory.is_run():
            raise FedraxError(f"{path} is not empty and holds no run; choose an empty or a new directory")
        if not resume:
            directory.check_new()
        directory._probe(free_mebibytes)
        return directory

    @classmethod
    def open(cls, path: Path | str) -> RunDirectory:
        """The directory of an existing run.

        Raises:
            FedraxError: there is no run at ``path``.
        """
        directory = cls(Path(path))
        if directory.is_run():
            return directory
        if not directory.path.exists():
            siblings = directory.path.parent
            names = [p.name for p in siblings.iterdir() if cls(p).is_run()] if siblings.is_dir() else []
            raise FedraxError(f"there is no run at {path}: it does not exist{nearest(directory.path.name, names)}")
        if not directory.path.is_dir():
            raise FedraxError(f"{path} is not a run: it is a file; give the directory that training wrote")
        within = sorted(config.parent for config in directory.path.glob("*/config.toml"))
        which = f"one of the runs in it, such as {within[0]}" if within else "the directory that training wrote"
        raise FedraxError(f"{path} is not a run: it holds no config.toml; give {which}")

    def is_run(self) -> bool:
        """Whether a run was started here."""
        return self.config.is_file()

    def check_new(self) -> None:
        """Raises :class:`FedraxError` where a run was started."""
        if self.is_run():
            raise FedraxError(
                f"{self.path} already holds a run; resume that run, or choose another directory for a new one"
            )

    def write_config(self, text: str) -> None:
        """Writes the resolved configuration, which makes the directory a run."""
        write_atomic(self.config, text)

    def _probe(self, mebibytes: int) -> None:
        probe = self.path / ".probe"
        advice = "choose another directory or mend the permissions"
        needed = f"a run needs {mebibytes} MiB free; free space or choose another directory"
        try:
            with open(probe, "wb", buffering=0) as file:
                # Without a name it goes with this process, even if that is killed.
                probe.unlink()
                advice = needed
                write_all(file.fileno(), bytes(1))
            free = shutil.disk_usage(self.path).free // MEBIBYTE
        except OSError as error:
            raise FedraxError(f"cannot write to the run directory {self.path}: {reason(error)}; {advice}") from None
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()
        if free < mebibytes:
            raise FedraxError(f"cannot keep a run in {self.path}: {free} MiB are free; {needed}")

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.toml"

    @property
    def manifest(self) -> Path:
        """Versions, machine, seeds, draws, times."""
        return self.path / "manifest.json"

    @property
    def metrics_jsonl(self) -> Path:
        """One JSON object per seed and round."""
        return self.path / "metrics.jsonl"

    @property
    def metrics_csv(self) -> Path:
        """The same rows as a table."""
        return self.path / "metrics.csv"

    @property
    def td3_her(self) -> Path:
        """The folder of the TD3+HER reference's files, where they are asked for."""
        return self.path / "td3-her"

    @property
    def checkpoints(self) -> Path:
        """The folder of the last checkpoints."""
        return self.path / "checkpoints"

    @property
    def policy(self) -> Path:
        """The latest policy."""
        return self.path / "policy.safetensors"

    @property
    def best_policy(self) -> Path:
        """The policy of the best evaluation."""
        return self.path / "best.safetensors"

    @property
    def policies(self) -> Path:
        """The folder of the policies that are kept."""
        return self.path / "policies"

    def kept_policy(self, rounds: int) -> Path:
        """The policy after so many rounds, where it is kept."""
        return self.policies / f"round-{rounds}.safetensors"

    def kept_rounds(self) -> list[int]:
        """After which rounds a policy is kept, in order."""
        matches = [re.fullmatch(r"round-(\d+)\.safetensors", path.name) for path in self.policies.glob("round-*")]
        return sorted(int(match[1]) for match in matches if match)

    @property
    def audit(self) -> Path:
        """What attacks on its messages come to, where it was audited."""
        return self.path / "audit.json"

    @property
    def unfinished_audit(self) -> Path:
        """What an audit has found that is under way, or was interrupted."""
        return self.path / "audit-unfinished.json"

    @property
    def summary(self) -> Path:
        """The totals of a finished run."""
        return self.path / "summary.json"


def default_directory(name: str) -> Path:
    """Where a run of this name is kept unless its user says otherwise: ``runs/NAME-TIME``."""
    words = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-") or "run"
    # A character is up to four bytes, of which a folder's name has 255 at most.
    return Path("runs") / f"{words[:LONGEST]}-{time.strftime('%Y%m%d-%H%M%S')}"
