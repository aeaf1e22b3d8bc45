"""How often a node has sent noisy updates of a run: one more than its budget allows is never made."""

from __future__ import annotations

from pathlib import Path

from fedrax.errors import FedraxError
from fedrax.privacy.guarantee import Guarantee
from fedrax.records.files import read_json, write_json


def count_release(path: Path, guarantee: Guarantee | None) -> None:
    """Counts an update before it is made, in the file at ``path``; also one that a crash has made do again.

    What the server's noise protects the server counts: only where nodes add their own, a round that is done again is
    one more release.

    Raises:
        FedraxError: the noise of a further one would exceed ``privacy.epsilon``.
    """
    if guarantee is None or guarantee.model != "local":
        return
    made = int(read_json(path, "count of releases")["releases"]) if path.exists() else 0
    if guarantee.limit is not None and made >= guarantee.limit:
        raise FedraxError(
            f"this node has sent {made} noisy updates, and another would exceed privacy.epsilon = "
            f"{guarantee.target:g}: it sends no more in this run"
        )
    write_json(path, {"releases": made + 1}, private=True)
