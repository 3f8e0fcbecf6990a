"""Task `check`: fitness of a host. Hard problems refuse it, soft ones become findings beside its numbers."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

from wattbench.analysis.model import machine_state
from wattbench.analysis.model.errors import InputError
from wattbench.analysis.model.facts_document import FactsDocument, ProblemDocument
from wattbench.analysis.model.run_document import HostDocument, read_facts
from wattbench.errors import HostError
from wattbench.history import quarantine
from wattbench.remote_meters.protocol import Reader, RemoteMeterError
from wattbench.run import host_claims
from wattbench.run.stored_run import Run
from wattbench.worker.agent.limits import CLOCK_LIMIT_S, MIN_FREE_BYTES
from wattbench.worker.attempt_spec import meter_spec

if TYPE_CHECKING:
    from wattbench.config.hosts import HostConfig
    from wattbench.worker.ssh import Host

log = logging.getLogger(__name__)

#: A lease outlives any pull; every later call extends it.
CHECK_LEASE_S = 4 * 3600
#: How long the idle level is observed.
IDLE_SAMPLE_S = 2.0
FACTS_TIMEOUT_S = 120


def take_lease(run: Run, host: Host, name: str, *, anew: bool = False) -> str | None:
    """Take or extend the run's lease; None if held, else who has it, for a person to read.

    The run's claim in the store is written first, so that whatever follows is found by it, and read again
    when the lease is there: a run that is being ended keeps none.

    Args:
        anew: the run begins on the host; whatever ended it there before is over.

    Raises:
        HostError: ``ended``: the run is being ended on the host.
    """
    known = host_claims.own_claim(run, name)
    left_s = known.expires_unix_s - time.time() if known else 0.0
    if anew or left_s < host_claims.CLAIM_S / 2:
        host_claims.claim(run, name)
    try:
        answer = host.call("lease", {"action": "take", "owner": run.run_id, "ttl_s": CHECK_LEASE_S})
    except HostError as error:
        if error.code == "leased":
            if known is None:  # else something of the run may still lie there
                host_claims.drop(run, name)
            return str(error)
        raise
    if reclaimed := answer.get("reclaimed"):
        log.warning("reclaimed an expired lease: %s", reclaimed)
    standing = host_claims.own_claim(run, name)
    if standing is None or standing.closing:
        host.call("lease", {"action": "release", "owner": run.run_id})
        raise HostError(
            f"{name}: {run.run_id} is being ended there; if it is to go on, clear its task check",
            code="ended",
        )
    return None


def examine(
    host: Host,
    config: HostConfig,
    gpus: Sequence[str],
    containers: Mapping[str, Mapping[str, object]] = MappingProxyType({}),
    load_cpus: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> tuple[FactsDocument, float, list[ProblemDocument]]:
    """Ask a host for its facts and its clock.

    Args:
        host: the host.
        config: its configuration.
        gpus: that trials get.
        containers: image → settings of its container, for which the host must have what they ask.
        load_cpus: image → CPUs that the load on its server comes from; likewise.

    Returns:
        The facts, how far its clock is off ours, s, and all problems.

    Raises:
        HostError: it can't be asked, or its answer is malformed (``facts``).
    """
    answer = host.call(
        "facts",
        {
            "meter": None if config.agent_meter is None else meter_spec(config.agent_meter),
            "further_meters": [meter_spec(one) for one in config.further_agent_meters],
            "gpus": list(gpus),
            "containers": {image: dict(settings) for image, settings in containers.items()},
            "load_cpus": {image: list(cpus) for image, cpus in load_cpus.items()},
            "sample_s": IDLE_SAMPLE_S,
            "min_free_bytes": MIN_FREE_BYTES,
        },
        timeout_s=FACTS_TIMEOUT_S,
    )
    answer.pop("ok", None)
    try:
        facts = read_facts(answer, "the agent's facts")
    except InputError as error:
        raise HostError(str(error), code="facts") from error
    problems = list(facts.get("problems", ()))
    offset_s = host.clock_offset_s()
    if abs(offset_s) > CLOCK_LIMIT_S:
        problems.append(
            {
                "code": "clock-skew",
                "severity": "soft",
                "message": f"the host's clock is {offset_s * 1000:+.0f} ms off ours "
                f"(limit {CLOCK_LIMIT_S * 1000:.0f} ms)",
                "action": "sudo timedatectl set-ntp true (chrony or systemd-timesyncd)",
            }
        )
    return facts, offset_s, [*problems, *unexpected(facts, config.expect, gpus)]


def unexpected(
    facts: FactsDocument, expect: Mapping[str, machine_state.Value], gpus: Sequence[str]
) -> list[ProblemDocument]:
    """Hard problems: settings that are not as hosts.yaml expects them.

    Args:
        facts: the host's.
        expect: of hosts.yaml.
        gpus: that trials get; without any, what is expected of GPUs does not matter.
    """
    asked = {k: v for k, v in expect.items() if gpus or not k.startswith("gpu")}
    return [
        {
            "code": "unexpected-state",
            "severity": "hard",
            "message": f"{one.key} is {machine_state.shown(one.found)}, expected is "
            f"{machine_state.shown(one.expected)}",
            "action": one.mend,
        }
        for one in machine_state.differences(machine_state.state_of(facts), asked)
    ]


def unread(readers: Sequence[Reader]) -> list[ProblemDocument]:
    """Hard problems: remote meters that yield no energy."""
    problems: list[ProblemDocument] = []
    for reader in readers:
        try:
            reader.probe()
        except RemoteMeterError as error:
            what, _, action = reader.explained(error).rpartition("; ")
            problems.append(
                {"code": "meter-failed", "severity": "hard", "message": what, "action": action}
            )
        finally:
            reader.client.close()
    return problems


def undetermined(facts: FactsDocument) -> list[str]:
    """What the host's probes could not determine: shown, never taken for fine."""
    return [p["message"] for p in facts.get("probes", ()) if p["severity"] == "unknown"]


