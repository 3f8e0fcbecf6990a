"""What the store says of runs and hosts, for the pages; what does not change is kept in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from wattbench.analysis.model.errors import InputError, UserError
from wattbench.analysis.model.run_document import (
    HostDocument,
    PlannedTrialDocument,
    read_run,
    readable_host,
)
from wattbench.config.hosts import HostConfig
from wattbench.config.loader import config_dir, load_hosts
from wattbench.history.quarantine import Standing, standing_of
from wattbench.report_summary import Answer, answer
from wattbench.run import store_keys
from wattbench.run.plan import PlannedTrial
from wattbench.storage.object_store import ObjectMissingError, Store
from wattbench.web import documents
from wattbench.web.documents import FindingDocument, NewsDocument, NightsDocument

if TYPE_CHECKING:
    from wattbench.web.rows import Known

D = TypeVar("D")

#: A page waits for the store no longer than a person does.
_WAITS_S = (0.5,)
#: Age after which a host's runs are read again, s.
_STANDING_S = 60.0
#: Documents of runs that are kept in memory.
_KEPT = 3000


_local = threading.local()
_kept: dict[tuple[str, str], Any] = {}
_standings: dict[tuple[str, float | None], tuple[float, Standing]] = {}


def open_store() -> Store:
    """This thread's store, as hosts.yaml and its connection have it now."""
    from wattbench.airflow.connections import open_store as fresh

    target = fresh(load_hosts(config_dir())).target
    store: Store | None = getattr(_local, "store", None)
    if store is None or store.target != target:
        store = _local.store = Store(target, waits_s=_WAITS_S)
    return store


def file_of(run_id: str, folder: str, path: str) -> bytes:
    """A file of a run's report (folder ``report``) or of its nights (``trends``).

    Raises:
        InputError: the path is not made of names: it can't leave the folder.
        ObjectMissingError: there is no such file.
    """
    key = store_keys.run_key(run_id, folder, *path.split("/"))  # refused before anything is opened
    return open_store().get(key)


def answer_of(known: Known) -> Answer | None:
    """What the report of a run says; None while it has none."""
    if not known.run.over:
        return None
    summary = _of_run(known, "report", "summary.json")
    return None if summary is None else answer(summary)


def findings_of(known: Known) -> list[FindingDocument]:
    """The findings of a run's report; empty without one."""
    return _read(documents.findings(), known, "report", "findings.json") or []


def news_of(known: Known) -> NewsDocument:
    """What was new in a run; empty if it has not come that far."""
    return _read(documents.news(), known, "news.json") or {}


def nights_of(known: Known) -> NightsDocument | None:
    """The nights up to a run; None where they were too few for a series."""
    return _read(documents.nights(), known, "trends", "summary.json")


def host_document(run_id: str, host: str) -> HostDocument:
    """What a run's check found of a host, without malformed fields."""
    return readable_host(_json(store_keys.host_json_key(run_id, host)))[0]


def standing(name: str, config: HostConfig) -> Standing:
    """A host over its runs."""
    key, now = (name, config.unsteady_pct), time.monotonic()
    if key not in _standings or now - _standings[key][0] > _STANDING_S:
        _standings[key] = (now, standing_of(open_store(), name, config))
    return _standings[key][1]


def plan_of(run_id: str) -> dict[str, list[PlannedTrial]]:
    """The trials that each host was handed, in order."""
    try:
        key = store_keys.run_json_key(run_id)
        document, _ = read_run(_json(key) or {"run_id": run_id, "plan": {}}, key)
        return {host: _handed(run_id, host, trials) for host, trials in document["plan"].items()}
    except UserError:
        return {}  # the trials are numbered without their names until it can be read


def reason_of(run_id: str, host: str, trial: PlannedTrial) -> str:
    """Why a trial is not valid, by its first attempt; empty: not known yet."""
    try:
        record = _json(store_keys.trial_key(run_id, host, trial.name, 1, "trial.json"))
        if record is not None:
            return str(record["row"].get("reason") or record["row"].get("status") or "")
        outcome = _json(store_keys.host_key(run_id, host, "outcomes", f"{trial.name}.json"))
    except UserError:
        return ""
    return "" if outcome is None else str(outcome.get("reason") or "")


def _read(reader: TypeAdapter[D], known: Known, *names: str) -> D | None:
    """A document that a run's end has written; None if there is none.

    Raises:
        InputError: it has another form.
    """
    found = _of_run(known, *names)
    try:
        return None if found is None else reader.validate_python(found)
    except ValidationError as error:
        key = store_keys.run_key(known.run.run_id, *names)
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"][:4])
        raise InputError(
            f"{key}: {place}: {first['msg'].lower()}; run the task analyze again"
        ) from None


def _of_run(known: Known, *names: str) -> Any:
    """A document that a run's end has written; None if there is none."""
    # A run that goes on after its end (a cleared task) ends anew, and is read anew.
    key = (store_keys.run_key(known.run.run_id, *names), str(known.ended))
    if key not in _kept:
        if len(_kept) > _KEPT:
            _kept.clear()
        found = _json(key[0])
        if found is None:
            return None
        _kept[key] = found
    return _kept[key]


def _json(key: str) -> Any:
    """A JSON document of the store; None if there is none."""
    try:
        return open_store().get_json(key)
    except ObjectMissingError:
        return None


def _handed(run_id: str, host: str, trials: Sequence[PlannedTrialDocument]) -> list[PlannedTrial]:
    """The planned trials without blocks that did not fit, in quarantine the control workload's."""
    planned = [PlannedTrial.from_dict(trial) for trial in trials]
    budget = _json(store_keys.host_key(run_id, host, "budget.json"))
    checked = _json(store_keys.host_json_key(run_id, host)) or {}
    if budget is not None:
        planned = [trial for trial in planned if trial.block <= budget["blocks"]]
    if checked.get("quarantine") is not None:
        planned = [trial for trial in planned if trial.kind == "control"]
    return planned
