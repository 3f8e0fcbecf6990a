"""Where hosts.yaml names `store.retention`, an Airflow dag that lets raw logs expire.

A hosts.yaml that can't be read is told by each experiment.
"""

from __future__ import annotations

from wattbench.airflow.dag import retention_dag
from wattbench.config.loader import config_dir, load_hosts
from wattbench.errors import ConfigError

try:
    retention = load_hosts(config_dir()).store.retention
except ConfigError:
    retention = None
if retention is not None:
    wattbench_retention = retention_dag()
