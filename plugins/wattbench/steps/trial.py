"""Steps of one trial on its host: rest, measure, collect.

    rest      the host is quiet again, or has been given up on waiting
    measure   the attempt runs detached; a retry re-attaches to it
    collect   raw logs: host → verified → store → read back → record → forgotten on the host

Each step may be killed and repeated at any point. The attempt's number is one more than the attempts whose
record is in the store, so repeating a step finds the same attempt until ``collect`` has closed it.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from wattbench.analysis.model.attempt_report import AttemptReport
from wattbench.errors import HostError, StoreError
from wattbench.remote_meters import raw_file
from wattbench.remote_meters.protocol import MeterEntry, Reader, RemoteSettings
from wattbench.remote_meters.watch import Watch, end_s
from wattbench.run import store_keys
from wattbench.run.plan import PlannedTrial
from wattbench.run.stored_run import Run
from wattbench.steps.check_host import take_lease
from wattbench.steps.workload_files import ship_files
from wattbench.storage.object_store import ObjectMissingError
from wattbench.worker import agent_bundle
from wattbench.worker.agent import limits
from wattbench.worker.attempt_spec import attempt_spec, expectation

if TYPE_CHECKING:
    from wattbench.analysis.model.records import Record
    from wattbench.steps.load_host import LoadHost
    from wattbench.worker.answers import ReportDocument, StatusAnswer, WaitAnswer
    from wattbench.worker.ssh import Host

log = logging.getLogger(__name__)

#: Where the samples of a meter that runs the workload are.
RAW_SAMPLES = "energibridge.csv.gz"

#: How long ``collect`` waits at most for a raw file of a remote meter that is still being read, s.
REMOTE_PATIENCE_S = 120.0
#: What a stored file raises that is not the gzip file it should be.
NOT_GZIP = (OSError, EOFError, zlib.error)


class RestReadings(TypedDict, total=False):
    """What the ``rest`` step read of a host, kept with the attempt; empty of one that had not rested.

    Attributes:
        rested_s: how long the host has cooled down.
        quiet: whether it was back at its idle level.
        timed_out: whether the longest cool-down was over before that.
        why: what was above the idle level.
        readings: levels by name.
    """

    rested_s: float
    quiet: bool
    timed_out: bool
    why: str
    readings: dict[str, float | None]


def next_attempt(run: Run, host_name: str, trial: PlannedTrial) -> int:
    """The number of the attempt that is open now."""
    return len(run.stored_attempts(host_name, trial)) + 1


def is_begun(run: Run, host: Host, host_name: str, trial: PlannedTrial) -> bool:
    """Whether the host has the open attempt: it runs there, or is over and not collected yet."""
    attempt = next_attempt(run, host_name, trial)
    identity = store_keys.attempt_id(run.run_id, host_name, trial.name, attempt)
    return bool(host.call("status", {"id": identity})["state"] != "unknown")


# ── rest ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Readiness:
    """One look at a host before a window.

    Attributes:
        ready: whether the trial may start.
        readings: what the ``measure`` step keeps with the attempt.
        look_again_s: when to look again if not ready; looking costs the host a little quiet.
        busy: an attempt is in its window.
    """

    ready: bool
    readings: RestReadings
    look_again_s: float = 1.0
    busy: bool = False


def is_rested(run: Run, host: Host, host_name: str) -> Readiness:
    """Look at the host once: has it rested for the minimum, and is it quiet again?"""
    rest = run.experiment.protocol.rest
    if holder := take_lease(run, host, host_name):
        log.info("waiting for %s: %s", host_name, holder)
        return Readiness(False, {}, look_again_s=15)
    answer = host.call(
        "quiet",
        {
            "owner": run.run_id,
            "idle": run.facts(host_name).get("idle") or {},
            "tolerance": rest.tolerance.model_dump(),
            "min_s": rest.min_s,
            "max_s": rest.max_s,
            "gpus": list(run.host_config(host_name).gpus),
        },
    )
    rested_s = float(answer["rested_s"])
    readings = answer["readings"]
    shown = ", ".join(f"{k} {v:.4g}" for k, v in readings.items() if v is not None)
    if answer["busy"]:
        log.info("waiting: another attempt is still in its window on %s", host_name)
        return Readiness(False, {}, look_again_s=5, busy=True)
    if rested_s < rest.min_s:
        log.info("%s rests: %.1f of at least %g s", host_name, rested_s, rest.min_s)
        return Readiness(False, {}, look_again_s=min(30.0, max(0.2, rest.min_s - rested_s)))
    if not answer["quiet"] and rest.until_quiet and rested_s < rest.max_s:
        log.info(
            "%s rests: %.0f of at most %g s, %s", host_name, rested_s, rest.max_s, answer["why"]
        )
        return Readiness(False, {}, look_again_s=min(10.0, max(1.0, rest.min_s / 6)))
    how = "quiet" if answer["quiet"] else f"not quiet ({answer['why']}), but its time is over"
    log.info("%s rested %.1f s and is %s; %s", host_name, rested_s, how, shown)
    kept: RestReadings = {
        "rested_s": rested_s, "quiet": answer["quiet"], "readings": readings,
        "timed_out": not answer["quiet"], "why": answer.get("why", ""),
    }  # fmt: skip
    return Readiness(True, kept)


# ── measure ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Begun:
    """An attempt that the host was given.

    Attributes:
        id: its id there.
        attempt: its number.
        folder: where it lies there.
    """

    id: str
    attempt: int
    folder: str


def begin(
    run: Run,
    host: Host,
    host_name: str,
    trial: PlannedTrial,
    rest: RestReadings,
    *,
    late: bool = False,
    load: LoadHost | None = None,
) -> Begun:
    """Start the open attempt, or attach to it; its window opens when its end is waited for.

    Args:
        rest: what the ``rest`` step read.
        late: it is executed after its block.
        load: the host that the load on servers comes from.

    Raises:
        HostError: the host refused, or the load host can't be used.
    """
    attempt = next_attempt(run, host_name, trial)
    spec = attempt_spec(
        run.experiment,
        run.host_config(host_name),
        run_id=run.run_id,
        host_name=host_name,
        trial=trial,
        attempt=attempt,
        ref=run.image_ref(trial.image),
        files=run.files(trial.image),
        rest=rest,
        late=late,
        seed=run.seed,
        address="" if load is None else run.load_address(host_name),
    )
    served = load if spec["serve"] else None
    if served is not None:
        served.prepare(trial.image)
    try:
        started = host.call("start", spec)
    except HostError as error:
        if error.code != "file-missing":
            raise
        ship_files(run, host, trial.image)
        started = host.call("start", spec)
    log.info(
        "%s %s, attempt %d of %s; nothing touches the host until it is over",
        started["state"], trial.label, attempt, run.experiment.protocol.attempts,
    )  # fmt: skip
    if served is not None and not started.get("over"):
        served.ask(spec)
    return Begun(spec["id"], attempt, str(started["path"]))


def await_end(run: Run, host: Host, host_name: str, begun: Begun) -> ReportDocument:
    """Wait until an attempt is over.

    Returns:
        The agent's report.

    Raises:
        HostError: the host could not be reached in time.
    """
    answer = host.wait(begun.id, run.experiment.protocol.timeout_s + limits.SETTLE_S)
    if not answer["over"]:
        raise HostError(
            f"{host_name}: attempt {begun.id} is still not over {limits.SETTLE_S:g} s after its timeout; "
            "look at the supervisor on the host (agent verb status)",
            code="timeout",
        )
    return dict(answer["report"])


def bring_early(
    run: Run, host: Host, host_name: str, trial: PlannedTrial, begun: Begun, report: ReportDocument
) -> None:
    """Bring an attempt's raw logs into the store before it is collected: the host has nothing to give after.

    Raises:
        HostError, StoreError: the host still has everything.
    """
    key = store_keys.trial_key(run.run_id, host_name, trial.name, begun.attempt)
    bring(run, host, report, begun.folder, key)


@contextmanager
def read_around(run: Run, host: Host, key: str, readers: Sequence[Reader]) -> Iterator[Watch]:
    """Read remote meters while the context lasts; their raw files are in the store after it.

    Args:
        key: of the attempt's folder in the store; what an earlier task has left there is gone on with.
        readers: the host's remote meters; none: nothing is read, asked or stored.
    """
    watch = Watch(readers, remote_files(run, key, readers))
    if not readers:
        yield watch
        return
    watch.clock(*host.clock())
    try:
        with watch:
            yield watch
    finally:
        for name, data in watch.files().items():
            run.store.put_gzip(f"{key}/{name}.gz", data)


def over(watch: Watch, host: Host, report: AttemptReport) -> None:
    """Let a watch know that the window is over, and when it was."""
    if not watch.reads:
        return
    clock = host.clock()
    watch.clock(*clock)
    started, ended = report.started.unix_s, report.ended.unix_s
    if started is not None and ended is not None:
        watch.window(started - clock.ahead_s, ended - clock.ahead_s)


def remote_files(run: Run, key: str, meters: Sequence[Reader | RemoteSettings]) -> dict[str, bytes]:
    """The remote meters' raw files of an attempt that are in the store, by name; none that is damaged."""
    kinds = {m.settings.kind if isinstance(m, Reader) else m.kind for m in meters}
    found = {}
    for name in map(raw_file, sorted(kinds)):
        try:
            found[name] = gzip.decompress(run.store.get(f"{key}/{name}.gz"))
        except ObjectMissingError:
            continue
        except NOT_GZIP:
            log.warning("%s/%s.gz in the store is damaged: evaluated without it", key, name)
    return found


