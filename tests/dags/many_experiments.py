"""Configurations of any number of hosts and experiments, and what Airflow makes of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

REPO = Path(__file__).resolve().parents[2]

#: Run in a process of its own: Airflow reads its settings when it is imported, which is not timed.
PARSE = """
import json, logging, os, sys, time
logging.disable(logging.CRITICAL)
import airflow.sdk
from airflow.dag_processing.dagbag import DagBag
import warnings; warnings.simplefilter("ignore")
for config in sys.argv[2:]:
  os.environ["WATTBENCH_CONFIG"] = config
  began, cpu = time.perf_counter(), time.process_time()
  bag = DagBag(sys.argv[1])
  took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
  print("RESULT" + json.dumps({
    "took_s": took_s, "cpu_s": cpu_s, "errors": bag.import_errors,
    "heavy": [m for m in ("torch", "boto3", "docker", "paramiko", "matplotlib", "scipy", "pandas") if m in sys.modules],
    "dags": {d.dag_id: {
        "tasks": {t.task_id: {"up": sorted(t.upstream_task_ids), "teardown": t.is_teardown, "setup": t.is_setup, "fails_run": t.on_failure_fail_dagrun, "at_once": getattr(t, "max_active_tis_per_dagrun", None)} for t in d.tasks},
        "deadline": bool(d.deadline), "schedule": None if d.schedule is None else str(d.schedule), "catchup": d.catchup,
        "params": list(d.params), "doc": d.doc_md, "tags": sorted(d.tags)} for d in bag.dags.values()},
  }))
"""


def parse(config: Path, home: Path) -> dict[str, Any]:
    """Parse dags/ with one configuration, see :func:`parse_each`."""
    (found,) = parse_each([config], home)
    return found


def parse_each(configs: Iterable[Path], home: Path) -> list[dict[str, Any]]:
    """Parse dags/ with each configuration, one after the other in one process.

    Args:
        configs: folders with hosts.yaml and experiments/.
        home: Airflow's, empty or used before.

    Returns:
        of each ``took_s`` and ``cpu_s`` (of the parse, with Airflow already imported), ``errors``, ``heavy``
        (libraries that the parses have imported so far) and ``dags``.
    """
    env = os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPO / "plugins"),
        "PYTHONPATH": f"{REPO}:{REPO / 'plugins'}",
    }
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(REPO / "dags"), *map(str, configs)],
        env=env, capture_output=True, text=True, check=False, cwd=home,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return [json.loads(line[len("RESULT") :]) for line in lines if line.startswith("RESULT")]


def write_config(
    folder: Path, hosts: int, experiments: int, blocks: int = 3, **extra: object
) -> Path:
    """Write a configuration; every experiment has two images and names all hosts.

    Args:
        folder: must not exist.
        hosts: how many.
        experiments: how many.
        blocks: of every experiment.
        extra: further keys of every experiment.
    """
    names = [f"gpu-{i:02d}" for i in range(hosts)]
    (folder / "experiments").mkdir(parents=True)
    meter = {"kind": "energibridge", "command": "/usr/local/bin/energibridge"}
    (folder / "hosts.yaml").write_text(yaml.safe_dump({
        "store": {"bucket": "wattbench"},
        "hosts": {n: {"ssh_conn_id": n, "gpus": ["GPU-1"], "meter": meter} for n in names},
    }))  # fmt: skip
    for i in range(experiments):
        (folder / "experiments" / f"exp-{i:02d}.yaml").write_text(yaml.safe_dump({
            "hosts": names, "device": "cuda", "reference": "a",
            "workload": {"passes": [{"resolution": 256, "iterations": 400}]},
            "images": {"a": {"ref": "x/a:1"}, "b": {"ref": "x/b:1"}},
            "protocol": {"blocks": blocks}, **extra,
        }))  # fmt: skip
    return folder
