"""The testbed: brought up, disturbed, mended, taken down."""

from __future__ import annotations

import fcntl
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cluster.testbed.errors import TestbedError
from cluster.testbed.namespaces import Network, Node, find_nodes
from cluster.testbed.plan import (
    BUCKET,
    DASHBOARD_PORT,
    DEFAULT_ROOT,
    HEAD,
    LAPTOP,
    RAY_PORT,
    S3,
    S3_PORT,
    SWITCH,
    TRACKING,
    TRACKING_PORT,
    Folder,
    Plan,
    Record,
    Secrets,
)
from cluster.testbed.processes import HostProcess, Process, list_node_processes
from cluster.testbed.requirements import find_obstacle, find_programs
from cluster.testbed.servers import Server, start_ray, start_s3, start_tracking

LIST_HOSTS = Path(__file__).with_name("list_hosts.py").resolve()
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HIDDEN = (Path("/tmp"), Path("/dev"), Path("/proc"))
"""Where a node has something of its own, so that nothing of the machine's is seen there."""
JOIN_LIMIT_S = 120.0

_RUN_LIMIT_S = 600.0


class Testbed:
    """The testbed in a folder; several processes can work on one.

    Attributes:
        folder: Every file of it.
    """

    __test__ = False  # not a test class, whatever its name begins with

    def __init__(self, root: Path | str = DEFAULT_ROOT) -> None:
        self.folder = Folder(Path(root).resolve())
        self._network = Network.of(self.folder)

    # --- as a whole

    @classmethod
    @contextmanager
    def lend(cls, plan: Plan, root: Path | str = DEFAULT_ROOT) -> Iterator[Testbed]:
        """Bring a testbed up for the block; what an earlier one has left there goes first."""
        testbed = cls(root)
        testbed.down()
        testbed.up(plan)
        try:
            yield testbed
        finally:
            testbed.down()

    def up(self, plan: Plan) -> None:
        """Make the nodes, connect them, and start what runs on them.

        Raises:
            TestbedError: The machine lacks something, there is a testbed in the folder already, or
                something did not start; nothing is left then.
        """
        self._check_root()
        obstacle = find_obstacle(plan)
        if obstacle:
            raise TestbedError(obstacle)
        self._make_folder()
        with self._hold():
            if self.folder.nodes.exists() or find_nodes(self.folder.root):
                raise TestbedError(
                    f"testbed {self.folder.root}: is up, or has left files; run `testbed down`"
                )
            try:
                self._bring_up(plan)
            except BaseException:
                self._take_down(keep_files=False)
                raise

    def down(self, keep_files: bool = False) -> None:
        """Kill all nodes, and remove the folder; what a crash has left goes too.

        Args:
            keep_files: Leave logs, disks and the shared folder to be looked at.

        Raises:
            TestbedError: The folder is not a testbed's, or a process does not end.
        """
        if not self.folder.root.exists() and not find_nodes(self.folder.root):
            return
        self._make_folder()
        with self._hold():
            self._take_down(keep_files)

    def status(self) -> dict[str, Any]:
        """Return each node's address, state (up, cut, down) and what of Ray runs on it."""
        record = self.folder.read()
        connected = self._network.list_connected() if self._network.switch.find_init() else set()
        return {
            "root": str(self.folder.root),
            "shared": str(self.shared),
            "nodes": {
                name: {"address": record.plan.address(name)} | self._describe(name, connected)
                for name in record.plan.names
            },
        }

    # --- what is in it

    @property
    def plan(self) -> Plan:
        """What it consists of."""
        return self.folder.read().plan

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names of the Ray hosts, the head first."""
        return self.plan.host_names

    @property
    def shared(self) -> Path:
        """A folder that all nodes, and this machine, see under this path."""
        return self.folder.shared

    @property
    def bucket(self) -> str:
        """The bucket of the S3 server, as a URI."""
        return f"s3://{BUCKET}"

    @property
    def tracking_uri(self) -> str:
        """Address of the MLflow server."""
        return f"http://{self.plan.address(TRACKING)}:{TRACKING_PORT}"

    @property
    def head_address(self) -> str:
        """Address of Ray's head."""
        return f"{self.plan.address(HEAD)}:{RAY_PORT}"

    @property
    def dashboard_address(self) -> str:
        """Address of Ray's dashboard, to which jobs are submitted."""
        return f"http://{self.plan.address(HEAD)}:{DASHBOARD_PORT}"

    def environment(self, name: str) -> dict[str, str]:
        """Return the variables of a node, its secrets among them."""
        record = self.folder.read()
        plan, own = record.plan, self.folder.read_secrets()
        record.plan.check_name(name)
        variables = {
            "PATH": f"{record.programs}:{SYSTEM_PATH}",
            "HOME": str(self.folder.home(name)),
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": str(plan.cpus),
            "DO_NOT_TRACK": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": own.ray_token,
            # A worker that dies while the first driver connects would hang it (ray issue 40131).
            "RAY_prestart_worker_first_driver": "0",
        }
        if plan.tracking:
            uri = f"http://{plan.address(TRACKING)}:{TRACKING_PORT}"
            variables["MLFLOW_TRACKING_URI"] = uri
        if plan.s3:
            variables |= {
                "AWS_ACCESS_KEY_ID": "testbed",
                "AWS_SECRET_ACCESS_KEY": own.s3_key,
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": f"http://{plan.address(S3)}:{S3_PORT}",
            }
        return variables | plan.environment | record.environments.get(name, {})

    # --- programs on its nodes

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        cwd: Path | str | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
    ) -> HostProcess:
        """Start a program on a node; it dies with the node, and with `HostProcess.popen`.

        Args:
            name: The node.
            command: Program and arguments.
            cwd: Folder to start in; None = that of this process.
            environment: Variables beside the node's own.
            stdin: As for `subprocess.Popen`; nothing to read unless told otherwise.
            stdout: As for `subprocess.Popen`.
            stderr: As for `subprocess.Popen`.

        Raises:
            TestbedError: There is no such node, or it is down.
        """
        variables = self.environment(name) | dict(environment or {})
        popen = subprocess.Popen(
            Node(self.folder, name).enter(command, cwd or Path.cwd()),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=variables,
            start_new_session=True,
        )
        return HostProcess(popen)

    def run(
        self,
        name: str,
        command: Sequence[str],
        *,
        cwd: Path | str | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = _RUN_LIMIT_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on a node to its end, and return what it printed; see `start`.

        Raises:
            TestbedError: There is no such node, it is down, or the program takes too long.
        """
        process = self.start(
            *(name, command),
            cwd=cwd,
            environment=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            out, err = process.popen.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise TestbedError(
                f"{' '.join(command)}: no end within {timeout_s:g} s on {name}"
            ) from None
        finally:
            process.kill()
        return subprocess.CompletedProcess(
            list(command), process.wait(), out.decode(), err.decode()
        )

    def processes(self, name: str, text: str = "") -> list[Process]:
        """Return the living processes of a node whose command line contains `text`."""
        self.plan.check_name(name)
        found = list_node_processes(Node(self.folder, name).require_init())
        return [process for process in found if text in process.command]

    def alive_hosts(self, number: int = 0, limit_s: float = 0.0, ask: str = HEAD) -> list[str]:
        """Return the hosts that Ray counts as alive; wait up to `limit_s` for the number of them.

        Args:
            number: Hosts to wait for.
            limit_s: Seconds to wait at most.
            ask: The host to ask from.
        """
        command = [f"{self.folder.read().programs}/python", "-P", str(LIST_HOSTS)]
        done = self.run(ask, [*command, str(number), str(limit_s)], timeout_s=limit_s + 120.0)
        if done.returncode:
            raise TestbedError(f"Ray on {ask}: does not answer ({done.stderr.strip()[-300:]})")
        names = {self.plan.address(name): name for name in self.hosts}
        return [names[address] for address in done.stdout.splitlines()[-1].split()]

    # --- disturbances

    def kill(self, name: str, grace_s: float = 0.0) -> None:
        """Cut a node's power: it is off the network first, so that nobody is told.

        Args:
            name: The node; what is on its disk stays.
            grace_s: Preemption: send SIGTERM to all its processes, and wait so long before.
        """
        with self._hold():
            self.plan.check_name(name)
            Node(self.folder, name).require_init()
            if grace_s:
                for process in self.processes(name):
                    process.kill(signal.SIGTERM)
                time.sleep(grace_s)
            self._power_off(name)

    def restart(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        """Boot a node, killed before if it is up, and start what runs on it.

        Args:
            name: The node; a host joins the cluster, the head starts a new one.
            environment: Variables of this node from now on, beside those of all; None = as before.
        """
        with self._hold():
            record = self.folder.read()
            record.plan.check_name(name)
            if environment is not None:
                record = record.with_environment(name, dict(environment))
                self.folder.write(record)
            self._power_off(name)
            self._boot(record.plan, name)
            self._serve(record, name)

    def cut(self, name: str) -> None:
        """Let no packet through to or from a node; its processes go on, and nobody is told."""
        with self._hold():
            self.plan.check_name(name)
            Node(self.folder, name).require_init()
            self._network.cut(name)

    def heal(self, name: str) -> None:
        """Let packets through to and from a node again."""
        with self._hold():
            self.plan.check_name(name)
            Node(self.folder, name).require_init()
            self._network.heal(name)

    @contextmanager
    def cut_off(self, name: str) -> Iterator[None]:
        """Cut a node off for the block."""
        self.cut(name)
        try:
            yield
        finally:
            self.heal(name)

    # --- how

    def _check_root(self) -> None:
        for hidden in HIDDEN:
            if self.folder.root.is_relative_to(hidden):
                raise TestbedError(
                    f"folder {self.folder.root}: nodes do not see this machine's {hidden}; name "
                    "another"
                )

    def _make_folder(self) -> None:
        root = self.folder.root
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()) and not self.folder.lock.exists():
            raise TestbedError(f"folder {root}: holds what is no testbed's; name another")

    @contextmanager
    def _hold(self) -> Iterator[None]:
        """Let one process at a time change the testbed; the lock ends with its holder."""
        try:
            file = self.folder.lock.open("a")
        except FileNotFoundError:
            raise TestbedError(
                f"testbed {self.folder.root}: there is none; run `testbed up`"
            ) from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _bring_up(self, plan: Plan) -> None:
        programs = find_programs() or Path(sys.executable).parent
        record = Record(plan, str(programs))
        self.folder.write(record)
        self.folder.write_secrets(Secrets(secrets.token_hex(32), secrets.token_hex(20)))
        self.folder.shared.mkdir()
        self.folder.nodes.mkdir()
        names = [f"{plan.address(name)} {name}\n" for name in plan.names]
        self.folder.hosts_file.write_text("127.0.0.1 localhost\n" + "".join(names))
        self._network.make()
        with ThreadPoolExecutor(len(plan.names)) as pool:
            list(pool.map(lambda name: self._boot(plan, name), plan.names))
            servers = [pool.submit(self._serve, record, name) for name in (TRACKING, S3)]
            self._serve(record, HEAD)
            others = [name for name in plan.host_names if name != HEAD]
            list(pool.map(lambda name: self._serve(record, name), others))
            for server in servers:
                server.result()
        if plan.ray and len(alive := self.alive_hosts(plan.hosts, JOIN_LIMIT_S)) != plan.hosts:
            raise TestbedError(f"Ray: only {', '.join(alive)} joined within {JOIN_LIMIT_S:g} s")

    def _boot(self, plan: Plan, name: str) -> None:
        node = Node(self.folder, name)
        node.boot()
        self._network.connect(node, plan.address(name))

    def _serve(self, record: Record, name: str) -> None:
        """Start what runs on a node, if the testbed has the node."""
        plan = record.plan
        if name not in plan.names or name == LAPTOP:
            return
        environment = self.environment(name)
        server = Server(Node(self.folder, name), plan, Path(record.programs), environment)
        if name == TRACKING:
            start_tracking(server)
        elif name == S3:
            start_s3(server)
        elif plan.ray:
            start_ray(server)

    def _power_off(self, name: str) -> None:
        if name in self._network.list_connected():
            self._network.cut(name)
        Node(self.folder, name).power_off()
        self._network.remove(name)

    def _take_down(self, keep_files: bool) -> None:
        """Kill the nodes, the switch last, and remove what `up` has made."""
        root = self.folder.root
        for name in sorted(find_nodes(root), key=lambda name: name == SWITCH):
            Node(self.folder, name).power_off()
        for path in (self.folder.record, self.folder.secrets, self.folder.hosts_file):
            path.unlink(missing_ok=True)
        if keep_files:
            return
        for path in (self.folder.nodes, self.folder.shared):
            if path.exists():
                shutil.rmtree(path)
        for path in root.glob(".*.json.*"):
            path.unlink()
        self.folder.lock.unlink()
        if not any(root.iterdir()):
            root.rmdir()

    def _describe(self, name: str, connected: set[str]) -> dict[str, Any]:
        if Node(self.folder, name).find_init() is None:
            return {"state": "down"}
        state = "up" if name in connected else "cut"
        commands = [process.command for process in self.processes(name)]
        workers = [command for command in commands if command.startswith("ray::")]
        return {
            "state": state,
            "processes": len(commands),
            "raylet": any("/raylet/raylet" in command for command in commands),
            "ray_workers": len(workers),
            "environment": sorted(self.folder.read().environments.get(name, {})),
        }
