"""Telling people, through any of Airflow's notifiers that hosts.yaml names.

A notifier's arguments are Airflow templates; beside Airflow's own variables they know ``wattbench``:
``event``, ``title``, ``text``, ``run_id`` and ``link``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import BaseNotifier
from airflow.sdk.configuration import conf

from wattbench.config.hosts import NotifyConfig
from wattbench.config.loader import config_dir, load_hosts
from wattbench.errors import ConfigError
from wattbench.steps.run_events import Event

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger("wattbench")


class LogNotifier(BaseNotifier):
    """Says it in the task's log: what is done where hosts.yaml names no other notifier."""

    def notify(self, context: Context) -> None:
        """Log one event."""
        event_facts = context["wattbench"]  # type: ignore[typeddict-item]
        log.warning("%s: %s – %s", event_facts["event"], event_facts["title"], event_facts["text"])


def link_of(dag_id: str, dag_run_id: str) -> str:
    """A DAG run's page in Airflow."""
    base = conf.get("api", "base_url", fallback="http://localhost:8080").rstrip("/")
    return f"{base}/dags/{quote(dag_id)}/runs/{quote(dag_run_id)}"


def send(
    events: Sequence[Event],
    notifiers: Sequence[NotifyConfig],
    context: Mapping[str, Any],
    *,
    run_id: str,
    link: str,
) -> list[str]:
    """Tell every event to every notifier that asked for it.

    Returns:
        One line per notifier that failed; the others were notified all the same.
    """
    trouble = []
    for config in notifiers:
        for event in (e for e in events if e.kind in config.events):
            event_facts = {
                "event": event.kind, "title": event.title, "text": event.text,
                "run_id": run_id, "link": link,
            }  # fmt: skip
            try:
                _made(config)({**context, "wattbench": event_facts})
            except Exception as error:  # noqa: BLE001 - third-party code and network
                why = " ".join(str(error).split())[:200] or type(error).__name__
                trouble.append(f"{config.notifier} could not report {event.kind}: {why}")
                log.error("%s", trouble[-1])
    return trouble


def _made(config: NotifyConfig) -> Any:
    """A notifier of its own for each event: rendering its templates changes it."""
    module, _, name = config.notifier.rpartition(".")
    try:
        return getattr(import_module(module), name)(**config.arguments)
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(f"hosts.yaml: notify: {error}; correct its path or arguments") from None


def run_hangs(context: Mapping[str, Any]) -> None:
    """Tell that a DAG run should have been over by now.

    Args:
        context: ``dag_run`` with ``dag_id``, ``run_id`` and ``queued_at``.
    """
    run = context["dag_run"]
    dag_id, dag_run_id = str(run["dag_id"]), str(run["run_id"])
    event = Event(
        "run-hangs",
        f"{dag_id}: the run is not over",
        f"It began at {run['queued_at']} and should be over by now; see which task waits, and for what.",
    )
    trouble = send(
        [event], load_hosts(config_dir()).notify, context,
        run_id=dag_run_id, link=link_of(dag_id, dag_run_id),
    )  # fmt: skip
    if trouble:
        raise ConfigError("; ".join(trouble))