# ── collect ─────────────────────────────────────────────────────────────────────────────────────


def collect(run: Run, host: Host, host_name: str, trial: PlannedTrial) -> Record | None:
    """Bring the open attempt's raw logs into the store and write its record.

    Returns:
        The record; None if the host has no open attempt of this trial (it was never started).

    Raises:
        HostError, StoreError: the host still has everything; try again.
    """
    return collect_attempt(run, host, host_name, trial, next_attempt(run, host_name, trial))


def collect_attempt(
    run: Run, host: Host, host_name: str, trial: PlannedTrial, attempt: int
) -> Record | None:
    """As :func:`collect`, of any attempt; one that still runs (its task was killed) is waited for."""
    identity = store_keys.attempt_id(run.run_id, host_name, trial.name, attempt)
    answer = host.call("status", {"id": identity})
    if answer["state"] == "unknown":
        return None
    ended: WaitAnswer | StatusAnswer = answer
    if answer["state"] == "running":
        limit_s = run.experiment.protocol.timeout_s + limits.SETTLE_S
        log.info("%s still runs: waiting for its end, at most %.0f s", identity, limit_s)
        if not (ended := host.wait(identity, limit_s))["over"]:
            raise HostError(f"{host_name}: {identity} is still running", code="busy")
    report = ended["report"]
    key = store_keys.trial_key(run.run_id, host_name, trial.name, attempt)
    raw = bring(run, host, report, ended["path"], key)
    raw |= _awaited_remote_files(run, host_name, key, report)
    record = _evaluate(run, host_name, trial, attempt, report, raw)
    run.store.put_json(f"{key}/trial.json", record.to_dict())
    if faults := AttemptReport.of(report).faults:
        log.warning("%s: malformed report (%s); the host keeps the files", identity, faults[0])
        return record
    host.call("forget", {"id": identity})
    return record


