"""Run ids."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime


def make_run_id(experiment: str, dag_id: str, dag_run_id: str, run_after: datetime) -> str:
    """``<experiment>-<UTC time>-<6 hex>``: the same for every retry of the same DAG run."""
    digest = hashlib.sha256((dag_id + dag_run_id).encode()).hexdigest()[:6]
    return f"{experiment}-{run_after.astimezone(UTC):%Y%m%dT%H%M%SZ}-{digest}"
