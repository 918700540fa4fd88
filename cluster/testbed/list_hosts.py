"""Print the addresses of the hosts that Ray's head counts as alive; runs on a host.

`list_hosts.py NUMBER SECONDS` waits so long for the number of them, and prints in any case. They
are the words of the last line: before it Ray may say that a host has died, which cannot be muted.
"""

from __future__ import annotations

import logging
import sys
import time


def main() -> None:
    """Connect to the cluster that this host belongs to, and ask."""
    import ray

    number, limit = int(sys.argv[1]), float(sys.argv[2])
    ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    end = time.monotonic() + limit
    while len(alive := list_alive(ray.nodes())) != number and time.monotonic() < end:
        time.sleep(0.2)
    ray.shutdown()
    sys.stdout.write(f"\n{' '.join(alive)}\n")


def list_alive(nodes: list[dict[str, object]]) -> list[str]:
    """Return the addresses of the nodes that are alive."""
    return sorted(str(node["NodeManagerAddress"]) for node in nodes if node["Alive"])


if __name__ == "__main__":
    main()
