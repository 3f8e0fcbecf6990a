"""Retention: deletes raw logs by age and size; records, tables and reports stay.

Of a run that is over, the meters' and workloads' files go. Records, the agent's reports, tables, the report
and the manifest stay, and the manifest records what is gone, since when and why.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from wattbench.run import store_keys
from wattbench.run.run_id import parse_run_id
from wattbench.storage.object_store import ObjectMissingError

if TYPE_CHECKING:
    from wattbench.analysis.model.run_document import RunDocument
    from wattbench.config.hosts import Retention
    from wattbench.storage.object_store import Listed, Store

log = logging.getLogger(__name__)

#: What stays of an attempt.
_KEPT = ("trial.json", "attempt.json")


@dataclass(frozen=True)
class RawLogs:
    """The raw logs of one run.

    Attributes:
        run_id: the run.
        due: when it was due.
        files: keys relative to the run.
        bytes: of all of them.
        finished: whether the run has a manifest: its last step.
    """

    run_id: str
    due: datetime
    files: tuple[str, ...]
    bytes: int
    finished: bool


def by_run(objects: Iterable[Listed]) -> list[RawLogs]:
    """The raw logs of every run below ``runs/``, oldest run first."""
    files: defaultdict[str, list[Listed]] = defaultdict(list)
    finished: set[str] = set()
    due: dict[str, datetime] = {}
    for listed in objects:
        _, run_id, name = listed.key.split("/", 2)
        parsed = parse_run_id(run_id)
        if parsed is None:  # not a run of ours: how old it is can't be known
            continue
        due[run_id] = parsed.due
        parts = name.split("/")
        if name == store_keys.MANIFEST:
            finished.add(run_id)
        elif parts[0] == "hosts" and "trials" in parts[2:3] and parts[-1] not in _KEPT:
            files[run_id].append(listed)
    return sorted(
        (
            RawLogs(
                run_id,
                due[run_id],
                tuple(o.key.split("/", 2)[2] for o in mine),
                sum(o.bytes for o in mine),
                run_id in finished,
            )
            for run_id, mine in files.items()
        ),
        key=lambda logs: logs.due,
    )


def to_expire(
    logs: Sequence[RawLogs], retention: Retention, now: datetime
) -> list[tuple[RawLogs, str]]:
    """Which runs' raw logs go, and why: the too old ones, then the oldest until the rest fits.

    Logs of a run without a manifest count, and stay.
    """
    chosen: list[tuple[RawLogs, str]] = []
    left_bytes = sum(one.bytes for one in logs)
    for one in sorted(logs, key=lambda one: one.due):
        if not one.finished:
            continue
        if retention.days is not None and now - one.due > timedelta(days=retention.days):
            reason = f"older than {retention.days:g} days"
        elif retention.max_gb is not None and left_bytes > retention.max_gb * 1e9:
            reason = f"raw logs of all runs exceeded {retention.max_gb:g} GB"
        else:
            continue
        chosen.append((one, reason))
        left_bytes -= one.bytes
    return chosen


def expire(
    store: Store,
    retention: Retention,
    is_over: Callable[[RunDocument], bool],
    now: datetime | None = None,
) -> str:
    """Remove the raw logs that are due to go.

    Args:
        store: where the runs are.
        retention: the limits.
        is_over: whether a run has ended, by its document: one that goes on anew is left alone.
        now: this moment.

    Returns:
        What was done, in one line.
    """
    logs = by_run(store.list(f"{store_keys.RUNS}/"))
    runs = files = freed = 0
    for one, reason in to_expire(logs, retention, now or datetime.now(UTC)):
        try:
            over = is_over(store.get_json(store_keys.run_json_key(one.run_id)))
        except ObjectMissingError:
            over = False
        if not over:
            log.info("%s: left alone, the run goes on", one.run_id)
            continue
        removed = store.expire(store_keys.run_key(one.run_id), one.files, reason)
        log.info(
            "%s: %d raw files, %.1f MB removed: %s", one.run_id, removed, one.bytes / 1e6, reason
        )
        runs, files, freed = runs + 1, files + removed, freed + one.bytes
    kept = sum(one.bytes for one in logs) - freed
    return (
        f"{files} raw files of {runs} runs removed, {freed / 1e6:.1f} MB; "
        f"{kept / 1e6:.1f} MB of raw logs stay"
    )
