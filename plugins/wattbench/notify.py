"""Public name of the notifiers: hosts.yaml and serialized DAGs hold it."""

from wattbench.airflow.notifiers import LogNotifier, run_hangs

__all__ = ["LogNotifier", "run_hangs"]
