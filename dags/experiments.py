"""Each YAML in config/experiments becomes an Airflow DAG. A refused one becomes a DAG that says why.

(Airflow parses a file only if the words dag and airflow occur in it.)
"""

from __future__ import annotations

from wattbench.airflow.dag import experiment_dags
from wattbench.config.loader import config_dir

globals().update(experiment_dags(config_dir()))
