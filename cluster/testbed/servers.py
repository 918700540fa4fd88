"""What runs on the nodes: Ray, MLflow on PostgreSQL, S3."""

from __future__ import annotations

import os
import pwd
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.testbed.errors import TestbedError
from cluster.testbed.namespaces import Node
from cluster.testbed.plan import (
    BUCKET,
    DASHBOARD_PORT,
    HEAD,
    RAY_PORT,
    S3_PORT,
    TRACKING_PORT,
    Plan,
)
from cluster.testbed.requirements import find_postgres

ASK = Path(__file__).with_name("ask.py").resolve()
OBJECT_STORE_BYTES = 128 << 20
POSTGRES_USERS = ("postgres", "nobody")
"""Who runs the database, the first that exists; it refuses to run as root."""

# Several times what they take on an idle machine with two cores; a loaded one is slow, not broken.
_RAY_LIMIT_S = 180.0
_SERVER_LIMIT_S = 180.0


@dataclass(frozen=True)
class Server:
    """A node, and what its programs are told.

    Attributes:
        node: The node.
        plan: What the testbed consists of.
        programs: Folder of the Python programs.
        environment: The node's variables.
    """

    node: Node
    plan: Plan
    programs: Path
    environment: Mapping[str, str]

    @property
    def address(self) -> str:
        """The node's address."""
        return self.plan.address(self.node.name)

    def call(self, *command: str, timeout_s: float) -> str:
        """Run a program on the node with the node's variables."""
        return self.node.call(*command, environment=self.environment, timeout_s=timeout_s)

    def wait_for_answer(self, url: str, method: str = "GET") -> None:
        """Wait until a server of the node answers.

        Raises:
            TestbedError: It does not answer in time.
        """
        limit = f"{_SERVER_LIMIT_S:g}"
        try:
            self.call(
                sys.executable, "-I", str(ASK), method, url, limit, timeout_s=2 * _SERVER_LIMIT_S
            )
        except TestbedError as error:
            tail = self.node.folder.tail(self.node.name)
            raise TestbedError(f"{url}: {str(error)[-100:]} ({tail})") from None


def start_ray(server: Server) -> None:
    """Start Ray on a host: the head, or a host that joins it."""
    plan, is_head = server.plan, server.node.name == HEAD
    if is_head:
        place = ["--head", "--port", str(RAY_PORT)]
        place += [f"--include-dashboard={plan.dashboard}"]
        place += ["--dashboard-host", server.address, "--dashboard-port", str(DASHBOARD_PORT)]
    else:
        place = ["--address", f"{plan.address(HEAD)}:{RAY_PORT}"]
    server.call(
        *(str(server.programs / "ray"), "start", *place),
        *("--node-ip-address", server.address),
        *("--num-cpus", str(plan.cpus), "--num-gpus", "0"),
        *("--memory", str(plan.memory_mib << 20)),
        *("--object-store-memory", str(OBJECT_STORE_BYTES)),
        *("--disable-usage-stats", "--log-style", "record", "--log-color", "false"),
        timeout_s=_RAY_LIMIT_S,
    )


def start_tracking(server: Server) -> None:
    """Start PostgreSQL, which only this node reaches, and MLflow's server on it."""
    start_postgres(server)
    artifacts = server.node.folder.node(server.node.name) / "artifacts"
    command = [
        *(str(server.programs / "python"), "-m", "mlflow", "server"),
        *("--backend-store-uri", "postgresql+psycopg2://mlflow@/mlflow?host=/tmp"),
        *("--artifacts-destination", str(artifacts)),
        *("--host", server.address, "--port", str(TRACKING_PORT)),
        *("--workers", "1", "--uvicorn-opts", "--log-level warning"),
    ]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server.node.start_daemon(command, {**server.environment, **quiet})
    server.wait_for_answer(f"http://{server.address}:{TRACKING_PORT}/health")


def start_postgres(server: Server) -> None:
    """Start the database on a socket in the node's own /tmp; make it the first time."""
    programs = find_postgres()
    if programs is None:
        raise TestbedError("PostgreSQL: not found; `apt-get install postgresql`")
    user = find_postgres_user()
    identity = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    as_user = ("setpriv", *identity)
    data = server.node.folder.node(server.node.name) / "postgres"
    if not (data / "PG_VERSION").exists():
        data.mkdir(mode=0o700, exist_ok=True)
        os.chown(data, user.pw_uid, user.pw_gid)
        make = ("-D", str(data), "-U", "mlflow", "--auth=trust", "--encoding=UTF8", "--no-sync")
        server.call(*as_user, str(programs / "initdb"), *make, timeout_s=60.0)
    # The node was off, so whoever had these is dead; the number in them may be another's by now.
    sockets = server.node.folder.temporary(server.node.name).glob(".s.*")
    for lock in (data / "postmaster.pid", *sockets):
        lock.unlink(missing_ok=True)
    settings = ("-c", "listen_addresses=", "-c", "unix_socket_directories=/tmp")
    server.node.start_daemon(
        [*as_user, str(programs / "postgres"), "-D", str(data), *settings], server.environment
    )
    make_database(server, programs)


def make_database(server: Server, programs: Path) -> None:
    """Wait until the database answers, and make MLflow's part of it unless it is there."""
    ask = (str(programs / "psql"), "-h", "/tmp", "-U", "mlflow", "-d", "postgres", "-Atc")
    query = "SELECT count(*) FROM pg_database WHERE datname = 'mlflow'"
    end = time.monotonic() + _SERVER_LIMIT_S
    while True:
        try:
            count = server.call(*ask, query, timeout_s=30.0).strip()
            break
        except TestbedError as error:
            if time.monotonic() > end:
                tail = server.node.folder.tail(server.node.name)
                raise TestbedError(f"PostgreSQL: {error} ({tail})") from None
            time.sleep(0.2)
    if count == "0":
        server.call(*ask, "CREATE DATABASE mlflow", timeout_s=60.0)


def find_postgres_user() -> pwd.struct_passwd:
    """Return a user who is not root."""
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in POSTGRES_USERS:
        if name in known:
            return known[name]
    raise TestbedError(f"PostgreSQL: needs a user, one of {', '.join(POSTGRES_USERS)}")


def start_s3(server: Server) -> None:
    """Start the S3 server, and make the testbed's bucket."""
    url = f"http://{server.address}:{S3_PORT}"
    command = [str(server.programs / "python"), "-m", "moto.server"]
    server.node.start_daemon(
        [*command, "-H", server.address, "-p", str(S3_PORT)], server.environment
    )
    server.wait_for_answer(f"{url}/moto-api/")
    server.wait_for_answer(f"{url}/{BUCKET}", method="PUT")
