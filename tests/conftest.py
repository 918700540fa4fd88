"""Settings that all tests share."""

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.s3_server import BUCKET, S3Server, serve_s3
from tests.tiny_study import save_checkpoint, write_task

# Before torch is imported: on tiny models, threads of parallel workers wait for each other (6 x).
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A script's background jobs ignore Ctrl-C, and so does all that they start; some tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Shared machines stall: a slow example is no failure. The same examples everywhere, every time.
settings.register_profile("distprune", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("distprune")


@pytest.fixture(scope="session")
def mlm_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint with its own masked language modelling head."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoints") / "mlm", has_mlm_head=True)


@pytest.fixture(scope="session")
def body_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint without a head."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoints") / "body", has_mlm_head=False)


@pytest.fixture(scope="session")
def word_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classification task that the tiny checkpoints learn in a second."""
    return write_task(tmp_path_factory.mktemp("tasks") / "words.csv")


@pytest.fixture(scope="session")
def degree_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A regression task that the tiny checkpoints learn in a second."""
    return write_task(tmp_path_factory.mktemp("tasks") / "degrees.csv", is_regression=True)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server; skips where its packages are missing."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    with serve_s3() as server:
        yield server


@pytest.fixture
def s3_uri(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A prefix of its own on the S3 server, which this process can use."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    s3_server.mend()
    yield f"s3://{BUCKET}/{uuid.uuid4().hex}"
    s3_server.mend()
