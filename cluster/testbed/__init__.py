"""Several Ray hosts on one machine: namespaces are hosts, a bridge is their network.

Each host has its own network address, host name, processes, /tmp, /dev/shm and home folder. They
share the file system, so that `Testbed.shared` is a folder that all of them see under one path.
Nothing of it is in the machine's own network, and everything ends with `down`, also after a crash.

    plan = Plan(hosts=3, tracking=True, s3=True)
    with Testbed.lend(plan) as testbed:             # up, and down whatever happens
        driver = testbed.start("h2", ["distprune", "search", "study.yaml", "--address", "auto"])
        with testbed.cut_off("h3"):                 # no packet in or out
            time.sleep(20)
        testbed.kill("h3")                          # power cut: nobody is told
        testbed.restart("h3")                       # boots, and joins the cluster again
        driver.kill()                               # SIGKILL to distprune itself
        testbed.kill("tracking"); testbed.restart("tracking")

Nodes: `h1` (Ray's head), `h2`, ...; `laptop` (in the network, not in the cluster); with
`Plan.tracking` `tracking` (MLflow on PostgreSQL, at `Testbed.tracking_uri`); with `Plan.s3` `s3`
(moto, which keeps buckets in memory only: a restart empties it; the bucket is `Testbed.bucket`).
`Testbed(root)` is the one that `cluster/testbed/testbed up` has brought up in another process.

All addresses exist inside the testbed only: reach them by `start` and `run`.
"""

from cluster.testbed.control import Testbed
from cluster.testbed.errors import TestbedError
from cluster.testbed.plan import DEFAULT_ROOT, Plan
from cluster.testbed.processes import HostProcess, Process
from cluster.testbed.requirements import find_obstacle

__all__ = [
    "DEFAULT_ROOT",
    "HostProcess",
    "Plan",
    "Process",
    "Testbed",
    "TestbedError",
    "find_obstacle",
]
