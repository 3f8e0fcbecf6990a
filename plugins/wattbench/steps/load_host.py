"""The host that the load on servers comes from, where it is not the measured one.

It has its own connection and lease, is never measured, and may be asked at any time. What it has to keep of a
run is nothing: the load generator hands its records over to the measured host.
"""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wattbench.analysis.model.run_document import LoadHostDocument
from wattbench.errors import HostError
from wattbench.steps.check_host import take_lease
from wattbench.steps.workload_files import ship_files
from wattbench.worker.agent import limits
from wattbench.worker.attempt_spec import load_spec
from wattbench.workloads.program_bundle import load_bundle

if TYPE_CHECKING:
    from wattbench.run.stored_run import Run
    from wattbench.worker.agent.documents import AttemptSpec
    from wattbench.worker.ssh import Host

log = logging.getLogger(__name__)

#: How long the load host tries to reach the measured one in its check, s.
REACH_S = 15.0
#: Ending a load generator that was left behind, s.
CLEANUP_S = 120.0

#: Does something on a host, by its name.
OnHost = Callable[[str, "Callable[[Host], Any]"], Any]


@dataclass(frozen=True)
class LoadHost:
    """The load host of a run.

    Attributes:
        run: which run.
        name: of the host.
        on_host: does something there; may repeat it.
    """

    run: Run
    name: str
    on_host: OnHost

    def prepare(self, image: str) -> None:
        """Take its lease anew and bring the load generator there: what may take time, before a window.

        Raises:
            HostError: it can't be reached, or another run has it.
        """

        def bring(host: Host) -> None:
            if holder := take_lease(self.run, host, self.name):
                raise HostError(f"the load host {self.name}: {holder}", code="leased")
            ship_files(self.run, host, image, mounted=False)

        self.on_host(self.name, bring)

    def ask(self, spec: AttemptSpec) -> None:
        """Start the load of an attempt, once: it reaches the server when its window opens.

        Args:
            spec: of the attempt on the measured host.

        Raises:
            HostError: it can't be started.
        """
        own = load_spec(spec)

        def start(host: Host) -> None:
            if host.call("status", {"id": own["id"]})["state"] != "unknown":
                return
            whose = {"owner": self.run.run_id, "run": self.run.run_id}
            host.call("cleanup", whose, CLEANUP_S)
            host.call("forget", {"run": self.run.run_id})
            host.call("start", own)
            log.info("the load comes from %s", self.name)

        self.on_host(self.name, start)


def load_host_of(run: Run, on_host: OnHost) -> LoadHost | None:
    """The load host of a run; None: the load runs beside the server, or there is none."""
    name = run.experiment.load_host
    return None if name is None else LoadHost(run, name, on_host)


def own_attempt(run: Run, host: Host) -> str | None:
    """The run's attempt that goes on on the measured host, where its relay has the port; None: there is none.

    A person who clears the run's tasks in mid-window gets there: the check has to wait for its end.
    """
    attempts = host.call("list", {"run": run.run_id})["attempts"]
    return next((str(one["id"]) for one in attempts if one["state"] == "running"), None)


def check_load_host(run: Run, host: Host, host_name: str, there: Host, name: str) -> None:
    """Show that a load from another host is possible, and keep what was found with the measured one.

    Args:
        host: the measured host.
        host_name: its name.
        there: the load host.
        name: its name.

    Raises:
        HostError: it is not; the message names the load host.
    """
    servings = [
        serving
        for image in run.experiment.images
        if (serving := run.experiment.workload_of(image).serving()) is not None
    ]
    facts = there.call(
        "facts",
        {
            "docker": False, "meter": None, "gpus": [], "sample_s": 0.1,
            "load_cpus": {
                image: list(serving.cpus)
                for image, serving in zip(run.experiment.images, servings, strict=True)
            },
        },
    )  # fmt: skip
    if hard := [p for p in facts["problems"] if p["severity"] == "hard"]:
        raise HostError(
            f"the load host {name} is not fit: "
            + "; ".join(f"{p['message']}; {p.get('action', '')}" for p in hard),
            code=hard[0]["code"],
        )
    own = (run.facts(host_name).get("host") or {}).get("boot")
    if own is not None and own == facts["host"].get("boot"):
        raise HostError(
            f"the load host {name} and {host_name} are one machine; name another in "
            "workload.load.from.host, or remove it to run the load beside the server",
            code="load-host",
        )
    address = address_of(run, host, host_name)
    ports = sorted({serving.outer_port for serving in servings})
    reached = [_reach(host, there, address, port, name) for port in ports]
    document: LoadHostDocument = {
        "host": name,
        "address": address,
        "ports": ports,
        "peer": reached[0][0],
        "trip_s": max(trip_s for _, trip_s in reached),
        "clock_offset_s": there.clock_offset_s(),
        "python": str(facts["host"]["python"]),
        "cpu_model": facts["host"].get("cpu_model"),
        "agent_sha256": str(facts["agent_sha256"]),
        "generator_sha256": load_bundle().sha256,
    }
    run.write_host_document(host_name, {**(run.host_document(host_name) or {}), "load": document})
    log.info(
        "%s reaches %s port %s from %s: the load comes from there",
        name, address, ", ".join(map(str, ports)), document["peer"],
    )  # fmt: skip


def _reach(host: Host, there: Host, address: str, port: int, name: str) -> tuple[str, float]:
    """The load host's address as the measured host sees it, and the time of a connection, s."""
    asked = {
        "address": address, "port": port, "token": secrets.token_hex(16), "timeout_s": REACH_S,
    }  # fmt: skip
    with ThreadPoolExecutor(1) as pool:
        listening = pool.submit(host.call, "listen", asked, limits.LOAD_REACH_S)
        try:
            trip_s = float(there.call("reach", asked, limits.LOAD_REACH_S)["trip_s"])
        except HostError as error:
            opened = listening.exception()
            if isinstance(opened, HostError) and opened.code == "port-closed":
                raise opened from None
            raise HostError(
                f"the load host {name} can't reach the measured host: {error}", code=error.code
            ) from None
        return str(listening.result()["peer"]), trip_s


def address_of(run: Run, host: Host, name: str) -> str:
    """Where the load host reaches a measured one: the same number on both, whatever their names resolve to.

    Raises:
        HostError: the address has no number.
    """
    text = run.host_config(name).address or host.target.hostname
    try:
        found: Sequence[Any] = socket.getaddrinfo(text, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise HostError(
            f"host {name}: {text!r} is not an address: {error.strerror or error}; correct "
            f"hosts.{name}.address, or the connection's host",
            code="load-host",
        ) from None
    return str(found[0][4][0])
