"""What runs on the testbed: a cluster that asks for a token, MLflow on PostgreSQL, S3."""

from __future__ import annotations

import json

import pytest

from cluster.testbed import Testbed

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster"), pytest.mark.timeout(600)]

SPREAD = """
import json, socket, ray
ray.init(address="auto", log_to_driver=False)

@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def name_host():
    import time
    time.sleep(1.0)
    return socket.gethostname()

names = sorted(ray.get([name_host.remote() for _ in range(3)]))
print(json.dumps([names, ray.cluster_resources()["CPU"]]))
"""

CONNECT = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False)"

TRACK = """
import json, os, sys
from mlflow.tracking import MlflowClient
client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
found = client.get_experiment_by_name("kept")
if not found:
    run = client.create_run(client.create_experiment("kept"))
    client.log_metric(run.info.run_id, "accuracy", 0.75, step=3)
    client.log_text(run.info.run_id, "some text", "note.txt")
    found = client.get_experiment_by_name("kept")
(run,) = client.search_runs([found.experiment_id])
files = [item.path for item in client.list_artifacts(run.info.run_id)]
print(json.dumps([run.data.metrics, files, found.artifact_location]))
"""

STORE = """
import fsspec, json
from concurrent.futures import ThreadPoolExecutor
files = fsspec.filesystem("s3")

def create(number):
    try:
        files.pipe_file("distprune/once", str(number).encode(), mode="create")
    except FileExistsError:
        return None
    return number

with ThreadPoolExecutor(8) as pool:
    won = [number for number in pool.map(create, range(8)) if number is not None]
print(json.dumps([won, int(files.cat_file("distprune/once")), files.ls("distprune")]))
"""


def test_three_hosts_form_a_cluster(testbed: Testbed) -> None:
    assert testbed.hosts == ("h1", "h2", "h3")
    assert testbed.alive_hosts() == ["h1", "h2", "h3"]
    done = testbed.run("h2", ["python", "-c", SPREAD])
    assert json.loads(done.stdout) == [["h1", "h2", "h3"], 3.0], done.stderr


@pytest.mark.parametrize("token", ["0" * 64, ""])
def test_stranger_is_refused(testbed: Testbed, token: str) -> None:
    command = ["python", "-c", CONNECT, testbed.head_address]
    done = testbed.run("h3", command, environment={"RAY_AUTH_TOKEN": token})
    assert done.returncode != 0
    assert "uthenticat" in done.stderr


def test_tracking_server_keeps_runs_over_a_power_cut(testbed: Testbed) -> None:
    before = testbed.run("laptop", ["python", "-c", TRACK])
    metrics, files, location = json.loads(before.stdout)
    assert metrics == {"accuracy": 0.75}
    assert files == ["note.txt"]
    assert location.startswith("mlflow-artifacts:")
    testbed.kill("tracking")
    testbed.restart("tracking")
    assert testbed.run("h3", ["python", "-c", TRACK]).stdout == before.stdout
    assert any("postgres" in process.command for process in testbed.processes("tracking"))


def test_bucket_takes_an_object_once(testbed: Testbed) -> None:
    done = testbed.run("h2", ["python", "-c", STORE])
    assert done.returncode == 0, done.stderr
    won, content, listed = json.loads(done.stdout)
    assert won == [content]
    assert listed == ["distprune/once"]
