"""The thin Flower app of a federation: a folder that names this package's ServerApp and ClientApp."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tomli_w

SETTINGS = ("preset", "overrides", "directory", "nodes", "keys")
LASTING = "lasting"
"""The setting ``keys`` of a SuperLink that knows nodes by keys of their own; otherwise Flower makes one for every
connection."""


def write_app(folder: Path, settings: Mapping[str, str]) -> Path:
    """Writes the app; ``settings`` are the defaults of :data:`SETTINGS`.

    Flower lets nobody set a key that is not listed, so all of them always are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = {
        "build-system": {"requires": ["hatchling"], "build-backend": "hatchling.build"},
        "project": {
            "name": "fedrax-federation",
            "version": "1.0.0",
            "description": "A federation of Fedrax: its server, and the client of every node's agent.",
            "license": "Apache-2.0",
            # Flower's SuperLink makes an environment of these for each run, by uv and from PyPI. Without any it needs
            # no network, and what is installed beside Flower, this package among it, is what runs.
            "dependencies": [],
        },
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "fedrax",
                    "components": {
                        "serverapp": "fedrax.runtime.flower.server_app:app",
                        "clientapp": "fedrax.runtime.flower.client_app:app",
                    },
                    "config": {name: settings.get(name, "") for name in SETTINGS},
                }
            },
            "hatch": {"build": {"targets": {"wheel": {"packages": ["."]}}}},
        },
    }
    (folder / "pyproject.toml").write_text(tomli_w.dumps(table), encoding="utf-8")
    return folder
