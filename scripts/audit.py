"""Look up known vulnerabilities of the packages in constraints.txt: `make audit`.

pip-audit asks the advisories of PyPI, which not every package index passes on. Where they cannot be
asked this says so and is no failure; a vulnerability that is found is one.

python scripts/audit.py --pip-audit .venv/audit/bin/pip-audit
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
LIMIT_S = 600

EXIT_FOUND = 1


def main() -> None:
    """Run pip-audit and say what came of it; exit with 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pip-audit", default="pip-audit", help="the program")
    parser.add_argument("--constraints", type=Path, default=CONSTRAINTS)
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds to wait for answers")
    arguments = parser.parse_args()
    report, reason = run_audit(arguments.pip_audit, arguments.constraints, arguments.limit)
    if report is None:
        print(f"audit: NOT DONE: the vulnerability service cannot be asked from here ({reason}).")
        print("audit: nothing is known of the pinned packages; run it where PyPI can be reached.")
        return
    lines = describe_findings(report)
    print("\n".join(lines))
    if lines[1:]:
        sys.exit(EXIT_FOUND)


def run_audit(program: str, constraints: Path, limit_s: float) -> tuple[Any, str]:
    """Return pip-audit's report; None, and why, where it could not make one."""
    with tempfile.TemporaryDirectory() as folder:
        pins, output = Path(folder, "pins.txt"), Path(folder, "report.json")
        pins.write_text(read_pins(constraints.read_text()))
        command = [program, "--disable-pip", "--no-deps", "--progress-spinner", "off"]
        command += ["--requirement", str(pins), "--format", "json", "--output", str(output)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=limit_s, check=False
            )
        except subprocess.TimeoutExpired:
            return None, f"no answer within {limit_s:g} s"
        if output.is_file() and (text := output.read_text()):
            return find_answer(json.loads(text))
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return None, (lines or ["it said nothing"])[-1][:200]


def find_answer(report: Any) -> tuple[Any, str]:
    """Return a report in which something was looked up; None, and why, where nothing was."""
    if any("vulns" in package for package in report["dependencies"]):
        return report, ""
    reasons = [package.get("skip_reason", "") for package in report["dependencies"]]
    return None, next(filter(None, reasons), "no package was looked up")


def read_pins(text: str) -> str:
    """Return the pins alone, one a line."""
    return "\n".join(line for line in text.splitlines() if "==" in line and line[0] != "#") + "\n"


def describe_findings(report: Any) -> list[str]:
    """Return how many packages were looked up, and a line for each vulnerability."""
    packages = report["dependencies"]
    known = [package for package in packages if "vulns" in package]
    found = [
        f"audit: {package['name']} {package['version']}: {vulnerability['id']}, mended in "
        f"{', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for package in known
        for vulnerability in package["vulns"]
    ]
    summary = f"{len(known)} of {len(packages)} packages looked up, {len(found)} findings"
    return [f"audit: {summary}", *found]


if __name__ == "__main__":
    main()
