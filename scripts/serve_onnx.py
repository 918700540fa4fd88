"""Serve a compact model over HTTP with onnxruntime alone: no torch, no transformers, no distprune.

pip install onnxruntime tokenizers
distprune export studies/quickstart/best@0.5 small --onnx
python scripts/serve_onnx.py small --port 8000
curl -d '{"inputs": ["a moving film"]}' http://127.0.0.1:8000
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

MAX_BODY_BYTES = 1 << 20

Classify = Callable[[list[str]], list[dict[str, Any]]]


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder that `distprune export --onnx` wrote")
    parser.add_argument("--port", type=int, default=8000, help="0 = any that is free")
    parser.add_argument("--threads", type=int, default=0, help="0 = all cores")
    arguments = parser.parse_args()
    classify = load_classifier(arguments.folder, arguments.threads)
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), make_handler(classify))
    print(f"serving on http://127.0.0.1:{server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


def load_classifier(folder: Path, threads: int) -> Classify:
    """Return the function that classifies texts with a folder's ONNX model and tokenizer."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )
    names = [one.name for one in session.get_inputs()]
    config = json.loads((folder / "config.json").read_text())
    labels = {int(number): name for number, name in config["id2label"].items()}
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=config["pad_token_id"] or 0)
    tokenizer.enable_truncation(config["max_position_embeddings"] - 2)

    def classify(texts: list[str]) -> list[dict[str, Any]]:
        encodings = tokenizer.encode_batch(texts)
        inputs = {
            "input_ids": np.array([one.ids for one in encodings], dtype=np.int64),
            "attention_mask": np.array([one.attention_mask for one in encodings], dtype=np.int64),
            "token_type_ids": np.array([one.type_ids for one in encodings], dtype=np.int64),
        }
        (logits,) = session.run(None, {name: inputs[name] for name in names})
        return [answer(row, labels) for row in logits]

    return classify


def answer(logits: Any, labels: dict[int, str]) -> dict[str, Any]:
    """Return the most probable label of a text, and its probability; a number for regression."""
    if len(logits) == 1:
        return {"value": float(logits[0])}
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    best = int(probabilities.argmax())
    return {"label": labels[best], "score": float(probabilities[best])}


def make_handler(classify: Classify) -> type[BaseHTTPRequestHandler]:
    """Return a handler that answers POST requests with `{"inputs": [text, ...]}`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Classify the texts of a request."""
            try:
                size = int(self.headers.get("Content-Length", 0))
                if not 0 < size <= MAX_BODY_BYTES:
                    raise ValueError(f"a body of {size} bytes; send 1 to {MAX_BODY_BYTES}")
                texts = json.loads(self.rfile.read(size))["inputs"]
                if not texts or not all(isinstance(text, str) for text in texts):
                    raise ValueError('send {"inputs": ["a text", ...]}')
            except (ValueError, KeyError, TypeError) as error:
                self.reply(400, {"error": str(error)})
                return
            self.reply(200, {"predictions": classify(texts)})

        def reply(self, status: int, values: dict[str, Any]) -> None:
            """Send JSON."""
            body = json.dumps(values).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


if __name__ == "__main__":
    main()
