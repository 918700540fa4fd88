"""Ask a web server until it answers well: `ask.py METHOD URL SECONDS`; runs on a node."""

from __future__ import annotations

import sys
import time
import urllib.request


def main() -> None:
    """Ask, and end with what the last answer was if none was good."""
    method, url, limit = sys.argv[1], sys.argv[2], float(sys.argv[3])
    end = time.monotonic() + limit
    while True:
        try:
            request = urllib.request.Request(url, method=method)
            with urllib.request.urlopen(request, timeout=5.0):
                return
        except OSError as error:
            if time.monotonic() > end:
                sys.exit(f"{method} {url}: {error}")
            time.sleep(0.1)


if __name__ == "__main__":
    main()
