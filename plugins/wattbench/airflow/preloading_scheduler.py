"""Airflow's scheduler, with what the tasks import loaded beforehand: `python -m wattbench.scheduler`.

LocalExecutor forks its task processes from the scheduler. Each would import the same libraries anew: some
four seconds of CPU a trial, in the demo on the very cores that the virtual hosts measure on.
"""

from __future__ import annotations

import importlib
import sys

PRELOADED = (
    "boto3",
    "paramiko",
    "wattbench.steps.trial",
    "wattbench.worker.ssh",
    "wattbench.storage.object_store",
    "wattbench.analysis.meters.attempt",
    "wattbench.analysis.checks",
    "wattbench.analysis.report",
)


def main() -> None:
    """Load, then become `airflow scheduler`."""
    for name in PRELOADED:
        importlib.import_module(name)
    from airflow.__main__ import main as airflow

    sys.argv = ["airflow", "scheduler"]
    airflow()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
