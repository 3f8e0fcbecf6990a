"""Each YAML in config/experiments becomes an Airflow DAG. A refused one becomes a DAG that says why.

(Airflow parses a file only if the words dag and airflow occur in it.)
"""

from __future__ import annotations

import logging

from wattbench.airflow.dag import build_dag, refused_dag
from wattbench.config.loader import config_dir, experiment_paths, load_experiment, load_hosts
from wattbench.errors import ConfigError

for path in experiment_paths(config_dir()):
    try:
        hosts = load_hosts(config_dir())
        globals()[path.stem] = build_dag(path, load_experiment(path, hosts), hosts)
    except ConfigError as error:
        logging.getLogger(__name__).error("%s", error)
        globals()[path.stem] = refused_dag(path.stem, error)
