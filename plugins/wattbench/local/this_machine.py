"""This machine as a worker host: its name, its GPU, and the meter that yields energy here."""

from __future__ import annotations

import re
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import wattbench
from wattbench.analysis.model.errors import UserError
from wattbench.analysis.model.facts_document import FactsDocument, GpuFacts, MeterFacts
from wattbench.analysis.model.run_document import read_facts
from wattbench.config.hosts import HostConfig, MeterConfig
from wattbench.config.types import NAME_LENGTH
from wattbench.local.connections import connection_id
from wattbench.worker.agent_bundle import meter_kinds
from wattbench.worker.ssh import Host
from wattbench.worker.target import HostTarget

#: What the names of hosts with modelled energy end with, so that none is taken for a measured one.
MODELLED = "-modelled"
#: Interval of the stand-in meter, ms.
_MODELLED_INTERVAL_MS = 200
_FACTS_TIMEOUT_S = 120.0


def host_name() -> str:
    """This machine's name as hosts.yaml takes it."""
    name = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().partition(".")[0].lower()).strip("-")
    return name[: NAME_LENGTH - len(MODELLED)].strip("-") or "this-machine"


@dataclass(frozen=True)
class ThisMachine:
    """This machine as hosts.yaml has it: with modelled energy, and with its meter where one yields energy.

    Attributes:
        hosts: name → settings.
        modelled: the name of the host with modelled energy.
        measured: the name of the host with a meter; None: no meter yields energy here.
        refused: meters that yield none, each with the reason.
    """

    hosts: Mapping[str, HostConfig]
    modelled: str
    measured: str | None
    refused: tuple[str, ...]

    def host_for(self, modelled: bool) -> str:
        """The host to measure on.

        Raises:
            UserError: it is to be measured, and there is no meter.
        """
        if modelled:
            return self.modelled
        if self.measured is None:
            raise UserError(
                f"no meter yields energy on this machine: {'; '.join(self.refused)}; correct one of them, "
                "measure on another machine (wattbench host add), or give --modelled for a dry run whose "
                "joules are modelled"
            )
        return self.measured


def look(target: HostTarget, device: str, gpu: str | None, controller: str) -> ThisMachine:
    """Ask this machine's agent for its GPUs and meters.

    Args:
        target: the way to this machine.
        device: `cpu` or `cuda`.
        gpu: UUID or index, where there are several; None: the only one.
        controller: folder of the pid files of the controller's services.

    Raises:
        HostError: the agent can't be asked.
        UserError: no such GPU.
    """
    name = host_name()
    modelled = f"{name}{MODELLED}"
    with Host(target) as host:
        host.ship()
        gpus = [] if device == "cpu" else [choose_gpu(_facts(host, {}).get("gpu", []), gpu)]
        meter, refused = find_meter(host, gpus)

    def entry(entry_name: str, settings: MeterConfig) -> HostConfig:
        return HostConfig(
            ssh_conn_id=connection_id(entry_name),
            gpus=gpus,
            meter=settings,
            spool=target.spool,
            python=target.python,
            controller=controller,
        )

    hosts = {modelled: entry(modelled, modelled_meter())}
    if meter is not None:
        hosts = {name: entry(name, meter), **hosts}
    return ThisMachine(hosts, modelled, None if meter is None else name, tuple(refused))


def _facts(host: Host, asked: Mapping[str, object]) -> FactsDocument:
    request = {"docker": False, "sample_s": 0.1, **asked}
    return read_facts(host.call("facts", request, _FACTS_TIMEOUT_S), "the agent's facts")


def python() -> str:
    """The Python of this very program, since a machine's own may be older than 3.9."""
    plain = re.fullmatch(r"[A-Za-z0-9._/-]+", sys.executable)
    return sys.executable if plain else "python3"


def modelled_meter() -> MeterConfig:
    """The stand-in that models energy from CPU time."""
    program = Path(wattbench.__file__).parent / "images" / "worker-host" / "energibridge"
    return MeterConfig(
        kind="modelled",
        command=[sys.executable, str(program.resolve())],
        interval_ms=_MODELLED_INTERVAL_MS,
    )


def find_meter(host: Host, gpus: list[str]) -> tuple[MeterConfig | None, list[str]]:
    """The first meter that yields energy on this machine.

    Args:
        host: this machine; the agent is there.
        gpus: those that trials get.

    Returns:
        It, and for each one before it why it does not, with the remedy.

    Raises:
        HostError: the agent could not be asked.
    """
    refused: list[str] = []
    for config in _candidates(gpus):
        asked = {"kind": config.kind, "command": config.argv, "interval_ms": config.interval_ms}
        facts = _facts(host, {"meter": asked, "gpus": gpus})
        found = facts.get("meter") or MeterFacts()
        if found.get("ok"):
            return config, refused
        fixes = [p.get("action") for p in facts.get("problems", ()) if p["code"] == "meter-failed"]
        refused.append(
            f"{config.kind}: {found.get('message')}" + (f" ({fixes[0]})" if fixes else "")
        )
    return None, refused


def _candidates(gpus: list[str]) -> list[MeterConfig]:
    """Meters to try, the one that sees most of the machine first."""
    usual = meter_kinds()["energibridge"].default_command or ""
    program = shutil.which("energibridge") or usual
    kinds = ["nvml"] if gpus else ["powercap", "hwmon"]
    return [
        MeterConfig(kind="energibridge", command=[program]),
        *(MeterConfig(kind=kind) for kind in kinds),
    ]


def choose_gpu(facts: Sequence[GpuFacts], wanted: str | None) -> str:
    """The UUID of the GPU that trials get.

    Args:
        facts: GPUs of this machine, as the agent reports them.
        wanted: UUID or index; None: the only one.

    Raises:
        UserError: there is none, or it must be named.
    """
    known = {str(gpu.get("index")): str(gpu.get("uuid")) for gpu in facts}
    there = ", ".join(f"{index}: {uuid}" for index, uuid in known.items())
    if not known:
        raise UserError(
            "--device cuda: this machine reports no NVIDIA GPU; install its driver (nvidia-smi -L must "
            "list the GPU), or measure with --device cpu"
        )
    if wanted is None and len(known) > 1:
        raise UserError(
            f"--device cuda: {len(known)} GPUs are there; choose one with --gpu: {there}"
        )
    if wanted is None:
        return next(iter(known.values()))
    if wanted not in known and wanted not in known.values():
        raise UserError(f"--gpu {wanted}: this machine has {there}")
    return known.get(wanted, wanted)
