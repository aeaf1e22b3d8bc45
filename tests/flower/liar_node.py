"""``fedrax node`` whose agent's process is the liar's."""

import sys
from pathlib import Path

from fedrax import cli
from fedrax.runtime.flower import node

LIAR = str(Path(__file__).parent / "liar.py")


def main() -> None:
    def lying(socket, data, agent, overrides, **others):
        return [sys.executable, LIAR, str(socket), str(data), str(agent)]

    node.agent_server_command = lying
    sys.exit(cli.main(sys.argv[1:]))


if __name__ == "__main__":
    main()
