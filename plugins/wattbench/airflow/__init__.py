"""Airflow: DAGs, operators, sensors, connections, notifiers. Only this package and ``web`` import it."""
