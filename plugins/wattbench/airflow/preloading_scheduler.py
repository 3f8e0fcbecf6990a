"""Airflow's scheduler and triggerer, with what their children import loaded beforehand.

LocalExecutor forks its task processes from the scheduler (`python -m wattbench.scheduler`). Each would import
the same libraries anew: some four seconds of CPU a trial, in the demo on the very cores that the virtual
hosts measure on. In the triggerer (`python -m wattbench.triggerer`) all waits would stand still meanwhile.
"""

from __future__ import annotations

import importlib
import sys

FOR_WAITS = (
    "boto3",
    "paramiko",
    "wattbench.steps.trial",
    "wattbench.worker.ssh",
    "wattbench.storage.object_store",
)
PRELOADED = {
    "scheduler": (
        *FOR_WAITS,
        "wattbench.analysis.meters.attempt",
        "wattbench.analysis.checks",
        "wattbench.analysis.report",
    ),
    "triggerer": FOR_WAITS,
}


def main(process: str = "scheduler") -> None:
    """Load, then become `airflow scheduler` or `airflow triggerer`."""
    for name in PRELOADED[process]:
        importlib.import_module(name)
    from airflow.__main__ import main as airflow

    sys.argv = ["airflow", process]
    airflow()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