def collect_stored(run: Run, host_name: str, trial: PlannedTrial) -> Record | None:
    """As :func:`collect`, of an attempt that was brought into the store at the end of its window.

    Nothing touches the host, where another window may be open.

    Returns:
        The record; None if not all of the attempt is in the store as the host had it.
    """
    attempt = next_attempt(run, host_name, trial)
    key = store_keys.trial_key(run.run_id, host_name, trial.name, attempt)
    try:
        report = run.store.get_json(f"{key}/attempt.json")
        raw = {}
        for name, expected in _files_of(report):
            raw[name] = data = (
                gzip.decompress(run.store.get(f"{key}/{name}.gz"))
                if name.endswith(".csv")
                else run.store.get(f"{key}/{name}")
            )
            if hashlib.sha256(data).hexdigest() != expected:
                return None
    except (ObjectMissingError, *NOT_GZIP):
        return None
    raw |= _awaited_remote_files(run, host_name, key, report)
    record = _evaluate(run, host_name, trial, attempt, report, raw)
    run.store.put_json(f"{key}/trial.json", record.to_dict())
    return record


def _awaited_remote_files(
    run: Run, host_name: str, key: str, report: ReportDocument
) -> dict[str, bytes]:
    """The raw files of an attempt's remote meters, once whoever reads them can have put them there.

    Where a person has ended ``measure``, the meters are still read for some seconds after the window.
    """
    meters = run.host_config(host_name).remote_meters
    wanted = {raw_file(meter.kind) for meter in meters}
    longest_s = min(max((end_s(meter) for meter in meters), default=0.0), REMOTE_PATIENCE_S)
    ended = AttemptReport.of(report).ended.unix_s
    left_s = 0.0 if ended is None else ended + longest_s - time.time()
    deadline = time.monotonic() + min(left_s, longest_s)  # the host's clock may be wrong
    while wanted - (found := remote_files(run, key, meters)).keys() and time.monotonic() < deadline:
        time.sleep(1.0)
    return found


