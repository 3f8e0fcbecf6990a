"""How long Airflow's DAG processor needs for many hosts and experiments.

``python tests/bench/bench_dags.py [HOSTS] [EXPERIMENTS]`` (default 20 and 10) parses ``dags/`` in a process
that has Airflow imported already, three times, and prints the best in CPU seconds. Aim: under one second.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "dags"), str(Path(__file__).parent)]

import yaml
from figures import Figure, show
from many_experiments import parse, write_config

ROUNDS = 3
LIMIT_S = 1.0


def plain_s(config: Path) -> float:
    """CPU seconds to read the same files with PyYAML's safe_load."""
    began = time.process_time()
    for file in config.rglob("*.yaml"):
        yaml.safe_load(file.read_text(encoding="utf-8"))
    return time.process_time() - began


def main() -> None:
    """Measure and print."""
    hosts = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    experiments = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        config = write_config(home / "config", hosts, experiments)
        rounds = [parse(config, home) for _ in range(ROUNDS)]
        plain = min(plain_s(config) for _ in range(ROUNDS))
    for found in rounds:
        parsed = [dag_id for dag_id in found["dags"] if dag_id.startswith("exp-")]
        if found["errors"] or len(parsed) != experiments:
            sys.exit(f"{len(parsed)} DAGs instead of {experiments}; {found['errors']}")
    tasks = sum(len(dag["tasks"]) for dag in rounds[0]["dags"].values())
    best = min(rounds, key=lambda found: float(found["cpu_s"]))
    show(
        Figure(
            "parsing dags/, Airflow imported", f"{hosts} hosts x {experiments} experiments, {tasks} tasks",
            float(best["cpu_s"]), "s of CPU", limit=LIMIT_S, plain=plain, plain_is="yaml.safe_load of the config",
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