def unknown_on(hosts: Iterable[tuple[str, FactsDocument]]) -> dict[str, list[str]]:
    """What probes could not determine → the hosts, so that it is reported once for all of them."""
    found: dict[str, list[str]] = {}
    for name, facts in hosts:
        for text in undetermined(facts):
            found.setdefault(text, []).append(name)
    return found


def leave_alone(run: Run, name: str) -> str | None:
    """Why a host is not even asked: in quarantine, and the experiment has nothing to lift it.

    All its trials become ``skipped``.
    """
    found = quarantine.standing_of(run.store, name, run.host_config(name))
    if not found.quarantined or run.experiment.protocol.control is not None:
        return None
    run.write_host_document(
        name, {"host": name, "problems": [quarantine.problem(found)], "quarantine": found.reason}
    )
    quarantine.set_aside(run, name, run.plan(name), found.reason)
    return f"{name} is in quarantine: {found.reason}"


@contextmanager
def kept_refusal(run: Run, name: str) -> Iterator[None]:
    """Keep with the run why its check of a host fails, whatever it fails for."""
    try:
        yield
    except HostError as error:
        run.write_host_document(name, {**(run.host_document(name) or {}), "reason": str(error)})
        raise


def check(run: Run, host: Host, name: str, readers: Sequence[Reader] = ()) -> HostDocument:
    """Read the host's facts, hold them against the experiment and its own past, store them.

    The lease stays with the run, which gives it back at its end, however that comes.

    Args:
        readers: the host's remote meters.

    Raises:
        HostError: a hard problem; the message lists all of them.
    """
    config = run.host_config(name)
    gpus = config.gpus if run.experiment.device == "cuda" else []
    experiment = run.experiment
    containers = {
        name: settings
        for name, image in experiment.images.items()
        if image.runtime == "docker" and (settings := experiment.container_of(name).set_keys())
    }
    load_cpus = {
        name: serving.cpus
        for name in experiment.images
        if (serving := experiment.workload_of(name).serving()) is not None
    }
    facts, offset_s, problems = examine(host, config, gpus, containers, load_cpus)
    problems += unread(readers)
    standing = quarantine.standing_of(run.store, name, config)
    if standing.quarantined:
        problems.append(quarantine.problem(standing))
    document: HostDocument = {
        "host": name,
        "facts": facts,
        "clock_offset_s": offset_s,
        "problems": problems,
        "quarantine": standing.reason if standing.quarantined else None,
    }
    run.write_host_document(name, document)
    for problem in problems:
        line = f"{problem['code']}: {problem['message']}; {problem.get('action', '')}"
        log.log(logging.ERROR if problem["severity"] == "hard" else logging.WARNING, "%s", line)
    hard = [p for p in problems if p["severity"] == "hard"]
    if hard:
        raise HostError(
            f"host {name} is not fit: "
            + "; ".join(f"{p['message']}; {p.get('action', '')}" for p in hard),
            code=hard[0]["code"],
        )
    for message in undetermined(facts):
        log.info("cannot be determined: %s", message)
    log.info("host %s is fit: %d soft problems", name, len(problems))
    return document
