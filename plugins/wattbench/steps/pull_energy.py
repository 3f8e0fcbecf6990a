"""The joules of a pull: the host's own meter around it, as an attempt whose command only waits.

They are those of the whole host, what it draws while idle included, over ``window_s``: the pull and
the moment that the meter takes to start and end. A meter that fails never fails a pull: the reason
stands in the place of the joules.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, cast

from wattbench.analysis.model.attempt_report import AttemptReport
from wattbench.analysis.model.run_document import PullEnergyDocument
from wattbench.errors import HostError, UserError
from wattbench.remote_meters.protocol import Reader
from wattbench.run import store_keys
from wattbench.run.stored_run import Run
from wattbench.steps.trial import bring, over, read_around
from wattbench.worker.attempt_spec import PREPARING, metering, metering_spec

if TYPE_CHECKING:
    from wattbench.analysis.model.records import Expected
    from wattbench.worker.answers import ReportDocument
    from wattbench.worker.ssh import Host

log = logging.getLogger(__name__)

#: How long the agent waits for the meter to end, s; the call itself may take longer.
FINISH_S = 60


@contextmanager
def metered(
    run: Run, host: Host, host_name: str, image: str, readers: Sequence[Reader] = ()
) -> Iterator[PullEnergyDocument]:
    """Run the host's meters around what happens inside.

    Args:
        readers: the host's remote meters.

    Yields:
        The energy, filled in at the end.
    """
    found = PullEnergyDocument()
    spec = metering_spec(
        run.host_config(host_name), run_id=run.run_id, host_name=host_name, image=image
    )
    key = store_keys.host_key(run.run_id, host_name, "pulls", image)
    with ExitStack() as around:
        try:
            watch = around.enter_context(read_around(run, host, key, readers))
            _end_leftovers(run, host)
            host.call("start", spec)
        except UserError as error:
            found["why"] = str(error)
            log.warning("the pull is not metered: %s", error)
            with suppress(UserError):
                around.close()
            yield found
            return
        try:
            yield found
        finally:
            try:
                report, raw = _finished(run, host, host_name, key, spec["id"])
                over(watch, host, AttemptReport.of(report))
                around.close()
                found.update(_joules(run, host_name, image, report, raw | watch.files()))
            except UserError as error:
                found["why"] = str(error)
                log.warning("the pull has no joules: %s", error)


def _end_leftovers(run: Run, host: Host) -> None:
    """End and forget the meters of pulls that a killed task has left running."""
    for attempt in host.call("list", {"run": run.run_id})["attempts"]:
        if attempt["id"].split("/")[2].startswith(PREPARING):
            host.call("finish", {"id": attempt["id"], "timeout_s": FINISH_S}, 2 * FINISH_S)
            host.call("forget", {"id": attempt["id"]})


def _finished(
    run: Run, host: Host, host_name: str, key: str, identity: str
) -> tuple[ReportDocument, dict[str, bytes]]:
    """The attempt's report and raw files, which are in the store by then and no longer on the host."""
    answer = host.call("finish", {"id": identity, "timeout_s": FINISH_S}, 2 * FINISH_S)
    if not answer["over"]:
        raise HostError(f"{host_name}: the meter did not end within {FINISH_S} s", code="timeout")
    report = answer["report"]
    raw = bring(run, host, report, answer["path"], key)
    host.call("forget", {"id": identity})
    return report, raw


def _joules(
    run: Run, host_name: str, image: str, report: ReportDocument, raw: dict[str, bytes]
) -> PullEnergyDocument:
    from wattbench.analysis.meters import attempt as attempts
    from wattbench.analysis.model.trials import TrialRow

    row = attempts.evaluate(
        attempts.RawAttempt(report, raw),
        expected=cast("Expected", {**metering(run.host_config(host_name)), "gpus": []}),
        plan_row=TrialRow(
            run_id=run.run_id, host=host_name, kind="idle", block=None, position=None,
            planned_position=None, image=image,
        ),
    ).row  # fmt: skip
    if row.status != "valid":
        return {"why": row.reason}
    return {
        "energy_j": row.energy_j, "energy_uncertainty_j": row.energy_uncertainty_j,
        "energy_scope": row.energy_scope, "energy_source": row.energy_source,
        "package_j": row.package_j, "dram_j": row.dram_j, "window_s": row.duration_s,
    }  # fmt: skip
