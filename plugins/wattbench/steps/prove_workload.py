"""Prove an image on a host before its first window: its workload runs once, without a meter.

What it prints and uses is held against the checks that every trial has to pass, so that a program that
can't pass them is refused here and not after a night of invalid trials.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wattbench.analysis.model.attempt_report import AttemptReport
from wattbench.config.experiment import IdleBaseline
from wattbench.errors import HostError
from wattbench.run.stored_run import Run
from wattbench.steps.trial import fetch_file
from wattbench.steps.workload_files import ship_files
from wattbench.worker import agent_bundle
from wattbench.worker.agent import limits
from wattbench.worker.attempt_spec import (
    IDLE_PROGRAM,
    idle_probe_spec,
    probe_expectation,
    probe_spec,
)

if TYPE_CHECKING:
    from wattbench.analysis.model.records import Expected, Record
    from wattbench.steps.load_host import LoadHost
    from wattbench.worker.agent.documents import AttemptSpec
    from wattbench.worker.answers import ReportDocument
    from wattbench.worker.ssh import Host

log = logging.getLogger(__name__)


def prove(run: Run, host: Host, host_name: str, image: str, load: LoadHost | None = None) -> None:
    """Run an image's workload once, and the process of its idle trials.

    Args:
        load: the host that the load on servers comes from.

    Raises:
        HostError: ``workload``: it can't pass the checks of a trial, with the reason and what to do;
            else the host could not be asked.
    """
    config, experiment = run.host_config(host_name), run.experiment
    ship_files(run, host, image)
    spec = probe_spec(
        experiment, config, run_id=run.run_id, host_name=host_name, image=image,
        ref=run.image_ref(image), files=run.files(image), seed=run.seed,
        address="" if load is None else run.load_address(host_name),
    )  # fmt: skip
    idle = experiment.protocol.idle_baseline
    if idle is not None and "loaded" in idle.states:
        probed = _attempt(host, idle_probe_spec(experiment, spec, image, loaded=True))
        if not probed.is_done or not _held(probed.raw):
            failed = "" if probed.is_done else f": {probed.message}"
            raise HostError(
                f"images.{image}: its idle trials can't hold the model loaded{failed}; use the built-in "
                "program, or set protocol.idle_baseline.state: container",
                code="workload",
            )
    if spec["runtime"] == "docker" and _idles_in_containers(idle):
        probed = _attempt(host, idle_probe_spec(experiment, spec, image, loaded=False))
        if not probed.is_done:
            raise HostError(
                f"images.{image}: its idle trials can't run: {probed.message}; an image needs "
                f"{IDLE_PROGRAM!r} for them: add it, or set protocol.idle_baseline.per: host",
                code="workload",
            )
    probed = _attempt(host, spec, load if spec["serve"] else None)
    if why := _trouble(spec, probed, probe_expectation(experiment, config, image), image):
        raise HostError(f"images.{image}: {why}", code="workload")
    log.info("%s on %s: its workload passes the checks of a trial", image, host_name)


def _idles_in_containers(idle: IdleBaseline | None) -> bool:
    """Whether idle trials are planned that wait in each image's container."""
    return idle is not None and idle.per == "image" and "container" in idle.states


@dataclass(frozen=True)
class _Probed:
    """How a probe ended: the agent's report, as it came and read, and its evidence."""

    document: ReportDocument
    report: AttemptReport
    raw: dict[str, bytes]

    @property
    def is_done(self) -> bool:
        """Whether the workload ended by itself and well."""
        return self.report.state == "done"

    @property
    def message(self) -> str:
        """Why it did not, of a malformed report too."""
        faults = "; ".join(self.report.faults[:3])
        return self.report.message or faults or f"it ended as {self.report.state}"


def _attempt(host: Host, spec: AttemptSpec, load: LoadHost | None = None) -> _Probed:
    """Run an attempt; nothing of it stays on the host."""
    deadline_s = spec["timeout_s"] + limits.SETTLE_S
    if load is not None:
        load.prepare(str((spec["image"] or {}).get("name")))
    try:
        host.call("start", spec)
    except HostError as error:
        active = str((error.details or {}).get("active") or "")
        if error.code != "busy" or not active.startswith(spec["run"] + "/"):
            raise
        host.wait(active, deadline_s)  # a probe that an earlier try of a pull has left
        host.call("start", spec)
    if load is not None:
        load.ask(spec)
    answer = host.wait(spec["id"], deadline_s)
    if not answer["over"]:
        raise HostError(f"the probe {spec['id']} is still not over", code="timeout")
    report = AttemptReport.of(answer["report"])
    raw = {
        name: fetch_file(host, f"{answer['path']}/{name}", report.files[name])
        for name in (*agent_bundle.raw_files(), *limits.OUTPUT_FILES)
        if name in report.files
    }
    host.call("forget", {"id": spec["id"]})
    return _Probed(answer["report"], report, raw)


def _held(raw: dict[str, bytes]) -> bool:
    """Whether a program reported that it held its model loaded."""
    from wattbench.analysis.meters import workload_log

    return workload_log.parse(raw.get("workload.jsonl", b"")).held() is not None


def _trouble(spec: AttemptSpec, probed: _Probed, expected: Expected, image: str) -> str | None:
    """Why an image's trials would fail or be invalid, and what to do about it."""
    from wattbench.analysis.checks.outcome import Found, Unknown
    from wattbench.analysis.checks.rules.completion import trial_failed
    from wattbench.analysis.checks.rules.device import device_mismatch, gpu_idle
    from wattbench.analysis.checks.rules.work import unequal_work
    from wattbench.analysis.meters import attempt as attempts
    from wattbench.analysis.model.trials import TrialRow

    row = TrialRow(
        run_id=spec["run"], host=spec["host"], kind="workload", block=None, position=None,
        planned_position=None, image=image,
    )  # fmt: skip
    record: Record = attempts.evaluate(
        attempts.RawAttempt(probed.document, probed.raw),
        expected={**expected, "meter": "powercap"},
        plan_row=row,
    )
    refused = f": {record.work.errors[0]}" if record.work.errors else ""
    if not probed.is_done:
        if spec["serve"]:  # the message has its error already
            action = "try it with docker run on the host (docs/servers.md)"
            return f"its server failed: {probed.message}; {action}"
        needs = (
            "an image needs Python 3.9 or later, numpy and the framework (docs/images.md); another "
            "interpreter is named by the image's `python`"
            if expected["reports_itself"]
            else "try its command with docker run on the host"
        )
        return f"its workload failed: {probed.message}{refused}; {needs}"
    record = replace(record, row=replace(record.row, status="valid"))
    probes = [device_mismatch, unequal_work, trial_failed]
    if not expected["reports_itself"] and not spec["serve"]:
        probes.append(
            gpu_idle
        )  # one inference, or a few requests, are too short to show in samples
    for outcome in (outcome for probe in probes for outcome in probe(record)):
        if isinstance(outcome, Found):
            action = f"; {outcome.action}" if outcome.action else ""
            return f"its trials would be invalid: {outcome.message}{action}"
        if isinstance(outcome, Unknown):
            log.info("%s: undecidable: %s", image, outcome.why)
    return None
