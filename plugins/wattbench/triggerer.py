"""``python -m wattbench.triggerer``: see :mod:`wattbench.airflow.preloading_scheduler`."""

from wattbench.airflow.preloading_scheduler import main

if __name__ == "__main__":
    main("triggerer")
