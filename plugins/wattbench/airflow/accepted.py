"""Configuration as it was last accepted: a file that is being edited ends no run that goes on.

Airflow finds a run's tasks by its DAG alone. Without one of the same tasks, a run that goes on loses them. So
an experiment that is refused keeps the tasks that it had, from copies below Airflow's home folder.
"""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from wattbench.analysis.storage.atomic import write_atomically
from wattbench.config.experiment import Experiment
from wattbench.config.hosts import HostsConfig

log = logging.getLogger(__name__)


class Accepted(BaseModel):
    """An experiment with the hosts that it was accepted with."""

    model_config = ConfigDict(extra="forbid")

    experiment: Experiment
    hosts: HostsConfig


def folder() -> Path:
    """Where the copies lie; all of Airflow's processes must see the same."""
    from airflow.configuration import AIRFLOW_HOME

    return Path(AIRFLOW_HOME) / "accepted"


def keep(name: str, experiment: Experiment, hosts: HostsConfig) -> None:
    """Remember an experiment; where nothing can be written, nothing is remembered."""
    path = folder() / f"{name}.json"
    try:
        text = Accepted(experiment=experiment, hosts=hosts).model_dump_json(exclude_unset=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)
    except (OSError, ValueError) as error:  # a sound experiment is not refused for its copy
        log.info("%s is not kept: %s", name, error)


def recall(name: str) -> Accepted | None:
    """The experiment of this name as it was last accepted; None: never, or by another version."""
    try:
        return Accepted.model_validate_json((folder() / f"{name}.json").read_bytes())
    except (OSError, ValidationError):
        return None


def recall_hosts() -> HostsConfig | None:
    """The hosts of the experiment that was accepted last."""
    try:
        newest = max(folder().glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    except (OSError, ValueError):
        return None
    found = recall(newest.stem)
    return None if found is None else found.hosts
