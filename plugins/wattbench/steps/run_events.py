"""Events of a run: changed verdicts, regressions, quarantine. Stored with the run, sent later.

``analyze`` writes ``news.json``: the events, and the state that the next run of the experiment is held
against, so that what lasts is reported once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from wattbench.errors import UserError
from wattbench.history import host_history, quarantine
from wattbench.report_summary import Answer, answer
from wattbench.run import store_keys
from wattbench.storage.object_store import ObjectMissingError

if TYPE_CHECKING:
    from wattbench.analysis.trends.compare import Comparison
    from wattbench.config.hosts import Event as Kind
    from wattbench.run.stored_run import Run

log = logging.getLogger(__name__)

#: Runs of the experiment that regressions are looked for in.
NIGHTS_BACK = 120


@dataclass(frozen=True)
class Event:
    """One event to notify of.

    Attributes:
        kind: one of the events that hosts.yaml may name.
        title: a few words.
        text: a sentence or two.
    """

    kind: Kind
    title: str
    text: str


def verdicts_of(found: Answer) -> dict[str, str]:
    """``{host/image: verdict against the reference}``."""
    return {f"{e.host}/{e.image}": e.verdict for e in found.effects}


def changed_verdicts(
    name: str, before: Mapping[str, str], after: Mapping[str, str], headline: str
) -> list[Event]:
    """One event if any image's verdict is another than in the run before."""
    changes = [
        f"{pair}: {before[pair]} → {verdict}"
        for pair, verdict in sorted(after.items())
        if before.get(pair, verdict) != verdict
    ]
    if not changes:
        return []
    return [Event("verdict-changed", f"{name}: {'; '.join(changes)}", headline)]


def new_regressions(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> list[Event]:
    """One event a regression that the run before did not have."""
    return [
        Event("regression", f"{name}: regression of {subject}", message)
        for subject, message in sorted(after.items())
        if subject not in before
    ]


def quarantine_moves(host: str, before: str | None, now: quarantine.Standing) -> list[Event]:
    """Into quarantine or out of it, since the run's own check."""
    if now.quarantined and before is None:
        return [Event("host-quarantined", f"{host} is in quarantine", f"{now.reason}.")]
    if not now.quarantined and before is not None:
        return [Event("host-quarantined", f"{host} is out of quarantine", f"{now.reason}.")]
    return []


def nights_of(run: Run) -> Comparison | None:
    """The experiment's runs up to this one as a series of nights; None while they are too few."""
    from wattbench.analysis.storage import source
    from wattbench.analysis.storage.locations import Place
    from wattbench.analysis.trends import compare

    ids = host_history.run_ids(run.store, run.experiment.hosts, str(run.document["dag_id"]))
    places = [
        Place(source.from_store(run.store, store_keys.run_key(run_id)), named=False)
        for run_id in ids[-NIGHTS_BACK:]
        if run.store.exists(store_keys.trials_parquet_key(run_id))  # else it was removed by hand
    ]
    if len(places) < compare.NIGHTS:
        return None
    options = compare.Options(regression_pct=run.experiment.analysis.equivalence_pct)
    try:
        found = compare.compare_places(places, options, lambda _: None)
    except UserError as error:  # a report is worth more than news
        log.warning("changes of level can't be looked for: %s", error)
        return None
    return found if found.is_nights else None


def regressions_of(nights: Comparison | None) -> dict[str, str]:
    """``{host/image: message}`` of the regressions that stand over the experiment's runs."""
    return {
        f"{f.evidence['host']}/{f.evidence['image']}": f.message
        for f in (nights.findings if nights else ())
        if f.code == "regression" and f.is_found_error
    }


def _keep_trends(run: Run, nights: Comparison) -> None:
    """Store the page of the nights up to this run, and its answer for programs."""
    from wattbench.analysis.trends import page, write

    key = store_keys.trends_key
    run.store.put_json(key(run.run_id, "summary.json"), write.summary(nights))
    run.store.put(key(run.run_id, "index.html"), page.render(nights).encode())


def write(run: Run, summary: Mapping[str, Any]) -> tuple[Event, ...]:
    """Find what is new in a run, and keep it with the run.

    Args:
        run: that has just been analysed; its trials are in the store.
        summary: of its report.
    """
    name = str(run.document["dag_id"])
    before = _before(run, name)
    found = answer(summary)
    nights = nights_of(run)
    if nights is not None:
        _keep_trends(run, nights)
    verdicts, regressions = verdicts_of(found), regressions_of(nights)
    events = [
        *changed_verdicts(name, before.get("verdicts", {}), verdicts, found.headline),
        *new_regressions(name, before.get("regressions", {}), regressions),
    ]
    for host in run.experiment.hosts:
        now = quarantine.standing_of(run.store, host, run.host_config(host))
        events += quarantine_moves(host, quarantine.quarantine(run, host), now)
    run.store.put_json(
        store_keys.run_key(run.run_id, "news.json"),
        {
            "events": [asdict(e) for e in events],
            "verdicts": verdicts,
            "regressions": regressions,
        },
    )
    return tuple(events)


def read(run: Run) -> tuple[Event, ...]:
    """Events that ``analyze`` found; none if it has not come that far."""
    try:
        document = run.store.get_json(store_keys.run_key(run.run_id, "news.json"))
    except ObjectMissingError:
        return ()
    return tuple(Event(**e) for e in document["events"])


def _before(run: Run, name: str) -> dict[str, Any]:
    """The news of the newest earlier run of the experiment that has any."""
    earlier = host_history.run_ids(run.store, run.experiment.hosts, name, before=run.run_id)
    for run_id in reversed(earlier[-host_history.LOOK_BACK :]):
        try:
            return dict(run.store.get_json(store_keys.run_key(run_id, "news.json")))
        except ObjectMissingError:
            continue
    return {}
