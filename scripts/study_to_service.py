"""From a study to a served, smaller model: search, export, serve without torch, ask.

    python scripts/study_to_service.py search_spaces/quickstart.yaml --milestone 0.5

Everything stays: the study in its storage folder, the model in --folder. Run again, it goes on from
what there is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

from distprune.search.study import study_folder
from distprune.search.study_file import load_study

SENTENCES = (
    "a moving film, superbly acted",
    "two hours of my life that i will never get back",
)


def main() -> None:
    """Run all steps and print what the service answers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="study file")
    parser.add_argument("--milestone", type=float, default=0.5)
    parser.add_argument("--folder", type=Path, default=Path("small"), help="of the smaller model")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "distprune"]
    subprocess.run([*command, "search", arguments.file], check=True)
    if not (arguments.folder / "model.onnx").exists():
        study = study_folder(load_study(arguments.file, {}))
        best = f"{study.root}/best@{arguments.milestone:g}"
        subprocess.run([*command, "export", best, arguments.folder, "--onnx"], check=True)
    print(json.dumps(ask_service(arguments.folder, SENTENCES), indent=2))


def ask_service(folder: Path, sentences: tuple[str, ...]) -> object:
    """Start the service, ask it once, and stop it."""
    server = Path(__file__).with_name("serve_onnx.py")
    with subprocess.Popen(
        [sys.executable, server, folder, "--port", "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[-1]
            body = json.dumps({"inputs": sentences}).encode()
            with urllib.request.urlopen(urllib.request.Request(address, body)) as response:
                return json.load(response)
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
