"""Run ids: ``<experiment>-<UTC time>-<6 hex>``, made from an Airflow DAG run and read back."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime

_TIME = "%Y%m%dT%H%M%SZ"
_RUN_ID = re.compile(
    r"(?P<experiment>[a-z0-9]([a-z0-9-]*[a-z0-9])?)-(?P<due>\d{8}T\d{6}Z)-(?P<mark>[0-9a-f]{6})"
)


@dataclass(frozen=True)
class RunId:
    """The parts of a run id.

    Attributes:
        experiment: its experiment, which is also its DAG.
        due: when the run was due (the DAG run's ``run_after``), to the second.
        mark: six hex digits of the DAG's and the DAG run's id.
    """

    experiment: str
    due: datetime
    mark: str

    @property
    def order(self) -> tuple[datetime, str]:
        """Sort key: runs of all experiments in the order in which they were due."""
        return self.due, self.mark

    def __str__(self) -> str:
        return f"{self.experiment}-{self.due:{_TIME}}-{self.mark}"


def make_run_id(experiment: str, dag_id: str, dag_run_id: str, run_after: datetime) -> str:
    """Return the run id of a DAG run: the same for every retry."""
    digest = hashlib.sha256((dag_id + dag_run_id).encode()).hexdigest()[:6]
    return str(RunId(experiment, run_after.astimezone(UTC), digest))


def parse_run_id(text: str) -> RunId | None:
    """Return the parts of a run id; None if the text is not one."""
    found = _RUN_ID.fullmatch(text)
    if found is None:
        return None
    try:
        due = datetime.strptime(found["due"], _TIME).replace(tzinfo=UTC)
    except ValueError:  # month 13
        return None
    return RunId(found["experiment"], due, found["mark"])