def forget_collected(
    run: Run, host: Host, host_name: str, trial: PlannedTrial, attempt: int
) -> bool:
    """Let the host remove an attempt whose record is in the store; False if there is none yet.

    One with a malformed report stays there for people to look at.
    """
    if attempt not in run.stored_attempts(host_name, trial):
        return False
    key = store_keys.trial_key(run.run_id, host_name, trial.name, attempt)
    if AttemptReport.of(run.store.get_json(f"{key}/attempt.json")).faults:
        return True
    identity = store_keys.attempt_id(run.run_id, host_name, trial.name, attempt)
    host.call("forget", {"id": identity})
    return True


def _files_of(report: ReportDocument) -> list[tuple[str, str]]:
    sums = AttemptReport.of(report).files
    names = (*agent_bundle.raw_files(), limits.REQUESTS_FILE, *limits.OUTPUT_FILES)
    return [(name, sums[name]) for name in names if name in sums]


def bring(run: Run, host: Host, report: ReportDocument, folder: str, key: str) -> dict[str, bytes]:
    """Copy an attempt's raw files and report into the store, verified.

    Args:
        report: the agent's.
        folder: of the attempt on the host.
        key: of the folder in the store; ``attempt.json`` there is the report and what was stored beside it.

    Returns:
        The raw files by name.
    """
    raw: dict[str, bytes] = {}
    stored: dict[str, dict[str, object]] = {}
    for name, expected in _files_of(report):  # CSVs are compressed
        raw[name] = data = fetch_file(host, f"{folder}/{name}", expected)
        if name.endswith(".csv"):
            packed = run.store.put_gzip(f"{key}/{name}.gz", data)
        else:
            packed = run.store.put(f"{key}/{name}", data)
        stored[packed.key.rpartition("/")[2]] = {"bytes": packed.bytes, "sha256": packed.sha256}
    run.store.put_json(f"{key}/attempt.json", {**report, "stored": stored})
    return raw


def fetch_file(host: Host, path: str, expected: str) -> bytes:
    """A file of the host, verified against the SHA-256 that the host took when the attempt ended."""
    data = host.fetch_bytes(path)
    got = hashlib.sha256(data).hexdigest()
    if got != expected:
        raise StoreError(
            f"{path} changed after the attempt: SHA-256 {got[:12]}… instead of {expected[:12]}…; "
            "the host still has it, look at its disk"
        )
    return data


def _evaluate(
    run: Run,
    host_name: str,
    trial: PlannedTrial,
    attempt: int,
    report: ReportDocument,
    raw: dict[str, bytes],
) -> Record:
    from wattbench.analysis import checks
    from wattbench.analysis.meters import attempt as attempts
    from wattbench.analysis.model.trials import TrialRow

    row = TrialRow(
        run_id=run.run_id,
        host=host_name,
        kind=trial.kind,
        block=trial.block,
        position=None,
        planned_position=trial.planned_position,
        image=trial.image,
        digest=run.digest(trial.image, host_name),
        attempt=attempt,
        late=attempt > 1 or AttemptReport.of(report).late,
        raw=store_keys.trial_key(
            run.run_id,
            host_name,
            trial.name,
            attempt,
            _raw_samples(run.host_config(host_name).meter),
        ),
    )
    record = attempts.evaluate(
        attempts.RawAttempt(report, raw),
        expected=expectation(run.experiment, run.host_config(host_name), trial),
        plan_row=row,
    )
    return checks.apply([record])[0]


def _raw_samples(meter: MeterEntry) -> str:
    """The file of the primary meter's samples in the store."""
    return f"{raw_file(meter.kind)}.gz" if isinstance(meter, RemoteSettings) else RAW_SAMPLES


def describe(record: Record) -> str:
    """One line for the task's log: what came out and what it means."""
    row = record.row
    found = [f for f in record.findings if f.verdict == "found"]
    codes = ", ".join(f"{f.code} ({f.severity})" for f in found) or "no findings"
    if row.status != "valid":
        reason = (row.reason or "no reason given").removeprefix(f"{row.status}: ")
        return f"{row.status}: {reason} [{codes}]; kept, but out of the statistics"
    energy = f"{row.energy_j:.2f} J" if row.energy_j is not None else "no energy"
    duration = f"{row.duration_s:.2f} s" if row.duration_s is not None else "no window"
    per_unit = f", {row.j_per_unit:.4g} J/{row.unit}" if row.j_per_unit is not None else ""
    return f"valid: {energy} ({row.energy_scope}, {row.energy_source}) in {duration}{per_unit} [{codes}]"
