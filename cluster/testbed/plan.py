"""What a testbed consists of, and the folder in which that is written down."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from cluster.testbed.errors import TestbedError

ROOT_VARIABLE = "DISTPRUNE_TESTBED"
"""Environment variable that names another folder than the default."""
DEFAULT_ROOT = Path(os.environ.get(ROOT_VARIABLE, "/var/tmp/distprune-testbed"))
"""Not below /tmp: every node has a /tmp of its own."""

HEAD = "h1"
SWITCH = "switch"
LAPTOP = "laptop"
TRACKING = "tracking"
S3 = "s3"
NETWORK = "10.77.0"
PREFIX_LENGTH = 24
RAY_PORT = 6379
DASHBOARD_PORT = 8265
TRACKING_PORT = 5000
S3_PORT = 9000
BUCKET = "distprune"
MAX_HOSTS = 50

_FIRST_HOST = 10
_SERVERS = {LAPTOP: 2, TRACKING: 3, S3: 4}
_FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """What to bring up.

    Attributes:
        hosts: Ray hosts; the first is the head.
        cpus: Cores that each host offers to Ray.
        memory_mib: Memory that each host offers to Ray.
        ray: Start Ray on the hosts; without, they are bare.
        dashboard: Start Ray's dashboard on the head, which takes jobs.
        tracking: Start MLflow on PostgreSQL.
        s3: Start an S3 server.
        environment: Variables of every node, beside those of the testbed.
    """

    hosts: int = 3
    cpus: int = 1
    memory_mib: int = 4096
    ray: bool = True
    dashboard: bool = False
    tracking: bool = False
    s3: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = {"hosts": (self.hosts, MAX_HOSTS), "cpus": (self.cpus, 1024)}
        for name, (value, most) in limits.items():
            if not 1 <= value <= most:
                raise TestbedError(f"{name}: {value}; must be 1 to {most}")

    @property
    def host_names(self) -> tuple[str, ...]:
        """The Ray hosts, the head first."""
        return tuple(f"h{number}" for number in range(1, self.hosts + 1))

    @property
    def names(self) -> tuple[str, ...]:
        """All nodes, servers before those who ask them."""
        servers = [name for name, wanted in ((TRACKING, self.tracking), (S3, self.s3)) if wanted]
        return (*servers, *self.host_names, LAPTOP)

    def address(self, name: str) -> str:
        """Return the address of a node in the testbed's network."""
        if name in _SERVERS:
            return f"{NETWORK}.{_SERVERS[name]}"
        return f"{NETWORK}.{_FIRST_HOST + int(name.removeprefix('h'))}"

    def check_name(self, name: str) -> str:
        """Return a name that is a node's.

        Raises:
            TestbedError: There is no such node.
        """
        if name not in self.names:
            raise TestbedError(f"node: {name!r}; this testbed has {', '.join(self.names)}")
        return name


@dataclass(frozen=True)
class Secrets:
    """What the nodes of one testbed know and nobody else."""

    ray_token: str
    s3_key: str


@dataclass(frozen=True)
class Record:
    """What is written down before anything is made, so that it is found after a crash.

    Attributes:
        plan: What was asked for.
        programs: Folder of the Python environment whose programs the nodes run.
        environments: Variables that a restart has given to single nodes.
    """

    plan: Plan
    programs: str
    environments: dict[str, dict[str, str]] = field(default_factory=dict)

    def with_environment(self, name: str, environment: dict[str, str]) -> Record:
        """Return the record with other variables of one node."""
        return replace(self, environments=self.environments | {name: environment})


@dataclass(frozen=True)
class Folder:
    """The folder of a testbed; every file of it is named here."""

    root: Path

    @property
    def record(self) -> Path:
        """The record; its presence says that the folder is a testbed's."""
        return self.root / "testbed.json"

    @property
    def secrets(self) -> Path:
        """The secrets; only root can read it."""
        return self.root / "secrets.json"

    @property
    def lock(self) -> Path:
        """Held while a command changes the testbed."""
        return self.root / "lock"

    @property
    def hosts_file(self) -> Path:
        """The nodes' /etc/hosts."""
        return self.root / "hosts"

    @property
    def shared(self) -> Path:
        """Seen by all nodes under this path."""
        return self.root / "shared"

    @property
    def nodes(self) -> Path:
        """What each node has for itself."""
        return self.root / "nodes"

    def node(self, name: str) -> Path:
        """What a node has for itself: its disk, which outlives it."""
        return self.nodes / name

    def home(self, name: str) -> Path:
        """A node's home folder."""
        return self.node(name) / "home"

    def temporary(self, name: str) -> Path:
        """A node's /tmp; Ray's logs are below `ray/session_latest/logs`."""
        return self.node(name) / "tmp"

    def log(self, name: str) -> Path:
        """What the testbed's own programs on a node have printed."""
        return self.node(name) / "log.txt"

    def tail(self, name: str) -> str:
        """Return the end of a node's log, for messages."""
        lines = self.log(name).read_text(errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-3:])[-400:] or "no word why"

    def read(self) -> Record:
        """Read the record.

        Raises:
            TestbedError: There is no testbed, or it is of another version.
        """
        try:
            values = json.loads(self.record.read_text())
        except FileNotFoundError:
            raise TestbedError(f"testbed {self.root}: there is none; run `testbed up`") from None
        except ValueError as error:
            raise TestbedError(f"testbed {self.record}: cannot be read ({error})") from error
        if values.pop("format", None) != _FORMAT:
            raise TestbedError(f"testbed {self.record}: of another version; remove it with that")
        return Record(**(values | {"plan": Plan(**values["plan"])}))

    def write(self, record: Record) -> None:
        """Write the record, whole or not at all."""
        write_whole(self.record, json.dumps({"format": _FORMAT} | asdict(record), indent=2))

    def read_secrets(self) -> Secrets:
        """Read the secrets."""
        return Secrets(**json.loads(self.secrets.read_text()))

    def write_secrets(self, secrets: Secrets) -> None:
        """Write the secrets."""
        write_whole(self.secrets, json.dumps(asdict(secrets)))


def write_whole(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.touch(mode=0o600)
    aside.write_text(text)
    aside.replace(path)
