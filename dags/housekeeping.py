"""Upkeep as Airflow dags: runs that hang or were left behind; raw logs that expire, where hosts.yaml says so.

A hosts.yaml that can't be read is told by each experiment.
"""

from __future__ import annotations

from wattbench.airflow.dag import housekeeping_dag, retention_dag
from wattbench.config.loader import config_dir, load_hosts
from wattbench.errors import ConfigError

try:
    hosts = load_hosts(config_dir())
except ConfigError:
    pass
else:
    wattbench_housekeeping = housekeeping_dag()
    if hosts.store.retention is not None:
        wattbench_retention = retention_dag()
