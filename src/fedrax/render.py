"""Videos of a run's policy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import jax

from fedrax.arguments import PLUGINS, one_of, path, several, takes, whole
from fedrax.errors import FedraxError
from fedrax.run import WHICH, Run, Which
from fedrax.runtime.make import make_runtime
from fedrax.runtime.videos import check_picture, record_videos

MOST_EPISODES = 1000
"""Of one video, whose frames are kept in memory."""


@takes(
    run=path(),
    episodes=whole(1, MOST_EPISODES),
    policy=WHICH,
    agent=whole(),
    formats=several(one_of("mp4", "gif")),
    out=path(),
    plugins=PLUGINS,
)
def render(
    run: Path | str,
    *,
    episodes: int = 1,
    policy: Which = "last",
    agent: int = 0,
    formats: Sequence[str] = ("mp4", "gif"),
    out: Path | None = None,
    plugins: Iterable[str] = (),
) -> list[Path]:
    """Records episodes of the first seed's policy, or that of one ``agent``, in the agent's environment.

    Returns the files; initial states are those of the run's evaluations. ``plugins`` as in :func:`fedrax.load`.
    """
    loaded = Run(run, plugins=plugins)
    check_picture(loaded.config)
    agents = loaded.config.federation.agents
    if not 0 <= agent < agents:
        raise FedraxError(f"agent = {agent} is not allowed: the run has agents 0 to {agents - 1}")
    params = next(iter(loaded.policies(policy).values()))
    runtime = make_runtime(loaded.config)
    try:
        if runtime.federation.personal:
            params = jax.tree.map(lambda x: x[agent], params)
        stem = out or loaded.path / "video"
        return record_videos(loaded.config, runtime, params, stem, agent=agent, episodes=episodes, formats=formats)
    finally:
        runtime.close()
