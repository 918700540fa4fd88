"""`python scripts/chaos` is the chaos test's command."""

import sys
from pathlib import Path

# Run as a folder, Python puts that folder on the path; the modules are those of the repository.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from scripts.chaos.command import main  # noqa: E402

if __name__ == "__main__":
    main()
